// Package wal is a write-ahead log: an ordered sequence of frames, appended in
// memory, written to segment files, made durable by Sync, replayed after a
// restart, and dropped from the front when what it says is safe elsewhere.
// What frames mean is the caller's business, and so is that a directory has
// one Log at a time.
//
// # Promises
//
//  1. What is replayed is a prefix of what was appended, frame by frame and bit
//     by bit, less what was dropped.
//  2. Every frame below a position that Sync or Durable returned is in that
//     prefix, after kill -9 and after power loss at any instant.
//  3. All that Open found and Replay yields is durable: Open syncs it.
//  4. Positions of what is in the log strictly grow, across restarts and when
//     everything was dropped (see Positions).
//  5. After a failed write or sync nothing is written any more: ErrFailed.
//  6. Damage is ErrCorrupt with the file and the offset, and changes nothing on
//     disk; the one exception is the torn tail (see Recovery).
//  7. Open changes nothing, Replay only writes the buffer out. What is appended
//     goes to a new segment, begun by the first write.
//
// # What survives what
//
//	                  in the buffer       written           below Sync's position
//	end of process    lost                kept              kept
//	power loss        lost                a prefix, or not  kept
//
// The buffer is written out when it holds 64 KiB, by Flush, Sync and Close.
// While a write or an fsync is under way it goes on filling up to 4 MiB (or one
// larger frame); then Append waits. So the end of the process loses less than
// 64 KiB and one frame, during an fsync up to 4 MiB; always a suffix.
//
// # Positions
//
// A position is a place in an endless stream of bytes, the frames of all
// segments without their headers; it begins at 1. A frame's position grows by
// the bytes of the frame before it, and of marks in between (see Bytes). A
// segment's header holds the position of what follows it, so the last segment,
// which is never dropped, keeps the position when there is no frame left.
//
//	00000007.wal first=1000       00000008.wal first=9400
//	┌────────┬───────┬─────┬────┐ ┌────────┬───────┬──▒▒▒▒
//	│ header │ frame │  …  │torn│ │ header │ frame │  ▒▒▒▒ torn
//	└────────┴───────┴─────┴────┘ └────────┴───────┴──▒▒▒▒
//	         1000      9400 ▲ ends where the next says
//
// Positions of frames that a crash lost are given out again. They were never
// below what Sync returned: Sync returns a position only after the fsync that
// covers it, an fsync covers all that was written before, and Open never cuts
// what was synced. A caller that makes something durable which refers to a
// position must have called Sync beyond it first.
//
// # Bytes
//
// Numbers are big-endian. A segment NNNNNNNN.wal is a header and frames:
//
//	┌────────────┬─────────┬─────────┬────────┬───────┬───────┐
//	│ "signpwal" │ format4 │ number4 │ first8 │ salt4 │ crc4  │ header, 32 bytes
//	└────────────┴─────────┴─────────┴────────┴───────┴───────┘
//	┌─────────┬──────┬───────┬─────────┐
//	│ length4 │ crc4 │ kind1 │ payload │                        frame, 9 bytes and payload
//	└─────────┴──────┴───────┴─────────┘
//
// length counts kind and payload, so it is never zero and a run of zeros is no
// frame. crc is CRC-32C, in a header of the 28 bytes before it, in a frame of
// payload, kind, position (8), length and the segment's random salt: a whole
// frame at another place, or of another life of this place, does not pass. Kind
// 255 is ours, a mark: its payload is a position (8), below which all was
// durable when the mark was written. Every Sync writes one before its fsync and
// Close one more. Format is 1; a higher one is refused with ErrNewerFormat.
//
// # Recovery
//
// A segment is begun when the one before is complete and synced, and gets its
// first frame when its header and its name in the directory are synced. So
// only the last segment may end in the middle of something: in its header, with
// nothing behind it, or with frames of which some were not yet on disk. It is
// read up to the first bad frame, and what follows is the torn tail.
//
// Damage to what was synced must not pass as a torn tail: when a mark stands
// behind the bad frame and says that its place was durable, it is ErrCorrupt.
// What no mark covers cannot be told from a torn tail: after a crash the frames
// of the last sync, after Close the closing mark alone.
//
// The tail is not cut off. The next segment begins at the position where it
// starts, which from then on says where the segment before ends; bytes behind
// that are never looked at again, and a file shorter than that is ErrCorrupt.
// Config.Before makes a tail of what was written and never durable.
//
// # Errors
//
// ErrCorrupt, ErrNewerFormat, ErrFailed, ErrClosed, ErrInvalid, ErrMissing.
package wal

import "errors"

var (
	// ErrCorrupt is returned for a log whose files are damaged, and names the
	// file and the offset. Nothing was changed on disk.
	ErrCorrupt = errors.New("log is corrupt")
	// ErrNewerFormat is returned for segments of a format that this version
	// does not know. Nothing was changed on disk.
	ErrNewerFormat = errors.New("log has a newer format")
	// ErrFailed is returned, with the cause, after a write or a sync failed:
	// from then on by every call that writes. What was durable stays so.
	ErrFailed = errors.New("log has failed")
	// ErrClosed is returned by calls after Close.
	ErrClosed = errors.New("log is closed")
	// ErrInvalid is returned for a frame that is too large or of kind 255.
	// Nothing was appended.
	ErrInvalid = errors.New("invalid frame")
	// ErrMissing is returned by Replay when the log begins above the position
	// asked for, as after a Drop, or ends below it: then it is not the log that
	// the position came from.
	ErrMissing = errors.New("position is not in the log")
)
