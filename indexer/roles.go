package indexer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
	"github.com/signpost-index/signpost/store"
)

// localRoles is the node as an admin.RoleKeeper. What it is to which publisher
// the store knows; here is what the network and the policy have to say.
type localRoles struct{ ix *Indexer }

// Roles is the node as our assigner moves publishers.
func (ix *Indexer) Roles() admin.RoleKeeper { return localRoles{ix} }

// mode is the error of a node that no assigner drives.
func (r localRoles) mode() error { return localAdmin(r).assignerMode() }

func (r localRoles) Roles(_ context.Context, version string) (*admin.Roles, error) {
	if err := r.mode(); err != nil {
		return nil, err
	}
	now, states, err := r.states(version)
	if err != nil || now == version {
		return nil, err
	}
	out := &admin.Roles{Version: now, Publishers: make([]admin.PublisherRole, 0, len(states))}
	for _, st := range states {
		perSecond, weight := r.ix.rates.rate(st.Publisher)
		out.Publishers = append(out.Publishers, admin.PublisherRole{
			Publisher: st.Publisher, Role: roleOf(st.Role), Since: utc(st.Time), Continued: st.Continued,
			Ranges: rangesOf(st.Ranges), LeansOn: leansOn(st.Lacks()), Mark: cidText(st.Ad), Height: st.Height, Top: st.Top, Unsure: st.Behind || st.Unsure,
			Pending: st.Pending, Gaps: st.Gaps, Filling: st.Filling,
			MultihashesPerSecond: perSecond, RateWeight: weight, Multihashes: st.Multihashes, LastError: st.LastError,
		})
	}
	return out, nil
}

// states reads all roles; the version is of this run of the node.
func (r localRoles) states(version string) (string, []store.RoleState, error) {
	prefix := r.ix.started + "-"
	unless := ""
	if len(version) > len(prefix) && version[:len(prefix)] == prefix {
		unless = version[len(prefix):]
	}
	now, states, err := r.ix.store.RoleStates(unless)
	slices.SortFunc(states, func(a, b store.RoleState) int { return comparePeers(a.Publisher, b.Publisher) })
	return prefix + now, states, err
}

func comparePeers(a, b peer.ID) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func roleOf(r store.Role) admin.Role {
	if r == store.RoleHolder {
		return admin.RoleHolder
	}
	return admin.RoleOwner
}

func leansOn(lacks []store.Lack) (ids []peer.ID) {
	for _, l := range lacks {
		if !slices.Contains(ids, l.From) {
			ids = append(ids, l.From)
		}
	}
	return ids
}

func rangesOf(ranges []store.Range) []admin.Range {
	out := make([]admin.Range, len(ranges))
	for i, g := range ranges {
		out[i] = admin.Range{From: cidText(g.From), To: cidText(g.To)}
	}
	return out
}

// batchMode is what all calls about several publishers check first.
func (r localRoles) batchMode(n int) error {
	if n > admin.MaxBatch {
		return fmt.Errorf("%w: batch of %d publishers, at most %d", admin.ErrBadRequest, n, admin.MaxBatch)
	}
	return r.mode()
}

func (r localRoles) Open(_ context.Context, publishers []peer.ID) ([]admin.Outcome, error) {
	if err := r.batchMode(len(publishers)); err != nil {
		return nil, err
	}
	errs := make([]error, len(publishers))
	allowed, places := []peer.ID(nil), []int(nil)
	for n, id := range publishers {
		if !r.ix.policy.Load().allowed(id) {
			errs[n] = admin.ErrNotAllowed
			continue
		}
		allowed, places = append(allowed, id), append(places, n)
	}
	for k, err := range r.ix.store.Open(allowed, time.Now()) {
		errs[places[k]] = err
		if err == nil {
			r.ix.book.assigned(allowed[k])
			r.wake(peer.AddrInfo{ID: allowed[k]})
			r.ix.log.Info("publisher owned", "publisher", allowed[k])
		}
	}
	return r.outcomes(publishers, errs), nil
}

func (r localRoles) Backfill(_ context.Context, publishers []peer.ID) ([]admin.Outcome, error) {
	if err := r.batchMode(len(publishers)); err != nil {
		return nil, err
	}
	errs := make([]error, len(publishers))
	for n, id := range publishers {
		if errs[n] = r.ix.store.Backfill(id); errs[n] == nil {
			r.wake(peer.AddrInfo{ID: id})
			r.ix.log.Info("older ads are fetched on request", "publisher", id)
		}
	}
	return r.outcomes(publishers, errs), nil
}

func (r localRoles) Release(ctx context.Context, publishers []peer.ID) ([]admin.Outcome, error) {
	if err := r.batchMode(len(publishers)); err != nil {
		return nil, err
	}
	byPublisher, err := r.ix.store.ProvidersByPublisher()
	if err != nil {
		return nil, err
	}
	errs := make([]error, len(publishers))
	for n, id := range publishers {
		errs[n] = r.release(ctx, id, byPublisher[id])
	}
	if err := r.ix.book.revisitLeaning(); err != nil {
		r.ix.log.Warn("publishers that leant on released ones are looked at later", "err", err)
	}
	return r.outcomes(publishers, errs), nil
}

// release ends what is under way before the providers are looked at, so that
// none is made in between, and once more for what began meanwhile.
func (r localRoles) release(ctx context.Context, id peer.ID, candidates []peer.ID) error {
	r.ix.book.forget(id)
	gone := func(p peer.ID) bool { return p == id }
	var providers []peer.ID
	for _, p := range candidates {
		only, err := r.ix.store.ServedOnlyBy(ctx, p, gone)
		if err != nil {
			return err
		}
		if only {
			providers = append(providers, p)
		}
	}
	known, err := r.ix.store.Release(id, providers, gone)
	if err != nil || !known {
		return err
	}
	r.ix.book.forget(id)
	r.ix.log.Warn("publisher released, with the providers only it published for", "publisher", id, "providers", len(providers))
	return nil
}

// wake has a publisher synced if an address is known.
func (r localRoles) wake(info peer.AddrInfo) {
	var err error
	if len(info.Addrs) > 0 {
		err = r.ix.ingester.Notify(info, cid.Undef)
	} else {
		err = ingestSyncs(r).poll(info)
	}
	if err != nil {
		r.ix.log.Debug("sync not started; the next announce starts it", "publisher", info.ID, "err", err)
	}
}

// outcomes puts errors into words. Those of this node's disk are logged.
func (r localRoles) outcomes(publishers []peer.ID, errs []error) []admin.Outcome {
	out := make([]admin.Outcome, len(publishers))
	for n, id := range publishers {
		out[n] = admin.Outcome{Publisher: id, Error: r.inWords(id, errs[n])}
	}
	return out
}

// errNotHere is about a publisher that is neither owned nor held.
const errNotHere = "not owned or held here"

func (r localRoles) inWords(id peer.ID, err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, store.ErrFrozen):
		return admin.ErrFrozen.Error()
	case errors.Is(err, store.ErrNotFound):
		return errNotHere
	case errors.Is(err, admin.ErrNotAllowed), errors.Is(err, admin.ErrBadRequest), errors.Is(err, store.ErrInvalid):
		return err.Error()
	}
	r.ix.log.Error("role not changed", "publisher", id, "err", err)
	return "this node failed, see its log"
}
