package assigner

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
		look, ix, old, first := a.pool.startLook(n)
		started := time.Now()
		f, err := a.read(ctx, ix, old)
		if ctx.Err() != nil {
			return
		}
		if err == nil && first && !f.plain {
			a.readHint(ctx, ix)
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

// carryOut does n's steps as they come.
func (a *Assigner) carryOut(ctx context.Context, n *node) {
	for {
		select {
		case <-ctx.Done():
			return
		case t := <-n.tasks:
			ix, steps := a.pool.startTask(n, t, a.standby.active(), time.Now())
			if len(steps) == 0 {
				continue
			}
			t.steps = steps
			outcomes, err := a.call(ctx, ix, t)
			if ctx.Err() != nil {
				return
			}
			a.pool.finishTask(n, t, outcomes, err, time.Now())
		}
	}
}

// outcomes are what became of the steps of a task, in their order: nil is good.
type outcomes []error

// call does a task. An error is about all its steps.
func (a *Assigner) call(ctx context.Context, ix client, t task) (outcomes, error) {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.CallTimeout)
	defer cancel()
	ids := make([]peer.ID, len(t.steps))
	for n, s := range t.steps {
		ids[n] = s.Publisher
	}
	batch := func(f func(context.Context, []peer.ID) ([]admin.Outcome, error)) (outcomes, error) {
		done, err := f(ctx, ids)
		return outcomesOf(ids, done), err
	}
	switch t.kind {
	case Assign:
		done, err := batch(ix.Open)
		if foreign(err) && len(ids) == 1 { // it knows no roles
			return nil, ix.Assign(ctx, ids[0])
		}
		return done, err
	case Handoff:
		return a.handOff(ctx, ix, t, ids)
	case Close:
		offers, err := ix.Close(ctx, ids)
		return offered(ids, offers), err
	case Backfill:
		return batch(ix.Backfill)
	case Release:
		return batch(ix.Release)
	}
	return nil, fmt.Errorf("%s is no step", t.kind)
}

// handOff has the source stop, if it can be told, and the target go on.
func (a *Assigner) handOff(ctx context.Context, ix client, t task, ids []peer.ID) (outcomes, error) {
	var offers []admin.Offer
	if t.from != nil {
		var err error
		if offers, err = t.from.Close(ctx, ids); err != nil {
			return nil, &sourceError{fmt.Errorf("close at %s: %w", t.handoff.FrozenID, err)}
		}
	}
	out := offered(ids, offers)
	if t.from == nil {
		out = make(outcomes, len(ids))
	}
	var good []admin.Offer
	for n, id := range ids {
		if out[n] != nil {
			out[n] = &sourceError{out[n]}
			continue
		}
		if offers != nil {
			good = append(good, offers[slices.IndexFunc(offers, func(o admin.Offer) bool { return o.Publisher == id })])
		}
	}
	if t.from == nil {
		return nil, ix.Handoff(ctx, ids[0], t.handoff)
	}
	if len(good) == 0 {
		return out, nil
	}
	done, err := ix.TakeOver(ctx, admin.TakeOver{From: t.handoff.FrozenID, Offers: good})
	if foreign(err) { // it knows no roles: one after the other
		for n, id := range ids {
			if out[n] == nil {
				out[n] = ix.Handoff(ctx, id, t.handoff)
			}
		}
		return out, nil
	}
	taken := outcomesOf(ids, done)
	for n := range out {
		if out[n] == nil {
			out[n] = taken[n]
		}
	}
	return out, err
}

// sourceError: it was the source of a handoff that could not do its part.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

// outcomeError is what an indexer said of one publisher of a batch.
type outcomeError string

func (e outcomeError) Error() string { return string(e) }

var errNoOutcome = errors.New("the indexer said nothing about it")

func outcomesOf(ids []peer.ID, done []admin.Outcome) outcomes {
	return inOrder(ids, done, func(o admin.Outcome) (peer.ID, string) { return o.Publisher, o.Error })
}

func offered(ids []peer.ID, offers []admin.Offer) outcomes {
	return inOrder(ids, offers, func(o admin.Offer) (peer.ID, string) { return o.Publisher, o.Error })
}

// inOrder puts what an indexer said of publishers into their order.
func inOrder[T any](ids []peer.ID, said []T, of func(T) (peer.ID, string)) outcomes {
	by := make(map[peer.ID]string, len(said))
	for _, t := range said {
		id, text := of(t)
		by[id] = text
	}
	out := make(outcomes, len(ids))
	for n, id := range ids {
		if text, ok := by[id]; !ok {
			out[n] = errNoOutcome
		} else if text != "" {
			out[n] = outcomeError(text)
		}
	}
	return out
}

// startTask returns the steps of a task that should be called; others are
// dropped, to be planned again: an indexer that has failed while the step was
// queued will not answer this one either, and a passive assigner takes no step.
func (p *pool) startTask(n *node, t task, active bool, now time.Time) (ix client, steps []Step) {
	p.mu.Lock()
	defer p.mu.Unlock()
	good := active && n.up() && !now.Before(n.stepsAfter)
	for _, s := range t.steps {
		u := n.underway[s.Publisher]
		switch {
		case u == nil || u.Step != s:
			// The member was forgotten meanwhile.
		case good && n.facts.id == s.Indexer:
			steps = append(steps, s)
		default:
			delete(n.underway, s.Publisher)
		}
	}
	if len(steps) == 0 {
		n.queued--
		wake(p.changed)
	}
	return n.indexer, steps
}

