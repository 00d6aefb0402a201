package assigner

import (
	"cmp"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
)

// holed tells whether fewer whole copies of a chain than wished are on indexers
// that count. Of a publisher some indexer without roles has, nobody can say.
func (t *tally) holed(p peer.ID, wish int) bool {
	cs := t.copies[p]
	if len(cs) == 0 || t.v.Unread > 0 || slices.ContainsFunc(cs, func(c placement) bool { return c.on.Plain }) {
		return false
	}
	return copiesOf(rangesOf(cs, placement.counts), wish) < wish
}

// rangesOf are the ranges of the copies that count, and lean only on such.
func rangesOf(cs []placement, counts func(placement) bool) (ranges []admin.Range) {
	for _, c := range cs {
		if counts(c) && !orphaned(c.Held, cs, counts) {
			ranges = append(ranges, c.Ranges...)
		}
	}
	return ranges
}

// orphaned tells whether what is held lacks content that no copy that counts has.
func orphaned(h Held, cs []placement, counts func(placement) bool) bool {
	return slices.ContainsFunc(h.LeansOn, func(id peer.ID) bool {
		return !slices.ContainsFunc(cs, func(c placement) bool { return c.on.ID == id && counts(c) })
	})
}

// drains tells whether something of p is on a draining indexer.
func (t *tally) drains(p peer.ID) bool {
	return slices.ContainsFunc(t.copies[p], func(c placement) bool { return c.on.Draining && !c.on.Lost })
}

// fill has owners fetch the beginning of the chain, as long as copies lack.
func (t *tally) fill(s *shortage, steps []Step) []Step {
	p := s.publisher
	lacks := func() bool { return t.holed(p, min(s.wish, s.owned)) }
	if s.stale || !lacks() {
		return steps
	}
	var able []*placement
	for i, c := range t.copies[p] {
		if t.owns(c) && len(c.Ranges) > 0 && (copiesOf(c.Ranges, 1) == 0 || orphaned(c.Held, t.copies[p], placement.counts)) {
			able = append(able, &t.copies[p][i])
		}
	}
	slices.SortFunc(able, func(a, b *placement) int { return cmp.Compare(a.on.ID, b.on.ID) })
	for _, c := range able {
		if c.Filling {
			s.waiting = waitsFilling
			c.Ranges, c.LeansOn = []admin.Range{{}}, nil // as it will be
		}
	}
	for _, c := range able {
		if t.v.Fills == 0 || !lacks() {
			break
		}
		if c.Filling || !c.on.Reachable || c.on.refused.has(p) {
			continue
		}
		t.v.Fills--
		c.Filling, c.Ranges, c.LeansOn = true, []admin.Range{{}}, nil
		steps = append(steps, Step{Kind: Backfill, Publisher: p, Indexer: c.on.ID, Why: ReasonHole})
	}
	return steps
}

// release lets draining indexers go, and publishers nothing came of. A draining
// indexer keeps what it has until the others have it: what this plan gives them
// does not count yet.
func (t *tally) release(s *shortage, steps []Step, stuck map[peer.ID]int) []Step {
	p := s.publisher
	for _, c := range t.copies[p] {
		switch {
		case !c.on.Reachable || c.on.Plain || c.on.refused.has(p):
		case s.stale:
			steps = append(steps, Step{Kind: Release, Publisher: p, Indexer: c.on.ID, Why: ReasonStale})
		case !c.on.Draining || s.stepped:
		case t.without(p, c, s.wish) >= s.wish:
			steps = append(steps, Step{Kind: Release, Publisher: p, Indexer: c.on.ID, Why: ReasonDrain})
		case s.owned < s.wish:
			stuck[c.on.ID]++
		}
	}
	return steps
}

// without counts the whole copies that indexers other than c's have in fact:
// owners that have caught up with c, and holders.
func (t *tally) without(p peer.ID, c placement, want int) int {
	return copiesOf(t.facts(p, func(d placement) bool { return d.on != c.on }, c.Height), want)
}

// facts are the ranges that indexers which count and satisfy which say they
// hold. One that grows counts from a height on.
func (t *tally) facts(p peer.ID, which func(placement) bool, height uint64) (ranges []admin.Range) {
	cs := t.copies[p]
	counts := func(d placement) bool { return d.was != nil && d.counts() && which(d) }
	for _, d := range cs {
		if !counts(d) || orphaned(*d.was, cs, counts) {
			continue
		}
		for _, r := range d.was.Ranges {
			if r.To != "" || d.was.Height >= height {
				ranges = append(ranges, r)
			}
		}
	}
	return ranges
}
