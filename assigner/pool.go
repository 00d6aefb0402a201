package assigner

import (
	"cmp"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/announce"
	"github.com/signpost-index/signpost/api/admin"
)

// poolConfig is what a pool needs of the assigner's configuration.
type poolConfig struct {
	replication  int
	pollInterval time.Duration
	callTimeout  time.Duration
	grace        time.Duration
	movesAnHour  int // for balance; 0: none
	log          *slog.Logger
	metrics      *metrics
	// remember reports whether an announce is new, and forget makes a repetition
	// of it count as new.
	remember func(announce.Key) bool
	forget   func(announce.Key)
	// absent is how many names may still bring members; nil: none do.
	absent func(now time.Time) int
	// intents are what the operator wishes; nil: nothing.
	intents func() Intents
	event   func(Event) // keeps it; nil: nobody does
}

// pool is all the assigner knows: the members with their facts, what is under
// way, and the kept announces. Its methods are short and do no I/O; mu guards
// everything in it, in its nodes and in its announces.
type pool struct {
	cfg poolConfig
	// changed is signalled when a new plan may differ from the last.
	changed chan struct{}
	// looked is signalled when a look has ended.
	looked chan struct{}

	mu      sync.Mutex
	nodes   []*node // in the order of the configuration
	kept    *keptAnnounces
	journal *journal // nil without one
	holding bool     // new publishers wait for unread members, and it was logged

	hint  *admin.PoolMap // the newest that indexers had kept at start; nil: none
	moves moveBudget
	// changes grows whenever a look brought other facts, or wishes changed.
	changes uint64

	last     decision // the last plan
	cleaning bool     // surplus is to be freed
}

func newPool(cfg poolConfig) *pool {
	p := &pool{cfg: cfg, changed: make(chan struct{}, 1), looked: make(chan struct{}, 1), kept: newKeptAnnounces(maxStrangers)}
	p.kept.dropped = p.pushedOut
	return p
}

// wake signals a channel of capacity 1 that something waits for.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// connectedMember is a member with the client that talks to it.
type connectedMember struct {
	admin.PoolMember
	indexer client
}

// setMembers replaces the members; see [Assigner.SetPool].
func (p *pool) setMembers(members []connectedMember, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := make(map[string]*node, len(p.nodes))
	for _, n := range p.nodes {
		old[n.member.Admin] = n
	}
	p.nodes = make([]*node, 0, len(members))
	for _, m := range members {
		n := old[m.Admin]
		if n == nil {
			n = newNode(now)
			p.cfg.log.Info("indexer joins the pool", "indexer", m.Admin)
		}
		delete(old, m.Admin)
		n.member, n.indexer = m.PoolMember, m.indexer
		p.useHint(n)
		wake(n.retryNow)
		p.nodes = append(p.nodes, n)
	}
	for _, n := range old {
		p.cfg.log.Info("indexer leaves the pool", "indexer", n.member.Admin)
		p.dropForwards(n)
		n.gone = true
		if n.stop != nil {
			n.stop()
		}
	}
	wake(p.changed)
}

// starting returns the members whose goroutines have not been started and
// takes them for started.
func (p *pool) starting() []*node {
	p.mu.Lock()
	defer p.mu.Unlock()
	var ns []*node
	for _, n := range p.nodes {
		if !n.started {
			n.started = true
			ns = append(ns, n)
		}
	}
	return ns
}

// runs notes how to stop the goroutines of a node. It reports false, having
// stopped them, if the node has left the pool already.
func (p *pool) runs(n *node, stop func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	n.stop = stop
	if n.gone {
		stop()
	}
	return !n.gone
}

// handOut gives the steps to the queues of their indexers, as far as these have
// room; what does not fit is planned again when something has finished. A call
// takes steps of one kind and one source together, if the indexer can do that.
func (p *pool) handOut(d decision, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	byID := make(map[peer.ID]*node, len(p.nodes))
	for _, n := range p.nodes {
		if n.facts != nil {
			byID[n.facts.id] = n
		}
	}
	type group struct {
		kind     Kind
		on, from peer.ID
	}
	open := make(map[group]*task)
	var tasks []*task
	taken := make(map[peer.ID]Kind) // a publisher's next step waits, unless both give it away
	for _, s := range d.steps {
		n, from := byID[s.Indexer], byID[s.From]
		if n == nil || s.Kind == Handoff && from == nil || len(n.underway) >= maxUnderway {
			continue
		}
		if k := taken[s.Publisher]; k != 0 && !(k.gives() && s.Kind.gives()) {
			continue
		}
		single := n.facts.plain || s.Kind == Handoff && from.facts.plain
		g := group{s.Kind, s.Indexer, s.From}
		t := open[g]
		if t == nil || single || len(t.steps) == admin.MaxBatch {
			if n.queued >= maxTasks {
				continue
			}
			n.queued++
			t = &task{kind: s.Kind}
			if s.Kind == Handoff {
				t.handoff = admin.Handoff{FrozenID: s.From, FrozenURL: from.member.Find}
				if !from.facts.plain {
					t.from = from.indexer
				}
			}
			open[g] = t
			tasks = append(tasks, t)
		}
		t.steps = append(t.steps, s)
		taken[s.Publisher] = s.Kind
		n.underway[s.Publisher] = &underway{Step: s}
		if s.Why == ReasonBalance {
			p.moves.have--
		}
	}
	for _, t := range tasks {
		byID[t.steps[0].Indexer].tasks <- *t // has room: it holds at most n.queued elements
	}
	p.noteOutcome(d, now)
}

