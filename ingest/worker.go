package ingest

import (
	"context"
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/store"
)

// strangerTries is how often a publisher that never showed a valid head is
// tried before it is dropped: anybody can announce anybody.
const strangerTries = 4

// worker works for one publisher. Its goroutine lives from the first target
// until nothing is left to do, now or later; what waits for its next try is on
// disk, so a restart finds it again. Between sessions it sleeps.
//
//	target ──► session ──► nothing left: gone
//	  ▲           │ something left at a later time: sleep
//	  └───────────┘ publisher away: back-off
type worker struct {
	i         *Ingester
	publisher peer.ID
	ctx       context.Context
	stop      context.CancelFunc
	wake      chan struct{} // capacity 1: next was set

	// Guarded by Ingester.mu.
	next     target
	has      bool
	explicit bool // an explicit sync is queued or running

	// Of the worker's goroutine, or of its session's scanner while one runs.
	retry   retry
	revisit *revisit // under way; what is wished is on disk
	// reached is set by a session in which an explicit target was done with.
	reached bool

	// Of the worker's goroutine.
	mirrored  cid.Cid   // head written to the mirror last
	pub       *source   // that served last, should no address be known; or nil
	later     time.Time // when what is left on disk can be tried again
	left      bool      // something is left
	held      time.Time // publisher is away: nothing but a target is tried before
	away      *backoff.ExponentialBackOff
	awayTries int
	over      time.Time // nothing is tried before: the allowance is used up
}

func newWorker(i *Ingester, publisher peer.ID) *worker {
	ctx, cancel := context.WithCancel(i.ctx)
	return &worker{i: i, publisher: publisher, ctx: ctx, stop: cancel, wake: make(chan struct{}, 1)}
}

// put adds to the next target and returns announces there was no room for. The
// caller holds Ingester.mu.
func (w *worker) put(t target) (over []notice) {
	if t.since.IsZero() {
		t.since = time.Now()
	}
	over = w.next.merge(t)
	w.has = true
	select {
	case w.wake <- struct{}{}:
	default:
	}
	return over
}

func (w *worker) run() {
	defer w.stop()
	for {
		at, ok := w.due()
		if !ok {
			if w.leave() {
				return
			}
			continue
		}
		if !w.sleepUntil(at) {
			w.stopped()
			return
		}
		if _, ok := w.due(); !ok {
			continue
		}
		w.work()
		if w.ctx.Err() != nil {
			w.stopped()
			return
		}
	}
}

// due returns when the worker has something to do; false: never.
func (w *worker) due() (at time.Time, ok bool) {
	earlier := func(t time.Time) {
		if !ok || t.Before(at) {
			at, ok = t, true
		}
	}
	if t, waits := w.targetDue(); waits {
		earlier(t)
	}
	if w.left {
		t := w.later
		if w.held.After(t) {
			t = w.held
		}
		earlier(t)
	}
	if w.over.After(at) {
		at = w.over
	}
	return at, ok
}

// targetDue returns when a target can be tried. One that failed is not tried
// again within RetryMin, however often it is announced; nor is any while the
// publisher's allowance is used up.
func (w *worker) targetDue() (time.Time, bool) {
	w.i.mu.Lock()
	has := w.has
	w.i.mu.Unlock()
	var at time.Time
	switch {
	case has && w.retry.waiting:
		at = w.retry.failed.Add(w.i.cfg.RetryMin)
	case has:
	case w.retry.waiting:
		at = w.retry.at
	default:
		return at, false
	}
	if w.over.After(at) {
		at = w.over
	}
	return at, true
}

// wantsTarget says whether a target is due.
func (w *worker) wantsTarget() bool {
	at, ok := w.targetDue()
	return ok && !time.Now().Before(at)
}

// takeTarget returns the target that is due, what is to be tried again included.
func (w *worker) takeTarget() (target, bool) {
	if !w.wantsTarget() {
		return target{}, false
	}
	var t target
	if w.retry.waiting {
		t, w.retry.waiting = w.retry.target, false
	}
	w.i.mu.Lock()
	defer w.i.mu.Unlock()
	select {
	case <-w.wake:
	default:
	}
	if w.has {
		w.i.failed(w.publisher, t.merge(w.next))
		w.next, w.has = target{}, false
	}
	return t, true
}

// targetFailed decides what becomes of a target that was not reached.
func (w *worker) targetFailed(t target, err error) {
	r := &w.retry
	if r.delays == nil {
		r.delays = w.i.newBackoff(w.i.cfg.RetryMin, w.i.cfg.RetryMax)
	}
	r.tries++
	w.i.failed(w.publisher, t.notices)
	if w.giveUp(err, r.tries) {
		w.i.log.Warn("sync given up", "publisher", w.publisher, "heads", t.heads(), "tries", r.tries, "err", err)
		w.targetDone(t)
		return
	}
	delay := r.delays.NextBackOff()
	w.i.log.Warn("sync will be tried again", "publisher", w.publisher, "heads", t.heads(), "in", delay, "err", err)
	t.announcedFirst = !t.announcedFirst
	r.target, r.waiting = t, true
	r.failed = time.Now()
	r.at = r.failed.Add(delay)
}

// targetDone ends a target that was reached or given up.
func (w *worker) targetDone(t target) {
	w.retry = retry{}
	w.reached = w.reached || t.explicit
	for _, n := range t.notices {
		w.i.forgetAnnounce(w.publisher, n.head)
	}
}

