package assigner

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
)

const (
	// maxTasks bounds the calls to one indexer that are queued or running, and
	// maxUnderway its steps.
	maxTasks    = 64
	maxUnderway = 4096
	// stepWorkers is how many calls run at once.
	stepWorkers = 8

	maxLookBackoff = 15 * time.Second // a look at one that is gone costs next to nothing
	maxStepBackoff = time.Minute
	maxRefusal     = 5 * time.Minute
	// unsureCalls is for how many call time-outs a call without an answer
	// counts as done: long enough for an indexer to start anew and tell.
	unsureCalls = 3
	// slowLook is how long a look may take until its indexer gets nothing new to
	// do: one that hangs is known to after a call time-out only.
	slowLook = time.Second
)

// node is one member of the pool: what is known of it and what is being done
// about it. All fields but the channels are guarded by pool.mu.
type node struct {
	member  admin.PoolMember
	indexer client
	since   time.Time // when it joined the pool
	started bool
	gone    bool   // left the pool
	stop    func() // ends its goroutines; nil until they run

	facts    *facts    // last known; nil until read
	hinted   bool      // facts are from a pool map, not from a look
	moved    bool      // its indexer was read at another member's address, and not here since
	err      error     // of the last look
	failures int       // looks failed since the last that succeeded
	failing  time.Time // since when; the zero time: the last look succeeded
	looks    uint64    // looks begun
	looking  time.Time // when the look under way began; the zero time: none is
	asked    bool      // a look has ended, however
	read     uint64    // the newest look that succeeded
	looked   time.Time // when the last look that succeeded ended
	crashes  crashes
	thawAt   time.Time // not to be unfrozen before, as it refused lately

	underway     map[peer.ID]*underway // by publisher
	queued       int                   // tasks queued or running
	stepFailures int                   // calls without an answer since the last with one
	stepsAfter   time.Time             // no steps before, because of stepFailures
	refused      map[peer.ID]*refusal
	spent        set
	leaving      leaving

	forwards forwardQueue

	tasks      chan task     // steps to do
	lookNow    chan struct{} // look before the poll interval is over
	retryNow   chan struct{} // look before the wait after a failure is over
	forwardNow chan struct{} // an announce is due
}

// underway is a step handed to an indexer that its facts do not show yet.
type underway struct {
	Step
	state  stepState
	look   uint64    // the last look begun before the answer
	source uint64    // of a handoff: the same of the source
	until  time.Time // stepUnsure: when doubt ends
}

type stepState int

const (
	stepRunning stepState = iota // queued or called
	stepDone                     // the indexer said yes
	stepUnsure                   // the call ended without an answer
)

// task is one call: steps of one kind for one indexer, and of one source.
type task struct {
	kind  Kind
	steps []Step // at most admin.MaxBatch; one, if the indexer is plain
	from  client // the source of a handoff; nil, if it is plain or not needed
	// handoff is what a plain indexer, or the target of a plain one, is told.
	handoff admin.Handoff
}

// refusal is an indexer's no to one publisher.
type refusal struct {
	times int
	until time.Time
	why   string
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
		tasks:      make(chan task, maxTasks),
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
	n.facts, n.hinted = nil, false
	n.underway = make(map[peer.ID]*underway)
	n.refused = make(map[peer.ID]*refusal)
	n.spent = make(set)
}

// awaited: it was never read, may hold anything, and may still be read soon.
func (n *node) awaited(now time.Time, grace time.Duration) bool {
	return n.facts == nil && !n.isDuplicate() && !n.moved && now.Sub(n.since) < grace
}

// up: the last look succeeded.
func (n *node) up() bool { return n.facts != nil && n.err == nil && !n.hinted }

// answers: nothing speaks against giving it something to do.
func (n *node) answers(now time.Time) bool {
	slow := !n.looking.IsZero() && now.Sub(n.looking) >= slowLook
	return n.up() && !now.Before(n.stepsAfter) && !slow && !n.crashes.looping(now)
}

