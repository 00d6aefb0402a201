package assigner

import (
	"cmp"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
)

// fewest are the moves that bring all sides near their shares, as few as are
// found: a packing problem, so a few greedy ways are tried on the facts, each to
// its end, and where few moves are enough, even fewer are searched for. The one is
// taken that leaves least load out of bounds, and of those alike in that the one
// with the fewest moves. Moves at the beginning stand without the others. Only
// most moves are needed; negative: all.
func fewest(sides []*side, can canGet, most int) []moved {
	limit := maxMoves
	if most < 0 {
		limit = -1
	}
	start := newRound(sides, can)
	r, whole := greedy(start, limit)
	if !whole {
		return r.made() // so many that it does not matter
	}
	return fewer(start, r).made()
}

// greedy is the best of what ways come to, one after the other. Nothing goes back
// to where it came from, unless load stays uneven without that. Not whole: a way
// came to limit.
func greedy(now *round, limit int) (r *round, whole bool) {
	for range maxRounds {
		best := now
		for _, w := range ways {
			r := now.clone()
			if !r.run(w, limit) {
				return r, false
			}
			if r.better(best) {
				best = r
			}
		}
		switch {
		case best != now:
			now = best
		case now.back || now.out() <= now.gain:
			return now, true
		default:
			now = now.clone()
			now.back = true
		}
	}
	return now, true
}

// way is one way to go about it.
type way struct {
	// givenTo is the part of its share an indexer with too much may come down to.
	// Below lowEnough it gets something else instead.
	givenTo float64
	// needy has publishers go to who lacks most, not to whom they fit best.
	needy bool
	// deep has an indexer that lacks something get more than the giver can spare,
	// which lacks something then, if less lacks in all.
	deep bool
}

var ways = []way{
	{givenTo: lowEnough},
	{givenTo: lowEnough, needy: true},
	{givenTo: lowEnough / 2},
	{givenTo: lowEnough, deep: true},
	{givenTo: 0, deep: true},
}

const (
	// maxRounds bounds how often ways go on from the best so far.
	maxRounds = 4
	// maxMoves is beyond what is made in minutes: then the first way will do.
	maxMoves = 200
	// leastGain, as a part of a mean share, is what moves have to be good for.
	leastGain = 0.005
)

// canGet tells whether an indexer may get a publisher.
type canGet func(p peer.ID, to *side) bool

// round is what one way makes of the facts.
type round struct {
	sides []*side // by ID
	can   canGet
	moves []moved
	gain  float64 // less than this is nothing
	back  bool    // publishers may go back to where they came from
}

type moved struct {
	publisher peer.ID
	from, to  *entry
}

func newRound(sides []*side, can canGet) *round {
	r := &round{sides: sides, can: can}
	for _, s := range sides {
		r.gain += leastGain * s.share / float64(len(sides))
	}
	return r
}

func (r *round) clone() *round {
	c := &round{can: r.can, moves: slices.Clone(r.moves), gain: r.gain, back: r.back}
	for _, s := range r.sides {
		d := *s
		d.owned = slices.Clone(s.owned)
		c.sides = append(c.sides, &d)
	}
	return c
}

// out is how much load is out of bounds.
func (r *round) out() (sum float64) {
	for _, s := range r.sides {
		sum += max(s.over(), 0) + max(s.lack(), 0)
	}
	return sum
}

func (r *round) better(than *round) bool {
	if a, b := r.out(), than.out(); a < b-r.gain || a > b+r.gain {
		return a < b
	}
	return len(r.made()) < len(than.made())
}

// made are the moves without those of publishers that came back. Where a
// publisher with several owners goes to one it also leaves, that one stays and
// it is one move: so none has to wait for another, and none goes to an owner.
func (r *round) made() []moved {
	var made []moved
	for _, m := range r.moves {
		for {
			n := slices.IndexFunc(made, func(o moved) bool {
				return o.publisher == m.publisher && (o.to == m.from || o.from == m.to)
			})
			if n < 0 {
				break
			}
			if o := made[n]; o.to == m.from {
				m.from = o.from
			} else {
				m.to = o.to
			}
			made = slices.Delete(made, n, n+1)
		}
		if m.from != m.to {
			made = append(made, m)
		}
	}
	return made
}

// run makes moves until no more help, and reports whether there were no more
// than most.
func (r *round) run(w way, most int) bool {
	for r.relieve(w) || r.supply(w) {
		if len(r.moves) == most {
			return false
		}
	}
	return true
}

