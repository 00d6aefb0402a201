package indexer

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/signpost-index/signpost/announce"
	"github.com/signpost-index/signpost/api/admin"
	"github.com/signpost-index/signpost/api/find"
	"github.com/signpost-index/signpost/ingest"
	"github.com/signpost-index/signpost/store"
)

// handoffTimeout bounds asking the frozen indexer what it knows.
const handoffTimeout = 30 * time.Second

// handoffPosition is the mark's position on the node that takes over: there is
// room below it for nothing, and above it for every ad to come.
const handoffPosition = store.Position(1) << 32

// localAdmin is the node as an admin.Indexer.
type localAdmin struct{ ix *Indexer }

// Admin is the node as an assigner or operator drives it.
func (ix *Indexer) Admin() admin.Indexer { return localAdmin{ix} }

func (a localAdmin) Status(context.Context) (admin.Status, error) {
	return admin.Status{Frozen: a.ix.store.Frozen(), ID: a.ix.id, Usage: a.ix.disk.percent()}, nil
}

// assignerMode guards the five assignment endpoints.
func (a localAdmin) assignerMode() error {
	if !a.ix.cfg.AssignedOnly {
		return admin.ErrNotAssigner
	}
	return nil
}

// Assigned lists what is held along with what is owned, as the reference's list
// keeps what a frozen node has.
func (a localAdmin) Assigned(context.Context) ([]admin.Assignment, error) {
	if err := a.assignerMode(); err != nil {
		return nil, err
	}
	var out []admin.Assignment
	for _, s := range a.ix.store.Assignments() {
		out = append(out, admin.Assignment{Publisher: s.Publisher, Continued: s.Continued})
	}
	return out, nil
}

