package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
// It also waits until all who follow the keys (keys.go) have those of the commits, which
// is a few milliseconds, and two seconds if one of them is gone.
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
	disk    *failStop     // of this life
	lost    []span        // commits that failures have lost, ascending

	reading sync.RWMutex     // held while the snapshot is read, or replaced
	snap    *pebble.Snapshot // the durable state
	dying   []dying          // by commits that are not durable
}

// span is the commits with from < Seq ≤ to.
type span struct{ from, to Seq }

// maxLost bounds how many spans are remembered. Of the two oldest one is made,
// so that of the commits between them, long forgotten by everybody, the answer
// is ErrFailed too.
const maxLost = 100

// dying are record IDs that are dead once a commit is durable.
type dying struct {
	seq Seq
	ids []uint64
}

func startSyncer(s *Store) *syncer {
	y := &syncer{s: s, kick: make(chan struct{}, 1), moved: make(chan struct{})}
	y.start()
	return y
}

// start begins a life: what is in the database is durable.
func (y *syncer) start() {
	y.disk, y.snap = y.s.disk, y.s.db.NewSnapshot()
	y.quit, y.done = make(chan struct{}), make(chan struct{})
	go y.run()
}

// suspend ends the background work of a life that failed. The caller holds
// Store.life, as for resume.
func (y *syncer) suspend() error {
	close(y.quit)
	<-y.done
	snap := y.snap
	y.snap = nil
	return snap.Close()
}

// resume begins the next life, and returns how many commits the one before had
// that are lost. Numbers go on behind theirs.
func (y *syncer) resume() (lost Seq) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.start()
	y.unsynced.Store(0)
	y.dying, y.waiting, y.syncing = nil, time.Time{}, time.Time{}
	lost = y.seq - y.durable
	if lost > 0 {
		y.lost = append(y.lost, span{y.durable, y.seq})
		if len(y.lost) > maxLost {
			y.lost[1].from = y.lost[0].from
			y.lost = slices.Delete(y.lost, 0, 1)
		}
	}
	y.durable = y.seq
	close(y.moved)
	y.moved = make(chan struct{})
	return lost
}

// wasLost tells whether a failure has lost a commit. The caller holds mu.
func (y *syncer) wasLost(seq Seq) bool {
	return slices.ContainsFunc(y.lost, func(l span) bool { return l.from < seq && seq <= l.to })
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
		y.s.wakeMove()
	}
}

// wrote counts bytes that went to the log.
func (y *syncer) wrote(n int) {
	if y.unsynced.Add(int64(n)) >= y.s.cfg.SyncBytes {
		y.soon()
	}
}

// soon has the syncer sync without waiting for its time.
func (y *syncer) soon() {
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
	keys := y.s.tail.end()
	pos, err := y.s.log.Sync()
	if err == nil {
		err = y.s.disk.err()
	}
	if err != nil {
		return errors.Join(err, snap.Close())
	}
	y.s.isSafe(pos)
	y.s.metrics.syncSeconds.Observe(time.Since(start).Seconds())
	start = time.Now()
	y.s.tail.await(keys, y.quit)
	y.s.metrics.followSeconds.Observe(time.Since(start).Seconds())
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
	if !y.syncing.IsZero() {
		y.s.metrics.durableSeconds.Observe(time.Since(y.syncing).Seconds())
	}
	y.durable, y.syncing = seq, time.Time{}
	close(y.moved)
	y.moved = make(chan struct{})
	for len(y.dying) > 0 && y.dying[0].seq <= seq {
		y.s.dead.add(y.dying[0].ids)
		y.dying = y.dying[1:]
	}
	return old
}

// stop ends the background work for good and wakes all who wait.
func (y *syncer) stop() (err error) {
	y.reading.RLock()
	running := y.snap != nil // false after a failure that was not recovered from
	y.reading.RUnlock()
	if running {
		err = y.suspend()
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	y.stopped = true
	close(y.moved)
	return err
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
// before, less those of which WaitDurable says ErrFailed.
func (s *Store) Durable() Seq {
	s.syncer.mu.RLock()
	defer s.syncer.mu.RUnlock()
	return s.syncer.durable
}

// WaitDurable returns nil when commit seq and all before are durable, less
// those that a failure has lost. It does not hasten the sync. Errors: ctx's;
// ErrFailed when the commit is lost, or not durable yet in a store that has
// failed; ErrClosed.
func (s *Store) WaitDurable(ctx context.Context, seq Seq) error {
	y := s.syncer
	for {
		y.mu.RLock()
		durable, lost, stopped, moved, disk := y.durable, y.wasLost(seq), y.stopped, y.moved, y.disk
		y.mu.RUnlock()
		if lost {
			return fmt.Errorf("commit %d was lost: %w", seq, ErrFailed)
		}
		if durable >= seq {
			return nil
		}
		if err := disk.err(); err != nil {
			return err
		}
		if stopped {
			return ErrClosed
		}
		select {
		case <-moved:
		case <-disk.failed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// SyncSoon has all commits made before the call made durable as soon as the disk
// allows, and does not wait for it. Callers that then use WaitDurable share a
// sync with all who commit while the one before it is under way.
func (s *Store) SyncSoon() { s.syncer.soon() }

// Flush hands all commits made before the call to the operating system, so that
// they survive the end of the process, however sudden. Power loss needs more:
// see Durable. It does not wait for the disk.
func (s *Store) Flush() error {
	if err := s.enterWrite(); err != nil {
		return err
	}
	defer s.exit()
	if err := s.log.Flush(); err != nil {
		return fmt.Errorf("flush store: %w", err)
	}
	return nil
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
