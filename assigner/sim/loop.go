package sim

import (
	"errors"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
	"github.com/signpost-index/signpost/assigner"
)

// planCost is the virtual time a plan is thought to take for each publisher
// held; the next one waits for four times that (planPause in package assigner).
const planCost = 5 * time.Microsecond

// task is one call: steps of one kind for one node, and of one source.
type task struct {
	kind  assigner.Kind
	steps []assigner.Step
	from  *member
}

func (a *Assigner) tick() {
	if a.dead {
		return
	}
	a.wake()
	a.w.after(a.w.cfg.Tick, a.tick)
}

// wake has a plan made soon.
func (a *Assigner) wake() {
	if a.planDue || a.dead {
		return
	}
	a.planDue = true
	a.w.after(a.nextPlan-a.w.now, func() {
		a.planDue = false
		if !a.dead {
			a.plan()
		}
	})
}

func (a *Assigner) plan() {
	v := a.view()
	held := 0
	for _, ix := range v.Indexers {
		held += len(ix.Held)
	}
	started := time.Now()
	steps := a.w.cfg.Plan(v)
	a.w.planning = append(a.w.planning, time.Since(started))
	a.nextPlan = a.w.now + 5*time.Duration(held)*planCost
	a.handOut(steps)
}

// handOut gives the steps to the queues of their nodes, as the loop does.
func (a *Assigner) handOut(steps []assigner.Step) {
	type group struct {
		kind     assigner.Kind
		on, from peer.ID
	}
	open := make(map[group]*task)
	var tasks []*task
	taken := make(map[peer.ID]bool)
	for _, s := range steps {
		m := a.byID[s.Indexer]
		if taken[s.Publisher] || len(m.underway) >= maxUnderway {
			continue
		}
		g := group{s.Kind, s.Indexer, s.From}
		t := open[g]
		if t == nil || len(t.steps) == admin.MaxBatch {
			if m.queued >= maxTasks {
				continue
			}
			m.queued++
			t = &task{kind: s.Kind, from: a.byID[s.From]}
			open[g] = t
			tasks = append(tasks, t)
		}
		t.steps = append(t.steps, s)
		taken[s.Publisher] = true
		m.underway[s.Publisher] = &underway{Step: s}
		if s.Why == assigner.ReasonBalance {
			a.moves--
		}
	}
	for _, t := range tasks {
		m := a.byID[t.steps[0].Indexer]
		m.queue = append(m.queue, *t)
		m.work()
	}
}

// work begins calls as long as there are tasks and workers.
func (m *member) work() {
	for m.running < stepWorkers && len(m.queue) > 0 {
		t := m.queue[0]
		m.queue = m.queue[1:]
		m.begin(t)
	}
}

func (m *member) begin(t task) {
	if !m.up() || m.a.w.now < m.stepsAfter {
		for _, s := range t.steps {
			delete(m.underway, s.Publisher)
		}
		m.queued--
		m.a.wake()
		return
	}
	m.running++
	errs := make([]error, len(t.steps))
	if t.kind == assigner.Handoff {
		m.handOff(t, errs)
		return
	}
	m.a.w.call(m.n, m.a.w.cfg.CallTimeout, func() {
		for i, s := range t.steps {
			errs[i] = m.n.do(s)
		}
	}, func(what answer) { m.finish(t, errs, what) })
}

func (n *node) do(s assigner.Step) error {
	switch s.Kind {
	case assigner.Assign:
		return n.open(s.Publisher)
	case assigner.Close:
		_, err := n.close(s.Publisher)
		return err
	case assigner.Backfill:
		return n.backfill(s.Publisher)
	default:
		return n.release(s.Publisher)
	}
}

// sourceError: the source of a handoff could not do its part.
type sourceError struct{ error }

// handOff has the source stop and then the target go on, within one time-out.
func (m *member) handOff(t task, errs []error) {
	w, start := m.a.w, m.a.w.now
	offers := make([]offer, len(t.steps))
	closeAll := func() {
		for i, s := range t.steps {
			var err error
			if offers[i], err = t.from.n.close(s.Publisher); err != nil {
				errs[i] = sourceError{err}
			}
		}
	}
	w.call(t.from.n, w.cfg.CallTimeout, closeAll, func(what answer) {
		if what != answered {
			m.finish(t, errs, what)
			return
		}
		w.call(m.n, w.cfg.CallTimeout-(w.now-start), func() {
			for i, s := range t.steps {
				if errs[i] == nil {
					errs[i] = m.n.takeOver(s, offers[i])
				}
			}
		}, func(what answer) { m.finish(t, errs, what) })
	})
}

// finish records how the call of a task ended.
func (m *member) finish(t task, errs []error, what answer) {
	a := m.a
	if a.dead {
		return
	}
	m.queued--
	m.running--
	if what == notSent || what == noAnswer && t.kind != assigner.Handoff {
		m.holdSteps()
	} else if what == answered {
		m.stepFailures, m.stepsAfter = 0, 0
	}
	failed := what != answered
	for i, s := range t.steps {
		failed = failed || errs[i] != nil
		m.finishStep(s, errs[i], what)
	}
	if m.queued == 0 || failed {
		m.lookNow()
		if t.from != nil {
			t.from.lookNow()
		}
	}
	m.work()
	a.wake()
}

func (m *member) finishStep(s assigner.Step, err error, what answer) {
	u := m.underway[s.Publisher]
	if u == nil || u.Step != s {
		return
	}
	switch {
	case what == notSent:
		delete(m.underway, s.Publisher)
	case what == noAnswer:
		u.unsure, u.until = true, m.a.w.now+unsureCalls*m.a.w.cfg.CallTimeout
		if s.Kind == assigner.Handoff {
			m.refuse(s, nil)
		}
	case err != nil:
		delete(m.underway, s.Publisher)
		m.refuse(s, err)
	default:
		u.done, u.look = true, m.looks
		delete(m.refused, s.Publisher)
	}
}

func (m *member) refuse(s assigner.Step, err error) {
	var fromSource sourceError
	if s.Kind == assigner.Handoff && errors.Is(err, errNotFound) {
		m.a.byID[s.From].spent[s.Publisher] = true
		return
	}
	if errors.As(err, &fromSource) {
		m = m.a.byID[s.From]
	}
	r := m.refused[s.Publisher]
	if r == nil {
		r = new(refusal)
		m.refused[s.Publisher] = r
	}
	r.times++
	r.until = m.a.w.now + m.a.backoff(r.times, maxRefusal)
}

func (m *member) holdSteps() {
	if m.a.w.now < m.stepsAfter {
		return
	}
	m.stepFailures++
	m.stepsAfter = m.a.w.now + m.a.backoff(m.stepFailures, maxStepBackoff)
}
