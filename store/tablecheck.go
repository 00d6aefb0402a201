package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
)

// isDamage tells whether reading again would not help.
func isDamage(err error) bool {
	return errors.Is(err, ErrCorrupt) || pebble.IsCorruptionError(err) || errors.Is(err, io.ErrUnexpectedEOF)
}

// checkRowTables reads every block of every table of the rows from its file:
// rows that a newer one hides are in none that a scan reads.
func (s *Store) checkRowTables(ctx context.Context, fn func(Damage) error) error {
	levels, err := s.db.SSTables()
	if err != nil && !isMissing(err) {
		return fmt.Errorf("list tables: %w", err)
	}
	if err != nil {
		return fn(Damage{Part: "rows", What: "a table is missing", Err: err})
	}
	for _, level := range levels {
		for _, info := range level {
			if err := ctx.Err(); err != nil {
				return err
			}
			name := info.BackingSSTNum.String() + ".sst"
			err := s.checkTable(name)
			if err == nil || isMissing(err) && !s.hasTable(info.FileNum) {
				continue // or merged away meanwhile
			}
			if !isDamage(err) && !isMissing(err) {
				return fmt.Errorf("read table %s: %w", name, err)
			}
			if err := fn(Damage{Part: "rows", What: "table " + name, Err: fmt.Errorf("%w: %w", ErrCorrupt, err)}); err != nil {
				return err
			}
		}
	}
	return nil
}

func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }

func (s *Store) hasTable(number pebble.TableNum) bool {
	levels, err := s.db.SSTables()
	if err != nil {
		return true
	}
	for _, level := range levels {
		for _, info := range level {
			if info.FileNum == number {
				return true
			}
		}
	}
	return false
}

func (s *Store) checkTable(name string) error {
	r, err := s.openTable(s.disk.PathJoin(s.cfg.Dir, "rows", name))
	if err != nil {
		return err
	}
	return errors.Join(r.ValidateBlockChecksums(), r.Close())
}

// openTable opens a table of the rows for reading past Pebble.
func (s *Store) openTable(path string) (*sstable.Reader, error) {
	f, err := s.disk.Open(path)
	if err != nil {
		return nil, err
	}
	file, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	r, err := sstable.NewReader(context.Background(), file, s.pebbleOptions().MakeReaderOptions())
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return r, nil
}
