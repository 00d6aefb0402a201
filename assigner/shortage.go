package assigner

import (
	"cmp"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
)

// shortage is a publisher about which something is to be done, or waited for.
type shortage struct {
	publisher peer.ID
	wish      int
	missing   int      // owners
	owned     int      // owners that take ads, with those of this plan
	sources   []source // whom to go on from, the most advanced first
	surplus   int      // owners too many
	stale     bool     // nothing came of it
	stepped   bool     // this plan gives it to somebody, or closes one
	waiting   Reason   // why a missing owner is not made now
}

// source is an indexer that has stopped and that nobody has continued.
type source struct {
	on  *entry
	why Reason
}

const (
	waitsUnread  Reason = "indexers of the pool have not been read yet"
	waitsSource  Reason = "the indexer to go on from cannot be reached"
	waitsBusy    Reason = "a step is under way"
	waitsTarget  Reason = "no indexer can take it"
	waitsOwner   Reason = "one of too many owners cannot be reached"
	waitsDenied  Reason = "policy does not allow it"
	waitsFilling Reason = "older ads are being fetched"
	waitsProof   Reason = "there are too many publishers of whom nothing ever came"
)

// shortages returns the publishers that need a step or wait for one, in
// ascending order. They are found before anything is planned, as no step for
// one publisher changes what another lacks.
func (t *tally) shortages() []shortage {
	var short []shortage
	check := func(p peer.ID) {
		if t.busy.has(p) || t.denied.has(p) {
			return
		}
		if s := t.shortageOf(p); s.missing > 0 || s.surplus > 0 || s.owned == 0 || s.stale || t.holed(p, s.wish) || t.drains(p) {
			short = append(short, s)
		}
	}
	for p := range t.copies {
		check(p)
	}
	for p := range t.wanted {
		if _, known := t.copies[p]; !known {
			check(p)
		}
	}
	slices.SortFunc(short, func(a, b shortage) int { return cmp.Compare(a.publisher, b.publisher) })
	return short
}

func (t *tally) shortageOf(p peer.ID) shortage {
	s := shortage{publisher: p, wish: t.wish(p)}
	copies := t.copies[p]
	if len(copies) == 0 && t.v.Unread > 0 {
		s.waiting = waitsUnread
		return s
	}
	if t.stale(p) {
		s.stale, s.owned = true, len(copies)
		return s
	}
	s.missing = s.wish - t.v.Unread
	continued := continued(copies)
	for _, c := range copies {
		switch why, stopped := t.stopped(c); {
		case t.owns(c):
			s.owned++
			s.missing--
		case !stopped || c.on.spent.has(p) || continued[c.on]:
			// Adds no owner and nothing to go on from.
		case c.on.Reachable && (c.on.Plain || !c.on.refused.has(p)):
			s.sources = append(s.sources, source{c.on, why})
		default:
			s.missing-- // its handoff has to wait for it
			s.waiting = waitsSource
		}
	}
	s.surplus = s.owned - s.wish
	heights := make(map[*entry]uint64, len(copies))
	for _, c := range copies {
		heights[c.on] = c.Height
	}
	slices.SortFunc(s.sources, func(a, b source) int {
		return cmp.Or(cmp.Compare(heights[b.on], heights[a.on]), cmp.Compare(a.on.ID, b.on.ID))
	})
	return s
}

// countStrangers works out how many more strangers there may be; negative: any
// number. Indexers without roles do not say who is one.
func (t *tally) countStrangers() {
	if t.strangers = -1; t.v.MaxStrangers == 0 {
		return
	}
	t.strangers = t.v.MaxStrangers
	for _, cs := range t.copies {
		if !slices.ContainsFunc(cs, func(c placement) bool { return c.on.Plain || c.Height > 0 }) {
			t.strangers = max(t.strangers-1, 0)
		}
	}
}

// stale tells whether nothing ever came of p, wherever it was given to, and
// nobody announces it.
func (t *tally) stale(p peer.ID) bool {
	cs := t.copies[p]
	return len(cs) > 0 && !t.wanted.has(p) && !slices.ContainsFunc(cs, func(c placement) bool { return !c.Stale })
}

// stopped tells whether a copy is one to go on from, and why it stopped.
func (t *tally) stopped(c placement) (why Reason, ok bool) {
	_, holds := c.last()
	switch {
	case c.on.Lost || !holds && !c.on.Plain:
		return "", false
	case c.on.Plain && !c.on.Frozen:
		return "", false // it cannot be made to stop
	case c.on.Frozen:
		return ReasonFrozen, true
	case c.Role == admin.RoleHolder:
		return ReasonClosed, true
	case c.on.Draining:
		return ReasonDrain, true
	case !t.allowed(c.on, c.Publisher):
		return ReasonPinned, true
	}
	return "", false
}

