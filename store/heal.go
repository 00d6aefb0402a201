package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A store whose disk failed recovers by itself, in place:
//
//	            write fails                probe succeeds
//	  working ───────────────▶ failed ───────────────────▶ reopening ──▶ working,
//	                           lookups go on,    ▲          methods         next life
//	                           writes: ErrFailed └───────── wait ──┘
//	                                               fails
//
// Reopening is what a restart does, with one thing more: this process knows
// up to where the log was durable, and leaves out what stands behind. After a
// failed sync the system may show bytes that are in its memory only and that
// no later sync will write; building on them would lose what comes after them.
// So what a life leaves to the next is exactly what was durable (with the
// reservation that nothing is lost that was), and every commit above the
// watermark is lost for certain: WaitDurable says ErrFailed of it for ever.

const (
	// healMin and healMax bound the time between two attempts to recover. Not
	// below a second: a disk that fails at once again must not keep the node
	// busy.
	healMin = time.Second
	healMax = 30 * time.Second
	// probeBytes is more than the log writes at a time.
	probeBytes = 1 << 20
	probeFile  = "PROBE"
)

// Recovered returns a channel that is closed when the store recovers next from
// a failure (see ErrFailed). What was committed and not durable before is then
// gone, as after a restart: whoever goes by what was read before must look
// again.
func (s *Store) Recovered() <-chan struct{} {
	s.life.RLock()
	defer s.life.RUnlock()
	return s.recovered
}

// watch brings the store back after each failure, until ctx ends.
func (s *Store) watch(ctx context.Context) {
	wait := s.cfg.healMin
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.disk.failed:
		}
		start := time.Now()
		cause := s.disk.err()
		s.rest()
		for !s.heal(ctx, wait, cause) {
			if ctx.Err() != nil {
				s.disk.release()
				return
			}
			wait = min(2*wait, s.cfg.healMax)
		}
		s.cfg.Logger.Info("recovered: the store takes writes again", "dir", s.cfg.Dir, "cause", cause, "elapsed", time.Since(start))
		// One that fails again soon is not well: it is not tried as eagerly.
		if again := s.wellFor(ctx, s.cfg.healMax); again {
			wait = min(2*wait, s.cfg.healMax)
		} else {
			wait = s.cfg.healMin
		}
	}
}

// wellFor waits for a failure and tells whether one came before d had passed.
func (s *Store) wellFor(ctx context.Context, d time.Duration) (failed bool) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return false
	case <-s.disk.failed:
		return true
	case <-ctx.Done():
		return false
	}
}

// rest lets what is under way in a failed store end and keeps it from doing
// anything more than answering. Puts that wait for the index come back. When
// mu could be taken, no change of rows is under way and none will begin, so
// nothing waits for a compaction any more and they may stand still: they
// would merge gigabytes into memory.
func (s *Store) rest() {
	s.index.Halt()
	s.mu.Lock()
	//lint:ignore SA2001 whoever held mu has left, and update lets nobody in
	s.mu.Unlock()
	s.disk.rest()
}

// whileWell is ctx until the disk fails. Whoever waits for a compaction, inside
// life, must wait under it, as compactions stand still in a failed store and
// the next life needs all to have left the last one.
func (s *Store) whileWell(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	disk := s.disk
	go func() {
		select {
		case <-disk.failed:
			cancel(disk.err())
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// heal waits and then makes one attempt to recover.
func (s *Store) heal(ctx context.Context, wait time.Duration, cause error) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return false
	}
	if err := s.probe(cause); err != nil {
		s.cfg.Logger.Debug("disk is not well yet", "dir", s.cfg.Dir, "err", err)
		return false
	}
	if err := s.reopen(cause); err != nil {
		s.cfg.Logger.Warn("store could not be reopened, it is tried again", "dir", s.cfg.Dir, "err", err)
		return false
	}
	return true
}

// probe finds out whether writing works, and whether there is room if it was
// room that lacked.
func (s *Store) probe(cause error) (err error) {
	if vfs.IsNoSpaceError(cause) {
		if err := s.space.now(); err != nil {
			return err
		}
	}
	fs := s.cfg.FS
	name := fs.PathJoin(s.cfg.Dir, probeFile)
	f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("create %s: %w", name, err)
	}
	_, err = f.Write(make([]byte, probeBytes))
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close(), fs.Remove(name))
}

// reopen begins the next life: it closes the parts, opens them anew and loads
// what is kept in memory. After an error the store is down: no part is open
// and every method gives ErrFailed until the next attempt.
func (s *Store) reopen(cause error) error {
	s.disk.release()
	s.life.Lock()
	defer s.life.Unlock()
	start := time.Now()
	if s.down == nil {
		s.down = cause
		s.stopTidy()
		s.janitors.Wait()
		// Their errors are those of the failed disk.
		_ = errors.Join(s.syncer.suspend(), s.closeParts())
	}
	s.disk = s.newDisk()
	if err := s.openParts(); err != nil {
		return errors.Join(err, s.closeParts())
	}
	lost := s.syncer.resume()
	s.startJanitor()
	s.down = nil
	s.lives++
	s.changes.Add(1) // some may be taken back
	close(s.recovered)
	s.recovered = make(chan struct{})
	s.metrics.failed.Set(0)
	s.metrics.recoveries.Inc()
	publishers, t := s.sizes()
	s.cfg.Logger.Info("reopened store", "dir", s.cfg.Dir, "publishers", publishers, "records", t.records,
		"mhs", t.postings, "frozen", s.frozen.Load(), "lost", lost, "elapsed", time.Since(start))
	return nil
}

// enter is enterWrite for a writer: one that was begun in an earlier life may
// stand on what that life has lost.
func (w *AdWriter) enter() error {
	if err := w.s.enterWrite(); err != nil {
		return err
	}
	if w.life != w.s.lives {
		w.s.exit()
		return fmt.Errorf("ad %s was begun before the store recovered, begin it again: %w", w.ad.Ad, ErrFailed)
	}
	return nil
}