// finishTask records how the call of a task ended.
func (p *pool) finishTask(n *node, t task, out outcomes, err error, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n.queued--
	wake(p.changed)
	failed := err != nil
	var fromSource *sourceError
	switch result := resultOf(err); {
	case errors.As(err, &fromSource): // n was not called
	case result == stepNotSent, result == stepNoAnswer && t.kind != Handoff:
		p.holdSteps(n, err, now)
	case result != stepNoAnswer:
		n.stepFailures, n.stepsAfter = 0, time.Time{}
	}
	for i, s := range t.steps {
		serr := err
		if serr == nil && i < len(out) {
			serr = out[i]
		}
		failed = failed || serr != nil
		p.finishStep(n, s, serr, now)
	}
	if n.queued == 0 || failed {
		wake(n.lookNow)
		p.lookAt(t.handoff.FrozenID)
	}
}

// lookAt has the indexer looked at soon: its facts are likely to have changed.
func (p *pool) lookAt(id peer.ID) {
	for _, n := range p.nodes {
		if id != "" && n.facts != nil && n.facts.id == id {
			wake(n.lookNow)
		}
	}
}

// finishStep records how one step ended.
func (p *pool) finishStep(n *node, s Step, err error, now time.Time) {
	result := resultOf(err)
	p.cfg.metrics.step(s.Kind, result)
	u := n.underway[s.Publisher]
	if u == nil || u.Step != s {
		return // the member was forgotten meanwhile, or is another indexer
	}
	u.look = n.looks
	if from := p.byID(s.From); from != nil {
		u.source = from.looks
	}
	switch result {
	case stepAccepted, stepAlready:
		u.state, u.look = stepDone, n.looks
		delete(n.refused, s.Publisher)
		p.enqueueForward(n, s.Publisher, now)
		p.cfg.log.Info(stepText(s.Kind), "publisher", s.Publisher, "indexer", s.Indexer, "from", s.From, "why", s.Why)
		p.noteStep(s, nil)
	case stepNoAnswer:
		u.state, u.look, u.until = stepUnsure, n.looks, now.Add(unsureCalls*p.cfg.callTimeout)
		if s.Kind == Handoff {
			// Perhaps it was the frozen indexer that did not answer the target,
			// which for others is as good as ever.
			p.refuse(n, s, err, now)
		}
		p.noteStep(s, err)
	case stepNotSent:
		delete(n.underway, s.Publisher)
	case stepRefused:
		delete(n.underway, s.Publisher)
		p.refuse(n, s, err, now)
		p.noteStep(s, err)
	}
}

func (p *pool) noteStep(s Step, err error) {
	e := Event{Kind: s.Kind.String(), Publisher: s.Publisher, Indexer: s.Indexer, From: s.From, Text: string(s.Why)}
	if err != nil {
		e.Error = err.Error()
	}
	p.note(e)
}

// refuse passes n over for the publisher for a while, unless it is not n's
// fault: the source has nothing to hand off.
func (p *pool) refuse(n *node, s Step, err error, now time.Time) {
	if s.Kind == Handoff && errors.Is(err, admin.ErrNotFound) {
		p.spend(s)
		return
	}
	var fromSource *sourceError
	if errors.As(err, &fromSource) {
		for _, other := range p.nodes {
			if other.facts != nil && other.facts.id == s.From {
				n = other
			}
		}
	}
	r := n.refused[s.Publisher]
	if r == nil {
		r = new(refusal)
		n.refused[s.Publisher] = r
	}
	r.times++
	r.why = err.Error()
	r.until = now.Add(backoff(r.times, p.cfg.pollInterval, maxRefusal))
	p.cfg.log.Warn("indexer refuses publisher", "step", s.Kind, "publisher", s.Publisher, "indexer", n.name(), "err", err)
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
	var said outcomeError
	var fromSource *sourceError
	switch {
	case err == nil:
		return stepAccepted
	case errors.As(err, &fromSource):
		return stepRefused // the target was not told, and a close can be repeated
	case errors.Is(err, admin.ErrAlreadyAssigned):
		return stepAlready
	case errors.As(err, &status), errors.As(err, &said), errors.Is(err, errNoOutcome), errors.Is(err, admin.ErrNotAssigner), errors.Is(err, admin.ErrNotAllowed),
		errors.Is(err, admin.ErrFrozen), errors.Is(err, admin.ErrNotFound):
		return stepRefused
	case errors.Is(err, syscall.ECONNREFUSED):
		return stepNotSent
	}
	return stepNoAnswer
}

func stepText(k Kind) string {
	switch k {
	case Handoff:
		return "publisher handed off"
	case Close:
		return "publisher closed: the indexer goes on holding what it has"
	case Backfill:
		return "older ads are fetched"
	case Release:
		return "publisher released"
	}
	return "publisher assigned"
}