// continued tells which of copies some other goes on from. Indexers with roles
// say where that is: of several that stopped at the same ad, each is continued
// once. Others say only whom they continue.
func continued(copies []placement) map[*entry]bool {
	done := make(map[*entry]bool)
	if len(copies) < 2 {
		return done
	}
	sorted := slices.SortedFunc(slices.Values(copies), func(a, b placement) int { return cmp.Compare(a.on.ID, b.on.ID) })
	ends := make(map[string][]*end)
	for _, c := range sorted {
		for n, r := range c.Ranges {
			if r.To != "" {
				ends[r.To] = append(ends[r.To], &end{on: c.on, last: n == len(c.Ranges)-1})
			}
		}
	}
	for _, d := range sorted {
		run := runOf(d.Ranges)
		for n, r := range d.Ranges {
			if r.From == "" || d.on.Lost || n > 0 && d.Ranges[n-1].To == r.From {
				continue
			}
			named := peer.ID("")
			if n == run && slices.ContainsFunc(sorted, func(c placement) bool { return c.on.ID == d.Continued }) {
				named = d.Continued
			}
			if e := match(ends[r.From], d.on, named); e != nil {
				e.continued = true
				done[e.on] = done[e.on] || e.last
			}
		}
	}
	for _, c := range sorted {
		done[c.on] = done[c.on] || slices.ContainsFunc(sorted, func(d placement) bool {
			return d.on != c.on && !d.on.Lost && (c.on.Plain || d.on.Plain) && d.Continued == c.on.ID
		})
	}
	return done
}

// runOf is the first of the ranges at the end that follow each other: who was
// closed and opened again goes on from itself.
func runOf(ranges []admin.Range) int {
	n := max(len(ranges)-1, 0)
	for n > 0 && ranges[n-1].To == ranges[n].From {
		n--
	}
	return n
}

// end is where a range of an indexer stops.
type end struct {
	on        *entry
	last      bool // it has no newer range
	continued bool
}

// match finds the end that an indexer goes on from: that of whom it names. If it
// names nobody who is left, it is one whose indexer has newer ranges, which
// somebody must have continued, else the first.
func match(ends []*end, from *entry, named peer.ID) *end {
	var best *end
	for _, e := range ends {
		if e.continued || e.on == from || named != "" && e.on.ID != named {
			continue
		}
		if best == nil || best.last && !e.last {
			best = e
		}
	}
	return best
}

func (t *tally) handOff(s *shortage, steps []Step) []Step {
	for _, from := range s.sources {
		if s.missing <= 0 {
			break
		}
		if t.ownsNow(from.on, s.publisher) {
			continue // this plan gave it to who had stopped
		}
		e := t.choose(s.publisher)
		if e == nil {
			s.waiting = waitsTarget
			break
		}
		if e == from.on { // a holder that can go on itself
			steps = append(steps, t.toAssign(s, e, from.why))
			continue
		}
		t.give(e, s.publisher, from.on.ID)
		s.given()
		steps = append(steps, Step{Kind: Handoff, Publisher: s.publisher, Indexer: e.ID, From: from.on.ID, Why: from.why})
	}
	return steps
}

func (t *tally) ownsNow(e *entry, p peer.ID) bool {
	return slices.ContainsFunc(t.copies[p], func(c placement) bool { return c.on == e && t.owns(c) })
}

func (s *shortage) given() {
	s.missing--
	s.owned++
	s.stepped = true
}

func (t *tally) assign(s *shortage, steps []Step) []Step {
	stranger := len(t.copies[s.publisher]) == 0
	if stranger && s.missing > 0 && t.strangers == 0 {
		s.waiting = waitsProof
		return steps
	}
	for s.missing > 0 {
		e := t.choose(s.publisher)
		if e == nil {
			s.waiting = waitsTarget
			break
		}
		if stranger {
			t.strangers, stranger = t.strangers-1, false
		}
		why := ReasonCopies
		if s.owned == 0 {
			why = ReasonNew
		}
		steps = append(steps, t.toAssign(s, e, why))
	}
	return steps
}

func (t *tally) toAssign(s *shortage, e *entry, why Reason) Step {
	t.give(e, s.publisher, "")
	s.given()
	return Step{Kind: Assign, Publisher: s.publisher, Indexer: e.ID, Why: why}
}

// closeSurplus closes owners too many, those that are least advanced.
func (t *tally) closeSurplus(s *shortage, steps []Step) []Step {
	if s.surplus <= 0 {
		return steps
	}
	var owners []placement
	for _, c := range t.copies[s.publisher] {
		if t.owns(c) {
			if !c.on.Reachable {
				return steps // what it says is old
			}
			owners = append(owners, c)
		}
	}
	slices.SortFunc(owners, func(a, b placement) int {
		return cmp.Or(cmp.Compare(b.Height, a.Height), cmp.Compare(a.on.ID, b.on.ID))
	})
	closed := 0
	for _, c := range slices.Backward(owners) {
		if closed == s.surplus {
			break
		}
		if c.on.Plain || c.on.refused.has(s.publisher) {
			continue
		}
		closed++
		s.stepped = true
		t.close(c)
		steps = append(steps, Step{Kind: Close, Publisher: s.publisher, Indexer: c.on.ID, Why: ReasonSurplus})
	}
	return steps
}

func (t *tally) close(c placement) {
	cs := t.copies[c.Publisher]
	for i := range cs {
		if cs[i].on == c.on {
			t.stop(&cs[i])
		}
	}
}
