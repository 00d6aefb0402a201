package assigner

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
)

const (
	// maxSteps bounds the steps of one indexer that are queued or running.
	maxSteps = 64
	// stepWorkers is how many of them run at once.
	stepWorkers = 8

	maxLookBackoff = 15 * time.Second // a look at one that is gone costs next to nothing
	maxStepBackoff = time.Minute
	maxRefusal     = 5 * time.Minute
	// unsureCalls is for how many call time-outs a call without an answer
	// counts as done: long enough for an indexer to start anew and tell.
	unsureCalls = 3
)

// facts are what one look at an indexer brought. A value is replaced, never
// edited.
type facts struct {
	id        peer.ID
	frozen    bool
	usage     float64              // percent of its file system in use, -1 unknown
	assigned  []admin.Assignment   // by publisher
	index     map[peer.ID]struct{} // the publishers of assigned
	preferred []peer.ID            // ascending
}

func newFacts(st admin.Status, assigned []admin.Assignment, preferred []peer.ID) *facts {
	f := &facts{id: st.ID, frozen: st.Frozen, usage: st.Usage, index: make(map[peer.ID]struct{}, len(assigned))}
	for _, as := range assigned {
		if _, twice := f.index[as.Publisher]; !twice {
			f.index[as.Publisher] = struct{}{}
			f.assigned = append(f.assigned, as)
		}
	}
	slices.SortFunc(f.assigned, func(a, b admin.Assignment) int {
		if a.Publisher < b.Publisher {
			return -1
		}
		return 1
	})
	f.preferred = slices.Sorted(slices.Values(preferred))
	return f
}

// same reports whether f and g make the same plan.
func (f *facts) same(g *facts) bool {
	return f.id == g.id && f.frozen == g.frozen &&
		slices.Equal(f.assigned, g.assigned) && slices.Equal(f.preferred, g.preferred)
}

// newAssignments returns the assignments of publishers that old, which may be
// nil, does not have.
func (f *facts) newAssignments(old *facts) []admin.Assignment {
	if old == nil {
		return f.assigned
	}
	if slices.Equal(f.assigned, old.assigned) {
		return nil
	}
	var added []admin.Assignment
	for _, as := range f.assigned {
		if _, had := old.index[as.Publisher]; !had {
			added = append(added, as)
		}
	}
	return added
}

// node is one member of the pool: what is known of it and what is being done
// about it. All fields but the channels are guarded by pool.mu.
type node struct {
	member  admin.PoolMember
	indexer admin.Indexer
	since   time.Time // when it joined the pool
	started bool
	gone    bool   // left the pool
	stop    func() // ends its goroutines; nil until they run

	facts    *facts // last known; nil until read
	err      error  // of the last look
	failures int    // looks failed since the last that succeeded
	looks    uint64 // looks begun

	underway     map[peer.ID]*underway // by publisher
	queued       int                   // steps in tasks or running
	stepFailures int                   // calls without an answer since the last with one
	stepsAfter   time.Time             // no steps before, because of stepFailures
	refused      map[peer.ID]*refusal
	spent        set

	forwards forwardQueue

	tasks      chan task     // steps to do
	lookNow    chan struct{} // look before the poll interval is over
	retryNow   chan struct{} // look before the wait after a failure is over
	forwardNow chan struct{} // an announce is due
}

// underway is a step handed to an indexer that its facts do not show yet.
type underway struct {
	Step
	state stepState
	look  uint64    // stepDone: the last look begun before the answer
	until time.Time // stepUnsure: when doubt ends
}

type stepState int

const (
	stepRunning stepState = iota // queued or called
	stepDone                     // the indexer said yes
	stepUnsure                   // the call ended without an answer
)

// task is a step with what its call needs.
type task struct {
	Step
	handoff admin.Handoff
}

// refusal is an indexer's no to one publisher.
type refusal struct {
	times int
	until time.Time
}

// duplicateError: two members of the pool are the same indexer.
type duplicateError struct {
	id  peer.ID
	url string
}

func (e *duplicateError) Error() string {
	return fmt.Sprintf("indexer %s is in the pool already, at %s: remove one of the two", e.id, e.url)
}

func newNode(now time.Time) *node {
	n := &node{
		since:      now,
		tasks:      make(chan task, maxSteps),
		lookNow:    make(chan struct{}, 1),
		retryNow:   make(chan struct{}, 1),
		forwardNow: make(chan struct{}, 1),
		forwards:   newForwardQueue(),
	}
	n.forget()
	return n
}

