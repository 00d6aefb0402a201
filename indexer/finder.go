package indexer

import (
	"bytes"
	"context"
	"iter"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/api/find"
	"github.com/signpost-index/signpost/store"
)

// localFinder answers from this node's store. It never writes.
type localFinder struct{ ix *Indexer }

// Finder is the node as a find.Finder.
func (ix *Indexer) Finder() find.Finder { return localFinder{ix} }

// Find yields the results of mh in the order of find.md section 5. A value
// whose provider is not in the registry, not allowed or inactive is left out.
func (f localFinder) Find(_ context.Context, mh multihash.Multihash) iter.Seq2[find.ProviderResult, error] {
	return func(yield func(find.ProviderResult, error) bool) {
		values, err := f.ix.store.Find(mh)
		if err != nil {
			yield(find.ProviderResult{}, err)
			return
		}
		var known map[peer.ID]servedBy
		if len(values) > 1 {
			known = make(map[peer.ID]servedBy)
		}
		for _, v := range values {
			by, err := f.servedBy(known, v.Provider)
			if err != nil {
				yield(find.ProviderResult{}, err)
				return
			}
			if !by.shown {
				continue
			}
			var contextual *store.ExtendedSet
			if len(v.ContextID) > 0 && by.contextual {
				if _, contextual, err = f.ix.store.Extended(v.Provider, v.ContextID); err != nil {
					yield(find.ProviderResult{}, err)
					return
				}
			}
			if by.chain == nil && contextual == nil { // nearly all
				r := find.ProviderResult{ContextID: v.ContextID, Metadata: v.Metadata, Provider: by.info, Position: positionOf(f.ix.store.PlaceOf(v.Publisher, v.Pos), false)}
				if !yield(r, nil) {
					return
				}
				continue
			}
			for _, r := range expand(v, by.info, by.chain, contextual, f.ix.store.PlaceOf) {
				if !yield(r, nil) {
					return
				}
			}
		}
	}
}

// servedBy is what the registry says of one provider.
type servedBy struct {
	shown      bool
	info       *peer.AddrInfo // not to be changed
	chain      *store.ExtendedSet
	contextual bool // contexts may have extended providers of their own
}

// maxSeenProviders is of how many providers it is remembered what answers say of
// them.
const maxSeenProviders = 4096

// seenProvider is what answers say of a provider, as long as the store does not change.
type seenProvider struct {
	changes uint64
	view    store.ProviderView
	info    *peer.AddrInfo // not to be changed
}

// servedBy reads the registry once for each provider of an answer: a multihash
// may be in thousands of records of one. While nothing changes it is not read again.
func (f localFinder) servedBy(known map[peer.ID]servedBy, provider peer.ID) (by servedBy, err error) {
	if by, ok := known[provider]; ok {
		return by, nil
	}
	changes := f.ix.store.Changes() // before it is read
	seen, ok := f.ix.seenProviders.Get(provider)
	if !ok || seen.changes != changes {
		seen = seenProvider{changes: changes}
		if seen.view, err = f.ix.store.ProviderView(provider); err != nil {
			return by, err
		}
		seen.info = &peer.AddrInfo{ID: provider, Addrs: multiaddrs(seen.view.Addrs)}
		f.ix.seenProviders.Add(provider, seen)
	}
	by = servedBy{
		shown: seen.view.Known && !f.ix.hidden(provider, seen.view.Publisher),
		info:  seen.info, chain: seen.view.Chain, contextual: seen.view.Contextual,
	}
	if known != nil {
		known[provider] = by
	}
	return by, nil
}

// expand turns one index value into results: the provider itself, then the
// extended providers of the context, then, unless the context overrides them,
// those of the chain. An entry for the provider itself is shown only if it
// brings other metadata.
func expand(v store.Value, info *peer.AddrInfo, chain, contextual *store.ExtendedSet, placeOf func(peer.ID, store.Position) store.Place) []find.ProviderResult {
	at := placeOf(v.Publisher, v.Pos)
	results := []find.ProviderResult{{
		ContextID: v.ContextID, Metadata: v.Metadata, Position: positionOf(at, false),
		Provider: info,
	}}
	add := func(set *store.ExtendedSet) {
		// All that is newer than what a node knows of a chain is above all of that: so
		// the newer of both ads tells which node knows more.
		newer := placeOf(set.Publisher, set.Pos)
		switch {
		case newer.Chain != at.Chain || newer.Height == 0:
			newer = store.Place{}
		case newer.Height < at.Height:
			newer = at
		}
		for _, x := range set.Providers {
			if x.ID == v.Provider && (len(x.Metadata) == 0 || bytes.Equal(x.Metadata, v.Metadata)) {
				continue
			}
			md := x.Metadata
			if len(md) == 0 {
				md = v.Metadata
			}
			results = append(results, find.ProviderResult{
				ContextID: v.ContextID, Metadata: md, Position: positionOf(newer, true),
				Provider: &peer.AddrInfo{ID: x.ID, Addrs: multiaddrs(x.Addrs)},
			})
		}
	}
	if contextual != nil {
		add(contextual)
		if contextual.Override {
			return results
		}
	}
	if chain != nil {
		add(chain)
	}
	return results
}

