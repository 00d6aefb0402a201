package wal

import (
	"encoding/binary"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// scanBytes is how much of a segment is read at once, at least.
const scanBytes = 1 << 20

// scanner reads the frames of one segment in order. Its memory is bounded by
// scanBytes and the largest frame, which is never more than the file holds.
type scanner struct {
	file  vfs.File
	seg   *segment
	limit int64 // where frames end at the latest
	off   int64 // of the next frame

	window []byte // bytes of the file from start on
	start  int64
	seal   sealer
}

func newScanner(file vfs.File, seg *segment, limit int64) *scanner {
	return &scanner{file: file, seg: seg, limit: limit, off: headerBytes}
}

// pos is the position of the next frame.
func (s *scanner) pos() Pos { return s.seg.first + Pos(s.off-headerBytes) }

// next returns the next frame; payload is valid until the next call. Errors:
// io.EOF at the limit, errTorn when no valid frame stands here, or that of the
// file.
func (s *scanner) next() (kind byte, payload []byte, err error) {
	left := s.limit - s.off
	if left == 0 {
		return 0, nil, io.EOF
	}
	if left < frameHeader {
		return 0, nil, errTorn
	}
	b, err := s.bytes(s.off, frameHeader)
	if err != nil {
		return 0, nil, err
	}
	length := int64(binary.BigEndian.Uint32(b))
	if length == 0 || length > maxLength || lengthed+length > left {
		return 0, nil, errTorn
	}
	if b, err = s.bytes(s.off, lengthed+length); err != nil {
		return 0, nil, err
	}
	if !s.seal.valid(b, s.pos(), s.seg.salt) {
		return 0, nil, errTorn
	}
	s.off += lengthed + length
	return b[lengthed], b[frameHeader:], nil
}

// bytes returns n bytes of the file from off on, which are below the limit. It
// is valid until the next call.
func (s *scanner) bytes(off, n int64) ([]byte, error) {
	if i := off - s.start; i >= 0 && i+n <= int64(len(s.window)) {
		return s.window[i : i+n], nil
	}
	want := min(max(n, scanBytes), s.limit-off)
	if int64(cap(s.window)) < want {
		s.window = make([]byte, want)
	}
	s.window, s.start = s.window[:want], off
	if err := readAt(s.file, s.window, off); err != nil {
		s.window = s.window[:0]
		return nil, err
	}
	return s.window[:n], nil
}

// marked tells whether a mark behind the next frame says that the frame was
// durable: then what is wrong with it is damage.
func (s *scanner) marked() (bool, error) {
	for off := s.off; s.limit-off >= markBytes; {
		b, err := s.bytes(off, min(scanBytes, s.limit-off))
		if err != nil {
			return false, err
		}
		for ; len(b) >= markBytes; b, off = b[1:], off+1 {
			if s.isMark(b[:markBytes], off) && Pos(binary.BigEndian.Uint64(b[frameHeader:])) > s.pos() {
				return true, nil
			}
		}
	}
	return false, nil
}

func (s *scanner) isMark(b []byte, off int64) bool {
	return b[lengthed] == markKind && binary.BigEndian.Uint32(b) == markBytes-lengthed &&
		s.seal.valid(b, s.seg.first+Pos(off-headerBytes), s.seg.salt)
}
