package assigner

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
)

// Paths of what the operator asks about plans, at the admin listener.
const (
	planPath    = PoolPath + "/plan"
	explainPath = PoolPath + "/explain"
	cleanPath   = PoolPath + "/clean"
)

// maxNamed is how many publishers an answer names.
const maxNamed = 20

// PlanPage is the answer of GET /signpost/v1/pool/plan: what would be done now.
type PlanPage struct {
	Time  time.Time
	Steps []PlannedStep
	// Underway are the steps begun whose effect is not seen yet.
	Underway []PlannedStep
	// Unplaced are the publishers that no indexer takes ads of, or can.
	Unplaced int
	// Unread members are waited for before new publishers are assigned.
	Unread int `json:",omitzero"`
}

func (a *Assigner) askPlan(*http.Request) (any, error) {
	now := time.Now()
	v := a.pool.peek(now)
	d := decide(v)
	return PlanPage{Time: now, Steps: shown(d.steps), Underway: shown(a.pool.steps()), Unplaced: d.unplaced, Unread: v.Unread}, nil
}

func (a *Assigner) askExplain(r *http.Request) (any, error) {
	id, err := decodePeer(r.URL.Query().Get("publisher"))
	if err != nil {
		return nil, fmt.Errorf("%w: publisher: %w", admin.ErrBadRequest, err)
	}
	x := a.explain(id)
	if len(x.Places) == 0 && x.Waiting == "" && len(x.Steps) == 0 {
		return nil, fmt.Errorf("%w: no indexer has publisher %s, and no announce of it has come", admin.ErrNotFound, id)
	}
	return x, nil
}

// explain is Explain together with what is under way and what happened.
func (a *Assigner) explain(id peer.ID) Explanation {
	x := Explain(a.pool.peek(time.Now()), id)
	for _, s := range a.pool.steps() {
		if s.Publisher == id {
			x.Underway = append(x.Underway, shown([]Step{s})...)
		}
	}
	a.pool.addSince(&x)
	x.Events = a.events.page(EventQuery{Publisher: id, Limit: maxNamed}).Events
	return x
}

// clean has surplus freed, by steps of the plans to come.
func (a *Assigner) clean(r *request) (Done, error) {
	dry, err := r.dryRun()
	if err != nil {
		return Done{}, err
	}
	steps := Surplus(a.pool.peek(time.Now()))
	done := Done{DryRun: dry, Text: fmt.Sprintf("%d parts of chains are freed that others hold too", len(steps))}
	if dry {
		done.Text = fmt.Sprintf("%d parts of chains would be freed%s", len(steps), named(steps))
		return done, nil
	}
	a.pool.cleanNow()
	return done, nil
}

func named(steps []Step) string {
	var text []string
	for _, s := range steps {
		if len(text) == maxNamed {
			return ": " + strings.Join(text, ", ") + fmt.Sprintf(" and %d more", len(steps)-maxNamed)
		}
		text = append(text, fmt.Sprintf("%s on %s", s.Publisher, s.Indexer))
	}
	if len(text) == 0 {
		return ""
	}
	return ": " + strings.Join(text, ", ")
}

// removable says why a member must not be removed: publishers would have fewer
// whole copies than wished.
func (a *Assigner) removable(m foundMember) error {
	if m.id == "" {
		return nil
	}
	needing := Needing(a.pool.peek(time.Now()), m.id)
	if len(needing) == 0 {
		return nil
	}
	names := make([]string, 0, maxNamed)
	for _, p := range needing[:min(len(needing), maxNamed)] {
		names = append(names, p.String())
	}
	if more := len(needing) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return fmt.Errorf("%w: without indexer %s there are fewer copies than wished of %d publishers (%s): drain it first (signpost pool drain), and remove it when it holds none",
		admin.ErrRefused, m.name(), len(needing), strings.Join(names, ", "))
}

// peek is view for a reader: it changes nothing and allows any number of moves.
func (p *pool) peek(now time.Time) View {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.viewNow(now)
}

// steps are those under way, by publisher.
func (p *pool) steps() (steps []Step) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range p.nodes {
		for _, u := range n.underway {
			steps = append(steps, u.Step)
		}
	}
	slices.SortFunc(steps, func(a, b Step) int { return strings.Compare(string(a.Publisher), string(b.Publisher)) })
	return steps
}

// cleanNow has plans free surplus until there is none.
func (p *pool) cleanNow() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cleaning = true
	wake(p.changed)
}

// surplus adds to a plan what frees surplus, if that is asked for.
func (p *pool) surplus(v View, d *decision) {
	p.mu.Lock()
	cleaning := p.cleaning
	p.mu.Unlock()
	if !cleaning {
		return
	}
	busy := make(map[peer.ID]bool, len(d.steps))
	for _, s := range d.steps {
		busy[s.Publisher] = true
	}
	n := len(d.steps)
	for _, s := range Surplus(v) {
		if !busy[s.Publisher] {
			d.steps = append(d.steps, s)
		}
	}
	if len(d.steps) == n && len(v.Busy) == 0 && n == 0 {
		p.mu.Lock()
		p.cleaning = false
		p.mu.Unlock()
	}
}

// addSince tells since when an indexer is what it is to the publisher.
func (p *pool) addSince(x *Explanation) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range p.nodes {
		if n.facts == nil {
			continue
		}
		r := n.facts.role(x.Publisher)
		for i := range x.Places {
			if pl := &x.Places[i]; r != nil && pl.Indexer == n.facts.id {
				pl.Since, pl.Mark, pl.Pending, pl.LastError = r.Since, r.Mark, r.Pending, r.LastError
			}
		}
		if f := n.refused[x.Publisher]; f != nil && time.Now().Before(f.until) {
			x.Refused = append(x.Refused, Refusal{Indexer: n.facts.id, Until: f.until, Why: f.why})
		}
	}
}

// Refusal is an indexer that lately would not take a publisher, or not do a step
// for it; it is not asked again before Until.
type Refusal struct {
	Indexer peer.ID
	Until   time.Time
	Why     string
}
