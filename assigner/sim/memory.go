package sim

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
	"github.com/signpost-index/signpost/assigner"
)

// Bounds of the loop in package assigner.
const (
	maxTasks       = 64
	maxUnderway    = 4096
	stepWorkers    = 8
	maxLookBackoff = 15 * time.Second
	maxStepBackoff = time.Minute
	maxRefusal     = 5 * time.Minute
	unsureCalls    = 3
	refreshFacts   = 15 * time.Second
	maxFills       = 64
)

// Assigner is one with its memory, which is all it knows of the world.
type Assigner struct {
	w       *World
	dead    bool
	members []*member
	byID    map[peer.ID]*member
	wanted  map[peer.ID]bool
	list    []peer.ID // the same

	planDue  bool
	nextPlan time.Duration // not before

	moves   float64 // left of the budget
	movesAt time.Duration
}

// member is what it knows of a node.
type member struct {
	a        *Assigner
	n        *node
	since    time.Duration
	facts    *facts
	failures int
	failing  time.Duration
	looks    uint64
	looking  bool
	again    bool   // look once more when this look has ended
	timer    uint64 // of the next look; an older one is void

	underway     map[peer.ID]*underway
	queue        []task
	queued       int // tasks queued or running
	running      int
	stepFailures int
	stepsAfter   time.Duration
	refused      map[peer.ID]*refusal
	spent        map[peer.ID]bool
}

// facts are what a look brought.
type facts struct {
	frozen       bool
	held         []assigner.Held
	owns         map[peer.ID]bool // all it has a role for; true: as owner
	version      int
	read         time.Duration // when held was
	room, stored int64
	lag          int
}

type underway struct {
	assigner.Step
	done   bool
	unsure bool
	look   uint64
	until  time.Duration
}

type refusal struct {
	times int
	until time.Duration
}

func newAssigner(w *World) *Assigner {
	a := &Assigner{w: w, byID: make(map[peer.ID]*member), wanted: make(map[peer.ID]bool), movesAt: w.now}
	a.moves = max(float64(w.cfg.Moves)/60, 1)
	for _, n := range w.nodes {
		a.add(n)
	}
	a.tick()
	return a
}

// add begins to look at a node.
func (a *Assigner) add(n *node) {
	m := &member{
		a: a, n: n, since: a.w.now, underway: make(map[peer.ID]*underway),
		refused: make(map[peer.ID]*refusal), spent: make(map[peer.ID]bool),
	}
	a.members = append(a.members, m)
	a.byID[n.id] = m
	m.look()
}

// hear takes an announce.
func (a *Assigner) hear(p peer.ID) {
	if !a.wanted[p] {
		a.wanted[p] = true
		a.list = append(a.list, p)
		a.wake()
	}
}

func (m *member) up() bool { return m.facts != nil && m.failures == 0 }

func (m *member) look() {
	m.looking, m.again = true, false
	m.timer++
	m.looks++
	look, old := m.looks, m.facts
	var f *facts
	m.a.w.call(m.n, m.a.w.cfg.CallTimeout, func() { f = m.n.look(old) }, func(what answer) {
		m.finishLook(look, f, what)
	})
}

// look is the answer to GET node and roles; what has not changed is not read again.
func (n *node) look(old *facts) *facts {
	n.advance()
	f := &facts{frozen: n.frozen, version: n.version, read: n.w.now, lag: int(n.lag()),
		room: int64(max(freezeAt*n.disk-n.used, 0)), stored: int64(n.used)}
	if old != nil && old.version == f.version && n.w.now-old.read < refreshFacts {
		f.held, f.owns, f.read = old.held, old.owns, old.read
		return f
	}
	f.held = n.held()
	f.owns = make(map[peer.ID]bool, len(f.held))
	for _, h := range f.held {
		f.owns[h.Publisher] = h.Role == admin.RoleOwner
	}
	return f
}