func positionOf(at store.Place, extended bool) find.Position {
	if at.Height == 0 {
		return find.Position{}
	}
	return find.Position{Chain: at.Chain, Height: at.Height, Extended: extended}
}

func multiaddrs(texts []string) []multiaddr.Multiaddr {
	out := make([]multiaddr.Multiaddr, 0, len(texts))
	for _, t := range texts {
		if a, err := multiaddr.NewMultiaddr(t); err == nil {
			out = append(out, a)
		}
	}
	return out
}

// Providers lists the providers this node answers for. In assigner mode those
// of publishers not assigned here are left out (assigner.md section 5).
func (f localFinder) Providers(context.Context) ([]find.ProviderInfo, error) {
	all, err := f.ix.store.Providers()
	if err != nil {
		return nil, err
	}
	out := make([]find.ProviderInfo, 0, len(all))
	for _, p := range all {
		if f.ix.listed(p) {
			out = append(out, f.ix.providerInfo(p))
		}
	}
	return out, nil
}

// Provider returns one provider, or find.ErrNotFound.
func (f localFinder) Provider(_ context.Context, id peer.ID) (*find.ProviderInfo, error) {
	p, ok, err := f.ix.store.Provider(id)
	if err != nil {
		return nil, err
	}
	if !ok || !f.ix.listed(p) || f.ix.hidden(id, p.Publisher) {
		return nil, find.ErrNotFound
	}
	info := f.ix.providerInfo(p)
	return &info, nil
}

func (f localFinder) Stats(context.Context) (find.Stats, error) {
	s, err := f.ix.store.Stats()
	if err != nil {
		return find.Stats{}, err
	}
	return find.Stats{EntriesEstimate: int64(s.Postings), EntriesCount: int64(s.Postings)}, nil
}

// hidden says whether a provider is left out of finds: it is not allowed, or
// its publisher is inactive.
func (ix *Indexer) hidden(provider, publisher peer.ID) bool {
	return !ix.policy.Load().allowed(provider) || ix.book.isInactive(publisher)
}

func (ix *Indexer) listed(p store.Provider) bool {
	return !ix.cfg.AssignedOnly || p.Publisher == "" || ix.isAssigned(p.Publisher)
}

// providerInfo renders a registry entry. LastAdvertisement is the publisher's
// durable mark: this ad and all older ones are applied and on disk.
func (ix *Indexer) providerInfo(p store.Provider) find.ProviderInfo {
	info := find.ProviderInfo{
		AddrInfo:     peer.AddrInfo{ID: p.ID, Addrs: multiaddrs(p.Addrs)},
		FrozenAt:     p.FrozenAt,
		FrozenAtTime: p.FrozenAtTime,
		LastError:    p.LastError, LastErrorTime: p.LastErrorTime,
	}
	if p.Publisher == "" {
		// The reference's handoff crashes on a record without a publisher.
		info.Publisher = &peer.AddrInfo{ID: p.ID}
	} else {
		info.Inactive = ix.book.isInactive(p.Publisher)
		progress := ix.store.DurableProgress(p.Publisher)
		info.LastAdvertisement = progress.Mark.Ad
		info.LastAdvertisementTime = progress.MarkTime
		info.Lag = progress.Pending
		info.Publisher = &peer.AddrInfo{ID: p.Publisher}
		addrs := ix.store.PublisherAddrs(p.Publisher)
		if len(addrs) == 0 {
			addrs = p.PublisherAddrs
		}
		if len(addrs) > 0 {
			info.Publisher.Addrs = multiaddrs(addrs[:1])
		}
	}
	info.ExtendedProviders = extendedInfo(p)
	return info
}

func extendedInfo(p store.Provider) *find.ExtendedProviders {
	if p.Extended == nil && len(p.Contextual) == 0 {
		return nil
	}
	out := &find.ExtendedProviders{}
	if p.Extended != nil {
		out.Providers, out.Metadatas = extendedLists(p.Extended)
	}
	for _, c := range p.Contextual {
		providers, metadatas := extendedLists(&c.ExtendedSet)
		out.Contextual = append(out.Contextual, find.ContextualExtendedProviders{
			Override: c.Override, ContextID: string(c.ContextID),
			Providers: providers, Metadatas: metadatas,
		})
	}
	return out
}

// extendedLists returns two lists of equal length, as readers rely on.
func extendedLists(set *store.ExtendedSet) (providers []peer.AddrInfo, metadatas [][]byte) {
	for _, x := range set.Providers {
		providers = append(providers, peer.AddrInfo{ID: x.ID, Addrs: multiaddrs(x.Addrs)})
		metadatas = append(metadatas, x.Metadata)
	}
	return providers, metadatas
}
