package indexer

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
	"github.com/signpost-index/signpost/store"
)

// markStride is the room above everything known of a publisher at which an ad
// that is not known is marked; as ingest leaves between two scans.
const markStride = store.Position(1) << 32

// The bounds of what may be set for one publisher.
const (
	minPolling = admin.Duration(time.Second)
	maxPolling = admin.Duration(10 * 365 * 24 * time.Hour)
)

// localRegistry is whom the node knows, as an admin.Registry.
type localRegistry struct{ ix *Indexer }

// Registry is whom the node knows, as its operator sees it.
func (ix *Indexer) Registry() admin.Registry { return localRegistry{ix} }

// loadPolicy begins with the policy on disk.
func (ix *Indexer) loadPolicy() error {
	b, err := ix.store.Policy()
	if err != nil {
		return err
	}
	rules := strictPolicy()
	if b != nil {
		rules = admin.Policy{}
		if err := json.Unmarshal(b, &rules); err != nil {
			return fmt.Errorf("read policy: %w: %w", store.ErrCorrupt, err)
		}
	}
	rules.Publish = rules.Publish || ix.cfg.AnyPublisher
	p, err := newPolicy(rules)
	if err != nil {
		return fmt.Errorf("read policy: %w", err)
	}
	ix.policy.Store(p)
	return nil
}

// changePolicy stores what change makes of the rules, puts it into effect, and
// ends the syncs of publishers that are blocked by it.
func (ix *Indexer) changePolicy(change func(admin.Policy) admin.Policy) error {
	ix.policing.Lock()
	defer ix.policing.Unlock()
	before := ix.policy.Load()
	rules := change(before.rules)
	if ix.cfg.AnyPublisher && !rules.Publish {
		return fmt.Errorf("%w: this node runs with --any-publisher, so Publish is true", admin.ErrBadRequest)
	}
	p, err := newPolicy(rules)
	if err != nil {
		return err
	}
	b, err := json.Marshal(rules)
	if err != nil {
		return err
	}
	if err := ix.store.SetPolicy(b); err != nil {
		return err
	}
	ix.policy.Store(p)
	for id := range ix.book.snapshot() {
		if before.allowed(id) && !p.allowed(id) {
			ix.book.forget(id)
		}
	}
	for id := range p.allowExcept {
		if before.allowed(id) && !p.allowed(id) {
			ix.book.forget(id) // a stranger's first sync, too
		}
	}
	ix.log.Warn("policy changed on request", "policy", string(b[:min(len(b), 1000)]))
	return nil
}

func (r localRegistry) Policy(context.Context) (admin.Policy, error) {
	return r.ix.policy.Load().rules, nil
}

func (r localRegistry) SetPolicy(_ context.Context, rules admin.Policy) error {
	return r.ix.changePolicy(func(admin.Policy) admin.Policy { return rules })
}

func (r localRegistry) Allow(_ context.Context, id peer.ID) error {
	return r.ix.changePolicy(func(p admin.Policy) admin.Policy { return withAllowed(p, id, true) })
}

func (r localRegistry) Block(_ context.Context, id peer.ID) error {
	return r.ix.changePolicy(func(p admin.Policy) admin.Policy { return withAllowed(p, id, false) })
}

func (r localRegistry) Publishers(context.Context) ([]admin.Publisher, error) {
	states := r.ix.book.snapshot()
	out := make([]admin.Publisher, 0, len(states))
	now := time.Now()
	for id, st := range states {
		out = append(out, r.ix.publisherInfo(id, st, now))
	}
	slices.SortFunc(out, func(a, b admin.Publisher) int { return cmp.Compare(a.ID.String(), b.ID.String()) })
	return out, nil
}

func (r localRegistry) Publisher(_ context.Context, id peer.ID) (admin.Publisher, error) {
	st, ok := r.ix.book.snapshot()[id]
	if !ok {
		return admin.Publisher{}, fmt.Errorf("publisher %w", admin.ErrNotFound)
	}
	return r.ix.publisherInfo(id, st, time.Now()), nil
}

