package assigner

import (
	"cmp"
	"slices"
	"time"

	"github.com/signpost-index/signpost/api/admin"
	"github.com/signpost-index/signpost/assigner/page"
)

// Bounds of the pool page, whatever the size of the pool.
const (
	worstShown   = 50  // publishers
	stepsShown   = 100 // groups of steps
	maxGroups    = 1000
	leavingShown = 100 // members that give their publishers away
	eventsShown  = 100
)

// picture is the pool as its page shows it. Publishers are counted outside of the
// lock, as facts are never edited.
func (a *Assigner) picture(now time.Time) *page.Pool {
	pic := &page.Pool{At: now, ID: a.id, Passive: !a.standby.active()}
	known := a.pool.sketch(now, pic)
	var worst worst
	for i := range pic.Nodes {
		if known[i] != nil {
			worst.addAll(known[i])
		}
	}
	pic.Worst, pic.Lagging, pic.Failing = worst.list(), worst.lagging, worst.failing
	events := a.events.page(EventQuery{Limit: eventsShown}).Events
	for i := len(events) - 1; i >= 0; i-- {
		pic.Events = append(pic.Events, eventOf(events[i]))
	}
	pic.Tasks = a.tasksShown()
	pic.Actions = poolActions(a.intents.Current().NoRebalance)
	return pic
}

// tasksShown is the task under way, if there is one.
func (a *Assigner) tasksShown() (shown []page.Task) {
	t, ok := a.tasks.active()
	if !ok {
		return nil
	}
	t = a.pool.withLeft([]Task{t})[0]
	s := page.Task{ID: t.ID, State: string(t.State), Why: t.Reason, Total: len(t.Steps), Actions: taskActions(t)}
	for _, step := range t.Steps {
		if step.State.over() {
			s.Done++
		}
	}
	if n := t.current(); n >= 0 {
		s.Node, s.Step, s.Text = t.Steps[n].Indexer, string(t.Steps[n].State), t.Steps[n].Text
	}
	return []page.Task{s}
}

// sketch puts into pic what the lock guards. It returns the facts of each node, nil
// where there are none.
func (p *pool) sketch(now time.Time, pic *page.Pool) []*facts {
	p.mu.Lock()
	defer p.mu.Unlock()
	wishes := p.wishes()
	known := make([]*facts, 0, len(p.nodes))
	groups := make(map[page.Steps]*page.Steps)
	total := 0
	for _, n := range p.nodes {
		m := n.page(p.state(n, now))
		known = append(known, n.facts)
		pic.Nodes = append(pic.Nodes, n.shown(m, wishes))
		if l := n.leavingShown(m, wishes); l != nil && len(pic.Leaving) < leavingShown {
			pic.Leaving = append(pic.Leaving, *l)
		}
		n.group(groups)
		total += len(n.underway)
	}
	for _, g := range groups {
		pic.Steps = append(pic.Steps, *g)
	}
	slices.SortFunc(pic.Steps, func(a, b page.Steps) int {
		return cmp.Or(cmp.Compare(b.Total, a.Total), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.From, b.From), cmp.Compare(a.On, b.On), cmp.Compare(a.Why, b.Why))
	})
	pic.Steps = pic.Steps[:min(len(pic.Steps), stepsShown)]
	pic.MoreSteps = total
	for _, g := range pic.Steps {
		pic.MoreSteps -= g.Total
	}
	pic.Publishers, pic.Unplaced = p.last.publishers, p.last.unplaced
	return known
}

// shown is a node as the page shows it.
func (n *node) shown(m Member, wishes Intents) page.Node {
	s := page.Node{
		ID: m.ID, Admin: m.Admin, State: string(m.State), Why: m.FrozenWhy, Error: m.Error, Usage: m.Usage,
		RoomBytes: m.RoomBytes, FreeBytes: -1, StoredBytes: m.StoredBytes, Owned: m.Owned, Held: m.Publishers - m.Owned,
		Rate: m.MultihashesPerSecond, Lag: m.PendingAds, Seen: n.looked,
	}
	f := n.facts
	if f == nil {
		s.Actions = nodeActions(n.member, "", false, false)
		return s
	}
	s.Version, s.FreezeAt = f.node.Version, max(f.node.FreezePercent, 0)
	if seconds := f.node.FreezeSeconds; seconds != nil && !f.frozen {
		s.FullIn = time.Duration(min(max(*seconds, 1), (100*365*24*time.Hour).Seconds()) * float64(time.Second))
	}
	fullest := -1.0
	for _, d := range f.node.Disks {
		if d.Usage > fullest {
			fullest, s.FreeBytes = d.Usage, int64(min(d.FreeBytes, 1<<62))
		}
	}
	for _, r := range f.roles {
		if r.Filling {
			s.Filling++
		}
	}
	s.Actions = nodeActions(n.member, f.id, f.frozen, wishes.Drained(f.id))
	return s
}

