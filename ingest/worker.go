package ingest

import (
	"context"
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

// strangerTries is how often a publisher that never showed a valid head is
// tried before it is dropped: anybody can announce anybody.
const strangerTries = 4

// target is what a worker is asked to reach.
type target struct {
	addrs    []multiaddr.Multiaddr
	head     cid.Cid // announced; undefined for a resume or an explicit sync
	depth    int
	resync   bool
	explicit bool
	// announcedFirst prefers the announced addresses to those known. The first
	// try does not, so that a stranger's announce costs a known publisher
	// nothing; a second one does, as a publisher may have moved and left an
	// old head behind.
	announcedFirst bool
}

// worker syncs one publisher. Its goroutine lives from the first target until
// nothing is left to do; Ingester.mu guards next, has and explicit.
type worker struct {
	i         *Ingester
	publisher peer.ID
	ctx       context.Context
	stop      context.CancelFunc
	wake      chan struct{} // capacity 1: next was set
	next      target
	has       bool
	explicit  bool // an explicit sync is queued or running
}

func newWorker(i *Ingester, publisher peer.ID) *worker {
	ctx, cancel := context.WithCancel(i.ctx)
	return &worker{i: i, publisher: publisher, ctx: ctx, stop: cancel, wake: make(chan struct{}, 1)}
}

// put sets or merges the next target. The caller holds Ingester.mu.
func (w *worker) put(t target) {
	if w.has {
		if len(t.addrs) == 0 {
			t.addrs = w.next.addrs
		}
		if !t.head.Defined() {
			t.head = w.next.head
		}
		if !t.explicit && w.next.explicit {
			t.explicit, t.depth, t.resync = true, w.next.depth, w.next.resync
		}
	}
	w.next, w.has = t, true
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// take returns the next target, or false after removing the worker from the
// ingester because there is none.
func (w *worker) take(retry *target) (target, bool) {
	w.i.mu.Lock()
	defer w.i.mu.Unlock()
	select {
	case <-w.wake:
	default:
	}
	if w.has {
		t := w.next
		w.next, w.has = target{}, false
		if retry != nil && len(t.addrs) == 0 {
			t.addrs = retry.addrs
		}
		return t, true
	}
	if retry != nil {
		return *retry, true
	}
	delete(w.i.workers, w.publisher)
	return target{}, false
}

func (w *worker) run() {
	defer w.stop()
	delays := w.newBackoff()
	var retry *target
	tries := 0
	for {
		t, ok := w.take(retry)
		if !ok {
			return
		}
		retry = nil
		err := w.sync(t)
		if w.ctx.Err() != nil {
			w.leave()
			return
		}
		if err == nil {
			tries = 0
			delays = w.newBackoff()
			w.done(t)
			continue
		}
		tries++
		if w.i.cfg.Failed != nil && t.head.Defined() {
			w.i.cfg.Failed(w.publisher, t.head, err)
		}
		if w.giveUp(err, tries) {
			w.i.log.Warn("sync given up", "publisher", w.publisher, "head", t.head, "tries", tries, "err", err)
			w.done(t)
			tries = 0
			delays = w.newBackoff()
			continue
		}
		delay := delays.NextBackOff()
		w.i.log.Warn("sync will be tried again", "publisher", w.publisher, "head", t.head, "in", delay, "err", err)
		w.pause(delay)
		t.announcedFirst = !t.announcedFirst
		retry = &t
	}
}

// leave removes a stopped worker; what was queued behind the stop starts anew.
func (w *worker) leave() {
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

func (w *worker) done(t target) {
	if t.explicit {
		w.i.mu.Lock()
		w.explicit = w.has && w.next.explicit
		w.i.mu.Unlock()
	}
}

func (w *worker) newBackoff() *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval = w.i.cfg.RetryMin
	b.MaxInterval = w.i.cfg.RetryMax
	b.Multiplier = 2
	b.Reset()
	return b
}

// pause waits for the delay, a newer target or the end.
func (w *worker) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-w.wake:
	case <-w.ctx.Done():
	}
}

// giveUp decides whether a failed sync is dropped rather than tried again. A
// publisher with progress or pending ads is never given up: its next try
// comes with back-off. Its announce of a foreign CID is.
func (w *worker) giveUp(err error, tries int) bool {
	if errors.Is(err, ErrNotInChain) {
		return tries >= strangerTries
	}
	if errors.Is(err, ErrUnknownPublisher) {
		return true
	}
	if w.i.cfg.Allow != nil && w.i.cfg.Allow(w.publisher) != nil {
		return true
	}
	return w.stranger() && tries >= strangerTries
}

// stranger says whether the publisher never showed a valid head. Nothing is
// written about strangers: anybody can announce any number of them.
func (w *worker) stranger() bool {
	p := w.i.cfg.Store.Progress(w.publisher)
	return !p.Mark.Ad.Defined() && p.Pending == 0 && p.AppliedCount == 0 &&
		len(w.i.cfg.Store.PublisherAddrs(w.publisher)) == 0
}

// sync runs one sync within the bound on syncs at once.
func (w *worker) sync(t target) error {
	select {
	case w.i.slots <- struct{}{}:
	case <-w.ctx.Done():
		return w.ctx.Err()
	}
	defer func() { <-w.i.slots }()
	start := time.Now()
	err := w.i.syncOnce(w.ctx, w.publisher, t)
	if w.ctx.Err() != nil {
		return err
	}
	w.i.metrics.syncSeconds.Observe(time.Since(start).Seconds())
	if err != nil {
		w.i.metrics.syncsFailed.Inc()
		if w.stranger() {
			return err
		}
		if serr := w.i.cfg.Store.SetError(w.publisher, err.Error(), time.Now()); serr != nil {
			return errors.Join(err, serr)
		}
		return err
	}
	w.i.metrics.syncsDone.Inc()
	return nil
}
