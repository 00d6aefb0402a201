package assigner

import (
	"cmp"
	"container/heap"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
)

// maxPublishers bounds what one indexer is given, so that strangers cannot fill
// it with roles.
const maxPublishers = 200_000

// tally is a View made ready for questions, and kept up to date with the steps
// planned so far.
type tally struct {
	v         View
	indexers  []*entry                // by ID, ascending
	copies    map[peer.ID][]placement // by publisher, in the order of indexers
	bound     set
	denied    set
	busy      set
	wanted    set
	prefer    map[peer.ID][]*entry
	bind      map[peer.ID][]*entry
	free      entryHeap // candidates, the one to choose first on top
	scale     scale
	strangers int     // how many more there may be; negative: any number
	mean      float64 // load of a publisher nothing is known of
}

// entry is an Indexer with its lists as sets and its load.
type entry struct {
	Indexer
	preferred, presets, refused, spent set

	weight     float64 // share of load it should have, about 1
	load       int64   // of publishers owned, with those of this plan, see loadUnit
	publishers int
	index      float64 // see loadIndex
	at         int     // place in the heap, -1: no candidate
}

// placement is one role seen from its publisher.
type placement struct {
	on   *entry
	Held       // with the steps planned so far
	was  *Held // as the indexer says; nil: this plan makes it
}

// owns: it takes new ads of the publisher, and is to go on doing so.
func (t *tally) owns(c placement) bool {
	return c.Role == admin.RoleOwner && !c.on.Frozen && !c.on.Lost && !c.on.Draining && t.allowed(c.on, c.Publisher)
}

// counts: what it holds is there, and will be.
func (c placement) counts() bool { return !c.on.Lost && !c.on.Draining }

// last is the newest range of what is held.
func (c placement) last() (r admin.Range, ok bool) {
	if len(c.Ranges) == 0 {
		return r, false
	}
	return c.Ranges[len(c.Ranges)-1], true
}

type set map[peer.ID]struct{}

func setOf(ids []peer.ID) set {
	if len(ids) == 0 {
		return nil
	}
	s := make(set, len(ids))
	for _, id := range ids {
		s[id] = struct{}{}
	}
	return s
}

func (s set) has(id peer.ID) bool {
	_, ok := s[id]
	return ok
}

func (s set) list() []peer.ID {
	ids := make([]peer.ID, 0, len(s))
	for id := range s {
		ids = append(ids, id)
	}
	return ids
}

func newTally(v View) *tally {
	t := &tally{
		v: v, copies: make(map[peer.ID][]placement),
		bound: setOf(v.Bound), denied: setOf(v.Denied), busy: setOf(v.Busy), wanted: setOf(v.Wanted),
		prefer: make(map[peer.ID][]*entry), bind: make(map[peer.ID][]*entry),
	}
	for _, ix := range v.Indexers {
		t.indexers = append(t.indexers, &entry{
			Indexer:   ix,
			preferred: setOf(ix.Preferred),
			presets:   setOf(ix.Presets),
			refused:   setOf(ix.Refused),
			spent:     setOf(ix.Spent),
			at:        -1,
		})
	}
	slices.SortFunc(t.indexers, func(a, b *entry) int { return cmp.Compare(a.ID, b.ID) })
	for _, e := range t.indexers {
		for i, h := range e.Held {
			t.copies[h.Publisher] = append(t.copies[h.Publisher], placement{e, h, &e.Held[i]})
		}
		for _, p := range e.Expected {
			t.busy = with(t.busy, p)
		}
		for _, p := range e.Preferred {
			t.prefer[p] = append(t.prefer[p], e)
		}
		for _, p := range e.Presets {
			t.bind[p] = append(t.bind[p], e)
		}
	}
	t.countStrangers()
	t.weigh()
	return t
}

func with(s set, id peer.ID) set {
	if s == nil {
		s = make(set)
	}
	s[id] = struct{}{}
	return s
}

// wish is how many owners p should have.
func (t *tally) wish(p peer.ID) int {
	if n, ok := t.v.Copies[p]; ok && n > 0 {
		return n
	}
	return t.v.Replication
}

// allowed reports whether configuration lets the indexer have p.
func (t *tally) allowed(e *entry, p peer.ID) bool {
	return !t.bound.has(p) || e.presets.has(p)
}

