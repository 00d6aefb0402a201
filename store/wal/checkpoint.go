package wal

import (
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Checkpoint makes a copy of the log in dir, which it makes: all that was
// appended before the call, durable, perhaps more, and nothing that is appended
// after it returns. Complete segments are linked where the file system can;
// appends go on meanwhile. Errors: ErrFailed, ErrClosed, those of the file
// system; what is in dir after one is no log.
func (l *Log) Checkpoint(dir string) error {
	if err := l.fs.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make %s: %w", dir, err)
	}
	last, size, err := l.linkSegments(dir)
	if err == nil && last != nil {
		err = l.copySegment(last, size, dir)
	}
	if err != nil {
		return fmt.Errorf("checkpoint log to %s: %w", dir, err)
	}
	return errors.Join(syncDir(l.fs, dir), l.drain())
}

// linkSegments syncs the log and links its complete segments. It returns the
// one being written, open, and how much of it there is.
func (l *Log) linkSegments(dir string) (last vfs.File, size int64, err error) {
	l.io.Lock()
	defer l.io.Unlock()
	if err := l.usable(); err != nil {
		return nil, 0, err
	}
	if err := l.sync(l.Next()); err != nil {
		return nil, 0, err
	}
	for i, s := range l.segments {
		if i == len(l.segments)-1 && l.file != nil {
			last, err = l.fs.Open(l.path(s.number))
			return last, s.size, err
		}
		if err := vfs.LinkOrCopy(l.fs, l.path(s.number), l.fs.PathJoin(dir, segmentName(s.number))); err != nil {
			return nil, 0, err
		}
	}
	return nil, 0, nil
}

func (l *Log) copySegment(from vfs.File, size int64, dir string) error {
	defer from.Close()
	info, err := from.Stat()
	if err != nil {
		return err
	}
	to, err := l.fs.Create(l.fs.PathJoin(dir, info.Name()), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, io.NewSectionReader(from, 0, size))
	if err == nil {
		err = to.Sync()
	}
	return errors.Join(err, to.Close())
}
