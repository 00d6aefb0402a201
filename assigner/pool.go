package assigner

import (
	"cmp"
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
	log          *slog.Logger
	metrics      *metrics
	// remember reports whether an announce is new, and forget makes a repetition
	// of it count as new.
	remember func(announce.Key) bool
	forget   func(announce.Key)
}

// pool is all the assigner knows: the members with their facts, what is under
// way, and the kept announces. Its methods are short and do no I/O; mu guards
// everything in it, in its nodes and in its announces.
type pool struct {
	cfg poolConfig
	// changed is signalled when a new plan may differ from the last.
	changed chan struct{}

	mu      sync.Mutex
	nodes   []*node // in the order of the configuration
	kept    *keptAnnounces
	journal *journal // nil without one
	holding bool     // new publishers wait for unread members, and it was logged

	publishers, unplaced int // of the last plan
}

func newPool(cfg poolConfig) *pool {
	p := &pool{cfg: cfg, changed: make(chan struct{}, 1), kept: newKeptAnnounces(maxStrangers)}
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
	indexer admin.Indexer
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

// view is the pool as Plan wants it.
func (p *pool) view(now time.Time) View {
	p.mu.Lock()
	defer p.mu.Unlock()
	v := View{Replication: p.cfg.replication, Wanted: p.kept.publishers()}
	for _, n := range p.nodes {
		v.Bound = append(v.Bound, n.member.Preset...)
		if n.facts == nil {
			if now.Sub(n.since) < p.cfg.grace {
				v.Unread++
			}
			continue
		}
		n.expire(now)
		v.Indexers = append(v.Indexers, n.view(now))
	}
	p.noteHolding(v)
	return v
}

// noteHolding tells the operator, once each way, that members never read hold
// up new publishers.
func (p *pool) noteHolding(v View) {
	holding := v.Unread > 0 && len(v.Wanted) > 0
	if holding == p.holding {
		return
	}
	p.holding = holding
	if holding {
		p.cfg.log.Warn("new publishers wait until every indexer of the pool has been read",
			"unread", v.Unread, "grace", p.cfg.grace)
		return
	}
	p.cfg.log.Info("new publishers no longer wait for indexers not read yet")
}

// handOut gives the steps to the queues of their indexers, as far as these have
// room; what does not fit is planned again when something has finished.
func (p *pool) handOut(d decision) {
	p.mu.Lock()
	defer p.mu.Unlock()
	byID := make(map[peer.ID]*node, len(p.nodes))
	for _, n := range p.nodes {
		if n.facts != nil {
			byID[n.facts.id] = n
		}
	}
	for _, s := range d.steps {
		n := byID[s.Indexer]
		if n == nil || n.queued >= maxSteps {
			continue
		}
		t := task{Step: s}
		if s.Kind == Handoff {
			from := byID[s.From]
			if from == nil {
				continue
			}
			t.handoff = admin.Handoff{FrozenID: s.From, FrozenURL: from.member.Find}
		}
		n.queued++
		n.underway[s.Publisher] = &underway{Step: s}
		n.tasks <- t // has room: it holds at most n.queued elements
	}
	p.noteOutcome(d)
}

// noteOutcome keeps the plan's counts for the pool page and the metrics, and
// logs when publishers begin or cease to lack an indexer.
func (p *pool) noteOutcome(d decision) {
	if was, is := p.unplaced > 0, d.unplaced > 0; is && !was {
		p.cfg.log.Warn("publishers have no active indexer and none can take them now", "publishers", d.unplaced)
	} else if was && !is {
		p.cfg.log.Info("every publisher has an active indexer")
	}
	p.publishers, p.unplaced = d.publishers, d.unplaced
	states := make(map[State]int, len(p.nodes))
	for _, n := range p.nodes {
		states[n.state()]++
	}
	p.cfg.metrics.setPool(states, d.publishers, d.unplaced)
}

// startLook returns which look at n begins now, and whom to ask.
func (p *pool) startLook(n *node) (look uint64, ix admin.Indexer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n.looks++
	return n.looks, n.indexer
}

// finishLook records what a look brought and returns when to look next.
func (p *pool) finishLook(n *node, look uint64, f *facts, err error, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		err = p.claimID(n, f.id)
	}
	wasUp := n.up()
	n.err = err
	if err != nil {
		n.failures++
		if n.failures == 1 {
			p.cfg.log.Warn("indexer cannot be read", "indexer", n.name(), "err", err)
			wake(p.changed)
		}
		p.cfg.metrics.lookFailures.Inc()
		return backoff(n.failures, p.cfg.pollInterval, maxLookBackoff)
	}
	if !wasUp {
		p.cfg.log.Info("indexer read", "indexer", f.id, "url", n.member.Admin,
			"frozen", f.frozen, "publishers", len(f.assigned))
		n.stepsAfter = time.Time{}
		p.resumeForwards(n)
	}
	n.failures = 0
	if p.learn(n, look, f, now) || !wasUp {
		wake(p.changed)
	}
	return p.cfg.pollInterval
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
	if f.frozen && old != nil && !old.frozen {
		p.cfg.log.Info("indexer is frozen", "indexer", f.id, "publishers", len(f.assigned))
	}
	for _, as := range f.newAssignments(old) {
		if !n.has(as.Publisher) {
			p.enqueueForward(n, as.Publisher, now)
		}
	}
	n.facts = f
	settled := p.settle(n, look)
	return settled || old == nil || !old.same(f)
}

// settle drops what was under way and is decided by the facts of a look. A look
// that began before the indexer answered says nothing.
func (p *pool) settle(n *node, look uint64) bool {
	settled := false
	for publisher, u := range n.underway {
		_, assigned := n.facts.index[publisher]
		switch {
		case u.state == stepUnsure && assigned:
		case u.state == stepDone && look > u.look:
			if u.Kind == Handoff && !assigned {
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
	}
	return nil
}

// members returns the members as the pool page shows them, how many publishers
// are assigned somewhere, and how many of the wanted have no active indexer.
func (p *pool) members() (ms []Member, publishers, unplaced int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range p.nodes {
		ms = append(ms, n.page())
	}
	return ms, p.publishers, p.unplaced
}

// assignments returns every assignment, and every step under way, by publisher
// and then by indexer.
func (p *pool) assignments() []Placement {
	rows := []Placement{} // not nil: in JSON an empty list
	p.mu.Lock()
	for _, n := range p.nodes {
		rows = n.placements(rows)
	}
	p.mu.Unlock()
	slices.SortFunc(rows, func(a, b Placement) int {
		return cmp.Or(cmp.Compare(a.Publisher, b.Publisher), cmp.Compare(a.Indexer, b.Indexer))
	})
	return rows
}
