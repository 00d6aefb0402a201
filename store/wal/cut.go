package wal

import (
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Cut shortens a log that is not open, and that Open or Replay calls corrupt, to
// what stands before the damage. It links or copies each segment that it changes
// to aside, which must exist, and returns their names; nil if there is no damage.
// What is left may be nothing at all, and then the log begins at position 1.
//
// Errors: ErrNewerFormat, that of the file system.
func Cut(cfg Config, aside string) (changed []string, err error) {
	l := &Log{cfg: cfg.withDefaults(), fs: cfg.FS}
	numbers, err := l.list()
	if err != nil {
		return nil, fmt.Errorf("cut log %s: %w", cfg.Dir, err)
	}
	for i := range numbers {
		good, size, err := l.soundBytes(numbers, i)
		if err != nil {
			return nil, fmt.Errorf("cut log %s: %w", cfg.Dir, err)
		}
		if good == size {
			continue
		}
		if changed, err = l.cut(numbers[i:], good, aside); err != nil {
			return changed, fmt.Errorf("cut log %s: %w", cfg.Dir, err)
		}
		return changed, nil
	}
	return nil, nil
}

// soundBytes tells up to where a segment can be read, 0 for not at all, and where
// that should be. A torn tail of the last one is no damage.
func (l *Log) soundBytes(numbers []uint32, i int) (good, want int64, err error) {
	s, next := segment{number: numbers[i]}, segment{}
	last := i == len(numbers)-1
	err = l.withFile(s.number, s.readHeader)
	switch {
	case errors.Is(err, errTorn) && last && (i > 0 || s.number == 1):
		return 0, 0, nil
	case errors.Is(err, errTorn), errors.Is(err, ErrCorrupt), errors.Is(err, io.ErrUnexpectedEOF):
		return 0, 1, nil
	case err != nil:
		return 0, 0, err
	}
	want = s.size
	if !last {
		next.number = numbers[i+1]
		if err := l.withFile(next.number, next.readHeader); err == nil && next.first >= s.first {
			want = s.offset(next.first)
		}
	}
	err = l.withFile(s.number, func(file vfs.File) error {
		scan := newScanner(file, &s, min(want, s.size))
		var err error
		for err == nil {
			_, _, err = scan.next()
		}
		good = scan.off
		if errors.Is(err, errTorn) && last {
			marked, markErr := scan.marked()
			if markErr == nil && !marked {
				good = want // never durable
			}
			err = nil
		}
		if errors.Is(err, errTorn) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = nil
		}
		return err
	})
	return good, want, err
}

// cut takes segments away, but for the good bytes of the first. The last goes
// first: whenever it is interrupted, what is left is a log with the same damage.
func (l *Log) cut(numbers []uint32, good int64, aside string) (changed []string, err error) {
	for _, n := range numbers {
		name := segmentName(n)
		if err := vfs.LinkOrCopy(l.fs, l.path(n), l.fs.PathJoin(aside, name)); err != nil {
			return changed, err
		}
		changed = append(changed, name)
	}
	if err := syncDir(l.fs, aside); err != nil {
		return changed, err
	}
	for i := len(numbers) - 1; i > 0; i-- {
		if err := l.fs.Remove(l.path(numbers[i])); err != nil {
			return changed, err
		}
	}
	if good <= headerBytes {
		return changed, errors.Join(l.fs.Remove(l.path(numbers[0])), syncDir(l.fs, l.cfg.Dir))
	}
	return changed, l.shorten(numbers[0], good)
}

// shorten replaces a segment by its beginning. The file itself stays as it is: it
// may have another name.
func (l *Log) shorten(number uint32, good int64) error {
	tmp := l.path(number) + ".tmp"
	err := l.withFile(number, func(from vfs.File) error {
		to, err := l.fs.Create(tmp, vfs.WriteCategoryUnspecified)
		if err != nil {
			return err
		}
		_, err = io.Copy(to, io.NewSectionReader(from, 0, good))
		if err == nil {
			err = to.Sync()
		}
		return errors.Join(err, to.Close())
	})
	if err != nil {
		return err
	}
	return errors.Join(l.fs.Rename(tmp, l.path(number)), syncDir(l.fs, l.cfg.Dir))
}