// giveUp decides whether a failed target is dropped rather than tried again. A
// publisher with progress or pending ads is never given up: its next try
// comes with back-off. Its announce of a foreign CID is.
func (w *worker) giveUp(err error, tries int) bool {
	if errors.Is(err, ErrNotInChain) {
		return tries >= strangerTries
	}
	if isOurs(err) {
		return false
	}
	if errors.Is(err, ErrUnknownPublisher) {
		return true
	}
	if w.i.cfg.Allow != nil && w.i.cfg.Allow(w.publisher) != nil {
		return true
	}
	return w.stranger() && tries >= strangerTries
}

// stranger says whether the publisher never showed a valid head. Nothing but
// the announce itself is written about strangers: anybody can announce any
// number of them.
func (w *worker) stranger() bool {
	p := w.i.cfg.Store.Progress(w.publisher)
	return !p.Mark.Ad.Defined() && p.Pending == 0 && p.AppliedCount == 0 &&
		len(w.i.cfg.Store.PublisherAddrs(w.publisher)) == 0
}

// work runs one session and notes what is left.
func (w *worker) work() {
	seats := w.i.seats
	if w.stranger() {
		seats = w.i.guests
	}
	seat, err := seats.take(w.ctx)
	if err != nil {
		return
	}
	defer seat.leave()
	start := time.Now()
	out := w.i.newSession(w, seat).run(w.ctx)
	if w.ctx.Err() != nil {
		return
	}
	w.i.metrics.syncSeconds.Observe(time.Since(start).Seconds())
	w.left, w.later = out.left, out.next
	w.note(out)
	if w.reached && !out.interrupted {
		w.reached = false
		w.i.mu.Lock()
		w.explicit = w.has && w.next.explicit
		w.i.mu.Unlock()
	}
}

// note counts how the session ended and holds a publisher that is away.
func (w *worker) note(out outcome) {
	if out.err == nil {
		w.i.metrics.syncsDone.Inc()
		w.away, w.awayTries, w.held = nil, 0, time.Time{}
		return
	}
	w.i.metrics.syncsFailed.Inc()
	if !w.stranger() && !errors.Is(out.err, store.ErrFailed) && !errors.Is(out.err, store.ErrClosed) {
		if err := w.i.cfg.Store.SetError(w.publisher, out.err.Error(), time.Now()); err != nil {
			w.i.log.Warn("error of publisher not noted", "publisher", w.publisher, "err", err)
		}
	}
	if !out.away {
		return
	}
	var over *overAllowance
	if errors.As(out.err, &over) {
		w.over = over.until
		w.i.log.Warn("publisher has used its allowance", "publisher", w.publisher, "in", time.Until(over.until), "err", over)
		return
	}
	if w.away == nil {
		w.away = w.i.newBackoff(w.i.cfg.RetryMin, w.i.cfg.RetryMax)
	}
	w.awayTries++
	delay := w.away.NextBackOff()
	w.held = time.Now().Add(delay)
	w.i.log.Warn("session ended early", "publisher", w.publisher, "in", delay, "tries", w.awayTries, "err", out.err)
}

// leave removes the worker from the ingester unless a target came meanwhile.
func (w *worker) leave() bool {
	w.i.mu.Lock()
	defer w.i.mu.Unlock()
	if w.has {
		return false
	}
	delete(w.i.workers, w.publisher)
	return true
}

// stopped removes a stopped worker; what was queued behind the stop starts anew.
func (w *worker) stopped() {
	w.i.mu.Lock()
	delete(w.i.workers, w.publisher)
	t, again := w.next, w.has
	w.i.mu.Unlock()
	if !again {
		return
	}
	if err := w.i.enqueue(w.publisher, t); err != nil && !errors.Is(err, ErrClosed) {
		w.i.log.Debug("queued sync dropped", "publisher", w.publisher, "err", err)
	}
}

// sleepUntil waits until at or until there is a new target, whichever is
// earlier; false means the worker was stopped.
func (w *worker) sleepUntil(at time.Time) bool {
	for {
		d := time.Until(at)
		if d <= 0 {
			return w.ctx.Err() == nil
		}
		timer := time.NewTimer(d)
		select {
		case <-timer.C:
		case <-w.wake:
		case <-w.ctx.Done():
		}
		timer.Stop()
		if w.ctx.Err() != nil {
			return false
		}
		if t, ok := w.due(); ok {
			at = t
		}
	}
}

func (i *Ingester) newBackoff(first, most time.Duration) *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval = first
	b.MaxInterval = most
	b.Multiplier = 2
	b.Reset()
	return b
}

// isOurs tells a fault of this node from one of a publisher.
func isOurs(err error) bool {
	return errors.Is(err, store.ErrFailed) || errors.Is(err, store.ErrNoSpace) || errors.Is(err, store.ErrClosed)
}

// forgetAnnounce drops an announce from the disk once it was looked at.
func (i *Ingester) forgetAnnounce(publisher peer.ID, head cid.Cid) {
	if err := i.cfg.Store.DropAnnounced(publisher, head); err != nil && !errors.Is(err, store.ErrClosed) {
		i.log.Warn("announce not forgotten", "publisher", publisher, "head", head, "err", err)
	}
}
