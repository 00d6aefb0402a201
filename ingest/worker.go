package ingest

import (
	"context"
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/signpost-index/signpost/store"
)

// strangerTries is how often a publisher that never showed a valid head is
// tried before it is dropped: anybody can announce anybody.
const strangerTries = 4

// maxNotices bounds the announces one sync answers for; of more, the oldest are
// reported as failed, so that they can be made again.
const maxNotices = 64

// notice is one announce, as Notify got it.
type notice struct {
	addrs []multiaddr.Multiaddr
	head  cid.Cid
}

// target is what a worker is asked to reach: the signed head, whatever was
// announced. Waiting targets are merged, never replaced, since an announce may
// come from anybody: a false one must not push a true one aside.
type target struct {
	addrs    []multiaddr.Multiaddr // of all announces, each once, oldest first
	notices  []notice
	depth    int
	resync   bool
	explicit bool
	// announcedFirst prefers the announced addresses to those known. The first
	// try does not, so that a stranger's announce costs a known publisher
	// nothing; a second one does, as a publisher may have moved and left an
	// old head behind.
	announcedFirst bool
}

// merge adds a newer target to t and returns the announces there is no room for.
func (t *target) merge(newer target) (over []notice) {
	t.addrs = mergeAddrs(t.addrs, newer.addrs)
	t.addrs = t.addrs[:min(len(t.addrs), maxAnnouncedAddrs)]
	t.notices = append(t.notices, newer.notices...)
	if n := len(t.notices) - maxNotices; n > 0 {
		over, t.notices = t.notices[:n:n], t.notices[n:]
	}
	if newer.explicit {
		t.explicit, t.depth, t.resync = true, newer.depth, newer.resync
	}
	return over
}

// heads are the announced CIDs, for the log.
func (t *target) heads() []cid.Cid {
	var out []cid.Cid
	for _, n := range t.notices {
		out = append(out, n.head)
	}
	return out
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

// put adds to the next target and returns announces there was no room for. The
// caller holds Ingester.mu.
func (w *worker) put(t target) (over []notice) {
	over = w.next.merge(t)
	w.has = true
	select {
	case w.wake <- struct{}{}:
	default:
	}
	return over
}

// take returns the next target, what is to be tried again included, or false
// after removing the worker from the ingester because there is none.
func (w *worker) take(retry *target) (target, bool) {
	w.i.mu.Lock()
	defer w.i.mu.Unlock()
	select {
	case <-w.wake:
	default:
	}
	var t target
	if retry != nil {
		t = *retry
	}
	if w.has {
		w.i.failed(w.publisher, t.merge(w.next))
		w.next, w.has = target{}, false
		return t, true
	}
	if retry != nil {
		return t, true
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
		w.i.failed(w.publisher, t.notices)
		if w.giveUp(err, tries) {
			w.i.log.Warn("sync given up", "publisher", w.publisher, "heads", t.heads(), "tries", tries, "err", err)
			w.done(t)
			tries = 0
			delays = w.newBackoff()
			continue
		}
		delay := delays.NextBackOff()
		w.i.log.Warn("sync will be tried again", "publisher", w.publisher, "heads", t.heads(), "in", delay, "err", err)
		if !w.pause(min(delay, w.i.cfg.RetryMin), nil) || !w.pause(delay-w.i.cfg.RetryMin, w.wake) {
			w.leave()
			return
		}
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

// pause waits for the delay, or for early; false means the worker was stopped.
func (w *worker) pause(d time.Duration, early <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-early:
	case <-w.ctx.Done():
		return false
	}
	return true
}

// giveUp decides whether a failed sync is dropped rather than tried again. A
// publisher with progress or pending ads is never given up: its next try
// comes with back-off. Its announce of a foreign CID is.
func (w *worker) giveUp(err error, tries int) bool {
	if errors.Is(err, ErrNotInChain) {
		return tries >= strangerTries
	}
	if errors.Is(err, store.ErrFailed) || errors.Is(err, store.ErrNoSpace) {
		return false // a fault of ours
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
