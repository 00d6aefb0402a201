package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// Space of removed records comes back in a pass over the postings that drops
// what carries their IDs. Nobody need know which multihashes these were. A pass
// begins by itself when a fifth of the postings is garbage, also while the
// store is frozen, and on demand (Compact). It works through the index a part
// at a time, needs room for one part only, and after a crash is begun again.
//
//	removal ─► 'y' row, counted ─► durable ─► dead for lookups, compactions
//	                                             │ pass over all postings
//	                                             ▼
//	                                          row and ID forgotten

const (
	// reclaimShare of dead postings starts a pass: at most so much space is
	// garbage, for the price of writing an index 1/reclaimShare times for
	// each time its content is exchanged.
	reclaimShare = 0.2
	// minReclaim postings are about 10 MB: less is not worth a pass.
	minReclaim = 1 << 20
	// reclaimRetry is how long a pass that failed is left alone.
	reclaimRetry = time.Minute
	// forgetIDs bounds the record IDs one change forgets.
	forgetIDs = 4096
)

func (s *Store) wakeReclaim() {
	select {
	case s.garbage <- struct{}{}:
	default:
	}
}

// reclaimer sweeps what removed providers left and reclaims when it is worth
// it, until ctx ends.
func (s *Store) reclaimer(ctx context.Context, wake <-chan struct{}) {
	var failed time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-wake:
		}
		if time.Since(failed) < reclaimRetry || s.disk.err() != nil {
			continue
		}
		err := s.sweepRemoved(ctx)
		if err == nil && s.worthReclaiming() {
			err = s.reclaim(ctx)
			if s.cfg.onReclaimed != nil {
				s.cfg.onReclaimed()
			}
		}
		if err != nil && ctx.Err() == nil && s.disk.err() == nil {
			failed = time.Now()
			s.metrics.backgroundErrors.Inc()
			s.cfg.Logger.Warn("space of what was removed could not be reclaimed, it is tried again", "in", reclaimRetry, "err", err)
		}
	}
}

func (s *Store) worthReclaiming() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.totals
	return t.dead >= s.cfg.minReclaim && float64(t.dead) >= reclaimShare*float64(t.dead+t.postings)
}

// reclaim drops the postings of the records that are removed now.
func (s *Store) reclaim(ctx context.Context) (err error) {
	s.reclaiming.Lock()
	defer s.reclaiming.Unlock()
	start := time.Now()
	snap := s.db.NewSnapshot()
	defer func() { err = errors.Join(err, snap.Close()) }()
	// What the snapshot shows as removed has to be durable, or it is not dead.
	if err := s.syncer.sync(); err != nil {
		return err
	}
	if n, err := countDead(snap, 1); n == 0 || err != nil {
		return err
	}
	if err := errors.Join(s.index.Flush(ctx), s.disk.err()); err != nil {
		return err
	}
	dropped, err := s.index.Reclaim(ctx, 0)
	if err = errors.Join(s.disk.err(), err); err != nil {
		return err
	}
	if err := s.forgetDead(ctx, snap); err != nil {
		return err
	}
	s.metrics.reclaimed.Add(float64(dropped))
	s.cfg.Logger.Info("reclaimed the space of removed records", "mhs", dropped, "elapsed", time.Since(start))
	return nil
}

// countDead is how many record IDs are removed and not reclaimed, at most
// limit.
func countDead(r pebble.Reader, limit int) (n int, err error) {
	err = scanPrefix(r, []byte{prefixDead}, func(_, _ []byte) error {
		if n++; n >= limit {
			return errStop
		}
		return nil
	})
	return n, err
}

// forgetDead forgets the IDs a snapshot shows as removed: nothing carries them
// any more.
func (s *Store) forgetDead(ctx context.Context, snap *pebble.Snapshot) error {
	var ids []uint64
	var postings uint64
	forget := func() error {
		if err := ctx.Err(); err != nil {
			return err
		}
		_, err := s.update(func(t *tx) error {
			t.totals.dead -= min(postings, t.totals.dead)
			for _, id := range ids {
				if err := t.delete(idKey(prefixDead, id)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("forget %d removed records: %w", len(ids), err)
		}
		s.dead.forget(ids)
		ids, postings = ids[:0], 0
		return nil
	}
	err := scanPrefix(snap, []byte{prefixDead}, func(k, v []byte) error {
		id, err := parseIDKey(prefixDead, k)
		if err != nil {
			return err
		}
		n, err := decodeDead(v)
		if err != nil {
			return err
		}
		ids = append(ids, id)
		postings += n
		if len(ids) == forgetIDs {
			return forget()
		}
		return nil
	})
	if err != nil || len(ids) == 0 {
		return err
	}
	return forget()
}

// Compact gives back all the space there is to be had: it sweeps removed
// providers, drops the postings of removed records and rewrites both databases
// into one level, where a lookup reads one place. That takes minutes for each
// hundred million postings and writes the whole index once; for the time, it
// needs as much free space as the largest part it rewrites. It can be
// stopped through ctx at any time; what it did stays.
func (s *Store) Compact(ctx context.Context) error {
	if err := s.enterWrite(); err != nil {
		return err
	}
	defer s.exit()
	start := time.Now()
	ctx, cancel := s.whileWell(ctx)
	defer cancel()
	if err := errors.Join(s.compact(ctx), context.Cause(ctx)); err != nil {
		return fmt.Errorf("compact store: %w", err)
	}
	s.cfg.Logger.Info("compacted store", "bytes", s.diskUsage(), "elapsed", time.Since(start))
	return nil
}

func (s *Store) compact(ctx context.Context) error {
	if err := s.sweepRemoved(ctx); err != nil {
		return err
	}
	if err := s.reclaim(ctx); err != nil {
		return err
	}
	if err := s.tidyLog(ctx, true); err != nil {
		return err
	}
	if err := s.index.Compact(ctx); err != nil {
		return err
	}
	return s.db.Compact(ctx, []byte{0}, []byte{0xff}, true)
}
