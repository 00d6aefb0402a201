package assigner

import (
	"cmp"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
)

// Load is even as long as each indexer has between lowShare of its share and
// highShare of it, or of its largest publisher if that is more.
const (
	lowShare  = 0.95
	highShare = 1.05
	// A pool is left alone until an indexer has less or more than this.
	lowTrigger  = 0.85
	highTrigger = 1.05
)

// side is an indexer as balance sees it.
type side struct {
	*entry
	share float64 // load it should have
	rates float64
	owned []owned // movable, the largest first
	moved bool    // it got something: it gives nothing
}

type owned struct {
	publisher peer.ID
	rate      float64
}

// balance moves publishers from indexers with too much load to those with too
// little: no history moves, the old owner becomes a holder. Each move is the
// largest publisher that brings the two nearest to their shares, so there are
// about as many as load above shares divided by the largest publishers.
// Publishers that are idle stay where they are.
func (t *tally) balance(steps []Step) []Step {
	if t.v.Moves == 0 || t.v.Unread > 0 {
		return steps
	}
	sides := t.sides()
	if len(sides) < 2 || !slices.ContainsFunc(sides, (*side).uneven) {
		return steps
	}
	for moves := t.v.Moves; moves != 0; moves-- {
		from, to, n := bestMove(sides, t.canMove)
		if from == nil {
			break
		}
		o := from.owned[n]
		from.owned = slices.Delete(from.owned, n, n+1)
		from.rates -= o.rate
		to.rates += o.rate
		to.moved = true
		t.give(to.entry, o.publisher, from.ID)
		steps = append(steps, Step{Kind: Handoff, Publisher: o.publisher, Indexer: to.ID, From: from.ID, Why: ReasonBalance})
	}
	return steps
}

// sides are the indexers among which load moves.
func (t *tally) sides() []*side {
	var sides []*side
	var total, weights float64
	rates := make(map[peer.ID]float64)
	for _, e := range t.indexers {
		if e.candidate() && !e.Standby {
			sides = append(sides, &side{entry: e})
			weights += e.weight
		}
	}
	by := make(map[*entry]*side, len(sides))
	for _, s := range sides {
		by[s.entry] = s
	}
	for p, cs := range t.copies {
		if rates[p] = t.rateOf(p); rates[p] == 0 || t.stale(p) {
			continue
		}
		for _, c := range cs {
			if s := by[c.on]; s != nil && t.owns(c) {
				s.owned = append(s.owned, owned{p, rates[p]})
			}
		}
	}
	for _, s := range sides {
		slices.SortFunc(s.owned, func(a, b owned) int {
			return cmp.Or(cmp.Compare(b.rate, a.rate), cmp.Compare(a.publisher, b.publisher))
		})
		for _, o := range s.owned {
			s.rates += o.rate
		}
		total += s.rates
	}
	for _, s := range sides {
		s.share = total * s.weight / weights
	}
	return sides
}

// largest is the rate of the largest publisher, which no move makes smaller.
func (s *side) largest() float64 {
	if len(s.owned) == 0 {
		return 0
	}
	return s.owned[0].rate
}

func (s *side) high(share float64) bool {
	return s.rates > share*max(s.share, s.largest())
}

// uneven: it is so far off its share that it is worth while to move something.
func (s *side) uneven() bool {
	return s.high(highTrigger) || s.rates < lowTrigger*s.share
}

// bestMove finds what to move next: from the indexer most above its share to
// the one most below, or the next ones, the largest publisher that leaves the
// one near its share and does not bring the other above.
func bestMove(sides []*side, can func(p peer.ID, from, to *side) bool) (from, to *side, n int) {
	byNeed := slices.Clone(sides)
	need := func(s *side) float64 { return s.share - s.rates }
	slices.SortFunc(byNeed, func(a, b *side) int {
		return cmp.Or(cmp.Compare(need(b), need(a)), cmp.Compare(a.ID, b.ID))
	})
	for _, to := range byNeed {
		if need(to) <= 0 {
			break
		}
		for _, from := range slices.Backward(byNeed) {
			excess := -need(from)
			if excess <= 0 || !from.high(highShare) && to.rates >= lowShare*to.share {
				break
			}
			room := min(excess+(1-lowShare)*from.share, need(to)+(highShare-1)*to.share)
			start, _ := slices.BinarySearchFunc(from.owned, room, func(o owned, room float64) int { return cmp.Compare(room, o.rate) })
			for n := start; n < len(from.owned); n++ {
				if from.owned[n].rate <= room && better(from, to, from.owned[n].rate) && can(from.owned[n].publisher, from, to) {
					return from, to, n
				}
			}
		}
	}
	return nil, nil, 0
}

// better: after the move the new owner is less loaded than the old one was
// before, relative to their shares. So no move is ever turned round.
func better(from, to *side, rate float64) bool {
	return (to.rates+rate)*from.share < from.rates*to.share
}

// canMove: both can do it, and nothing else is planned for p.
func (t *tally) canMove(p peer.ID, from, to *side) bool {
	if from.moved || from.Plain || to.Plain || t.busy.has(p) || t.denied.has(p) || from.refused.has(p) || t.stale(p) || !t.canTake(to.entry, p) {
		return false
	}
	owners := 0
	for _, c := range t.copies[p] {
		if c.Role == admin.RoleOwner && (!c.on.Reachable || c.on.Lost) || c.on == from.entry && c.Filling {
			return false
		}
		if t.owns(c) {
			owners++
		}
	}
	return owners <= t.wish(p) && !t.holed(p, min(t.wish(p), owners))
}
