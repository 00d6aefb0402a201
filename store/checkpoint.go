package store

import (
	"errors"
	"fmt"
	"io/fs"
)

// Checkpoint writes a copy of the store to dir, which must not exist while its
// parent must. The copy is what a crash during the call would have left, with
// all that was committed before the call; Open opens it, with the same secret,
// which is not in it. Everything goes on meanwhile. Files are linked where the
// file system can, so a copy on the same one costs little until the
// originals are replaced. After an error dir is to be removed.
func (s *Store) Checkpoint(dir string) error {
	if err := s.enterWrite(); err != nil {
		return err
	}
	defer s.exit()
	if err := s.checkpoint(dir); err != nil {
		return fmt.Errorf("checkpoint store to %s: %w", dir, err)
	}
	return nil
}

// checkpoint copies the log last, and holds off that it is shortened: so it
// has all that the databases' copies lack.
func (s *Store) checkpoint(dir string) error {
	disk := s.disk
	if _, err := disk.Stat(dir); err == nil {
		return fmt.Errorf("%w: exists already", ErrInvalid)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.tidying.Lock()
	defer s.tidying.Unlock()
	if err := disk.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := s.db.Checkpoint(disk.PathJoin(dir, "rows")); err != nil {
		return err
	}
	if err := s.index.Checkpoint(disk.PathJoin(dir, "postings")); err != nil {
		return err
	}
	if err := s.log.Checkpoint(disk.PathJoin(dir, "log")); err != nil {
		return err
	}
	// With the format number the copy is complete.
	if err := writeFormat(disk, dir); err != nil {
		return err
	}
	return errors.Join(syncDir(disk, disk.PathDir(dir)), disk.err())
}
