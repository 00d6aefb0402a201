package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// syncer makes commits durable in the background: every SyncEvery, or after
// SyncBytes, it syncs the write-ahead log and then moves the watermark.
//
//	commits   1 2 3 4 5 6 7 8
//	                ▲       ▲
//	         durable         applied; visible to Find
//
// The log is replayed as a prefix, so what is durable is exactly the state of
// the store when the sync began. The syncer keeps a snapshot of that state,
// which is what DurableProgress and AdState.Durable read.
type syncer struct {
	s *Store

	one sync.Mutex // held during a sync

	seq      Seq // last commit; guarded by Store.mu
	unsynced atomic.Int64
	kick     chan struct{}
	quit     chan struct{}
	done     chan struct{}

	mu      sync.RWMutex
	durable Seq
	waiting time.Time     // when the oldest commit after the last sync began was made; zero: none
	syncing time.Time     // the same for the sync under way
	moved   chan struct{} // closed and replaced when durable moves
	stopped bool          // durable will not move again

	reading sync.RWMutex     // held while the snapshot is read, or replaced
	snap    *pebble.Snapshot // the durable state
	dying   []dying          // by commits that are not durable
}

// dying are record IDs that are dead once a commit is durable.
type dying struct {
	seq Seq
	ids []uint64
}

func startSyncer(s *Store) *syncer {
	y := &syncer{
		s:     s,
		kick:  make(chan struct{}, 1),
		quit:  make(chan struct{}),
		done:  make(chan struct{}),
		snap:  s.db.NewSnapshot(),
		moved: make(chan struct{}),
	}
	go y.run()
	return y
}

func (y *syncer) run() {
	defer close(y.done)
	tick := time.NewTicker(y.s.cfg.SyncEvery)
	defer tick.Stop()
	for {
		select {
		case <-y.quit:
			return
		case <-tick.C:
		case <-y.kick:
		}
		y.s.space.refresh() // room may come back while nobody puts
		if y.unsynced.Load() > 0 {
			_ = y.sync() // the failure was logged where it happened
		}
		select {
		case y.s.tidy <- struct{}{}:
		default:
		}
		y.s.wakeReclaim()
	}
}

// wrote counts bytes that went to the log.
func (y *syncer) wrote(n int) {
	if y.unsynced.Add(int64(n)) < y.s.cfg.SyncBytes {
		return
	}
	select {
	case y.kick <- struct{}{}:
	default:
	}
}

// committed numbers a commit that was just applied, and notes which record IDs
// are dead once it is durable. The caller holds Store.mu.
func (y *syncer) committed(dead []uint64) Seq {
	y.seq++
	y.mu.Lock()
	defer y.mu.Unlock()
	if len(dead) > 0 {
		y.dying = append(y.dying, dying{y.seq, dead})
	}
	if y.waiting.IsZero() {
		y.waiting = time.Now()
	}
	return y.seq
}

// sync makes everything applied so far durable.
func (y *syncer) sync() error {
	y.one.Lock()
	defer y.one.Unlock()
	start := time.Now()
	seq, snap := y.capture()
	_, err := y.s.log.Sync()
	if err == nil {
		err = y.s.disk.err()
	}
	if err != nil {
		return errors.Join(err, snap.Close())
	}
	y.s.metrics.syncSeconds.Observe(time.Since(start).Seconds())
	return y.publish(seq, snap).Close()
}

// capture takes a snapshot of what the sync will cover: what is visible in it
// has its place in the log already.
func (y *syncer) capture() (Seq, *pebble.Snapshot) {
	y.s.mu.Lock()
	defer y.s.mu.Unlock()
	y.unsynced.Store(0)
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.syncing.IsZero() { // else the last sync failed
		y.syncing = y.waiting
	}
	y.waiting = time.Time{}
	return y.seq, y.s.db.NewSnapshot()
}

// publish moves the watermark, the snapshot first, and returns the snapshot it
// replaces.
func (y *syncer) publish(seq Seq, snap *pebble.Snapshot) *pebble.Snapshot {
	y.reading.Lock()
	old := y.snap
	y.snap = snap
	y.reading.Unlock()
	y.mu.Lock()
	defer y.mu.Unlock()
	y.durable, y.syncing = seq, time.Time{}
	close(y.moved)
	y.moved = make(chan struct{})
	for len(y.dying) > 0 && y.dying[0].seq <= seq {
		y.s.dead.add(y.dying[0].ids)
		y.dying = y.dying[1:]
	}
	return old
}

// stop ends the background work and wakes all who wait.
func (y *syncer) stop() error {
	close(y.quit)
	<-y.done
	y.mu.Lock()
	defer y.mu.Unlock()
	y.stopped = true
	close(y.moved)
	return y.snap.Close()
}

// lag is the age of the oldest commit that is not durable.
func (y *syncer) lag() time.Duration {
	y.mu.RLock()
	defer y.mu.RUnlock()
	for _, t := range []time.Time{y.syncing, y.waiting} {
		if !t.IsZero() {
			return time.Since(t)
		}
	}
	return 0
}

// read runs fn on the durable state.
func (y *syncer) read(fn func(pebble.Reader) error) error {
	y.reading.RLock()
	defer y.reading.RUnlock()
	return fn(y.snap)
}

// Durable returns the last commit that survives power loss, and with it all
// before.
func (s *Store) Durable() Seq {
	s.syncer.mu.RLock()
	defer s.syncer.mu.RUnlock()
	return s.syncer.durable
}

// WaitDurable returns nil when commit seq and all before are durable. It does
// not hasten the sync. Errors: ctx's, ErrFailed when that will not happen any
// more, ErrClosed.
func (s *Store) WaitDurable(ctx context.Context, seq Seq) error {
	y := s.syncer
	for {
		y.mu.RLock()
		durable, stopped, moved := y.durable, y.stopped, y.moved
		y.mu.RUnlock()
		if durable >= seq {
			return nil
		}
		if err := s.disk.err(); err != nil {
			return err
		}
		if stopped {
			return ErrClosed
		}
		select {
		case <-moved:
		case <-s.disk.failed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Sync makes all commits made before the call durable.
func (s *Store) Sync() error {
	if err := s.enterWrite(); err != nil {
		return err
	}
	defer s.exit()
	if err := s.syncer.sync(); err != nil {
		return fmt.Errorf("sync store: %w", err)
	}
	return nil
}