// publisherInfo renders what is known of a publisher.
func (ix *Indexer) publisherInfo(id peer.ID, st store.PublisherState, now time.Time) admin.Publisher {
	progress := ix.store.DurableProgress(id)
	text, at := ix.store.PublisherError(id)
	p := admin.Publisher{
		ID: id, State: st.Phase.String(), Allowed: ix.allow(id) == nil,
		Addrs:       ix.store.PublisherAddrs(id),
		LastContact: st.Contact.UTC(), LastFailure: utc(st.Tried), Silent: admin.Duration(st.Silent),
		Polling:  admin.Polling{Interval: admin.Duration(st.PollInterval), Retry: admin.Duration(st.PollRetry)},
		MarkTime: utc(progress.MarkTime), Pending: progress.Pending,
		Removed: utc(st.Removed), Removals: st.Removals,
		LastError: text, LastErrorTime: utc(at),
	}
	if len(p.Addrs) == 0 {
		p.Addrs = st.Addrs
	}
	if p.State == store.PhaseActive.String() && st.Tried.After(st.Contact) {
		p.State = "polled"
	}
	action, when := nextPoll(st, ix.book.cfg.of(id, st), now)
	if p.Allowed && (action == pollWait || action == pollAsk) {
		p.NextPoll = utc(when)
	}
	last := st.LastAd
	if progress.Mark.Ad.Defined() {
		p.Mark = progress.Mark.Ad.String()
		last = progress.Mark.Ad
	}
	if ref, ok := newest(ix.store, id, progress); ok {
		last = ref.Ad
	}
	if last.Defined() {
		p.LastAd = last.String()
	}
	if p.Pending > 0 && !p.MarkTime.IsZero() {
		p.Lag = admin.Duration(now.Sub(p.MarkTime).Round(time.Second))
	}
	return p
}

func utc(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.UTC()
}

// newest is the newest ad known above the mark; false if there is none.
func newest(st *store.Store, publisher peer.ID, p store.Progress) (ref store.AdRef, ok bool) {
	if n := len(p.Applied); n > 0 {
		ref, ok = p.Applied[n-1], true
	}
	if last, pending, err := st.LastPending(publisher); err == nil && pending && last.Pos > ref.Pos {
		ref, ok = last, true
	}
	return ref, ok
}

func (r localRegistry) SetPolling(_ context.Context, id peer.ID, p admin.Polling) error {
	for _, d := range []admin.Duration{p.Interval, p.Retry} {
		if d > 0 && d < minPolling || d > maxPolling {
			return fmt.Errorf("%w: poll every %s: give 1s or more, 0 for the node's setting or a negative time for never", admin.ErrBadRequest, d)
		}
	}
	known, err := r.ix.book.setPolling(id, time.Duration(p.Interval), time.Duration(p.Retry))
	if err == nil && !known {
		err = fmt.Errorf("publisher %w", admin.ErrNotFound)
	}
	return err
}

// MarkAdProcessed: an ad at or below the mark is done already. One that is not
// known is taken for newer than all that are.
func (r localRegistry) MarkAdProcessed(_ context.Context, provider peer.ID, ad cid.Cid) error {
	st := r.ix.store
	_, publisher, ok, err := st.ProviderEntry(provider)
	if err != nil {
		return err
	}
	if !ok || publisher == "" {
		return fmt.Errorf("provider %w", admin.ErrNotFound)
	}
	progress := st.Progress(publisher)
	state, known, err := st.AdState(ad)
	if err != nil {
		return err
	}
	mark := store.AdRef{Ad: ad, Pos: state.Pos}
	if !known || state.Publisher != publisher {
		mark.Pos = progress.Mark.Pos
		if ref, ok := newest(st, publisher, progress); ok {
			mark.Pos = max(mark.Pos, ref.Pos)
		}
		mark.Pos += markStride
	}
	if mark.Pos <= progress.Mark.Pos {
		return nil
	}
	if err := st.SetMark(publisher, mark); err != nil {
		return err
	}
	if err := st.Sync(); err != nil {
		return err
	}
	r.ix.log.Warn("ads marked as processed on request", "publisher", publisher, "ad", ad)
	return nil
}

// Telemetry goes by the last syncs of each publisher that brought multihashes.
func (r localRegistry) Telemetry(context.Context) (map[peer.ID]admin.Telemetry, error) {
	out := make(map[peer.ID]admin.Telemetry)
	for id, st := range r.ix.ingester.Statuses() {
		var t admin.Telemetry
		for _, run := range st.DownloadHistory {
			elapsed, err := time.ParseDuration(run.Elapsed)
			if run.MultihashCount == 0 || err != nil {
				continue
			}
			t.Count += int64(run.MultihashCount)
			t.Elapsed += elapsed
			t.Samples++
		}
		if t.Samples > 0 {
			out[id] = t
		}
	}
	return out, nil
}
