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
	Part string // "rows", "postings" or "log"; of CheckDir also "format" and "lost"
	What string // the row, bucket or frame, for people
	Err  error  // wraps ErrCorrupt, or is that of the disk

	table string // of postings: the file
	fatal bool   // the store does not open
}

func (d Damage) String() string { return fmt.Sprintf("%s: %s: %v", d.Part, d.What, d.Err) }

// Check reads all there is on disk, every row, bucket and frame of the log,
// with their checksums, compares what must agree, and calls fn for what is
// damaged. An error of fn ends it. It changes nothing, and everything goes on
// meanwhile; a region of the index takes no flush while it is read. It reads
// the whole directory once.
//
// What damaged postings held is found again once their publishers' ads were
// applied anew (see Repair); what damaged rows held, by restoring a checkpoint
// or starting with an empty directory.
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
	if err := s.checkRowTables(ctx, fn); err != nil {
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
	return s.index.Check(ctx, func(d postings.Damage) error { return fn(postingsDamage(d)) })
}

func postingsDamage(d postings.Damage) Damage {
	what := fmt.Sprintf("table %s, hashes %x to %x", d.Table, d.First, d.Last)
	if d.None {
		what = fmt.Sprintf("table %s, no postings", d.Table)
	}
	return Damage{Part: "postings", What: what, Err: d.Err, table: d.Table}
}

// Repair takes damaged parts of the postings away, so that compactions pass
// again, keeps all that can be read, and returns what was damaged. The store
// does the same by itself when a compaction meets damage. What may have been
// lost is remembered: a lookup that finds nothing there is an ErrCorrupt and
// never a miss, until MarkWhole. It reads the whole index once; writers wait
// meanwhile.
func (s *Store) Repair(ctx context.Context) (taken []Damage, err error) {
	if err := s.enterWrite(); err != nil {
		return nil, err
	}
	defer s.exit()
	ctx, cancel := s.whileWell(ctx)
	defer cancel()
	found, err := s.index.Salvage(ctx)
	for _, d := range found {
		taken = append(taken, postingsDamage(d))
	}
	if err = errors.Join(err, context.Cause(ctx)); err != nil {
		return taken, fmt.Errorf("repair store: %w", err)
	}
	return taken, nil
}

// MarkWhole forgets that postings were lost. The caller has applied all ads
// again, or lives with misses.
func (s *Store) MarkWhole() error {
	if err := s.enterWrite(); err != nil {
		return err
	}
	defer s.exit()
	if err := s.index.MarkWhole(); err != nil {
		return fmt.Errorf("mark store as whole: %w", err)
	}
	return s.disk.err()
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
