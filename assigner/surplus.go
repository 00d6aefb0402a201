package assigner

import (
	"cmp"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
)

// Needing returns the publishers of which fewer whole copies than wished would
// be left without the indexer: it must not leave the pool before it is drained.
// Of publishers on indexers without roles it asks for one other owner.
func Needing(v View, indexer peer.ID) []peer.ID {
	t := newTally(v)
	var needing []peer.ID
	for _, e := range t.indexers {
		if e.ID != indexer || e.Lost {
			continue
		}
		for _, h := range e.Held {
			if t.needs(h.Publisher, e) {
				needing = append(needing, h.Publisher)
			}
		}
	}
	slices.Sort(needing)
	return needing
}

func (t *tally) needs(p peer.ID, e *entry) bool {
	cs := t.copies[p]
	i := slices.IndexFunc(cs, func(c placement) bool { return c.on == e })
	if slices.ContainsFunc(cs, func(c placement) bool { return c.on.Plain }) {
		owners := 0
		for _, c := range cs {
			if c.on != e && t.owns(c) {
				owners++
			}
		}
		return owners == 0
	}
	wish := t.wish(p)
	left := t.without(p, cs[i], wish)
	return left < wish && left < copiesOf(t.facts(p, func(placement) bool { return true }, 0), wish)
}

// Surplus are the releases that free what holders keep although others have as
// many whole copies as wished. It is Plan's counterpart for an operator who
// asks for it: nothing is freed by itself.
func Surplus(v View) []Step {
	t := newTally(v)
	var steps []Step
	for p, cs := range t.copies {
		if t.busy.has(p) || slices.ContainsFunc(cs, func(c placement) bool { return c.on.Plain }) {
			continue
		}
		steps = t.surplus(p, steps)
	}
	slices.SortFunc(steps, func(a, b Step) int {
		return cmp.Or(cmp.Compare(a.Publisher, b.Publisher), cmp.Compare(a.Indexer, b.Indexer))
	})
	return steps
}

// surplus goes over the holders of p, the fullest first.
func (t *tally) surplus(p peer.ID, steps []Step) []Step {
	holders := slices.DeleteFunc(slices.Clone(t.copies[p]), func(c placement) bool {
		return c.Role != admin.RoleHolder || !c.on.Reachable || c.on.refused.has(p)
	})
	slices.SortFunc(holders, func(a, b placement) int {
		return cmp.Or(cmp.Compare(a.on.Room, b.on.Room), cmp.Compare(a.on.ID, b.on.ID))
	})
	gone := make(map[*entry]bool)
	wish := t.wish(p)
	for _, c := range holders {
		gone[c.on] = true
		left := copiesOf(t.facts(p, func(d placement) bool { return !gone[d.on] }, c.Height), wish)
		if left < wish {
			delete(gone, c.on)
			continue
		}
		steps = append(steps, Step{Kind: Release, Publisher: p, Indexer: c.on.ID, Why: ReasonClean})
	}
	return steps
}
