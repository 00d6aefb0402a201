package assigner

import (
	"cmp"
	"slices"
)

const (
	// maxSearched is how many moves are searched for at most: more are not found
	// in time, and one less matters little.
	maxSearched = 12
	// maxVisits bounds all searches of a plan, as indexers looked at: less than a
	// tenth of a second.
	maxVisits = 1_000_000
)

// seek looks for a round that makes load even in fewer moves than are known,
// depth first: somebody who lacks something has to get something, and if nobody
// does, who has too much has to give. What cannot end in time is cut off: each
// move is worth at most what it takes off the load that lacks, and what all an
// indexer gives is worth no more than it can spare.
type seek struct {
	*round
	visits int       // that are left
	worth  []float64 // scratch
	own    []float64 // scratch
}

// fewer is best, or a round from start as even with fewer moves, if one is found.
func fewer(start, best *round) *round {
	visits := maxVisits
	for best.out() <= best.gain {
		most := len(best.made()) - 1
		if most < 1 || most >= maxSearched {
			return best
		}
		s := &seek{round: start.clone(), visits: visits}
		if !s.find(most) || !s.better(best) {
			return best
		}
		best, visits = s.round, s.visits
	}
	return best
}

// choice is a move that may be made.
type choice struct {
	from, to *side
	n        int
	worth    float64
}

// find makes at most so many moves that make load even, or none.
func (s *seek) find(moves int) bool {
	least, ok := s.least(moves)
	if !ok || s.visits < 0 {
		return false
	}
	if s.out() <= s.gain {
		return true
	}
	if moves == 0 {
		return false
	}
	for _, c := range s.choices(least) {
		o, from, to := c.from.owned[c.n], c.from.rates, c.to.rates
		s.move(c.from, c.n, c.to)
		if s.find(moves - 1) {
			return true
		}
		s.undo(c, o)
		c.from.rates, c.to.rates = from, to
	}
	return false
}

// least is what a move has to be worth if the others are worth as much as can
// be; not ok: so many moves are too few.
func (s *seek) least(moves int) (least float64, ok bool) {
	s.visits -= len(s.sides)
	lacking, lacks, need, over := 0.0, 0.0, 0, 0
	for _, x := range s.sides {
		if l := x.lack(); l > 0 {
			lacking += l
			lacks = max(lacks, l)
			if l > s.gain {
				need++
			}
		}
		if x.over() > s.gain {
			over++
		}
	}
	if lacking <= s.gain {
		return 0, over <= moves
	}
	if max(need, over) > moves || moves == 0 {
		return 0, false
	}
	all := s.worth[:0]
	for _, x := range s.sides {
		if x.free == 0 || x.lack() >= 0 {
			continue
		}
		spare, own := -x.lack(), s.own[:0]
		first := x.atMost(lacks)
		for n := first - 1; n >= 0 && len(own) < moves; n-- {
			if w := min(lacks, spare+lacks-x.owned[n].rate); w > 0 && x.owned[n].step == 0 {
				own = append(own, w)
			}
		}
		for n, k := first, 0; n < len(x.owned) && k < moves; n++ {
			if x.owned[n].step == 0 {
				own = append(own, min(x.owned[n].rate, spare))
				k++
			}
		}
		slices.SortFunc(own, func(a, b float64) int { return cmp.Compare(b, a) })
		for _, w := range own[:min(moves, len(own))] {
			w = min(w, spare)
			if w <= 0 {
				break
			}
			all = append(all, w)
			spare -= w
		}
		s.own = own
	}
	slices.SortFunc(all, func(a, b float64) int { return cmp.Compare(b, a) })
	s.worth = all
	least = lacking - s.gain
	for _, w := range all[:min(moves-1, len(all))] {
		least -= w
	}
	ok = len(all) > 0 && all[0] >= least
	return least, ok
}

// choices are the moves to try, those that help most first: all that bring
// something to who lacks most; or, if nobody lacks anything, all that take
// something from who has most too much.
func (s *seek) choices(least float64) []choice {
	s.visits -= len(s.sides)
	var to, giver *side
	for _, x := range s.sides {
		if x.lack() > 0 && (to == nil || x.lack() > to.lack()) {
			to = x
		}
		if x.over() > 0 && (giver == nil || x.over() > giver.over()) {
			giver = x
		}
	}
	var cs []choice
	add := func(from, to *side) {
		if from == to || from.free == 0 {
			return
		}
		spare, lack := -from.lack(), max(to.lack(), 0)
		for n := from.atMost(to.room()); n < len(from.owned); n++ {
			o := from.owned[n]
			w := min(o.rate, lack) - max(o.rate-max(spare, 0), 0)
			if lack == 0 {
				w = min(o.rate, from.over()) - max(o.rate-max(spare, 0), 0)
			} else if w < least || w <= 0 {
				if o.rate < least {
					break
				}
				continue
			}
			if w > 0 && o.step == 0 && s.canGive(from, to, n) {
				cs = append(cs, choice{from, to, n, w})
			}
		}
	}
	for _, x := range s.sides {
		if to != nil {
			add(x, to)
		} else {
			add(giver, x)
		}
	}
	slices.SortStableFunc(cs, func(a, b choice) int {
		return cmp.Or(cmp.Compare(b.worth, a.worth), cmp.Compare(a.from.owned[a.n].rate, b.from.owned[b.n].rate))
	})
	return cs
}

// undo takes back the last move.
func (s *seek) undo(c choice, o owned) {
	s.moves = s.moves[:len(s.moves)-1]
	at := slices.IndexFunc(c.to.owned, func(x owned) bool { return x.publisher == o.publisher })
	c.to.owned = slices.Delete(c.to.owned, at, at+1)
	c.from.owned = slices.Insert(c.from.owned, c.n, o)
	c.from.free++
	c.to.free--
}
