package assigner

import (
	"cmp"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
)

// Load is even as long as no indexer has more than highShare of its share, or of
// the largest publisher of the pool if that is more: the indexer that has that
// one has so much anyway. And none has much less than its share.
const (
	lowShare  = 0.95
	lowEnough = 0.85 // what an indexer with too little is brought to
	highShare = 1.05
	// A pool is left alone until an indexer has less or more than this, the second
	// as long as its load is not measured well.
	lowTrigger, lowDoubtful   = 0.8, 0.6
	highTrigger, highDoubtful = 1.05, 1.4
	// An indexer is left alone if so much of its publishers is not measured at all.
	mostUnknown = 0.25
)

// side is an indexer as balance sees it.
type side struct {
	*entry
	share float64 // load it should have, see setShares
	most  float64 // load above which it has too much
	rates float64
	owned []owned // movable, the largest first

	count, unknown int     // of publishers owned; of those not measured
	well           float64 // of rates, what is measured well
}

type owned struct {
	publisher peer.ID
	rate      float64
	well      bool // it is measured well
	step      int  // its move in the plan, counted from 1; 0: none
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
	if len(sides) < 2 {
		return steps
	}
	setShares(sides)
	if !slices.ContainsFunc(sides, (*side).uneven) {
		return steps
	}
	slices.SortFunc(sides, byNeed)
	for first := len(steps); len(steps)-first != t.v.Moves; {
		from, to, n := bestMove(sides, t.canMove)
		if from == nil {
			break
		}
		o := from.owned[n]
		if o.step > 0 {
			steps[o.step-1].Indexer = to.ID // it goes there at once
		} else {
			steps = append(steps, Step{Kind: Handoff, Publisher: o.publisher, Indexer: to.ID, From: from.ID, Why: ReasonBalance})
			o.step = len(steps)
		}
		from.lose(n)
		to.gain(o)
		sides = resorted(sides, from, to)
	}
	return steps
}

func (s *side) lose(n int) {
	s.rates -= s.owned[n].rate
	s.owned = slices.Delete(s.owned, n, n+1)
}

func (s *side) gain(o owned) {
	s.rates += o.rate
	at, _ := slices.BinarySearchFunc(s.owned, o, largestFirst)
	s.owned = slices.Insert(s.owned, at, o)
}

func (s *side) has(p peer.ID) bool {
	return slices.ContainsFunc(s.owned, func(o owned) bool { return o.publisher == p })
}

func largestFirst(a, b owned) int {
	return cmp.Or(cmp.Compare(b.rate, a.rate), cmp.Compare(a.publisher, b.publisher))
}

// sides are the indexers among which load moves.
func (t *tally) sides() []*side {
	var sides []*side
	for _, e := range t.indexers {
		if e.candidate() && !e.Standby {
			sides = append(sides, &side{entry: e})
		}
	}
	by := make(map[*entry]*side, len(sides))
	for _, s := range sides {
		by[s.entry] = s
	}
	for p, cs := range t.copies {
		if t.stale(p) {
			continue
		}
		r, weight := t.measured(p)
		rate := float64(units(r))
		for _, c := range cs {
			s := by[c.on]
			if s == nil || !t.owns(c) {
				continue
			}
			s.count++
			if weight < leastWeighed {
				s.unknown++
			}
			if rate > 0 {
				s.owned = append(s.owned, owned{publisher: p, rate: rate, well: weight >= wellWeighed})
			}
		}
	}
	sides = slices.DeleteFunc(sides, func(s *side) bool { return float64(s.unknown) > mostUnknown*float64(s.count) })
	for _, s := range sides {
		slices.SortFunc(s.owned, largestFirst)
		for _, o := range s.owned {
			s.rates += o.rate
			if o.well {
				s.well += o.rate
			}
		}
	}
	return sides
}

