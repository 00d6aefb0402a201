package assigner

import (
	"cmp"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
)

// Load is even as long as no indexer has more than highTrigger of its share, or
// of the largest publisher of the pool if that is more: the indexer that has that
// one has so much anyway. And none has much less than its share.
const (
	lowEnough = 0.85 // what an indexer with too little is brought to
	highShare = 1.045
	highFill  = 1.04 // what an indexer is filled to at most
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
	owned []owned // the largest first
	free  int     // of those, how many can be moved

	count, unknown int     // of publishers owned; of those not measured
	well           float64 // of rates, what is measured well
}

type owned struct {
	publisher peer.ID
	rate      float64
	well      bool    // it is measured well
	stays     bool    // it cannot be moved
	came      peer.ID // from where its owner has it, "" if from nowhere
	step      int     // its move, counted from 1; 0: none
}

// balance moves publishers from indexers with too much load to those with too
// little, in few moves: see fewest. No history moves, the old owner becomes a
// holder. Publishers that are idle stay where they are.
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
	for _, s := range sides {
		for n := range s.owned {
			if s.owned[n].stays = !t.movable(s.owned[n].publisher, s.entry); !s.owned[n].stays {
				s.free++
			}
		}
	}
	for n, m := range fewest(sides, t.canGet, t.v.Moves) {
		if n == t.v.Moves {
			break // the next plan goes on
		}
		steps = append(steps, Step{Kind: Handoff, Publisher: m.publisher, Indexer: m.to.ID, From: m.from.ID, Why: ReasonBalance})
	}
	return steps
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
				s.owned = append(s.owned, owned{publisher: p, rate: rate, well: weight >= wellWeighed, came: c.Continued})
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

// need is how much load the indexer has less than its share, lack how much less
// than is enough, over how much more than is even.
func (s *side) need() float64 { return s.share - s.rates }
func (s *side) lack() float64 { return lowEnough*s.share - s.rates }
func (s *side) over() float64 { return s.rates - highShare*s.most }

// room is what it can get before it has too much.
func (s *side) room() float64 { return highFill*s.most - s.rates }

// uneven: it is so far off its share that it is worth while to move something.
func (s *side) uneven() bool {
	if s.well < s.rates/2 {
		return s.rates > highDoubtful*s.most || s.rates < lowDoubtful*s.share
	}
	return s.rates > highTrigger*s.most || s.rates < lowTrigger*s.share
}

// atMost is the first publisher owned with no more than a rate.
func (s *side) atMost(rate float64) int {
	n, _ := slices.BinarySearchFunc(s.owned, rate, func(o owned, rate float64) int { return cmp.Compare(rate, o.rate) })
	return n
}

// movable: the owner can give p up, and nothing else is planned for p.
func (t *tally) movable(p peer.ID, from *entry) bool {
	if from.Plain || t.busy.has(p) || t.denied.has(p) || from.refused.has(p) || t.stale(p) {
		return false
	}
	owners := 0
	for _, c := range t.copies[p] {
		if c.Role == admin.RoleOwner && (!c.on.Reachable || c.on.Lost) || c.on == from && c.Filling {
			return false
		}
		if t.owns(c) {
			owners++
		}
	}
	return owners <= t.wish(p) && !t.holed(p, min(t.wish(p), owners))
}

// canGet: the indexer can take p. Whether it is the owner itself a round knows,
// which may have moved that away.
func (t *tally) canGet(p peer.ID, to *side) bool {
	return !to.Plain && t.wouldTake(to.entry, p) && !slices.ContainsFunc(t.copies[p], func(c placement) bool {
		// What it gets would not count if what it has does not.
		return c.on == to.entry && !t.owns(c) && (c.Role == admin.RoleOwner || orphaned(c.Held, t.copies[p], placement.counts))
	})
}
