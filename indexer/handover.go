package indexer

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/signpost-index/signpost/api/admin"
	"github.com/signpost-index/signpost/api/find"
	"github.com/signpost-index/signpost/store"
)

// Close makes the node a holder. What it offers is on disk before.
func (r localRoles) Close(_ context.Context, publishers []peer.ID) ([]admin.Offer, error) {
	if err := r.batchMode(len(publishers)); err != nil {
		return nil, err
	}
	closed, err := r.ix.store.CloseRoles(publishers, time.Now())
	if err != nil {
		return nil, err
	}
	byPublisher, err := r.ix.store.ProvidersByPublisher()
	if err != nil {
		return nil, err
	}
	offers := make([]admin.Offer, len(closed))
	for n, c := range closed {
		if c.Err != nil {
			offers[n] = admin.Offer{Publisher: c.Publisher, Error: r.inWords(c.Publisher, c.Err)}
			continue
		}
		if offers[n], err = r.offer(c, byPublisher[c.Publisher]); err != nil {
			return nil, err
		}
		r.ix.log.Info("publisher closed", "publisher", c.Publisher, "mark", c.Ad, "height", c.Height)
	}
	return offers, nil
}

func (r localRoles) offer(c store.Closed, providers []peer.ID) (admin.Offer, error) {
	o := admin.Offer{Publisher: c.Publisher, Addrs: r.ix.store.PublisherAddrs(c.Publisher), Mark: cidText(c.Ad), Height: c.Height}
	if at := r.ix.store.PlaceOf(c.Publisher, c.Pos); at.Height > 0 {
		o.Chain, o.ChainHeight = at.Chain[:], at.Height
	}
	for _, ad := range c.Applied {
		o.Applied = append(o.Applied, ad.String())
	}
	for _, id := range providers {
		p, ok, err := r.ix.store.Provider(id)
		if err != nil {
			return o, err
		}
		if !ok || p.Publisher != c.Publisher {
			continue // it changed meanwhile
		}
		b, err := json.Marshal(r.ix.providerInfo(p))
		if err != nil {
			return o, fmt.Errorf("offer provider %s: %w", id, err)
		}
		o.Providers = append(o.Providers, b)
	}
	return o, nil
}

// TakeOver makes the node the owner of publishers another has closed.
func (r localRoles) TakeOver(_ context.Context, t admin.TakeOver) ([]admin.Outcome, error) {
	if err := r.batchMode(len(t.Offers)); err != nil {
		return nil, err
	}
	publishers, errs := make([]peer.ID, len(t.Offers)), make([]error, len(t.Offers))
	var batch []store.Takeover
	var infos []peer.AddrInfo
	var places []int
	for n, o := range t.Offers {
		publishers[n] = o.Publisher
		taken, info, err := r.takeover(t.From, o)
		if err != nil {
			errs[n] = err
			continue
		}
		batch, infos, places = append(batch, taken), append(infos, info), append(places, n)
	}
	for k, err := range r.ix.store.TakeOver(batch) {
		errs[places[k]] = err
		if err != nil {
			continue
		}
		r.ix.book.assigned(infos[k].ID)
		r.ix.log.Info("publisher taken over", "publisher", infos[k].ID, "from", t.From, "height", batch[k].Height, "providers", len(batch[k].Providers))
		r.wake(infos[k])
	}
	return r.outcomes(publishers, errs), nil
}

// maxCIDText bounds a CID as text: base58 takes time in the square of its length.
const maxCIDText = 512

func decodeCID(text string) (cid.Cid, error) {
	if len(text) > maxCIDText {
		return cid.Undef, fmt.Errorf("%w: CID of %d bytes", admin.ErrBadRequest, len(text))
	}
	c, err := cid.Decode(text)
	if err != nil {
		return cid.Undef, fmt.Errorf("%w: CID %q: %w", admin.ErrBadRequest, text, err)
	}
	return c, nil
}

// takeover is an offer as the store takes it, and where the publisher is.
func (r localRoles) takeover(from peer.ID, o admin.Offer) (t store.Takeover, info peer.AddrInfo, err error) {
	t = store.Takeover{Publisher: o.Publisher, From: from, Time: time.Now(), Height: o.Height}
	info.ID = o.Publisher
	switch {
	case o.Error != "":
		return t, info, fmt.Errorf("%w: the offer is an error: %s", admin.ErrBadRequest, o.Error)
	case o.Publisher.Validate() != nil:
		return t, info, fmt.Errorf("%w: offer without publisher", admin.ErrBadRequest)
	case !r.ix.policy.Load().allowed(o.Publisher):
		return t, info, admin.ErrNotAllowed
	}
	if o.Mark != "" {
		if t.Mark.Ad, err = decodeCID(o.Mark); err != nil {
			return t, info, err
		}
		t.Mark.Pos = handoffPosition
		if len(o.Chain) == len(t.Place.Chain) && store.ChainID(o.Chain) != (store.ChainID{}) {
			t.Place = store.Place{Chain: store.ChainID(o.Chain), Height: o.ChainHeight}
		}
	} else {
		t.Height = 0
	}
	for _, text := range o.Applied {
		ad, err := decodeCID(text)
		if err != nil {
			return t, info, err
		}
		t.Applied = append(t.Applied, ad)
	}
	infos, err := r.offered(o)
	if err != nil {
		return t, info, err
	}
	var addrs []multiaddr.Multiaddr
	t.Providers, _, addrs = handoffState(infos)
	info.Addrs = append(multiaddrs(o.Addrs), addrs...)
	t.Addrs = texts(info.Addrs[:min(len(info.Addrs), maxImportedAddrs)])
	return t, info, nil
}

// offered are the providers of an offer, all of them the publisher's.
func (r localRoles) offered(o admin.Offer) ([]find.ProviderInfo, error) {
	infos := make([]find.ProviderInfo, len(o.Providers))
	for n, b := range o.Providers {
		info := &infos[n]
		if err := json.Unmarshal(b, info); err != nil {
			return nil, fmt.Errorf("%w: provider of %s: %w", admin.ErrBadRequest, o.Publisher, err)
		}
		if info.Publisher == nil || info.Publisher.ID != o.Publisher {
			return nil, fmt.Errorf("%w: provider %s is not of publisher %s", admin.ErrBadRequest, info.AddrInfo.ID, o.Publisher)
		}
		if !r.ix.policy.Load().mayPublish(o.Publisher, info.AddrInfo.ID) {
			return nil, fmt.Errorf("%w: publisher %s may not publish for provider %s", admin.ErrNotAllowed, o.Publisher, info.AddrInfo.ID)
		}
	}
	return infos, nil
}
