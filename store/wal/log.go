package wal

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Config says where the log is.
type Config struct {
	// FS holds the directory; nil: the disk. It must report failed writes and
	// syncs: Sync can promise no more than it was told.
	FS vfs.FS
	// Dir holds the segments and is made by the first write if absent. Files
	// that are not segments are left alone.
	Dir string
	// SegmentBytes is the size at which a segment is complete; it may be passed
	// by a buffer (4 MiB) or one frame. 0: 64 MiB.
	SegmentBytes int64
	// Before leaves out what stands at and above it, as if it were a torn tail.
	// It is for a process that goes on after a failed sync: it is the last
	// position that a Sync that was not failed returned. What is above cannot be
	// trusted, even if it can be read: it may be in the system's memory only, and
	// no later sync need write it. 0: everything is taken.
	Before Pos
	// Logger hears of torn tails and failures; nil: nobody.
	Logger *slog.Logger

	writeBytes  int // buffered bytes that are written out; 0: 64 KiB
	bufferBytes int // buffered bytes at which Append waits; 0: 4 MiB
}

func (c Config) withDefaults() Config {
	if c.FS == nil {
		c.FS = vfs.Default
	}
	if c.SegmentBytes <= 0 {
		c.SegmentBytes = 64 << 20
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.writeBytes == 0 {
		c.writeBytes = 64 << 10
	}
	if c.bufferBytes == 0 {
		c.bufferBytes = 4 << 20
	}
	return c
}

// Log is an open log. All methods are safe for concurrent use. It has no
// goroutines of its own: the Append that fills the buffer writes it.
//
// There are two locks. io is held during file operations, mu only while bytes
// are put into the buffer; io is taken first.
type Log struct {
	cfg Config
	fs  vfs.FS

	io       sync.Mutex // guards the next block
	segments []segment  // ascending, the last is the one written to if file is set
	file     vfs.File   // nil: the next write begins a segment
	number   uint32     // of the next segment
	written  Pos        // everything below was handed to a file
	hinted   int64      // bytes of file that the system was asked to write back
	spare    []byte     // buffer for the next exchange

	mu     sync.Mutex // guards the next block
	buf    []byte     // frames at written ≤ position < next, save those being written
	next   Pos
	salt   uint32 // of the segment that buf goes to
	failed error  // wraps ErrFailed
	closed bool
	seal   sealer

	durable atomic.Uint64 // durable ≤ written ≤ next; moved under io
	bytes   atomic.Int64  // of all segment files
}

// Next returns the position that the next frame will have, if nobody appends
// or syncs in between. It is above that of every frame there is.
func (l *Log) Next() Pos {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next
}

// Durable returns a position below which everything is durable, without
// syncing.
func (l *Log) Durable() Pos { return Pos(l.durable.Load()) }

// Size returns the bytes of all segment files, what is buffered not counted.
func (l *Log) Size() int64 { return l.bytes.Load() }

// Drop removes segments that hold only frames below before, from the oldest
// on, but never the last. A segment that could not be removed stays in the log
// for the next Drop. Errors: ErrFailed, ErrClosed, that of the file system.
func (l *Log) Drop(before Pos) error {
	l.io.Lock()
	err := l.drop(before)
	l.io.Unlock()
	return errors.Join(err, l.drain())
}

// drop syncs the directory after each removal, so that no crash can bring an
// older segment back without those that follow it.
func (l *Log) drop(before Pos) error {
	if err := l.usable(); err != nil {
		return err
	}
	for len(l.segments) > 1 && l.segments[1].first <= before {
		s := l.segments[0]
		if err := l.fs.Remove(l.path(s.number)); err != nil {
			return fmt.Errorf("drop log segment: %w", err)
		}
		l.segments = l.segments[1:]
		l.bytes.Add(-s.size)
		if err := syncDir(l.fs, l.cfg.Dir); err != nil {
			return l.fail("sync directory", err)
		}
	}
	return nil
}

// Close makes everything appended durable and closes the log. If that fails
// the error says so and wraps ErrFailed. A second Close does nothing.
func (l *Log) Close() error {
	l.io.Lock()
	defer l.io.Unlock()
	l.mu.Lock()
	closed := l.closed
	l.closed = true
	l.mu.Unlock()
	if closed {
		return nil
	}
	err := l.sync(l.Next())
	if err == nil && l.file != nil {
		err = l.sync(maxPos) // a mark that covers the last sync
	}
	if l.file != nil {
		err = errors.Join(err, l.file.Close())
		l.file = nil
	}
	if err != nil {
		return fmt.Errorf("close log: %w", err)
	}
	return nil
}

// usable returns ErrFailed or ErrClosed.
func (l *Log) usable() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state()
}

// state is usable with mu held.
func (l *Log) state() error {
	switch {
	case l.failed != nil:
		return l.failed
	case l.closed:
		return ErrClosed
	}
	return nil
}

// fail stops the log for good and returns the error to be returned.
func (l *Log) fail(op string, cause error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed == nil {
		l.failed = fmt.Errorf("%w: %s in %s: %w", ErrFailed, op, l.cfg.Dir, cause)
		l.cfg.Logger.Error("log failed, nothing is written any more", "dir", l.cfg.Dir, "op", op, "err", cause)
	}
	return l.failed
}
