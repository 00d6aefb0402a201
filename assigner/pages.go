package assigner

import (
	"net/http"
	neturl "net/url"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
	"github.com/signpost-index/signpost/assigner/page"
)

const (
	// pictureAge is how long a picture of the pool serves: anybody may load the page,
	// and looks go on every two seconds.
	pictureAge = time.Second
	// explainedAge is the same of an explanation, which takes a plan; one that took
	// long serves for four times that.
	explainedAge = 2 * time.Second
)

// pages keeps what the pool page was last made from. It is safe for concurrent use.
type pages struct {
	a *Assigner

	mu      sync.Mutex
	picture *page.Pool
	open    *page.Pool // the same for anybody

	explaining sync.Mutex
	explained  *Explanation // nil: none yet
	at         time.Time
	took       time.Duration
}

// handler serves the pool page. Only with Operate it has what operators asked for,
// and what a plan would do.
func (ps *pages) handler(access page.Access) http.Handler {
	operate := access == page.Operate
	return page.Handler(page.Config{
		Access:    access,
		Pool:      func() *page.Pool { return ps.pool(operate) },
		Publisher: func(id peer.ID) *page.Detail { return ps.publisher(id, operate) },
	})
}

// pool is the pool, at most pictureAge old.
func (ps *pages) pool(operate bool) *page.Pool {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if now := time.Now(); ps.picture == nil || now.Sub(ps.picture.At) >= pictureAge {
		ps.picture = ps.a.picture(now)
		ps.open = forAnybody(ps.picture)
	}
	if operate {
		return ps.picture
	}
	return ps.open
}

// forAnybody is a picture without what operators said to each other, and without what
// the command of an upgrade has printed.
func forAnybody(p *page.Pool) *page.Pool {
	open := *p
	open.Events = nil
	for _, e := range p.Events {
		if !private(e.Kind) {
			open.Events = append(open.Events, e)
		}
	}
	open.Leaving = make([]page.Leaving, len(p.Leaving))
	for i, l := range p.Leaving {
		l.Why = ""
		open.Leaving[i] = l
	}
	open.Tasks = make([]page.Task, len(p.Tasks))
	for i, t := range p.Tasks {
		t.Why, t.Text = "", ""
		open.Tasks[i] = t
	}
	return &open
}

// private: an event of this kind may say who asked for what and why, and name files.
func private(kind string) bool { return kind == EventOperator || kind == EventPoolFile }

// publisher is what is known of a publisher, or nil.
func (ps *pages) publisher(id peer.ID, operate bool) *page.Detail {
	if operate {
		return detailOf(ps.explain(id), true)
	}
	x := Explanation{Publisher: id, Places: ps.a.pool.places(id, time.Now())}
	ps.a.pool.addSince(&x)
	x.Refused = nil
	for _, e := range ps.a.events.page(EventQuery{Publisher: id, Limit: maxNamed}).Events {
		if !private(e.Kind) {
			x.Events = append(x.Events, e)
		}
	}
	return detailOf(x, false)
}

func (ps *pages) explain(id peer.ID) Explanation {
	ps.explaining.Lock()
	defer ps.explaining.Unlock()
	now := time.Now()
	if ps.explained == nil || ps.explained.Publisher != id || now.Sub(ps.at) >= max(explainedAge, 4*ps.took) {
		x := ps.a.explain(id)
		ps.explained, ps.at, ps.took = &x, now, time.Since(now)
	}
	return *ps.explained
}

// places are what members are to a publisher, as far as it costs no plan.
func (p *pool) places(id peer.ID, now time.Time) (places []Place) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range p.nodes {
		if n.facts == nil {
			continue
		}
		if r := n.facts.role(id); r != nil {
			places = append(places, Place{
				Indexer: n.facts.id, State: p.state(n, now), Role: r.Role, Continued: r.Continued,
				Height: r.Height, Filling: r.Filling, Load: r.MultihashesPerSecond,
			})
		}
	}
	return places
}

func detailOf(x Explanation, explained bool) *page.Detail {
	if len(x.Places) == 0 && x.Waiting == "" && len(x.Steps) == 0 && len(x.Events) == 0 {
		return nil
	}
	d := &page.Detail{
		ID: x.Publisher, Explained: explained, Wished: x.Wished, Whole: x.Whole, Bound: x.Bound, Waiting: x.Waiting,
		Next: stepsOf(x.Steps), Underway: stepsOf(x.Underway), Actions: publisherActions(x.Publisher),
	}
	for _, p := range x.Places {
		d.Places = append(d.Places, page.Place{
			Node: p.Indexer, State: string(p.State), Role: string(p.Role), Continued: p.Continued, Since: p.Since,
			Height: p.Height, Lag: p.Pending, Filling: p.Filling, Rate: p.Load, LastError: p.LastError,
		})
	}
	for _, r := range x.Refused {
		d.Refused = append(d.Refused, "Indexer "+r.Indexer.String()+" refused it: "+r.Why)
	}
	for i := len(x.Events) - 1; i >= 0; i-- {
		d.Events = append(d.Events, eventOf(x.Events[i]))
	}
	return d
}