// candidate: it can be given publishers at all.
func (e *entry) candidate() bool {
	return e.Reachable && !e.Frozen && !e.Lost && !e.Draining && !e.NoNew && e.publishers < maxPublishers
}

func (t *tally) canTake(e *entry, p peer.ID) bool {
	return t.wouldTake(e, p) &&
		!slices.ContainsFunc(t.copies[p], func(c placement) bool {
			return c.on == e && (c.Role == admin.RoleOwner || e.Plain)
		})
}

// wouldTake leaves out what it is to p now.
func (t *tally) wouldTake(e *entry, p peer.ID) bool {
	return e.candidate() && !e.refused.has(p) && t.allowed(e, p)
}

// choose returns the indexer that should have p next, or nil.
func (t *tally) choose(p peer.ID) *entry {
	if some := t.among(t.prefer[p], p); some != nil && !some.Standby {
		return some
	}
	if t.bound.has(p) {
		return t.among(t.bind[p], p)
	}
	var passed []*entry
	var best *entry
	for len(t.free) > 0 && best == nil {
		e := t.free[0]
		if t.canTake(e, p) {
			best = e
			break
		}
		passed = append(passed, e)
		heap.Pop(&t.free)
	}
	for _, e := range passed {
		heap.Push(&t.free, e)
	}
	return best
}

func (t *tally) among(es []*entry, p peer.ID) *entry {
	var best *entry
	for _, e := range es {
		if t.canTake(e, p) && (best == nil || before(e, best)) {
			best = e
		}
	}
	return best
}

// give counts p as owned by the indexer, going on where from stopped. It also
// makes from a holder.
func (t *tally) give(e *entry, p, from peer.ID) {
	end := ""
	cs := t.copies[p]
	for i := range cs {
		if c := &cs[i]; from != "" && c.on.ID == from && !c.on.Plain {
			end = t.stop(c)
		}
	}
	h := Held{Publisher: p, Role: admin.RoleOwner, Continued: from, Ranges: []admin.Range{{From: end}}}
	if i := slices.IndexFunc(cs, func(c placement) bool { return c.on == e }); i >= 0 {
		c := &cs[i]
		h.Height, h.Filling, h.Load, h.Weight, h.LeansOn = c.Height, c.Filling, c.Load, c.Weight, c.LeansOn
		h.Ranges = append(slices.Clone(c.Ranges), admin.Range{From: end})
		if last, ok := c.last(); ok && from == "" { // opened again
			h.Ranges[len(h.Ranges)-1].From, h.Continued = last.To, c.Continued
		}
		c.Held = h
	} else {
		t.copies[p] = append(cs, placement{e, h, nil})
	}
	t.credit(e, t.loadOf(p), 1)
}

// stop makes a copy that of a holder and returns where it ends. That is not
// known before it is asked; any name that is nobody else's will do.
func (t *tally) stop(c *placement) (end string) {
	if c.Role == admin.RoleOwner {
		t.credit(c.on, -t.loadOf(c.Publisher), -1)
	}
	c.Role = admin.RoleHolder
	last, ok := c.last()
	if !ok {
		return ""
	}
	if last.To == "" {
		last.To = "where " + c.on.ID.String() + " stops"
		c.Ranges = slices.Clone(c.Ranges)
		c.Ranges[len(c.Ranges)-1] = last
	}
	return last.To
}

// entryHeap has the indexer to choose first on top.
type entryHeap []*entry

func (h entryHeap) Len() int           { return len(h) }
func (h entryHeap) Less(i, j int) bool { return before(h[i], h[j]) }
func (h entryHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

func (h *entryHeap) Push(x any) {
	e := x.(*entry)
	e.at = len(*h)
	*h = append(*h, e)
}

func (h *entryHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	*h = old[:len(old)-1]
	e.at = -1
	return e
}

// before reports whether a is to be chosen before b.
func before(a, b *entry) bool {
	switch {
	case a.Standby != b.Standby:
		return b.Standby
	case a.index != b.index:
		return a.index < b.index
	case a.publishers != b.publishers:
		return a.publishers < b.publishers
	}
	return a.ID < b.ID
}