func (m *member) finishLook(look uint64, f *facts, what answer) {
	a := m.a
	if a.dead {
		return
	}
	m.looking = false
	if what != answered {
		if m.failures++; m.failures == 1 {
			m.failing = a.w.now
			a.wake()
		}
		m.lookIn(a.backoff(m.failures, maxLookBackoff))
		return
	}
	wasUp, old := m.up(), m.facts
	if !wasUp {
		m.stepsAfter = 0
	}
	m.failures, m.facts = 0, f
	if m.settle(look) || !wasUp || old.version != f.version || old.frozen != f.frozen {
		a.wake()
	}
	if m.again {
		m.look()
		return
	}
	m.lookIn(a.w.cfg.Poll)
}

func (m *member) lookIn(d time.Duration) {
	timer := m.timer
	m.a.w.after(d, func() {
		if m.timer == timer && !m.a.dead {
			m.look()
		}
	})
}

// lookNow looks before the poll interval is over, but at one that failed.
func (m *member) lookNow() {
	switch {
	case m.looking:
		m.again = true
	case m.failures == 0:
		m.look()
	}
}

// settle drops what was under way and is decided by a look.
func (m *member) settle(look uint64) (settled bool) {
	for p, u := range m.underway {
		owned, has := m.facts.owns[p]
		gives := u.Kind == assigner.Assign || u.Kind == assigner.Handoff
		switch {
		case u.unsure && gives && owned:
		case u.done && look > u.look:
			if u.Kind == assigner.Handoff && !has {
				m.a.byID[u.From].spent[p] = true
			}
		default:
			continue
		}
		delete(m.underway, p)
		settled = true
	}
	return settled
}

// view is what Plan gets.
func (a *Assigner) view() assigner.View {
	now := a.w.now
	v := assigner.View{Replication: a.w.cfg.Replication, Wanted: a.list, Fills: maxFills}
	for _, m := range a.members {
		if m.facts == nil {
			if now-m.since < a.w.cfg.Grace {
				v.Unread++
			}
			continue
		}
		m.expire(now)
		ix := assigner.Indexer{
			ID: m.n.id, Reachable: m.up() && now >= m.stepsAfter, Frozen: m.facts.frozen, Held: m.facts.held,
			Lost: m.failures > 0 && now-m.failing >= a.w.cfg.Grace,
			Room: m.facts.room, Stored: m.facts.stored, Lag: m.facts.lag,
		}
		for p, u := range m.underway {
			v.Busy = append(v.Busy, p)
			if (u.Kind == assigner.Assign || u.Kind == assigner.Handoff) && !m.facts.owns[p] {
				ix.Expected = append(ix.Expected, p)
			}
		}
		for p, r := range m.refused {
			if now < r.until {
				ix.Refused = append(ix.Refused, p)
			}
		}
		for p := range m.spent {
			ix.Spent = append(ix.Spent, p)
		}
		for _, h := range ix.Held {
			if h.Filling {
				v.Fills--
			}
		}
		v.Indexers = append(v.Indexers, ix)
	}
	v.Fills = max(v.Fills, 0)
	if len(v.Busy) == 0 {
		v.Moves = a.movesLeft()
	}
	return v
}

func (m *member) expire(now time.Duration) {
	for p, u := range m.underway {
		if u.unsure && now >= u.until {
			delete(m.underway, p)
		}
	}
	for p, r := range m.refused {
		if now-r.until > maxRefusal {
			delete(m.refused, p)
		}
	}
}

func (a *Assigner) movesLeft() int {
	anHour := float64(a.w.cfg.Moves)
	if anHour <= 0 {
		return 0
	}
	a.moves = min(a.moves+(a.w.now-a.movesAt).Hours()*anHour, max(anHour/60, 1))
	a.movesAt = a.w.now
	return int(a.moves)
}

func (a *Assigner) backoff(failures int, limit time.Duration) time.Duration {
	d := limit
	if shift := max(failures-1, 0); shift < 20 {
		d = min(a.w.cfg.Poll<<shift, limit)
	}
	return d + time.Duration(a.w.rand.Int64N(int64(d/4+1)))
}