// forget makes n a member never read, without steps to settle. Steps that are
// running still are no longer waited for.
func (n *node) forget() {
	n.facts = nil
	n.underway = make(map[peer.ID]*underway)
	n.refused = make(map[peer.ID]*refusal)
	n.spent = make(set)
}

// up: the last look succeeded.
func (n *node) up() bool { return n.facts != nil && n.err == nil }

// name is the indexer's peer ID, or until that is known its admin URL.
func (n *node) name() string {
	if n.facts == nil {
		return n.member.Admin
	}
	return n.facts.id.String()
}

// has reports whether announces of the publisher should go to n.
func (n *node) has(publisher peer.ID) bool {
	if n.facts == nil {
		return false
	}
	if _, ok := n.facts.index[publisher]; ok {
		return true
	}
	u := n.underway[publisher]
	return u != nil && u.state == stepDone
}

// expire drops what time has decided.
func (n *node) expire(now time.Time) {
	for publisher, u := range n.underway {
		if u.state == stepUnsure && !now.Before(u.until) {
			delete(n.underway, publisher)
		}
	}
	for publisher, r := range n.refused {
		// Kept for a while after it ended so that the next one lasts longer.
		if now.Sub(r.until) > maxRefusal {
			delete(n.refused, publisher)
		}
	}
}

// view is n, which has been read, as Plan wants it.
func (n *node) view(now time.Time) Indexer {
	ix := Indexer{
		ID:        n.facts.id,
		Reachable: n.up() && !now.Before(n.stepsAfter),
		Frozen:    n.facts.frozen,
		Standby:   n.member.Standby,
		Assigned:  n.facts.assigned,
		Preferred: n.facts.preferred,
		Presets:   n.member.Preset,
		Spent:     n.spent.list(),
	}
	for publisher, r := range n.refused {
		if now.Before(r.until) {
			ix.Refused = append(ix.Refused, publisher)
		}
	}
	if n.facts.frozen {
		return ix // what it did not finish it will not take any more
	}
	ix.Assigned = slices.Clip(ix.Assigned) // the facts are not ours to grow
	for publisher, u := range n.underway {
		if _, ok := n.facts.index[publisher]; !ok {
			ix.Assigned = append(ix.Assigned, admin.Assignment{Publisher: publisher, Continued: u.From})
		}
	}
	return ix
}

func (s set) list() []peer.ID {
	ids := make([]peer.ID, 0, len(s))
	for id := range s {
		ids = append(ids, id)
	}
	return ids
}

// state is n in the words of the pool page.
func (n *node) state() State {
	switch {
	case n.facts == nil:
		return StateUnknown
	case n.err != nil:
		return StateDown
	case n.facts.frozen:
		return StateFrozen
	case n.member.Standby:
		return StateStandby
	}
	return StateActive
}

// page is n as the pool page shows it.
func (n *node) page() Member {
	m := Member{
		Find: n.member.Find, Ingest: n.member.Ingest, Admin: n.member.Admin,
		State: n.state(), Usage: -1,
	}
	if n.facts != nil {
		m.ID, m.Usage, m.Publishers = n.facts.id, n.facts.usage, len(n.facts.assigned)
	}
	if n.err != nil {
		m.Error = n.err.Error()
	}
	return m
}

// placements adds n's assignments to rows.
func (n *node) placements(rows []Placement) []Placement {
	if n.facts == nil {
		return rows
	}
	state := n.state()
	for _, as := range n.facts.assigned {
		rows = append(rows, Placement{Publisher: as.Publisher, Indexer: n.facts.id, Continued: as.Continued, State: state})
	}
	for publisher, u := range n.underway {
		if _, ok := n.facts.index[publisher]; !ok {
			rows = append(rows, Placement{Publisher: publisher, Indexer: n.facts.id, Continued: u.From, State: StatePending})
		}
	}
	return rows
}

// backoff is how long to wait after so many failures in a row: base, doubled
// with each, up to limit, and up to a quarter more so that waits spread.
func backoff(failures int, base, limit time.Duration) time.Duration {
	d := limit
	if shift := max(failures-1, 0); shift < 32 && base<<shift>>shift == base {
		d = min(base<<shift, limit)
	}
	return d + rand.N(d/4+1)
}
