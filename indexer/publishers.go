package indexer

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/store"
)

const (
	// pollsAtOnce bounds the polls under way, and pollPatience is after what time
	// one counts as over, if nothing was heard of it: its publisher is being
	// synced already.
	pollsAtOnce  = 32
	pollPatience = 2 * time.Minute
	// failuresOfSilent is after how many failures in a row what is under way with
	// a silent publisher is ended, as polling takes over: ingest would go on
	// every few minutes.
	failuresOfSilent = 4
	// saveEvery is how old a contact or failure on disk may be.
	saveEvery = 10 * time.Minute
	// lookMin and lookMax bound the time between two looks at all publishers.
	lookMin, lookMax = time.Second, time.Minute
	// removalsAtOnce bounds the removals of one look.
	removalsAtOnce = 256
)

// syncs is what the book of publishers asks of ingest; see syncer.go.
type syncs interface {
	// poll has the head of a publisher fetched; reached tells how that went.
	poll(info peer.AddrInfo) error
	// reindex applies the publisher's chain again from the first ad.
	reindex(publisher peer.ID) error
	// reindexing lists the publishers of which that is running.
	reindexing() map[peer.ID]bool
	// reindexed tells whether one begun at since, and not running any more, was
	// successful.
	reindexed(publisher peer.ID, since time.Time) bool
	// forget ends what is under way.
	forget(publisher peer.ID)
}

// publisherBook knows of each publisher whether it is heard from, polls the
// silent ones, and removes those that are silent for too long.
//
// What it knows is in memory, and on disk as the store's publisher states. Only
// its loop removes and changes phases, but for reached, which brings
// publishers back. mu is never held while the store or ingest is asked.
type publisherBook struct {
	store   *store.Store
	syncs   syncs
	allow   func(peer.ID) error
	cfg     PollConfig
	log     *slog.Logger
	metrics *pollMetrics
	now     func() time.Time
	wake    chan struct{} // capacity 1: look again

	inactive atomic.Pointer[map[peer.ID]bool] // never nil once opened

	mu      sync.Mutex
	entries map[peer.ID]*publisherEntry
	started time.Time // silence before is not counted
	well    time.Time // since when half are reached; zero: they are not
	judged  time.Time // when that was found
}

// publisherEntry is what is known of one publisher.
type publisherEntry struct {
	st        store.PublisherState
	saved     time.Time // contact or failure on disk
	dirty     bool      // to be saved
	last      outcome
	failures  int       // in a row
	asked     time.Time // a poll is under way since
	notBefore time.Time // nothing is begun
	reindexed time.Time // a reindex was begun
}

// openBook reads what is on disk. now is time.Now, but for tests.
func openBook(st *store.Store, syncs syncs, allow func(peer.ID) error, cfg PollConfig, log *slog.Logger, now func() time.Time) (*publisherBook, error) {
	b := &publisherBook{
		store: st, syncs: syncs, allow: allow, cfg: cfg.withDefaults(), log: log, now: now,
		metrics: newPollMetrics(), wake: make(chan struct{}, 1), started: now(),
	}
	return b, b.load()
}

// load begins with what is on disk.
func (b *publisherBook) load() error {
	states, err := b.store.PublisherStates()
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.entries
	b.entries = make(map[peer.ID]*publisherEntry, len(states))
	for id, st := range states {
		e := &publisherEntry{st: st, saved: st.Contact}
		if known := old[id]; known != nil {
			e.last = known.last
		}
		b.entries[id] = e
	}
	b.showInactive()
	return nil
}

// entry returns what is known of a publisher, and makes it if there is
// nothing: it then counts as heard from now. The caller holds mu.
func (b *publisherBook) entry(id peer.ID, now time.Time) *publisherEntry {
	e := b.entries[id]
	if e == nil {
		e = &publisherEntry{st: store.PublisherState{Contact: now}}
		b.entries[id] = e
	}
	return e
}

// reached takes note that the head of a publisher was fetched, or tried in
// vain. Of a publisher not known a failure says nothing: anybody can announce
// anybody.
func (b *publisherBook) reached(id peer.ID, err error) {
	if errors.Is(err, context.Canceled) || errors.Is(err, store.ErrFailed) {
		return // not its fault
	}
	now := b.now()
	b.mu.Lock()
	if err == nil {
		b.heard(id, b.entry(id, now), now)
	} else if e := b.entries[id]; e != nil {
		e.asked, e.last = time.Time{}, outcome{at: now}
		e.failures++
		e.st = unreached(e.st, b.cfg.of(id, e.st), b.counting(now), now)
		e.dirty = e.dirty || now.Sub(e.saved) >= saveEvery
	}
	b.mu.Unlock()
	b.rouse()
}

// heard notes a contact. The caller holds mu.
func (b *publisherBook) heard(id peer.ID, e *publisherEntry, now time.Time) {
	e.asked, e.last, e.failures = time.Time{}, outcome{at: now, reached: true}, 0
	e.dirty = e.dirty || e.st.Silent > 0 || now.Sub(e.saved) >= saveEvery
	e.st.Contact, e.st.Silent = now, 0
	switch e.st.Phase {
	case store.PhaseInactive:
		e.st.Phase, e.dirty = store.PhaseActive, true
		b.showInactive()
		b.log.Info("inactive publisher is heard from again", "publisher", id)
	case store.PhaseRemoved:
		e.st.Phase, e.dirty = store.PhaseReturning, true
		b.log.Info("removed publisher has returned, its chain is indexed again", "publisher", id)
	}
}

// counting is since when silence counts without a break; zero: it does not.
// The caller holds mu.
func (b *publisherBook) counting(now time.Time) time.Time {
	if now.Sub(b.judged) >= time.Second || b.well.IsZero() {
		b.judge(now)
	}
	if b.well.IsZero() || b.well.After(b.started) {
		return b.well
	}
	return b.started
}

