package assigner

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
)

// settleTime is how long frontends take to learn that an indexer is held: they ask
// every three seconds, and wait for two.
const settleTime = 6 * time.Second

// errChanged: somebody else changed the step meanwhile.
var errChanged = errors.New("the step has changed")

// runTasks carries out what was asked for, until ctx ends.
func (a *Assigner) runTasks(ctx context.Context) error {
	tick := time.NewTicker(min(a.cfg.PollInterval, time.Second))
	defer tick.Stop()
	for {
		if a.standby.active() {
			a.carryOn(ctx, time.Now())
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// carryOn takes one look at the task under way, and has indexers thaw that no step
// needs frozen any more.
func (a *Assigner) carryOn(ctx context.Context, now time.Time) {
	var held peer.ID
	if t, ok := a.tasks.active(); ok {
		if n := t.current(); n >= 0 {
			s := a.step(ctx, t, n, now)
			if s.State.beforeDown() || s.State == StepAway {
				held = s.Indexer
			}
		}
	}
	for _, m := range a.pool.thawable(held, now) {
		call, cancel := context.WithTimeout(ctx, a.cfg.CallTimeout)
		err := m.indexer.Unfreeze(call)
		cancel()
		switch {
		case err == nil:
			a.events.add(Event{Kind: EventUpgrade, Indexer: m.id, Text: "takes content again"})
			a.pool.lookAgain(m.id)
		case ctx.Err() == nil && !errors.Is(err, admin.ErrHeld): // by its own clock, it will be a moment
			a.pool.thawFailed(m.id, now)
			a.log.Warn("indexer held for maintenance cannot be unfrozen", "indexer", m.id, "err", err)
			a.events.add(Event{Kind: EventUpgrade, Indexer: m.id, Text: "take content again", Error: plainText(err.Error())})
		}
	}
}

// Events of the steps of a task are of its kind.
const (
	EventUpgrade = string(TaskUpgrade)
	EventReindex = string(TaskReindex)
)

// step takes one look at the step a task is at, and returns it as it is then.
func (a *Assigner) step(ctx context.Context, t Task, n int, now time.Time) TaskStep {
	was := t.Steps[n]
	look := a.upgradeStep
	if t.Kind == TaskReindex {
		look = a.reindexStep
	}
	s := look(ctx, t, was, now)
	if s == was {
		return s
	}
	err := a.tasks.update(t.ID, func(t Task) (Task, error) {
		if t.Steps[n] != was {
			return t, errChanged
		}
		return t.with(n, s, now), nil
	})
	switch {
	case errors.Is(err, errChanged):
		return was
	case err != nil:
		a.log.Error("task cannot go on", "task", t.ID, "err", err)
		return was
	case s.State != was.State:
		a.noteStep(t, s)
	}
	return s
}

// upgradeStep takes one look at a step of an upgrade.
func (a *Assigner) upgradeStep(ctx context.Context, t Task, was TaskStep, now time.Time) TaskStep {
	f, node := a.pool.stepFacts(was.Indexer, *t.Settings, now)
	f.paused, f.settleTime = t.State != TaskRunning, a.settle
	s, act := was.next(*t.Settings, f, now)
	if s.State == StepAway && node != nil {
		wake(node.retryNow) // whoever is down is looked at seldom
	}
	if act != actNothing && node != nil {
		s = a.act(ctx, t, s, act, node, now)
	}
	return s
}

func (a *Assigner) noteStep(t Task, s TaskStep) {
	e := Event{Kind: string(t.Kind), Indexer: s.Indexer, Text: t.ID + ": " + string(s.State)}
	if s.State == StepFailed {
		e.Error = s.Text
	} else if s.Text != "" {
		e.Text += ": " + s.Text
	}
	a.events.add(e)
	a.log.Info("step of a task", "task", t.ID, "indexer", s.Indexer, "step", s.State, "text", s.Text)
}

// act does what a step wants, and returns the step as it is then.
func (a *Assigner) act(ctx context.Context, t Task, s TaskStep, act action, n *node, now time.Time) TaskStep {
	ix, find := a.pool.clientOf(n)
	ctx, cancel := context.WithTimeout(ctx, a.cfg.CallTimeout)
	defer cancel()
	was := t.Steps[t.current()]
	switch act {
	case actHold:
		if err := ix.Hold(ctx, a.settle+t.Settings.DownFor, t.ID+": it is to be restarted"); err != nil {
			return was.to(was.State, now, "%s", plainText("it cannot be held: "+err.Error()))
		}
		a.pool.lookAgain(s.Indexer)
	case actCheck:
		if err := a.links.healthy(ctx, find); err != nil {
			if now.Sub(s.Since) > t.Settings.BackWithin+t.Settings.DownFor {
				return s.to(StepFailed, now, "%s", plainText("it does not answer lookups: "+err.Error()))
			}
			return s.to(StepThawing, now, "%s", plainText("it does not answer lookups: "+err.Error()))
		}
		return s.to(StepDone, now, "")
	}
	return s
}

// clientOf is how to ask a member, and where it answers lookups.
func (p *pool) clientOf(n *node) (ix client, find string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return n.indexer, n.member.Find
}

// lookAgain has a member looked at at once.
func (p *pool) lookAgain(id peer.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := p.byID(id); n != nil {
		wake(n.lookNow)
	}
}

// newUpgrade is an upgrade of the members that are named, or all, in the order of
// the pool.
func (a *Assigner) newUpgrade(set UpgradeSettings, only []peer.ID, why Wish) (Task, error) {
	t := Task{Kind: TaskUpgrade, State: TaskRunning, Wish: why.plain(), Settings: &set}
	members, _, _ := a.pool.members(time.Now())
	if _, err := maxDownOf(set.MaxDown, len(members)); err != nil {
		return t, err
	}
	steps, err := memberSteps(a.pool, only)
	t.Steps = steps
	return t, err
}

// memberSteps are steps of the members that are named, or of all, in the order of the
// pool.
func memberSteps(p *pool, only []peer.ID) (steps []TaskStep, err error) {
	named := setOf(only)
	members, _, _ := p.members(time.Now())
	for _, m := range members {
		if len(only) > 0 && !named.has(m.ID) {
			continue
		}
		if m.ID == "" {
			return nil, fmt.Errorf("%w: the indexer at %s was never read: try again when it is up, or name the others", admin.ErrUnavailable, m.Admin)
		}
		steps = append(steps, TaskStep{Indexer: m.ID, Find: m.Find, Ingest: m.Ingest, Admin: m.Admin, State: StepPending})
	}
	if len(steps) == 0 {
		return nil, fmt.Errorf("%w: there is no such indexer", admin.ErrBadRequest)
	}
	return steps, nil
}
