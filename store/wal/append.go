package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"slices"
)

// hintBytes is how much is written before the system is asked to begin writing
// it back, so that an fsync finds little left to do.
const hintBytes = 1 << 20

// Append adds a frame whose payload is the parts one after the other, and
// returns its position. The frame is in the log, and in the order of positions
// before all that is appended later, but not yet written or durable. The parts
// may be reused when it returns. Append waits for the disk when the buffer is
// full.
//
// Errors: ErrInvalid (kind above MaxKind, payload above MaxFrameBytes),
// ErrFailed (whether the frame will be found is unknown), ErrClosed.
func (l *Log) Append(kind byte, parts ...[]byte) (Pos, error) {
	if kind > MaxKind {
		return 0, fmt.Errorf("%w: kind %d is reserved", ErrInvalid, kind)
	}
	payloadBytes, sum := 0, uint32(0)
	for _, p := range parts {
		if len(p) > MaxFrameBytes-payloadBytes {
			return 0, fmt.Errorf("%w: more than %d bytes", ErrInvalid, MaxFrameBytes)
		}
		payloadBytes += len(p)
		sum = crc32.Update(sum, castagnoli, p)
	}
	l.mu.Lock()
	if err := l.makeRoom(frameHeader + payloadBytes); err != nil {
		l.mu.Unlock()
		return 0, err
	}
	pos := l.next
	l.buf = l.seal.appendHeader(l.buf, sum, kind, pos, payloadBytes, l.salt)
	for _, p := range parts {
		l.buf = append(l.buf, p...)
	}
	l.next += Pos(frameHeader + payloadBytes)
	full := len(l.buf) >= l.cfg.writeBytes
	l.mu.Unlock()
	if full {
		if err := l.drain(); err != nil {
			return 0, err
		}
	}
	return pos, nil
}

// makeRoom returns when the buffer takes a frame of n bytes. It is called with
// mu held, and gives it up while it waits.
func (l *Log) makeRoom(n int) error {
	for l.state() == nil && len(l.buf) > 0 && len(l.buf)+n > l.cfg.bufferBytes {
		l.mu.Unlock()
		_ = l.Flush() // the failure is in the state
		l.mu.Lock()
	}
	if err := l.state(); err != nil {
		return err
	}
	l.buf = slices.Grow(l.buf, n)
	return nil
}

// Flush writes the buffer out, so that what was appended before survives the
// end of the process. Errors: ErrFailed, ErrClosed.
func (l *Log) Flush() error {
	l.io.Lock()
	err := l.usable()
	if err == nil {
		err = l.write(false)
	}
	l.io.Unlock()
	return errors.Join(err, l.drain())
}

// Sync makes everything appended before the call durable, and returns a
// position below which everything is. Appends go on meanwhile, and calls that
// wait for one fsync share the next. Errors: ErrFailed, ErrClosed.
func (l *Log) Sync() (Pos, error) {
	l.mu.Lock()
	want, err := l.next, l.state()
	l.mu.Unlock()
	if err != nil {
		return l.Durable(), err
	}
	l.io.Lock()
	err = l.sync(want)
	l.io.Unlock()
	return l.Durable(), errors.Join(err, l.drain())
}

// sync makes everything below want durable, and what else it finds. The caller
// holds io.
func (l *Log) sync(want Pos) error {
	if l.Durable() >= want {
		return nil
	}
	if err := l.write(true); err != nil {
		return err
	}
	if l.Durable() == l.written {
		return nil // a complete segment was synced
	}
	if err := l.file.SyncData(); err != nil {
		return l.fail("sync", err)
	}
	l.durable.Store(uint64(l.written))
	return nil
}

// drain writes the buffer out if it is full and nobody else is at it. Whoever
// gives up io calls it, so that a buffer that filled meanwhile does not stay.
func (l *Log) drain() error {
	for {
		l.mu.Lock()
		full := l.failed == nil && len(l.buf) >= l.cfg.writeBytes
		l.mu.Unlock()
		if !full || !l.io.TryLock() {
			return nil
		}
		err := l.write(false)
		l.io.Unlock()
		if err != nil {
			return err
		}
	}
}

// write exchanges the buffer and writes what was in it, closing with a mark if
// asked to. The caller holds io.
func (l *Log) write(mark bool) error {
	l.mu.Lock()
	if l.failed != nil {
		defer l.mu.Unlock()
		return l.failed
	}
	if mark {
		l.appendMark()
	}
	batch, end, salt := l.buf, l.next, l.salt
	if len(batch) == 0 {
		l.mu.Unlock()
		return nil
	}
	l.buf, l.spare = l.spare[:0], nil
	complete := l.fileBytes()+int64(len(batch)) >= l.cfg.SegmentBytes
	if complete {
		l.salt = rand.Uint32() // what is appended from now on goes to the next
	}
	l.mu.Unlock()

	err := l.writeBatch(batch, end, salt)
	if cap(batch) <= 2*l.cfg.bufferBytes {
		l.spare = batch
	}
	if err == nil && complete {
		err = l.complete()
	}
	return err
}

// appendMark appends a mark. The caller holds io and mu.
func (l *Log) appendMark() {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], l.durable.Load())
	l.buf = l.seal.appendHeader(l.buf, crc32.Checksum(b[:], castagnoli), markKind, l.next, len(b), l.salt)
	l.buf = append(l.buf, b[:]...)
	l.next += markBytes
}

// fileBytes is the size of the segment being written.
func (l *Log) fileBytes() int64 {
	if l.file == nil {
		return headerBytes
	}
	return l.segments[len(l.segments)-1].size
}

func (l *Log) writeBatch(batch []byte, end Pos, salt uint32) error {
	if l.file == nil {
		if err := l.create(salt); err != nil {
			return l.fail("create segment", err)
		}
	}
	if err := writeAll(l.file, batch); err != nil {
		return l.fail("write", err)
	}
	s := &l.segments[len(l.segments)-1]
	s.size += int64(len(batch))
	s.end = end
	l.written = end
	l.bytes.Add(int64(len(batch)))
	if s.size-l.hinted < hintBytes {
		return nil
	}
	l.hinted = s.size
	if _, err := l.file.SyncTo(s.size); err != nil {
		return l.fail("sync", err)
	}
	return nil
}

// complete syncs and closes the segment: the next may begin.
func (l *Log) complete() error {
	err := l.file.Sync()
	if err == nil {
		l.durable.Store(uint64(l.written))
	}
	err = errors.Join(err, l.file.Close())
	l.file = nil
	if err != nil {
		return l.fail("complete segment", err)
	}
	return nil
}
