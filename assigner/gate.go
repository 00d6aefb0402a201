package assigner

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
)

// short returns the publishers of which indexer has something that fewer than
// copies others, which answer and are not to go down, have whole. exact: up to the
// last ad that it has, as it is held; else whatever it may have got lately. It is
// what frontends go by (fanout's coverage), told from the assigner's facts.
func short(v View, indexer peer.ID, copies int, exact bool) (publishers []peer.ID) {
	if copies == 0 {
		return nil
	}
	t := newTally(v)
	for _, e := range t.indexers {
		if e.ID != indexer {
			continue
		}
		for _, h := range e.Held {
			if len(h.Ranges) == 0 && !e.Plain {
				continue
			}
			height := uint64(0)
			if exact {
				height = max(h.Height, h.Top)
			}
			others := t.facts(h.Publisher, func(d placement) bool { return d.on != e && d.on.Reachable && !d.on.Plain }, height)
			if exact && h.Unsure || copiesOf(others, copies) < copies {
				publishers = append(publishers, h.Publisher)
			}
		}
	}
	slices.Sort(publishers)
	return publishers
}

// lackText names publishers that others lack.
func lackText(publishers []peer.ID, copies int) string {
	if len(publishers) == 0 {
		return ""
	}
	names := make([]string, 0, 3)
	for _, p := range publishers[:min(len(publishers), 3)] {
		names = append(names, p.String())
	}
	return fmt.Sprintf("%d publishers have fewer than %d whole copies on other indexers that answer, such as %s", len(publishers), copies, strings.Join(names, ", "))
}

// maxDownOf is how many of n indexers may be out of service at once.
func maxDownOf(text string, n int) (int, error) {
	number, share := strings.CutSuffix(text, "%")
	most, err := strconv.Atoi(number)
	if err == nil && share && most <= 100 {
		most = n * most / 100
	}
	if err != nil || most < 1 || share && most > n {
		return 0, fmt.Errorf("%w: max-down=%q of %d indexers: want a number from 1 on, or a share such as 25%% that is at least one of them", admin.ErrBadRequest, text, n)
	}
	return most, nil
}

// outOfService counts the members that are out of service but for one.
func outOfService(nodes []*node, but *node, now time.Time, grace time.Duration) (n int, name string) {
	for _, o := range nodes {
		if o != but && !o.isDuplicate() && (!o.up() || o.facts.resting(now, grace) || o.crashes.looping(now)) {
			n++
			name = o.name()
		}
	}
	return n, name
}

// stepFacts are what is known for a step of an upgrade.
func (p *pool) stepFacts(id peer.ID, s UpgradeSettings, now time.Time) (stepFacts, *node) {
	f, n, v := p.stepView(id, s, now)
	if n == nil || f.blocked != "" || !f.known {
		return f, n
	}
	switch f.blocked = lackText(short(v, id, s.MinCopies, false), s.MinCopies); {
	case f.blocked != "":
	case !f.frozen:
		f.lacks = "it is not frozen yet"
	default:
		f.lacks = lackText(short(v, id, s.MinCopies, true), s.MinCopies)
	}
	return f, n
}

// stepView is stepFacts without what others lack, which is to be told from v.
func (p *pool) stepView(id peer.ID, s UpgradeSettings, now time.Time) (f stepFacts, n *node, v View) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n = p.byID(id); n == nil {
		return stepFacts{blocked: "it is in the pool no more"}, nil, v
	}
	f = stepFacts{
		known: !n.hinted, up: n.up(), started: n.facts.node.Started, frozen: n.facts.frozen, by: n.facts.node.FrozenBy, heldUntil: n.facts.heldUntil,
	}
	for _, r := range n.facts.roles {
		if r.Role == admin.RoleOwner && r.Unsure {
			f.behind++
		}
	}
	most, err := maxDownOf(s.MaxDown, len(p.nodes))
	out, name := outOfService(p.nodes, n, now, p.cfg.grace)
	switch {
	case !f.known:
	case n.facts.plain || f.started.IsZero():
		f.blocked = "it is no indexer that can be held"
	case err != nil:
		f.blocked = err.Error()
	case out+1 > most:
		f.blocked = fmt.Sprintf("%d others are out of service, such as %s, and %d may be at once", out, name, most)
	default:
		v = p.viewNow(now)
	}
	return f, n, v
}

// thawable are the members that were frozen to be maintained, and need not be any
// more; but may still be.
func (p *pool) thawable(but peer.ID, now time.Time) (ms []foundMember) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range p.nodes {
		if n.up() && n.facts.frozen && n.facts.node.FrozenBy == admin.FrozenByMaintenance && n.facts.id != but && !now.Before(n.facts.heldUntil) && !now.Before(n.thawAt) {
			ms = append(ms, foundMember{id: n.facts.id, member: n.member, indexer: n.indexer, up: true})
		}
	}
	return ms
}

// thawFailed has a member that refused to be unfrozen be left alone for a while.
func (p *pool) thawFailed(id peer.ID, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := p.byID(id); n != nil {
		n.thawAt = now.Add(thawRetry)
	}
}

const thawRetry = 30 * time.Second

// tasks are what the facts show of drains and of older ads being fetched.
func (p *pool) tasks(now time.Time) (ts []Task) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range p.wishes().Drains {
		t := Task{ID: string(TaskDrain) + "-" + d.Indexer.String(), Kind: TaskDrain, State: TaskRunning, Wish: d.Wish,
			Steps: []TaskStep{{Indexer: d.Indexer, State: StepRunning, Since: d.Since}}}
		if d.Paused {
			t.State = TaskPaused
		}
		if n := p.byID(d.Indexer); n != nil {
			t.Steps[0].Admin = n.member.Admin
			owned, held := 0, len(n.facts.roles)
			for _, r := range n.facts.roles {
				if r.Role == admin.RoleOwner {
					owned++
				}
			}
			t.Steps[0].Text = fmt.Sprintf("it still owns %d publishers and holds something of %d", owned, held-owned)
			if n.up() && held == 0 {
				t.State, t.Steps[0].State = TaskDone, StepDone
			}
		}
		ts = append(ts, t)
	}
	for _, n := range p.nodes {
		if n.facts == nil {
			continue
		}
		filling := 0
		for _, r := range n.facts.roles {
			if r.Filling {
				filling++
			}
		}
		if filling > 0 {
			ts = append(ts, Task{ID: string(TaskFill) + "-" + n.facts.id.String(), Kind: TaskFill, State: TaskRunning,
				Steps: []TaskStep{{Indexer: n.facts.id, Admin: n.member.Admin, State: StepRunning, Text: fmt.Sprintf("older ads of %d publishers are fetched", filling)}}})
		}
	}
	return ts
}
