package assigner

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/announce"
	"github.com/signpost-index/signpost/api/admin"
)

// oursIndexer is a fakeIndexer with roles: an indexer of ours, in memory. An
// announce it takes as owner becomes its mark at once.
type oursIndexer struct {
	*fakeIndexer

	roles    map[peer.ID]*admin.PublisherRole
	frozenAt map[peer.ID]string // marks when it froze
	version  int
	poolMap  *admin.PoolMap
	dropTake bool // the next TakeOver is not done, and not answered
}

var _ client = (*oursIndexer)(nil)

func newOurs(f *fakeIndexer) *oursIndexer {
	return &oursIndexer{fakeIndexer: f, roles: make(map[peer.ID]*admin.PublisherRole), frozenAt: make(map[peer.ID]string)}
}

func (o *oursIndexer) Node(ctx context.Context) (admin.NodeStatus, error) {
	if err := o.lock(ctx, false); err != nil {
		return admin.NodeStatus{}, err
	}
	defer o.mu.Unlock()
	return admin.NodeStatus{ID: o.id, Frozen: o.frozen, Usage: 12.5, FreezePercent: 95}, nil
}

func (o *oursIndexer) Roles(ctx context.Context, version string) (*admin.Roles, error) {
	if err := o.lock(ctx, false); err != nil {
		return nil, err
	}
	defer o.mu.Unlock()
	now := fmt.Sprint(o.version, o.frozen)
	if now == version {
		return nil, nil
	}
	r := &admin.Roles{Version: now}
	for _, p := range slices.Sorted(maps.Keys(o.roles)) {
		role := *o.roles[p]
		role.Ranges = slices.Clone(role.Ranges)
		if n := len(role.Ranges); o.frozen && n > 0 && role.Ranges[n-1].To == "" {
			if role.Ranges[n-1].To = o.frozenAt[p]; o.frozenAt[p] == "" {
				role.Ranges = role.Ranges[:n-1]
			}
		}
		r.Publishers = append(r.Publishers, role)
	}
	return r, nil
}

// step is a call about several publishers.
func (o *oursIndexer) step(ctx context.Context, what string, ids []peer.ID, do func(p peer.ID) error) ([]admin.Outcome, error) {
	if err := o.lock(ctx, true); err != nil {
		return nil, err
	}
	defer o.mu.Unlock()
	o.version++
	var out []admin.Outcome
	for _, p := range ids {
		done := admin.Outcome{Publisher: p}
		if err := do(p); err != nil {
			done.Error = err.Error()
		} else {
			o.done(what + " " + string(p))
		}
		out = append(out, done)
	}
	return out, nil
}

func (o *oursIndexer) Open(ctx context.Context, ids []peer.ID) ([]admin.Outcome, error) {
	return o.step(ctx, "open", ids, func(p peer.ID) error {
		if err := o.mayOwn(p); err != nil {
			return err
		}
		r := o.roles[p]
		if r == nil {
			r = &admin.PublisherRole{Publisher: p, Ranges: []admin.Range{{}}}
			o.roles[p] = r
		}
		switch n := len(r.Ranges); {
		case n == 0:
			r.Ranges = []admin.Range{{}}
		case r.Ranges[n-1].To != "":
			r.Ranges = append(r.Ranges, admin.Range{From: r.Ranges[n-1].To})
		}
		r.Role = admin.RoleOwner
		return nil
	})
}

func (o *oursIndexer) mayOwn(p peer.ID) error {
	switch {
	case o.frozen:
		return admin.ErrFrozen
	case o.refuses[p]:
		return admin.ErrNotAllowed
	}
	return nil
}

func (o *oursIndexer) Close(ctx context.Context, ids []peer.ID) ([]admin.Offer, error) {
	var offers []admin.Offer
	_, err := o.step(ctx, "close", ids, func(p peer.ID) error {
		r := o.roles[p]
		if r == nil {
			offers = append(offers, admin.Offer{Publisher: p, Error: "not owned or held here"})
			return admin.ErrNotFound
		}
		n := len(r.Ranges)
		if r.Role == admin.RoleOwner {
			mark := r.Mark
			if o.frozen {
				mark = o.frozenAt[p]
			}
			if r.Ranges[n-1].To = mark; mark == r.Ranges[n-1].From {
				r.Ranges = r.Ranges[:n-1]
			}
			r.Role = admin.RoleHolder
		}
		offer := admin.Offer{Publisher: p, Height: r.Height}
		if n = len(r.Ranges); n > 0 {
			offer.Mark = r.Ranges[n-1].To
		}
		offers = append(offers, offer)
		return nil
	})
	return offers, err
}