// doubted: it did not answer when it was given the publisher, and does not answer
// now. An indexer with roles is not waited for then: if it has taken the publisher
// after all, there is an owner too many later, which is closed.
func (n *node) doubted(u *underway, now time.Time) bool {
	gives := u.Kind == Assign || u.Kind == Handoff
	return u.state == stepUnsure && gives && !n.facts.plain && !n.answers(now)
}

// lost: it has been down, or has crashed again and again, for so long that what it
// has counts for nothing.
func (n *node) lost(now time.Time, grace time.Duration) bool {
	since := n.failing
	if n.hinted {
		since = n.since
	}
	if n.crashes.looping(now) && now.Sub(n.crashes.since) >= grace {
		return true // whether it just runs or not
	}
	return !n.up() && now.Sub(since) >= grace
}

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
	return n.given(publisher)
}

// given: a step that has succeeded made n the owner, which its facts do not show
// yet.
func (n *node) given(publisher peer.ID) bool {
	u := n.underway[publisher]
	return u != nil && u.state == stepDone && u.Kind.gives()
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

// view is n, of which facts are known, as Plan wants it.
func (n *node) view(now time.Time, grace time.Duration) Indexer {
	f := n.facts
	ix := Indexer{
		ID:        f.id,
		Reachable: n.answers(now),
		Frozen:    f.frozen,
		Standby:   n.member.Standby,
		Lost:      n.lost(now, grace),
		Plain:     f.plain,
		Held:      f.held(now),
		Preferred: f.preferred,
		Presets:   n.member.Preset,
		Spent:     n.spent.list(),
		Room:      f.room(),
		Stored:    f.node.StoredBytes,
		Lag:       f.node.PendingAds,
	}
	if f.resting(now, grace) {
		ix.Frozen, ix.Reachable, ix.Resting = false, false, true
	}
	ix.Crashing = n.crashes.looping(now)
	for publisher, r := range n.refused {
		if now.Before(r.until) {
			ix.Refused = append(ix.Refused, publisher)
		}
	}
	for publisher, u := range n.underway {
		if !u.Kind.gives() || n.doubted(u, now) {
			continue
		}
		if r := f.role(publisher); r == nil || r.Role != admin.RoleOwner {
			ix.Expected = append(ix.Expected, publisher)
		}
	}
	return ix
}

// state is n in the words of the pool page.
func (n *node) state(now time.Time, grace time.Duration) State {
	switch {
	case n.facts == nil:
		return StateUnknown
	case n.lost(now, grace):
		return StateLost
	case !n.up():
		return StateDown
	case n.crashes.looping(now):
		return StateCrashing
	case n.facts.resting(now, grace):
		return StateResting
	case n.facts.frozen:
		return StateFrozen
	case n.member.Standby:
		return StateStandby
	}
	return StateActive
}

// page is n as the pool page shows it.
func (n *node) page(state State) Member {
	m := Member{
		Find: n.member.Find, Ingest: n.member.Ingest, Admin: n.member.Admin,
		State: state, Usage: -1, RoomBytes: -1,
	}
	if f := n.facts; f != nil {
		m.ID, m.Usage, m.Publishers = f.id, f.usage, len(f.roles)
		m.Plain, m.FreezeSeconds, m.FrozenWhy = f.plain, f.node.FreezeSeconds, f.node.FrozenWhy
		m.MultihashesPerSecond, m.PendingAds = f.node.MultihashesPerSecond, f.node.PendingAds
		m.StoredBytes, m.RoomBytes = f.node.StoredBytes, f.room()
		m.Owned, m.LostShare = f.owned(), f.node.LostShare
	}
	m.Steps = len(n.underway)
	if n.err != nil {
		m.Error = n.err.Error()
	} else if state == StateCrashing || state == StateLost {
		m.Error = n.crashes.text()
	}
	return m
}

// placements adds n's roles to rows.
func (n *node) placements(rows []Placement, state State) []Placement {
	if n.facts == nil {
		return rows
	}
	for _, r := range n.facts.roles {
		rows = append(rows, Placement{Publisher: r.Publisher, Indexer: n.facts.id, Role: r.Role, Continued: r.Continued, State: state, Filling: r.Filling})
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