// Preferred lists publishers with ingested ads that are not assigned and were
// not unassigned in this run.
func (a localAdmin) Preferred(context.Context) ([]peer.ID, error) {
	if err := a.assignerMode(); err != nil {
		return nil, err
	}
	a.ix.mu.Lock()
	defer a.ix.mu.Unlock()
	var out []peer.ID
	for _, p := range a.ix.store.Publishers() {
		if !a.ix.unassigned[p] && !a.ix.isAssigned(p) && a.ix.store.Progress(p).Mark.Ad.Defined() {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return out, nil
}

func (a localAdmin) Assign(_ context.Context, publisher peer.ID) error {
	if err := a.assignerMode(); err != nil {
		return err
	}
	if a.ix.isAssigned(publisher) {
		return admin.ErrAlreadyAssigned
	}
	if !a.ix.policy.Load().allowed(publisher) {
		return admin.ErrNotAllowed
	}
	if a.ix.store.Frozen() {
		return admin.ErrFrozen
	}
	if err := a.ix.store.Assign(store.Assignment{Publisher: publisher, Time: time.Now()}); err != nil {
		return frozenKind(err)
	}
	a.ix.book.assigned(publisher)
	a.ix.log.Info("publisher assigned", "publisher", publisher)
	return nil
}

// frozenKind gives the error of a node that froze meanwhile its kind.
func frozenKind(err error) error {
	if errors.Is(err, store.ErrFrozen) {
		return admin.ErrFrozen
	}
	return err
}

func (a localAdmin) Unassign(_ context.Context, publisher peer.ID) error {
	if err := a.assignerMode(); err != nil {
		return err
	}
	if !a.ix.isAssigned(publisher) {
		return admin.ErrNotAssigned
	}
	if err := a.ix.store.Unassign(publisher); err != nil {
		return err
	}
	a.ix.mu.Lock()
	a.ix.unassigned[publisher] = true
	a.ix.mu.Unlock()
	a.ix.book.forget(publisher)
	a.ix.log.Info("publisher unassigned", "publisher", publisher)
	return nil
}

// Handoff takes over publisher from a frozen indexer: what that node knows of
// its providers, the ad it stopped at, and the assignment are stored together;
// then the chain is followed from there.
func (a localAdmin) Handoff(ctx context.Context, publisher peer.ID, h admin.Handoff) error {
	if err := a.assignerMode(); err != nil {
		return err
	}
	if as, ok := a.ix.store.Assignment(publisher); ok && as.Role == store.RoleOwner {
		return admin.ErrAlreadyAssigned
	}
	if a.ix.store.Frozen() {
		return admin.ErrFrozen
	}
	if !a.ix.policy.Load().allowed(publisher) {
		return admin.ErrNotAllowed
	}
	ctx, cancel := context.WithTimeout(ctx, handoffTimeout)
	defer cancel()
	infos, err := frozenProviders(ctx, h.FrozenURL, publisher)
	if err != nil {
		return err
	}
	if len(infos) == 0 {
		return fmt.Errorf("%w: frozen indexer %s knows no provider of publisher %s", admin.ErrNotFound, h.FrozenID, publisher)
	}
	for _, info := range infos {
		if p := info.AddrInfo.ID; !a.ix.policy.Load().mayPublish(publisher, p) {
			return fmt.Errorf("%w: publisher %s may not publish for provider %s", admin.ErrNotAllowed, publisher, p)
		}
	}
	providers, mark, addrs := handoffState(infos)
	assignment := store.Assignment{Publisher: publisher, Continued: h.FrozenID, Time: time.Now()}
	if err := a.ix.store.AssignWithMark(assignment, mark, providers); err != nil {
		return frozenKind(err)
	}
	a.ix.book.assigned(publisher)
	a.ix.log.Info("publisher taken over", "publisher", publisher, "from", h.FrozenID, "providers", len(providers))
	err = a.ix.ingester.Notify(peer.AddrInfo{ID: publisher, Addrs: addrs}, cid.Undef)
	if err != nil {
		a.ix.log.Warn("sync after handoff not started; the next announce starts it", "publisher", publisher, "err", err)
	}
	return nil
}

// frozenProviders asks the frozen node for the providers of publisher. Only
// the path-less base of frozenURL is used, as the contract says.
func frozenProviders(ctx context.Context, frozenURL string, publisher peer.ID) ([]find.ProviderInfo, error) {
	u, err := url.Parse(frozenURL)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("%w: frozen URL %q", admin.ErrBadRequest, frozenURL)
	}
	client, err := find.NewClient((&url.URL{Scheme: u.Scheme, Host: u.Host}).String(), nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", admin.ErrBadRequest, err)
	}
	all, err := client.Providers(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: ask frozen indexer %s for its providers: %w", admin.ErrUnavailable, frozenURL, err)
	}
	return slices.DeleteFunc(all, func(p find.ProviderInfo) bool {
		return p.Publisher == nil || p.Publisher.ID != publisher
	}), nil
}

// handoffState turns what the frozen node listed into registry entries, the
// mark to go on from (nil: the whole chain is new here) and where to sync from.
func handoffState(infos []find.ProviderInfo) (providers []store.Provider, mark *store.AdRef, addrs []multiaddr.Multiaddr) {
	for _, info := range infos {
		p := store.Provider{
			ID: info.AddrInfo.ID, Addrs: texts(info.AddrInfo.Addrs),
			LastAd: info.LastAdvertisement, LastAdTime: info.LastAdvertisementTime,
			Publisher: info.Publisher.ID, PublisherAddrs: texts(info.Publisher.Addrs),
		}
		if x := info.ExtendedProviders; x != nil {
			if len(x.Providers) > 0 {
				set := extendedSet(false, x.Providers, x.Metadatas)
				p.Extended = &set
			}
			for _, c := range x.Contextual {
				p.Contextual = append(p.Contextual, store.ContextualSet{
					ContextID: []byte(c.ContextID), ExtendedSet: extendedSet(c.Override, c.Providers, c.Metadatas),
				})
			}
		}
		providers = append(providers, p)
		addrs = append(addrs, info.Publisher.Addrs...)
		if info.FrozenAt.Defined() && (mark == nil || info.AddrInfo.ID == info.Publisher.ID) {
			mark = &store.AdRef{Ad: info.FrozenAt, Pos: handoffPosition}
		}
	}
	return providers, mark, addrs
}

func extendedSet(override bool, providers []peer.AddrInfo, metadatas [][]byte) store.ExtendedSet {
	set := store.ExtendedSet{Override: override}
	for n, p := range providers {
		x := store.ExtendedProvider{ID: p.ID, Addrs: texts(p.Addrs)}
		if n < len(metadatas) {
			x.Metadata = metadatas[n]
		}
		set.Providers = append(set.Providers, x)
	}
	return set
}

func texts(addrs []multiaddr.Multiaddr) []string {
	out := make([]string, len(addrs))
	for n, a := range addrs {
		out[n] = a.String()
	}
	return out
}

func (a localAdmin) Freeze(context.Context) error {
	return a.ix.disk.freezeOnRequest()
}

func (a localAdmin) Sync(_ context.Context, publisher peer.ID, o admin.SyncOptions) error {
	opts := ingest.SyncOptions{Depth: o.Depth, Resync: o.Resync}
	if o.Addr != nil {
		opts.Addrs = []multiaddr.Multiaddr{o.Addr}
	}
	err := a.ix.ingester.Sync(publisher, opts)
	if errors.Is(err, ingest.ErrBusy) {
		return fmt.Errorf("%w: %s", admin.ErrSyncRunning, publisher)
	}
	if errors.Is(err, announce.ErrNotAllowed) {
		return admin.ErrNotAllowed
	}
	if errors.Is(err, ingest.ErrUnknownPublisher) {
		return fmt.Errorf("%w: publisher %s has no known address; give one as the body", admin.ErrNotFound, publisher)
	}
	return err
}

func (a localAdmin) Syncs(context.Context) ([]peer.ID, error) {
	ids := a.ix.ingester.Syncing()
	slices.SortFunc(ids, func(x, y peer.ID) int {
		if x.String() < y.String() {
			return -1
		}
		return 1
	})
	return ids, nil
}
