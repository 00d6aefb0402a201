package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/signpost-index/signpost/store/postings"
	"github.com/signpost-index/signpost/store/wal"
)

// Damage is a part of the data directory that is not what was written.
type Damage struct {
	Part string // "rows", "postings" or "log"
	What string // the row, bucket or frame, for people
	Err  error  // wraps ErrCorrupt, or is that of the disk
}

func (d Damage) String() string { return fmt.Sprintf("%s: %s: %v", d.Part, d.What, d.Err) }

// Check reads all there is on disk, every row, bucket and frame of the log,
// with their checksums, compares what must agree, and calls fn for what is
// damaged. An error of fn ends it. It changes nothing, and everything goes on
// meanwhile; a region of the index takes no flush while it is read. It reads
// the whole directory once.
//
// What a damaged bucket held is found again once the publishers were
// synced anew; what damaged rows held, by restoring a checkpoint or starting
// with an empty directory.
func (s *Store) Check(ctx context.Context, fn func(Damage) error) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.exit()
	ctx, cancel := s.whileWell(ctx) // or it would hold off the recovery
	defer cancel()
	if err := errors.Join(s.check(ctx, fn), context.Cause(ctx)); err != nil {
		return fmt.Errorf("check store: %w", err)
	}
	return nil
}

func (s *Store) check(ctx context.Context, fn func(Damage) error) error {
	if err := s.checkLog(fn); err != nil {
		return err
	}
	snap := s.db.NewSnapshot()
	defer snap.Close()
	err := s.verifyRows(ctx, snap, func(key []byte, err error) error {
		return fn(Damage{Part: "rows", What: fmt.Sprintf("row %q", key), Err: err})
	})
	if err != nil {
		return err
	}
	return s.index.Check(ctx, func(d postings.Damage) error {
		return fn(Damage{Part: "postings", What: fmt.Sprintf("bucket %x", d.Key), Err: d.Err})
	})
}

func (s *Store) checkLog(fn func(Damage) error) error {
	s.tidying.Lock() // nothing is dropped under the reader
	defer s.tidying.Unlock()
	err := s.log.Replay(0, func(wal.Pos, byte, []byte) error { return nil })
	if err != nil {
		return fn(Damage{Part: "log", What: "frames", Err: err})
	}
	return nil
}
