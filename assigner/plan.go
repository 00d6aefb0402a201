package assigner

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
)

// View is everything a plan is made from. The order of its lists means
// nothing, and Plan changes none of them.
type View struct {
	// Indexers are the members of the pool that have been read at least once,
	// with their last known facts. IDs are unique.
	Indexers []Indexer
	// Wanted are the publishers that have been announced. Publishers that some
	// indexer has assigned are wanted as well and need not be listed.
	Wanted []peer.ID
	// Bound are the publishers in the preset of any member, read or not: they
	// go to indexers whose Presets list them and to no other.
	Bound []peer.ID
	// Replication is how many active indexers each publisher should have, at
	// least 1. Fewer candidates than that is no error; the rest stays undone.
	Replication int
	// Unread is how many members have not been read yet and are still waited
	// for. Any of them may hold any publisher: while Unread is above 0, a
	// publisher that no indexer has is left alone, and others are thought to
	// have one more copy on each unread member (assigner.md, section 2.6).
	Unread int
}

// Indexer is what is known of one indexer. It is active if it is not frozen,
// and a copy of a publisher on an active indexer counts even while that cannot
// be reached, for its assignments are on its disk.
type Indexer struct {
	ID peer.ID
	// Reachable: the last look at it succeeded. Only reachable indexers get
	// anything to do.
	Reachable bool
	// Frozen: it stores no new content, and its publishers move elsewhere. It
	// keeps them assigned.
	Frozen bool
	// Standby: it gets a publisher only when no other indexer can take it.
	Standby bool
	// Assigned are its assignments, each publisher once, with the steps under
	// way counted as done.
	Assigned []admin.Assignment
	// Preferred are publishers it holds content of without having them
	// assigned.
	Preferred []peer.ID
	// Presets are publishers reserved for it by configuration.
	Presets []peer.ID
	// Refused are publishers it lately would not take.
	Refused []peer.ID
	// Spent are publishers a handoff of which from this indexer was accepted
	// and came to nothing, because it had no content of them to continue from.
	Spent []peer.ID
}

// Kind says what a step does.
type Kind int

const (
	// Assign gives the publisher to the indexer, which starts at the beginning
	// of the chain or wherever it stopped before.
	Assign Kind = iota + 1
	// Handoff gives the publisher to the indexer, which goes on where the
	// frozen indexer From stopped.
	Handoff
)

func (k Kind) String() string {
	switch k {
	case Assign:
		return "assign"
	case Handoff:
		return "handoff"
	}
	return fmt.Sprintf("Kind(%d)", int(k))
}

// Step is one thing to do. Steps of a plan are independent of each other and
// can be done in any order, or not at all and planned again.
type Step struct {
	Kind      Kind
	Publisher peer.ID
	Indexer   peer.ID // who gets the publisher
	From      peer.ID // the frozen indexer of a Handoff, else empty
}

// Plan says what to do so that every wanted publisher has Replication active
// indexers. It is pure, and the same facts in any order make the same plan,
// which has these properties:
//
//  1. No step goes to an indexer that is frozen, not reachable, refusing the
//     publisher, or has it already; a bound publisher goes to its presets only.
//  2. A missing copy of a publisher is made by a handoff from a frozen indexer
//     that has it and whom no other indexer has continued, as long as there is
//     one, and else by assignment. A frozen indexer that cannot be reached now
//     is waited for. So a finished handoff, which the target's Continued shows,
//     is neither repeated nor turned round.
//  3. The indexer chosen is in this order: not on standby, preferred, with the
//     fewest publishers counting those of this plan, of the lowest ID.
//  4. Nothing is ever taken away from an indexer.
//  5. If every step succeeds, the next plan has no steps.
//
// Handoffs come before assignments, each in the order of publishers.
func Plan(v View) []Step {
	return decide(v).steps
}

// decision is a plan together with what it leaves undone.
type decision struct {
	steps      []Step
	publishers int // that some indexer has assigned
	// unplaced are the wanted publishers that have no active indexer and get
	// none by steps.
	unplaced int
}

func decide(v View) decision {
	t := newTally(v)
	d := decision{publishers: len(t.copies)}
	short := t.shortages()
	for i := range short {
		d.steps = t.handOff(&short[i], d.steps)
	}
	for i := range short {
		d.steps = t.assign(&short[i], d.steps)
		if !short[i].owned {
			d.unplaced++
		}
	}
	return d
}

// tally is a View made ready for questions, and kept up to date with the steps
// planned so far.
type tally struct {
	v        View
	indexers []*entry                // by ID, ascending
	copies   map[peer.ID][]placement // by publisher, in the order of indexers
	bound    set
}

// entry is an Indexer with its lists as sets and its load.
type entry struct {
	Indexer
	preferred, presets, refused, spent set
	publishers                         int // load: publishers assigned, with those of this plan
}

