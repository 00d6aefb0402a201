package indexer

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/signpost-index/signpost/ingest"
	"github.com/signpost-index/signpost/store"
)

// reindexRetry is when a reindex that could not be begun, or failed, is begun
// again.
const reindexRetry = time.Minute

// todo is what one look at all publishers finds to be done.
type todo struct {
	ask     []peer.AddrInfo
	remove  []peer.ID
	reindex []peer.ID
	forget  []peer.ID
	next    time.Time // when to look again

	well, frozen bool // silence counts; the node takes no content
	asking       int  // polls under way
}

// look does what is due and says when to look again.
func (b *publisherBook) look(ctx context.Context, now time.Time) time.Time {
	b.meet(now)
	running := b.syncs.reindexing()
	t := b.find(now, running)
	for _, id := range t.forget {
		b.syncs.forget(id)
	}
	for _, info := range t.ask {
		b.ask(info, now)
	}
	for _, id := range t.reindex {
		b.reindex(id, now, running)
	}
	b.remove(ctx, t.remove, now)
	if len(t.remove) > 0 {
		return now // there may be more
	}
	return t.next
}

// find decides what is to be done about each publisher.
func (b *publisherBook) find(now time.Time, running map[peer.ID]bool) todo {
	var ids []peer.ID
	b.mu.Lock()
	for id := range b.entries {
		ids = append(ids, id)
	}
	b.mu.Unlock()
	slices.Sort(ids)
	followed := make(map[peer.ID]bool, len(ids))
	for _, id := range ids {
		followed[id] = b.allow(id) == nil
	}
	frozen := b.store.Frozen()

	t := todo{next: now.Add(lookMax)}
	b.mu.Lock()
	defer b.mu.Unlock()
	t.well, t.frozen, t.asking = b.judge(now), frozen, b.asking(now)
	phases := make(map[store.Phase]int)
	for _, id := range ids {
		e := b.entries[id]
		if e == nil {
			continue // read again meanwhile
		}
		if followed[id] && !e.notBefore.After(now) {
			if b.endless(e, now) && !running[id] {
				e.failures = 0
				t.forget = append(t.forget, id)
			}
			b.decide(&t, id, e, now)
		}
		phases[e.st.Phase]++
	}
	b.showInactive()
	b.metrics.show(phases)
	return t
}

// decide adds what is to be done about one publisher. The caller holds mu.
func (b *publisherBook) decide(t *todo, id peer.ID, e *publisherEntry, now time.Time) {
	c := b.cfg.of(id, e.st)
	action, when := nextPoll(e.st, c, now)
	switch action {
	case pollDeactivate:
		if !t.well {
			action, when = askAt(e.st.Tried.Add(c.later(c.Retry)), now)
			break
		}
		e.st.Phase, e.dirty = store.PhaseInactive, true
		b.log.Warn("publisher is inactive: its providers are hidden", "publisher", id, "silent", e.st.Silent, "lastContact", e.st.Contact)
	case pollRemove:
		// A frozen node could not take the content again.
		if !t.well || t.frozen || len(t.remove) >= removalsAtOnce {
			action, when = askAt(e.st.Tried.Add(c.later(c.Retry)), now)
			break
		}
		t.remove = append(t.remove, id)
	case pollReindex:
		t.reindex = append(t.reindex, id)
		t.next = now
	case pollBury:
		e.st.Addrs, e.dirty = nil, true
	}
	switch {
	case action == pollWait && !when.IsZero() && when.Before(t.next):
		t.next = when
	case action == pollAsk && e.asked.IsZero() && t.asking < pollsAtOnce:
		t.asking++
		e.asked = now
		t.ask = append(t.ask, peer.AddrInfo{ID: id, Addrs: multiaddrs(e.st.Addrs)})
	}
}

// asking counts the polls under way, and ends those nothing was heard of. The
// caller holds mu.
func (b *publisherBook) asking(now time.Time) (n int) {
	for _, e := range b.entries {
		if !e.asked.IsZero() && now.Sub(e.asked) >= pollPatience {
			// It answered nothing about its head: being synced, it is asked again
			// when that is over.
			e.asked, e.notBefore = time.Time{}, now.Add(pollPatience)
		}
		if !e.asked.IsZero() {
			n++
		}
	}
	return n
}

// endless says whether ingest goes on trying to reach a silent publisher,
// which is what polling is for. The caller holds mu.
func (b *publisherBook) endless(e *publisherEntry, now time.Time) bool {
	return e.failures >= failuresOfSilent && b.cfg.Interval > 0 && now.Sub(e.st.Contact) >= b.cfg.Interval &&
		e.st.Phase != store.PhaseReturning
}

// ask polls one publisher.
func (b *publisherBook) ask(info peer.AddrInfo, now time.Time) {
	b.metrics.polls.Inc()
	err := b.syncs.poll(info)
	if err == nil {
		return
	}
	b.log.Debug("publisher not polled", "publisher", info.ID, "err", err)
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.entries[info.ID]; e != nil {
		e.asked = time.Time{}
		e.notBefore = now.Add(reindexRetry)
		if errors.Is(err, ingest.ErrUnknownPublisher) {
			// There is nowhere to ask: that is no silence.
			c := b.cfg.of(info.ID, e.st)
			e.notBefore = now.Add(c.Retry)
		}
	}
}