func stepsOf(steps []PlannedStep) (out []page.Steps) {
	for _, s := range steps {
		out = append(out, page.Steps{Kind: s.Kind, Why: s.Why, On: s.Indexer, From: s.From, Total: 1})
	}
	return out
}

func eventOf(e Event) page.Event {
	return page.Event{Time: e.Time, Kind: e.Kind, Publisher: e.Publisher, Indexer: e.Indexer, From: e.From, Text: e.Text, Error: e.Error}
}

// asking is method and path of an action, with one value of its query.
func asking(method, path, key, value string) string {
	return method + " " + path + "?" + neturl.Values{key: {value}}.Encode()
}

// nodeActions are what can be asked for about a member.
func nodeActions(m admin.PoolMember, id peer.ID, frozen, drained bool) (as []page.Action) {
	name := m.Admin
	if id != "" {
		name = id.String()
	}
	add := func(label, method, path, ask string) {
		as = append(as, page.Action{Label: label, Do: asking(method, path, "indexer", name), Ask: ask})
	}
	if id != "" {
		if frozen {
			add("Unfreeze", http.MethodPut, unfreezePath, "Have indexer "+name+" take content again?")
		} else {
			add("Freeze", http.MethodPut, freezePath, "Have indexer "+name+" take no new content? Its publishers go on at others.")
		}
		if drained {
			add("Undrain", http.MethodDelete, drainPath, "Have indexer "+name+" take publishers again? What was given away stays where it is.")
		} else {
			add("Drain", http.MethodPut, drainPath, "Have all publishers of indexer "+name+" go to others, with what it holds?")
		}
	}
	add("Remove", http.MethodDelete, membersPath, "Take indexer "+name+" out of the pool? That is refused while it has what too few others have.")
	return as
}

// taskActions are what can be asked for about a task under way.
func taskActions(t Task) (as []page.Action) {
	add := func(label, do, ask string) {
		as = append(as, page.Action{Label: label, Do: asking(http.MethodPut, tasksPath, "id", t.ID) + "&do=" + do, Ask: ask})
	}
	switch t.State {
	case TaskRunning:
		add("Pause", "pause", "Have "+t.ID+" go on with no other indexer for now?")
	case TaskPaused:
		add("Go on", "resume", "Have "+t.ID+" go on?")
	case TaskFailed:
		add("Try again", "retry", "Try the step of "+t.ID+" again that has failed?")
	}
	add("Skip", "skip", "Have "+t.ID+" go on without this indexer? That wants a reason.")
	add("End", "end", "End "+t.ID+" before it is done?")
	return as
}

func publisherActions(id peer.ID) []page.Action {
	name := id.String()
	return []page.Action{
		{Label: "Bind", Do: asking(http.MethodPut, pinPath, "publisher", name), Field: "indexer", FieldLabel: "Peer IDs of indexers, with commas between them",
			Ask: "Have publisher " + name + " at these indexers and no other?"},
		{Label: "Unbind", Do: asking(http.MethodPut, pinPath, "publisher", name) + "&indexer=", Ask: "Have publisher " + name + " at any indexers?"},
		{Label: "Copies", Do: asking(http.MethodPut, replicationPath, "publisher", name), Field: "copies", FieldLabel: "How many; 0 for the pool's setting",
			Ask: "How many indexers are to have publisher " + name + "?"},
		{Label: "Refuse", Do: asking(http.MethodPut, policyPath, "deny", name), Ask: "Refuse announces of publisher " + name + "? What is indexed stays."},
		{Label: "Allow", Do: asking(http.MethodPut, policyPath, "allow", name), Ask: "Take announces of publisher " + name + "?"},
	}
}

func poolActions(noRebalance bool) []page.Action {
	as := []page.Action{
		{Label: "Add an indexer", Do: http.MethodPost + " " + membersPath, Field: "body", FieldLabel: "find=URL ingest=URL admin=URL",
			Ask: "Which indexer is to join the pool? A line as in a pool file."},
		{Label: "Free surplus", Do: http.MethodPut + " " + cleanPath, Ask: "Free parts of chains that as many other indexers as wished hold too?"},
	}
	if noRebalance {
		return append(as, page.Action{Label: "Rebalance", Do: asking(http.MethodPut, rebalancePath, "on", "true"), Ask: "Have publishers moved to even out load?"})
	}
	return append(as, page.Action{Label: "Do not rebalance", Do: asking(http.MethodPut, rebalancePath, "on", "false"), Ask: "Have no publisher moved to even out load?"})
}
