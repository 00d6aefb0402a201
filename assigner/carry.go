package assigner

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/admin"
)

// startNode starts the goroutines of a member, which end with ctx or when the
// member leaves the pool: one that looks, some that carry out steps and some
// that forward announces.
func (a *Assigner) startNode(ctx context.Context, wg *sync.WaitGroup, n *node) {
	ctx, stop := context.WithCancel(ctx)
	if !a.pool.runs(n, stop) {
		return
	}
	var parts sync.WaitGroup
	parts.Go(func() { a.look(ctx, n) })
	for range stepWorkers {
		parts.Go(func() { a.carryOut(ctx, n) })
	}
	for range forwardWorkers {
		parts.Go(func() { a.forward(ctx, n) })
	}
	parts.Go(func() { a.pollOnce(ctx, n) })
	wg.Go(func() {
		parts.Wait()
		stop()
	})
}

// look reads n's facts again and again: every poll interval, after steps, and
// less and less often while it fails.
func (a *Assigner) look(ctx context.Context, n *node) {
	for {
		look, ix := a.pool.startLook(n)
		started := time.Now()
		f, err := a.read(ctx, ix)
		if ctx.Err() != nil {
			return
		}
		now := time.Now()
		a.metrics.lookSeconds.Observe(now.Sub(started).Seconds())
		wait := a.pool.finishLook(n, look, f, err, now)
		if !a.untilNextLook(ctx, n, wait, err != nil) {
			return
		}
	}
}

// untilNextLook waits, unless told to look at once. An indexer that failed is
// left alone for the whole wait, whoever wants to know of it; only a reload of
// the pool, which may bring its new token, ends that.
func (a *Assigner) untilNextLook(ctx context.Context, n *node, wait time.Duration, failed bool) bool {
	lookNow := n.lookNow
	if failed {
		lookNow = nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
	case <-lookNow:
	case <-n.retryNow:
	}
	return true
}

// read asks an indexer for its facts, within one call time-out for all.
func (a *Assigner) read(ctx context.Context, ix admin.Indexer) (*facts, error) {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.CallTimeout)
	defer cancel()
	st, err := ix.Status(ctx)
	if err != nil {
		return nil, fmt.Errorf("read status: %w", err)
	}
	if err := st.ID.Validate(); err != nil {
		return nil, fmt.Errorf("read status: indexer tells no identity: %w", err)
	}
	assigned, err := ix.Assigned(ctx)
	if err != nil {
		return nil, fmt.Errorf("read assignments: %w", err)
	}
	var preferred []peer.ID
	if !st.Frozen {
		// Only a preference: without it the plan is as correct.
		preferred, err = ix.Preferred(ctx)
		if err != nil {
			a.metrics.preferredFailures.Inc()
			a.log.Debug("preferred publishers not read", "indexer", st.ID, "err", err)
		}
	}
	return newFacts(st, assigned, preferred), nil
}

// carryOut does n's steps as they come.
func (a *Assigner) carryOut(ctx context.Context, n *node) {
	for {
		select {
		case <-ctx.Done():
			return
		case t := <-n.tasks:
			ix, ok := a.pool.startStep(n, t, a.standby.active(), time.Now())
			if !ok {
				continue
			}
			err := a.call(ctx, ix, t)
			if ctx.Err() != nil {
				return
			}
			a.pool.finishStep(n, t, err, time.Now())
		}
	}
}

func (a *Assigner) call(ctx context.Context, ix admin.Indexer, t task) error {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.CallTimeout)
	defer cancel()
	if t.Kind == Handoff {
		return ix.Handoff(ctx, t.Publisher, t.handoff)
	}
	return ix.Assign(ctx, t.Publisher)
}

// startStep reports whether the step should be called, or else drops it to be
// planned again: an indexer that has failed while the step was queued will not
// answer this one either, and a passive assigner takes no step.
func (p *pool) startStep(n *node, t task, active bool, now time.Time) (admin.Indexer, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if active && n.up() && n.facts.id == t.Indexer && !now.Before(n.stepsAfter) {
		return n.indexer, true
	}
	n.queued--
	if u := n.underway[t.Publisher]; u != nil && u.Step == t.Step {
		delete(n.underway, t.Publisher)
	}
	wake(p.changed)
	return nil, false
}