// reindex begins to index a publisher that has returned, or finds that this is
// done. It is done when a resync has ended without an error since the removal;
// after a restart in the middle it begins anew.
func (b *publisherBook) reindex(id peer.ID, now time.Time, running map[peer.ID]bool) {
	b.mu.Lock()
	e := b.entries[id]
	begun := e.reindexed
	b.mu.Unlock()
	switch {
	case !begun.IsZero() && running[id]:
		return
	case !begun.IsZero() && b.syncs.reindexed(id, begun):
		b.mu.Lock()
		defer b.mu.Unlock()
		if e.reindexed.Equal(begun) && e.st.Phase == store.PhaseReturning {
			e.st.Phase, e.st.Addrs, e.reindexed, e.dirty = store.PhaseActive, nil, time.Time{}, true
			b.log.Info("returned publisher is indexed again", "publisher", id, "elapsed", now.Sub(begun))
		}
		return
	}
	err := b.syncs.reindex(id)
	b.mu.Lock()
	defer b.mu.Unlock()
	e.reindexed = time.Time{}
	switch {
	case err == nil:
		e.reindexed = now
	case errors.Is(err, ingest.ErrUnknownPublisher):
		// Its address is stored in a moment.
	default:
		e.notBefore = now.Add(reindexRetry)
		b.log.Warn("reindex of a returned publisher not begun; will be tried again", "publisher", id, "err", err)
	}
}

// remove removes what publishers that are silent for too long have published.
func (b *publisherBook) remove(ctx context.Context, ids []peer.ID, now time.Time) {
	if len(ids) == 0 {
		return
	}
	byPublisher, err := b.store.ProvidersByPublisher()
	if err != nil {
		b.log.Error("silent publishers are not removed; will be tried again", "err", err)
		return
	}
	removed := b.removed()
	var left []peer.ID // of publishers removed before, which somebody else published for
	for id := range removed {
		left = append(left, byPublisher[id]...)
	}
	for _, id := range ids {
		gone := func(p peer.ID) bool { return p == id || removed[p] }
		if err := b.removeOne(ctx, id, append(slices.Clone(left), byPublisher[id]...), gone, now); err != nil {
			if ctx.Err() == nil {
				b.log.Error("silent publisher is not removed; will be tried again", "publisher", id, "err", err)
			}
			return
		}
		removed[id] = true
		left = append(left, byPublisher[id]...)
	}
}

// removed is the set of publishers that are removed, and do not answer.
func (b *publisherBook) removed() map[peer.ID]bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	set := make(map[peer.ID]bool)
	for id, e := range b.entries {
		if e.st.Phase == store.PhaseRemoved {
			set[id] = true
		}
	}
	return set
}

// removeOne removes one publisher, unless it is heard from meanwhile. The
// store's row says that it is removed in the same batch that removes its
// providers: so each is removed once, whenever the node is killed.
func (b *publisherBook) removeOne(ctx context.Context, id peer.ID, candidates []peer.ID, gone func(peer.ID) bool, now time.Time) error {
	var providers []peer.ID
	for _, p := range candidates {
		only, err := b.store.ServedOnlyBy(ctx, p, gone)
		if err != nil {
			return err
		}
		if only {
			providers = append(providers, p)
		}
	}
	st, done, err := b.store.RetirePublisher(id, providers, gone, now, func(stored store.PublisherState) bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		e := b.entries[id]
		if e == nil || stored.Phase == store.PhaseRemoved && e.st.Phase != store.PhaseReturning {
			return false
		}
		action, _ := nextPoll(e.st, b.cfg.of(id, e.st), now)
		return action == pollRemove
	})
	if err != nil || !done {
		return err
	}
	b.metrics.removed.Inc()
	b.log.Warn("silent publisher removed, with the providers only it published for", "publisher", id, "providers", len(providers), "lastContact", st.Contact)
	b.mu.Lock()
	e := b.entry(id, now)
	returned := e.st.Silent == 0
	contact := e.st.Contact
	e.st, e.reindexed, e.failures = st, time.Time{}, 0
	if returned { // while it was being removed
		e.st.Phase, e.st.Contact, e.st.Silent, e.dirty = store.PhaseReturning, contact, 0, true
	}
	b.showInactive()
	b.mu.Unlock()
	if !returned {
		b.syncs.forget(id)
	}
	return b.revisitLeaning()
}

// revisitLeaning wakes the publishers of which ads are to be looked at again:
// those whose ads stood as those of one removed, or were skipped.
func (b *publisherBook) revisitLeaning() error {
	ids, err := b.store.Revisits()
	for _, id := range ids {
		if err := b.syncs.poll(peer.AddrInfo{ID: id}); err != nil {
			b.log.Debug("publisher is looked at again later", "publisher", id, "err", err)
		}
	}
	return err
}

// multiaddrsOf is a publisher's known addresses, those of its tombstone if
// there are none.
func multiaddrsOf(st *store.Store, info peer.AddrInfo) []multiaddr.Multiaddr {
	if known := multiaddrs(st.PublisherAddrs(info.ID)); len(known) > 0 {
		return nil // ingest knows them
	}
	return info.Addrs
}