// placement is one assignment seen from its publisher.
type placement struct {
	on        *entry
	continued peer.ID
}

// shortage is a publisher that has too few active indexers.
type shortage struct {
	publisher peer.ID
	missing   int
	sources   []*entry // frozen indexers to hand off from
	owned     bool     // has an active indexer, or gets one by this plan
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

func newTally(v View) *tally {
	t := &tally{v: v, copies: make(map[peer.ID][]placement), bound: setOf(v.Bound)}
	for _, ix := range v.Indexers {
		t.indexers = append(t.indexers, &entry{
			Indexer:    ix,
			preferred:  setOf(ix.Preferred),
			presets:    setOf(ix.Presets),
			refused:    setOf(ix.Refused),
			spent:      setOf(ix.Spent),
			publishers: len(ix.Assigned),
		})
	}
	slices.SortFunc(t.indexers, func(a, b *entry) int { return cmp.Compare(a.ID, b.ID) })
	for _, e := range t.indexers {
		for _, as := range e.Assigned {
			t.copies[as.Publisher] = append(t.copies[as.Publisher], placement{e, as.Continued})
		}
	}
	return t
}

// shortages returns the publishers that need a step or wait for one, in
// ascending order. They are found before anything is planned, as no step for
// one publisher changes what another lacks.
func (t *tally) shortages() []shortage {
	var short []shortage
	check := func(p peer.ID) {
		if s := t.shortageOf(p); s.missing > 0 || !s.owned {
			short = append(short, s)
		}
	}
	for p := range t.copies {
		check(p)
	}
	for p := range setOf(t.v.Wanted) {
		if _, known := t.copies[p]; !known {
			check(p)
		}
	}
	slices.SortFunc(short, func(a, b shortage) int { return cmp.Compare(a.publisher, b.publisher) })
	return short
}

func (t *tally) shortageOf(p peer.ID) shortage {
	s := shortage{publisher: p}
	copies := t.copies[p]
	if len(copies) == 0 && t.v.Unread > 0 {
		return s
	}
	s.missing = t.v.Replication - t.v.Unread
	for _, c := range copies {
		switch {
		case !c.on.Frozen && t.allowed(c.on, p):
			s.owned = true
			s.missing--
		case !c.on.Frozen || c.on.spent.has(p) || continued(copies, c.on.ID):
			// Adds no copy and nothing to go on from.
		case c.on.Reachable:
			s.sources = append(s.sources, c.on)
		default:
			s.missing-- // its handoff has to wait for it
		}
	}
	return s
}

// continued reports whether one of copies was handed off from the indexer id.
func continued(copies []placement, id peer.ID) bool {
	return slices.ContainsFunc(copies, func(c placement) bool { return c.continued == id })
}

// allowed reports whether configuration lets the indexer have p.
func (t *tally) allowed(e *entry, p peer.ID) bool {
	return !t.bound.has(p) || e.presets.has(p)
}

func (t *tally) handOff(s *shortage, steps []Step) []Step {
	for _, from := range s.sources {
		if s.missing <= 0 {
			break
		}
		e := t.choose(s.publisher)
		if e == nil {
			break
		}
		t.give(s, e, from.ID)
		steps = append(steps, Step{Kind: Handoff, Publisher: s.publisher, Indexer: e.ID, From: from.ID})
	}
	return steps
}

func (t *tally) assign(s *shortage, steps []Step) []Step {
	for s.missing > 0 {
		e := t.choose(s.publisher)
		if e == nil {
			break
		}
		t.give(s, e, "")
		steps = append(steps, Step{Kind: Assign, Publisher: s.publisher, Indexer: e.ID})
	}
	return steps
}

// give counts p as assigned to the indexer.
func (t *tally) give(s *shortage, e *entry, from peer.ID) {
	e.publishers++
	t.copies[s.publisher] = append(t.copies[s.publisher], placement{e, from})
	s.missing--
	s.owned = true
}

// choose returns the indexer that should have p next, or nil.
func (t *tally) choose(p peer.ID) *entry {
	var best *entry
	for _, e := range t.indexers {
		if t.canTake(e, p) && (best == nil || better(e, best, p)) {
			best = e
		}
	}
	return best
}

func (t *tally) canTake(e *entry, p peer.ID) bool {
	return e.Reachable && !e.Frozen && !e.refused.has(p) && t.allowed(e, p) &&
		!slices.ContainsFunc(t.copies[p], func(c placement) bool { return c.on == e })
}

// better reports whether a should have p rather than b, whose ID is lower.
func better(a, b *entry, p peer.ID) bool {
	if a.Standby != b.Standby {
		return b.Standby
	}
	if a.preferred.has(p) != b.preferred.has(p) {
		return a.preferred.has(p)
	}
	return a.publishers < b.publishers
}