// finishStep records how the call of a step ended.
func (p *pool) finishStep(n *node, t task, err error, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n.queued--
	result := resultOf(err)
	p.cfg.metrics.step(t.Kind, result)
	wake(p.changed)
	if n.queued == 0 || result != stepAccepted {
		wake(n.lookNow)
	}
	switch {
	case result == stepNotSent, result == stepNoAnswer && t.Kind == Assign:
		p.holdSteps(n, err, now)
	case result != stepNoAnswer:
		n.stepFailures, n.stepsAfter = 0, time.Time{}
	}
	u := n.underway[t.Publisher]
	if u == nil || u.Step != t.Step {
		return // the member was forgotten meanwhile, or is another indexer
	}
	switch result {
	case stepAccepted, stepAlready:
		u.state, u.look = stepDone, n.looks
		delete(n.refused, t.Publisher)
		p.enqueueForward(n, t.Publisher, now)
		p.cfg.log.Info(stepText(t.Kind), "publisher", t.Publisher, "indexer", t.Indexer, "frozen", t.From)
	case stepNoAnswer:
		u.state, u.until = stepUnsure, now.Add(unsureCalls*p.cfg.callTimeout)
		if t.Kind == Handoff {
			// Perhaps it was the frozen indexer that did not answer the target,
			// which for others is as good as ever.
			p.refuse(n, t.Step, err, now)
		}
	case stepNotSent:
		delete(n.underway, t.Publisher)
	case stepRefused:
		delete(n.underway, t.Publisher)
		p.refuse(n, t.Step, err, now)
	}
}

// refuse passes n over for the publisher for a while, unless it is not n's
// fault: the frozen indexer has nothing to hand off.
func (p *pool) refuse(n *node, s Step, err error, now time.Time) {
	if s.Kind == Handoff && errors.Is(err, admin.ErrNotFound) {
		p.spend(s)
		return
	}
	r := n.refused[s.Publisher]
	if r == nil {
		r = new(refusal)
		n.refused[s.Publisher] = r
	}
	r.times++
	r.until = now.Add(backoff(r.times, p.cfg.pollInterval, maxRefusal))
	p.cfg.log.Warn("indexer refuses publisher", "step", s.Kind, "publisher", s.Publisher, "indexer", s.Indexer, "err", err)
}

// holdSteps keeps steps from an indexer that does not answer them. Calls that
// fail together count once.
func (p *pool) holdSteps(n *node, err error, now time.Time) {
	if now.Before(n.stepsAfter) {
		return
	}
	n.stepFailures++
	n.stepsAfter = now.Add(backoff(n.stepFailures, p.cfg.pollInterval, maxStepBackoff))
	p.cfg.log.Warn("indexer does not answer", "indexer", n.name(), "err", err)
}

// stepResult is how a call ended, as far as planning cares.
type stepResult string

const (
	stepAccepted stepResult = "accepted"
	stepAlready  stepResult = "already_assigned" // as good as accepted
	stepRefused  stepResult = "refused"          // the indexer answered no
	stepNotSent  stepResult = "not_sent"         // nothing listens there: surely not assigned
	stepNoAnswer stepResult = "no_answer"        // may have been assigned
)

// resultOf judges the error of a call. An answer over HTTP is an
// *api.StatusError; an [admin.ErrUnavailable] without one is a call that broke
// off, and says nothing of what the indexer did.
func resultOf(err error) stepResult {
	var status *api.StatusError
	switch {
	case err == nil:
		return stepAccepted
	case errors.Is(err, admin.ErrAlreadyAssigned):
		return stepAlready
	case errors.As(err, &status), errors.Is(err, admin.ErrNotAssigner), errors.Is(err, admin.ErrNotAllowed),
		errors.Is(err, admin.ErrFrozen), errors.Is(err, admin.ErrNotFound):
		return stepRefused
	case errors.Is(err, syscall.ECONNREFUSED):
		return stepNotSent
	}
	return stepNoAnswer
}

func stepText(k Kind) string {
	if k == Handoff {
		return "publisher handed off"
	}
	return "publisher assigned"
}