func (o *oursIndexer) TakeOver(ctx context.Context, t admin.TakeOver) ([]admin.Outcome, error) {
	o.mu.Lock()
	if o.dropTake {
		o.dropTake = false
		o.mu.Unlock()
		<-ctx.Done()
		return nil, fmt.Errorf("%w: %w", admin.ErrUnavailable, ctx.Err())
	}
	o.mu.Unlock()
	by := make(map[peer.ID]admin.Offer)
	var ids []peer.ID
	for _, offer := range t.Offers {
		by[offer.Publisher] = offer
		ids = append(ids, offer.Publisher)
	}
	return o.step(ctx, "take over from "+string(t.From), ids, func(p peer.ID) error {
		if err := o.mayOwn(p); err != nil {
			return err
		}
		r := o.roles[p]
		if r == nil {
			r = &admin.PublisherRole{Publisher: p}
			o.roles[p] = r
		}
		r.Role, r.Continued, r.Mark, r.Height = admin.RoleOwner, t.From, by[p].Mark, by[p].Height
		r.Ranges = append(r.Ranges, admin.Range{From: by[p].Mark})
		return nil
	})
}

func (o *oursIndexer) Backfill(ctx context.Context, ids []peer.ID) ([]admin.Outcome, error) {
	return o.step(ctx, "backfill", ids, func(p peer.ID) error {
		if o.roles[p] == nil {
			return admin.ErrNotFound
		}
		o.roles[p].Filling = true
		return nil
	})
}

func (o *oursIndexer) Release(ctx context.Context, ids []peer.ID) ([]admin.Outcome, error) {
	return o.step(ctx, "release", ids, func(p peer.ID) error {
		delete(o.roles, p)
		return nil
	})
}

func (o *oursIndexer) PoolMap(ctx context.Context) (admin.PoolMap, error) {
	if err := o.lock(ctx, false); err != nil {
		return admin.PoolMap{}, err
	}
	defer o.mu.Unlock()
	if o.poolMap == nil {
		return admin.PoolMap{}, admin.ErrNotFound
	}
	return *o.poolMap, nil
}

func (o *oursIndexer) SetPoolMap(ctx context.Context, m admin.PoolMap) error {
	if err := o.lock(ctx, false); err != nil {
		return err
	}
	defer o.mu.Unlock()
	if o.poolMap == nil || o.poolMap.Version < m.Version {
		o.poolMap = &m
	}
	return nil
}

// announced takes an announce of a publisher it owns or holds.
func (o *oursIndexer) announced(ctx context.Context, a announce.Announce) error {
	if err := o.lock(ctx, false); err != nil {
		return err
	}
	defer o.mu.Unlock()
	r := o.roles[a.Publisher.ID]
	if r == nil {
		return announce.ErrNotAllowed
	}
	o.heads[a.Publisher.ID] = a.Head
	if !o.frozen && r.Role == admin.RoleOwner {
		r.Mark = headWord(a.Head)
		r.Height++
		o.version++
	}
	o.signal()
	return nil
}

// change does what a story says happens to it, or reports false.
func (o *oursIndexer) change(what string, publishers []peer.ID) bool {
	o.version++
	switch what {
	case "freeze":
		for p, r := range o.roles {
			o.frozenAt[p] = r.Mark
		}
		o.frozen = true
	case "thaw":
		o.frozen = false
		clear(o.frozenAt)
	case "drop-takeover":
		o.dropTake = true
	case "filled":
		for _, p := range publishers {
			r := o.roles[p]
			r.Filling, r.Ranges = false, []admin.Range{{To: r.Ranges[len(r.Ranges)-1].To}}
		}
	case "owned":
		for _, p := range publishers {
			o.roles[p] = &admin.PublisherRole{Publisher: p, Role: admin.RoleOwner, Ranges: []admin.Range{{}}, Mark: "0", Height: 1}
		}
	case "unassign":
		for _, p := range publishers {
			delete(o.roles, p)
		}
	case "publishes": // words "publisher:multihashes a second"
		for _, w := range publishers {
			p, load, _ := strings.Cut(string(w), ":")
			o.roles[peer.ID(p)].MultihashesPerSecond, _ = strconv.ParseFloat(load, 64)
			o.roles[peer.ID(p)].RateWeight = 1
		}
	default:
		return false
	}
	return true
}

// String shows roles as "publisher=own[from..to][from..to]@head".
func (o *oursIndexer) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	words := []string{string(o.id)}
	if o.frozen {
		words = append(words, "(frozen)")
	}
	for _, p := range slices.Sorted(maps.Keys(o.roles)) {
		r := o.roles[p]
		w := string(p) + "=" + map[admin.Role]string{admin.RoleOwner: "own", admin.RoleHolder: "hold"}[r.Role]
		for _, g := range r.Ranges {
			w += "[" + g.From + ".." + g.To + "]"
		}
		if r.Filling {
			w += "filling"
		}
		if head, ok := o.heads[p]; ok {
			w += "@" + headWord(head)
		}
		words = append(words, w)
	}
	return strings.Join(words, " ")
}