// relieve has an indexer with too much give something: whatever brings load
// down most, the smallest such.
func (r *round) relieve(w way) bool {
	var from *side
	n, most := 0, 0.0
	var tos []*side // those with most room first
	for _, s := range r.sides {
		if s.over() <= most {
			continue
		}
		if tos == nil {
			tos = slices.SortedFunc(slices.Values(r.sides), func(a, b *side) int {
				return cmp.Or(cmp.Compare(b.room(), a.room()), cmp.Compare(a.ID, b.ID))
			})
		}
		k, ok := 0, false
		give := s.rates - w.givenTo*s.share
		if n := len(s.owned); s.free == 0 || s.owned[n-1].rate > min(give, tos[0].room()) {
			continue // not even the smallest finds room
		}
		for _, to := range tos {
			if k, ok = r.gives(s, to, give, s.over()); ok {
				break
			}
		}
		if ok && min(s.owned[k].rate, s.over()) > most {
			from, n, most = s, k, min(s.owned[k].rate, s.over())
		}
	}
	if from == nil {
		return false
	}
	var best *side
	for _, to := range r.sides {
		if r.canGive(from, to, n) && (best == nil || to.fits(from.owned[n].rate, best, w.needy)) {
			best = to
		}
	}
	r.move(from, n, best)
	return true
}

// fits tells whether a publisher goes here rather than to the other: what is
// more than somebody lacks is wasted, and who lacks much is left to what is
// large.
func (s *side) fits(rate float64, other *side, needy bool) bool {
	a, b := max(s.lack(), 0), max(other.lack(), 0)
	if wa, wb := max(rate-a, 0), max(rate-b, 0); wa != wb {
		return wa < wb
	}
	if a == b || needy && a > 0 {
		return s.need() > other.need()
	}
	return a < b
}

// supply has the indexer that lacks most get something.
func (r *round) supply(w way) bool {
	lacking := slices.DeleteFunc(slices.Clone(r.sides), func(s *side) bool { return s.lack() <= 0 })
	slices.SortStableFunc(lacking, func(a, b *side) int { return cmp.Compare(b.lack(), a.lack()) })
	for _, to := range lacking {
		if from, n := r.source(w, to); from != nil {
			r.move(from, n, to)
			return true
		}
	}
	return false
}

// source finds what an indexer that lacks something gets: the least that is
// enough, or else the most.
func (r *round) source(w way, to *side) (from *side, n int) {
	best, over := 0.0, 0.0
	for _, s := range r.sides {
		spare := -s.lack()
		if spare <= 0 {
			continue
		}
		most := spare
		if w.deep {
			most = s.rates
		}
		k, ok := r.gives(s, to, most, min(to.lack(), spare))
		if !ok {
			continue
		}
		rate := s.owned[k].rate
		less := min(rate, to.lack()) - max(rate-spare, 0)
		if less > best || less == best && rate < over {
			from, n, best, over = s, k, less, rate
		}
	}
	return from, n
}

// gives finds what to move: of what is not more than most and finds room there
// the smallest that is as much as is wanted, or else the largest.
func (r *round) gives(from, to *side, most, want float64) (n int, ok bool) {
	most = min(most, to.room())
	if from == to || from.free == 0 || from.owned[len(from.owned)-1].rate > most {
		return 0, false
	}
	first, enough := from.atMost(most), from.atMost(want)
	for n := min(enough, len(from.owned)-1); n >= first; n-- {
		if from.owned[n].rate >= want && r.canGive(from, to, n) {
			return n, true
		}
	}
	for n := max(first, enough); n < len(from.owned); n++ {
		if r.canGive(from, to, n) {
			return n, true
		}
	}
	return 0, false
}

// canGive: there is room, and after the move the new owner is less loaded than
// the old one was before, relative to their shares. So no move is ever turned
// round.
func (r *round) canGive(from, to *side, n int) bool {
	o := from.owned[n]
	if o.stays || from == to || o.came == to.ID && !r.back || o.rate > to.room() || (to.rates+o.rate)*from.share >= from.rates*to.share || to.has(o.publisher) {
		return false
	}
	return o.step > 0 && r.moves[o.step-1].from == to.entry || r.can(o.publisher, to)
}

func (r *round) move(from *side, n int, to *side) {
	o := from.owned[n]
	if o.step > 0 {
		r.moves[o.step-1].to = to.entry // it goes there at once, or stays
	} else {
		r.moves = append(r.moves, moved{o.publisher, from.entry, to.entry})
		o.step = len(r.moves)
	}
	from.free--
	to.free++
	from.rates -= o.rate
	from.owned = slices.Delete(from.owned, n, n+1)
	to.rates += o.rate
	at, _ := slices.BinarySearchFunc(to.owned, o, largestFirst)
	to.owned = slices.Insert(to.owned, at, o)
}