// noteOutcome keeps the plan for the pool page and the metrics, and logs when
// publishers begin or cease to lack an indexer.
func (p *pool) noteOutcome(d decision, now time.Time) {
	if was, is := p.last.unplaced > 0, d.unplaced > 0; is && !was {
		p.cfg.log.Warn("publishers have no active indexer and none can take them now", "publishers", d.unplaced)
	} else if was && !is {
		p.cfg.log.Info("every publisher has an active indexer")
	}
	for id, n := range d.stuck {
		if p.last.stuck[id] == 0 {
			p.cfg.log.Warn("drained indexer keeps publishers that no other can take", "indexer", id, "publishers", n)
			p.note(Event{Kind: EventStuck, Indexer: id, Text: fmt.Sprintf("the drain cannot end: no other indexer can take %d publishers", n)})
		}
	}
	p.last = d
	p.noteLeaving(now)
	states := make(map[State]int, len(p.nodes))
	for _, n := range p.nodes {
		states[p.state(n, now)]++
	}
	p.cfg.metrics.setPool(states, d.publishers, d.unplaced)
}

// EventStuck: a drain cannot end.
const EventStuck = "drain-stuck"

func (p *pool) note(e Event) {
	if p.cfg.event != nil {
		p.cfg.event(e)
	}
}

// state is n in the words of the pool page.
func (p *pool) state(n *node, now time.Time) State {
	s := n.state(now, p.cfg.grace)
	if (s == StateActive || s == StateFrozen || s == StateStandby) && p.wishes().Drained(n.facts.id) {
		return StateDraining
	}
	return s
}

// startLook returns which look at n begins now, whom to ask, and what is known.
// first: the pool map it keeps may be of use.
func (p *pool) startLook(n *node) (look uint64, ix client, old *facts, first bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n.looks++
	n.looking = time.Now()
	if n.hinted {
		return n.looks, n.indexer, nil, true
	}
	return n.looks, n.indexer, n.facts, n.facts == nil
}

// finishLook records what a look brought and returns when to look next.
func (p *pool) finishLook(n *node, look uint64, f *facts, err error, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		err = p.claimID(n, f.id)
	}
	n.asked = true
	wake(p.looked)
	wasUp := n.up()
	if err == nil && n.facts != nil && !n.hinted && !f.node.Started.Equal(n.facts.node.Started) && !n.facts.node.Started.IsZero() {
		p.noteRestart(n, f, now)
	}
	n.err, n.looking = err, time.Time{}
	if err != nil {
		n.failures++
		if n.failing.IsZero() {
			n.failing = now
		}
		if n.failures == 1 {
			p.cfg.log.Warn("indexer cannot be read", "indexer", n.name(), "err", err)
			wake(p.changed)
		}
		p.cfg.metrics.lookFailures.Inc()
		return backoff(n.failures, p.cfg.pollInterval, maxLookBackoff)
	}
	if !wasUp {
		p.cfg.log.Info("indexer read", "indexer", f.id, "url", n.member.Admin,
			"frozen", f.frozen, "publishers", len(f.roles))
		n.stepsAfter = time.Time{}
		p.resumeForwards(n)
	}
	n.failures, n.failing, n.looked, n.read, n.moved = 0, time.Time{}, now, look, false
	if p.learn(n, look, f, now) || !wasUp {
		p.changes++
		wake(p.changed)
	}
	return p.cfg.pollInterval
}

// allLooked: every member has been looked at once, whatever that brought.
func (p *pool) allLooked() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !slices.ContainsFunc(p.nodes, func(n *node) bool { return !n.asked })
}

// learn replaces the facts of n and settles what was under way. It reports
// whether a plan may come out differently.
func (p *pool) learn(n *node, look uint64, f *facts, now time.Time) bool {
	old := n.facts
	if old != nil && old.id != f.id {
		p.cfg.log.Warn("indexer has a new identity", "indexer", f.id, "was", old.id, "url", n.member.Admin)
		n.forget()
		old = nil
	}
	if old != nil && !n.hinted && f.frozen != old.frozen {
		p.noteFrozen(f)
	}
	for _, r := range f.roles {
		if (old == nil || n.hinted || old.role(r.Publisher) == nil) && !n.has(r.Publisher) {
			p.enqueueForward(n, r.Publisher, now)
		}
	}
	n.facts, n.hinted = f, false
	settled := p.settle(n, look)
	return settled || old == nil || !old.same(f)
}

