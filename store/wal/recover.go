package wal

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Open opens the log in cfg.Dir, or an empty one. It reads the headers of all
// segments and the last segment, and syncs what it finds; other segments are
// checked by Replay. It changes nothing.
//
// Errors: ErrCorrupt, ErrNewerFormat, that of the file system.
func Open(cfg Config) (*Log, error) {
	cfg = cfg.withDefaults()
	l := &Log{cfg: cfg, fs: cfg.FS, number: 1, written: 1, salt: rand.Uint32()}
	if err := l.load(); err != nil {
		return nil, fmt.Errorf("open log %s: %w", cfg.Dir, err)
	}
	l.next = l.written
	l.durable.Store(uint64(l.written))
	for _, s := range l.segments {
		l.bytes.Add(s.size)
	}
	return l, nil
}

// load finds the segments and where each ends.
func (l *Log) load() error {
	numbers, err := l.list()
	if err != nil {
		return err
	}
	for i, number := range numbers {
		l.number = number
		s := segment{number: number}
		err := l.withFile(number, s.readHeader)
		if errors.Is(err, errTorn) {
			// A crash while the segment was begun; its number is used again.
			// Alone it must be the first ever: the one before is dropped later.
			if i == len(numbers)-1 && (i > 0 || number == 1) {
				break
			}
			err = corrupt(number, 0, "incomplete header")
		}
		if err != nil {
			return err
		}
		l.segments = append(l.segments, s)
		l.number++ // wraps to 0 after the last number, where create gives up
	}
	if len(l.segments) == 0 {
		return nil
	}
	return l.findEnds()
}

// list returns the numbers of the segments in ascending order.
func (l *Log) list() (numbers []uint32, err error) {
	names, err := l.fs.List(l.cfg.Dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	for _, name := range names {
		if n, ok := segmentNumber(name); ok {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

func (l *Log) findEnds() error {
	last := len(l.segments) - 1
	for i := range l.segments[:last] {
		s, next := &l.segments[i], &l.segments[i+1]
		if next.first < s.first {
			return corrupt(next.number, 16, fmt.Sprintf("position %d, below %d of the segment before", next.first, s.first))
		}
		s.end = next.first
		if s.size < s.offset(s.end) {
			return corrupt(s.number, s.size, fmt.Sprintf("file ends, the next begins at position %d, offset %d", s.end, s.offset(s.end)))
		}
	}
	s := &l.segments[last]
	if err := l.withFile(s.number, func(file vfs.File) error { return l.findEnd(file, s) }); err != nil {
		return err
	}
	l.written = s.end
	return syncDir(l.fs, l.cfg.Dir) // removals too: none may be undone after later ones
}

// findEnd reads the last segment up to its torn tail, if it has one, and makes
// what was found durable.
func (l *Log) findEnd(file vfs.File, s *segment) error {
	scan := newScanner(file, s, s.size)
	before := l.cfg.Before
	var err error
	for err == nil && (before == 0 || scan.pos() < before) {
		_, _, err = scan.next()
	}
	s.end = scan.pos()
	switch {
	case err == nil:
		l.cfg.Logger.Warn("end of the log is left out, it was never durable",
			"dir", l.cfg.Dir, "file", segmentName(s.number), "offset", scan.off, "bytes", s.size-scan.off)
		return file.Sync()
	case before > s.end && (errors.Is(err, errTorn) || errors.Is(err, io.EOF)):
		return corrupt(s.number, scan.off, fmt.Sprintf("ends at position %d, was durable up to %d", s.end, before))
	case errors.Is(err, errTorn):
		durable, err := scan.marked()
		if err != nil {
			return err
		}
		if durable {
			return corrupt(s.number, scan.off, "bad frame, which was durable")
		}
		l.cfg.Logger.Warn("log ends in the middle of a write, this is left out",
			"dir", l.cfg.Dir, "file", segmentName(s.number), "offset", scan.off, "bytes", s.size-scan.off)
	case !errors.Is(err, io.EOF):
		return err
	}
	return file.Sync()
}

// Replay calls fn for every frame at from or above that was appended before
// the call, in order. from is 0, for all there is, or a position not below any
// that was given to Drop. payload is valid during the call of fn only. fn may
// use the log; a Drop of what is still to be replayed makes Replay fail.
//
// Errors: that of fn; ErrMissing if the log begins above from or ends below it;
// ErrCorrupt, after fn was called for what is before the damage; ErrFailed,
// ErrClosed, that of the file system.
func (l *Log) Replay(from Pos, fn func(pos Pos, kind byte, payload []byte) error) error {
	if err := l.Flush(); err != nil {
		return fmt.Errorf("replay log: %w", err)
	}
	l.io.Lock()
	segments := slices.Clone(l.segments)
	l.io.Unlock()
	if err := covers(segments, from); err != nil {
		return err
	}
	for i := range segments {
		s := &segments[i]
		if s.end <= max(from, s.first) {
			continue
		}
		if err := l.withFile(s.number, func(file vfs.File) error { return replay(file, s, from, fn) }); err != nil {
			return fmt.Errorf("replay log %s: %w", l.cfg.Dir, err)
		}
	}
	return nil
}

func covers(segments []segment, from Pos) error {
	first, end := Pos(1), Pos(1)
	if len(segments) > 0 {
		first, end = segments[0].first, segments[len(segments)-1].end
	}
	if from != 0 && (from < first || from > end) {
		return fmt.Errorf("replay log from %d: %w: it goes from %d to %d", from, ErrMissing, first, end)
	}
	return nil
}

func replay(file vfs.File, s *segment, from Pos, fn func(Pos, byte, []byte) error) error {
	scan := newScanner(file, s, s.offset(s.end))
	for {
		pos := scan.pos()
		kind, payload, err := scan.next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, errTorn):
			return corrupt(s.number, scan.off, "bad frame")
		case err != nil:
			return err
		}
		if pos < from || kind == markKind {
			continue
		}
		if err := fn(pos, kind, payload); err != nil {
			return err
		}
	}
}

// withFile opens a segment for reading during fn.
func (l *Log) withFile(number uint32, fn func(vfs.File) error) error {
	f, err := l.fs.Open(l.path(number))
	if err != nil {
		return err
	}
	return errors.Join(fn(f), f.Close())
}