// leavingShown is how far n's publishers are gone on elsewhere, or nil if it keeps
// them or, frozen, has none left to give.
func (n *node) leavingShown(m Member, wishes Intents) *page.Leaving {
	if n.leaving.since.IsZero() {
		return nil
	}
	l := &page.Leaving{
		Node: m.ID, Since: n.leaving.since, Owned: m.Owned, OwnedTotal: n.leaving.owned, Held: m.Publishers, HeldTotal: n.leaving.held,
	}
	if i, ok := search(wishes.Drains, m.ID, Drain.about); ok {
		l.Drained, l.Why = true, wishes.Drains[i].Reason
		if since := wishes.Drains[i].Since; !since.IsZero() {
			l.Since = since
		}
		return l
	}
	if l.Owned == 0 {
		return nil
	}
	return l
}

// group counts what is under way at n, by what it has in common. Beyond maxGroups
// nothing is told apart.
func (n *node) group(groups map[page.Steps]*page.Steps) {
	for _, u := range n.underway {
		key := page.Steps{Kind: u.Kind.String(), Why: string(u.Why), On: u.Indexer, From: u.From}
		g := groups[key]
		if g == nil && len(groups) == maxGroups {
			continue
		}
		if g == nil {
			g = new(page.Steps)
			*g = key
			groups[key] = g
		}
		g.Total++
		switch u.state {
		case stepDone:
			g.Done++
		case stepUnsure:
			g.Unsure++
		}
	}
}

// worst picks the publishers to look at first: half of those shown at the most for
// an error, unless there are not enough others, and all by their lag.
type worst struct {
	failed, others   ranking
	lagging, failing int
}

func (w *worst) addAll(f *facts) {
	for i := range f.roles {
		r := &f.roles[i]
		if r.Role != admin.RoleOwner {
			continue
		}
		if r.Pending > 0 {
			w.lagging++
		}
		p := page.Publisher{ID: r.Publisher, Node: f.id, Lag: r.Pending, Gaps: r.Gaps, Rate: r.MultihashesPerSecond, LastError: r.LastError}
		if r.LastError != "" {
			w.failing++
			w.failed.add(p)
		} else {
			w.others.add(p)
		}
	}
}

func (w *worst) list() []page.Publisher {
	failed, others := w.failed.first(), w.others.first()
	failed = failed[:min(len(failed), max(worstShown/2, worstShown-len(others)))]
	return append(slices.Clip(failed), others[:min(len(others), worstShown-len(failed))]...)
}

// ranking keeps the first worstShown of many publishers.
type ranking struct {
	ps   []page.Publisher
	full bool // the first worstShown are in order, and what is after their last is left out
}

func (k *ranking) add(p page.Publisher) {
	if k.full && !worseThan(&p, &k.ps[worstShown-1]) {
		return
	}
	if k.ps = append(k.ps, p); len(k.ps) >= 8*worstShown {
		k.ps, k.full = k.first(), true
	}
}

func (k *ranking) first() []page.Publisher {
	slices.SortFunc(k.ps, func(a, b page.Publisher) int {
		switch {
		case worseThan(&a, &b):
			return -1
		case worseThan(&b, &a):
			return 1
		}
		return 0
	})
	return k.ps[:min(len(k.ps), worstShown)]
}

// worseThan: a is shown before b.
func worseThan(a, b *page.Publisher) bool {
	switch {
	case a.Lag != b.Lag:
		return a.Lag > b.Lag
	case a.Gaps != b.Gaps:
		return a.Gaps > b.Gaps
	case a.Rate != b.Rate:
		return a.Rate > b.Rate
	case a.ID != b.ID:
		return a.ID < b.ID
	}
	return a.Node < b.Node
}