// setShares spreads load by weight. A publisher that is more than a share is left
// out, together with an indexer of mean weight that has nothing else to do: so
// much cannot be spread, and an empty indexer is not to go without as the others
// are below a mean that only one of them can reach. Shares are the same whoever
// owns what.
func setShares(sides []*side) {
	var load, weights float64
	var rates []float64
	for _, s := range sides {
		load += s.rates
		weights += s.weight
		for _, o := range s.owned[:min(len(s.owned), len(sides))] {
			rates = append(rates, o.rate)
		}
	}
	slices.SortFunc(rates, func(a, b float64) int { return cmp.Compare(b, a) })
	mean := weights / float64(len(sides))
	for n := 0; n < len(rates) && n < len(sides)-1 && rates[n]*weights > load*mean; n++ {
		load -= rates[n]
		weights -= mean
	}
	top := 0.0
	if len(rates) > 0 {
		top = rates[0]
	}
	for _, s := range sides {
		s.share = max(load, 0) * s.weight / weights
		s.most = max(s.share, top)
	}
}

// need is how much load the indexer lacks; below 0: what it has too much.
func (s *side) need() float64 { return s.share - s.rates }

// byNeed orders by need, the greatest first.
func byNeed(a, b *side) int {
	return cmp.Or(cmp.Compare(b.need(), a.need()), cmp.Compare(a.ID, b.ID))
}

// resorted puts two sides whose need has changed back into the order byNeed.
func resorted(sides []*side, changed ...*side) []*side {
	sides = slices.DeleteFunc(sides, func(s *side) bool { return slices.Contains(changed, s) })
	for _, s := range changed {
		at, _ := slices.BinarySearchFunc(sides, s, byNeed)
		sides = slices.Insert(sides, at, s)
	}
	return sides
}

func (s *side) high(share float64) bool {
	return s.rates > share*s.most
}

// uneven: it is so far off its share that it is worth while to move something.
func (s *side) uneven() bool {
	if s.well < s.rates/2 {
		return s.high(highDoubtful) || s.rates < lowDoubtful*s.share
	}
	return s.high(highTrigger) || s.rates < lowTrigger*s.share
}

// bestMove finds what to move next, among sides in the order byNeed: to the
// indexer most below its share, or the next ones, the largest publisher that one
// above its share can give. If one has too much, it is one of those.
func bestMove(sides []*side, can func(p peer.ID, from, to *side) bool) (from, to *side, n int) {
	for _, to := range sides {
		if to.need() <= 0 {
			break
		}
		high := false
		low := to.rates < lowEnough*to.share
		for _, s := range slices.Backward(sides) {
			excess := -s.need()
			if excess <= 0 {
				break
			}
			tooMuch := s.high(highShare)
			if high && !tooMuch || !low && !tooMuch {
				continue
			}
			k, ok := s.gives(to, excess, can)
			if ok && (from == nil || tooMuch && !high || s.owned[k].rate > from.owned[n].rate) {
				from, n, high = s, k, tooMuch
			}
		}
		if from != nil {
			return from, to, n
		}
	}
	return nil, nil, 0
}

// gives finds the largest publisher to move from s.
func (s *side) gives(to *side, excess float64, can func(p peer.ID, from, to *side) bool) (n int, ok bool) {
	room := min(excess+(1-lowShare)*s.share, highShare*to.most-to.rates)
	if len(s.owned) == 0 || s.owned[len(s.owned)-1].rate > room {
		return 0, false
	}
	start, _ := slices.BinarySearchFunc(s.owned, room, func(o owned, room float64) int { return cmp.Compare(room, o.rate) })
	for n := start; n < len(s.owned); n++ {
		if s.owned[n].rate <= room && better(s, to, s.owned[n].rate) && can(s.owned[n].publisher, s, to) && !to.has(s.owned[n].publisher) {
			return n, true
		}
	}
	return 0, false
}

// better: after the move the new owner is less loaded than the old one was
// before, relative to their shares. So no move is ever turned round.
func better(from, to *side, rate float64) bool {
	return (to.rates+rate)*from.share < from.rates*to.share
}

// canMove: both can do it, and nothing else is planned for p.
func (t *tally) canMove(p peer.ID, from, to *side) bool {
	if from.Plain || to.Plain || t.busy.has(p) || t.denied.has(p) || from.refused.has(p) || t.stale(p) || !t.canTake(to.entry, p) {
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