// noteRestart: another process of n answers than before.
func (p *pool) noteRestart(n *node, f *facts, now time.Time) {
	p.cfg.log.Info("indexer has restarted", "indexer", f.id, "started", f.node.Started)
	p.note(Event{Kind: EventMember, Indexer: f.id, Text: "restarted"})
	if n.crashes.restarted(now) {
		text := n.crashes.text() + ": it gets nothing to do until it has run for as long, and its publishers go to others after the grace"
		p.cfg.log.Warn("indexer crashes again and again", "indexer", f.id, "why", text)
		p.note(Event{Kind: EventMember, Indexer: f.id, Text: text})
	}
}

func (p *pool) noteFrozen(f *facts) {
	text := "thawed"
	if f.frozen {
		text = "frozen"
		if f.node.FrozenWhy != "" {
			text += ": " + f.node.FrozenWhy
		}
	}
	p.cfg.log.Info("indexer is "+text, "indexer", f.id, "publishers", len(f.roles))
	p.note(Event{Kind: EventMember, Indexer: f.id, Text: text})
}

// settle drops what was under way and is decided by the facts of a look. A look
// that began before the indexer answered says nothing; and as long as the source
// of a handoff has not been looked at since, it still seems to be the owner.
func (p *pool) settle(n *node, look uint64) bool {
	settled := false
	for publisher, u := range n.underway {
		r := n.facts.role(publisher)
		owned := r != nil && r.Role == admin.RoleOwner
		gives := u.Kind.gives()
		if owned && u.state != stepRunning && p.sourceUnread(u) {
			continue
		}
		switch {
		case u.state == stepUnsure && gives && owned:
		case u.state == stepUnsure && look > u.look && !n.facts.plain:
			// It has not done it, and does no harm if it still will.
		case u.state == stepDone && look > u.look:
			if u.Kind == Handoff && r == nil {
				p.spend(u.Step)
			}
		default:
			continue
		}
		delete(n.underway, publisher)
		settled = true
	}
	return settled
}

// sourceUnread: the source of a handoff is up and has not been read since.
func (p *pool) sourceUnread(u *underway) bool {
	if u.Kind != Handoff {
		return false
	}
	n := p.byID(u.From)
	return n != nil && n.up() && !n.facts.plain && n.read <= u.source
}

func (p *pool) byID(id peer.ID) *node {
	for _, n := range p.nodes {
		if n.facts != nil && n.facts.id == id {
			return n
		}
	}
	return nil
}

// spend remembers that a handoff was accepted and did nothing, which is how a
// target says that the frozen indexer lists no provider for the publisher
// (admin.md, section 1). The publisher is then assigned from the beginning.
func (p *pool) spend(s Step) {
	p.cfg.metrics.spentHandoffs.Inc()
	p.cfg.log.Warn("handoff had nothing to continue, publisher will be assigned anew",
		"publisher", s.Publisher, "indexer", s.Indexer, "frozen", s.From)
	for _, n := range p.nodes {
		if n.facts != nil && n.facts.id == s.From {
			n.spent[s.Publisher] = struct{}{}
		}
	}
}

// claimID makes sure that no two members pass for one indexer. A member that
// can be reached keeps its ID; from one that cannot it is taken over, as an
// indexer that has moved to another URL would.
func (p *pool) claimID(n *node, id peer.ID) error {
	for _, other := range p.nodes {
		if other == n || other.facts == nil || other.facts.id != id {
			continue
		}
		if other.up() {
			return &duplicateError{id: id, url: other.member.Admin}
		}
		other.forget()
		other.moved = true
	}
	return nil
}

// members returns the members as the pool page shows them, how many publishers
// some indexer has, and how many of the wanted have no active indexer.
func (p *pool) members(now time.Time) (ms []Member, publishers, unplaced int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range p.nodes {
		ms = append(ms, n.page(p.state(n, now)))
	}
	return ms, p.last.publishers, p.last.unplaced
}

// assignments returns every assignment, and every step under way, by publisher
// and then by indexer.
func (p *pool) assignments(now time.Time) []Placement {
	rows := []Placement{} // not nil: in JSON an empty list
	p.mu.Lock()
	for _, n := range p.nodes {
		rows = n.placements(rows, p.state(n, now))
	}
	p.mu.Unlock()
	slices.SortFunc(rows, func(a, b Placement) int {
		return cmp.Or(cmp.Compare(a.Publisher, b.Publisher), cmp.Compare(a.Indexer, b.Indexer))
	})
	return rows
}