// judge finds out whether half of the publishers tried lately were reached.
// The caller holds mu.
func (b *publisherBook) judge(now time.Time) bool {
	outcomes := func(yield func(outcome) bool) {
		for _, e := range b.entries {
			if e.st.Phase != store.PhaseRemoved && !e.last.at.IsZero() && !yield(e.last) {
				return
			}
		}
	}
	b.judged = now
	switch ok := reachedHalf(outcomes, now.Add(-b.cfg.recent())); {
	case !ok && !b.well.IsZero():
		b.log.Warn("less than half of the publishers tried were reached: silence does not count until they are")
		b.well = time.Time{}
	case ok && b.well.IsZero():
		b.well = now
	}
	return !b.well.IsZero()
}

// showInactive makes the set that lookups ask. The caller holds mu.
func (b *publisherBook) showInactive() {
	set := make(map[peer.ID]bool)
	for id, e := range b.entries {
		if e.st.Phase == store.PhaseInactive {
			set[id] = true
		}
	}
	b.inactive.Store(&set)
}

// isInactive says whether what a publisher published is hidden.
func (b *publisherBook) isInactive(publisher peer.ID) bool { return (*b.inactive.Load())[publisher] }

// isGone says whether a publisher is removed, or not indexed again yet: then
// what the ledger says of its ads is no reason to pass over an announce.
func (b *publisherBook) isGone(publisher peer.ID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.entries[publisher]
	return e != nil && (e.st.Phase == store.PhaseRemoved || e.st.Phase == store.PhaseReturning)
}

// assigned begins anew with a publisher: what it was silent while it was not
// asked does not count.
func (b *publisherBook) assigned(id peer.ID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.entry(id, b.now())
	e.st.Contact, e.st.Silent, e.dirty = b.now(), 0, true
	b.rouse()
}

// forget ends what is under way with a publisher. A reindex begins again if
// the publisher may be followed again.
func (b *publisherBook) forget(id peer.ID) {
	b.mu.Lock()
	if e := b.entries[id]; e != nil {
		e.reindexed, e.asked = time.Time{}, time.Time{}
	}
	b.mu.Unlock()
	b.syncs.forget(id)
}

// setPolling changes how one publisher is polled. It is on disk when it
// returns nil; known is false if there is no such publisher.
func (b *publisherBook) setPolling(id peer.ID, interval, retry time.Duration) (known bool, err error) {
	if _, known := b.snapshot()[id]; !known {
		return false, nil
	}
	_, err = b.store.UpdatePublisherState(id, func(st *store.PublisherState) {
		st.PollInterval, st.PollRetry = interval, retry
	})
	if err == nil {
		err = b.store.Sync()
	}
	if err != nil {
		return true, err
	}
	b.mu.Lock()
	e := b.entry(id, b.now())
	e.st.PollInterval, e.st.PollRetry, e.dirty = interval, retry, true // what it did not have on disk yet
	b.mu.Unlock()
	b.rouse()
	return true, nil
}

// snapshot is the state of all publishers the node knows.
func (b *publisherBook) snapshot() map[peer.ID]store.PublisherState {
	b.meet(b.now())
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make(map[peer.ID]store.PublisherState, len(b.entries))
	for id, e := range b.entries {
		all[id] = e.st
	}
	return all
}

// meet makes entries of publishers that are new in the store.
func (b *publisherBook) meet(now time.Time) {
	publishers := b.store.Publishers()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range publishers {
		b.entry(id, now)
	}
}

// rouse has the loop look again.
func (b *publisherBook) rouse() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// run looks after the publishers until ctx ends, and saves what it knows.
func (b *publisherBook) run(ctx context.Context) error {
	recovered := b.store.Recovered()
	for {
		next := b.look(ctx, b.now())
		b.save()
		wait := min(max(next.Sub(b.now()), lookMin), lookMax)
		// Two looks are never closer than lookMin, however often it is woken.
		if !pause(ctx, lookMin, nil) || !pause(ctx, wait-lookMin, b.wake) {
			b.save()
			return nil
		}
		select {
		case <-recovered:
			again := b.store.Recovered()
			if err := b.load(); err != nil { // what was not durable is lost
				b.log.Error("publishers are not read after a recovery; will be tried again", "err", err)
				continue
			}
			recovered = again
		default:
		}
	}
}

// pause waits for d or early; false means that ctx has ended.
func pause(ctx context.Context, d time.Duration, early <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-early:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// save writes what has changed.
func (b *publisherBook) save() {
	b.mu.Lock()
	changed := make(map[peer.ID]store.PublisherState)
	for id, e := range b.entries {
		if e.dirty {
			changed[id] = e.st
			e.dirty = false
		}
	}
	b.mu.Unlock()
	for id, now := range changed {
		_, err := b.store.UpdatePublisherState(id, func(st *store.PublisherState) {
			now.PollInterval, now.PollRetry = st.PollInterval, st.PollRetry // setPolling's
			*st = now
		})
		if err == nil {
			b.noteSaved(id, now)
			continue
		}
		if !errors.Is(err, store.ErrClosed) {
			b.log.Error("publisher states are not saved; will be tried again", "err", err)
		}
		b.mu.Lock()
		for id := range changed {
			if e := b.entries[id]; e != nil {
				e.dirty = true
			}
		}
		b.mu.Unlock()
		return
	}
}

func (b *publisherBook) noteSaved(id peer.ID, st store.PublisherState) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.entries[id]; e != nil {
		e.saved = st.Contact
		if st.Tried.After(e.saved) {
			e.saved = st.Tried
		}
	}
}
