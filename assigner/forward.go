package assigner

import (
	"container/heap"
	"context"
	"errors"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/announce"
)

const (
	// forwardWorkers is how many announces go to one indexer at once.
	forwardWorkers = 8

	forwardRetry      = time.Second     // after the first answer that is not a success
	maxForwardRetry   = 5 * time.Minute // after many
	forwardPause      = 250 * time.Millisecond
	maxForwardPause   = 15 * time.Second
	forwardIdleWakeup = time.Hour // a worker with an empty queue waits to be woken
)

// forward is one announce due at one indexer. Which announce that is is looked
// up when it goes out, so that a newer one replaces it without ado.
type forward struct {
	publisher peer.ID
	due       time.Time
	order     uint64 // first come, first served among equally due
	attempts  int    // answers in a row that were not a success
	index     int    // place in the heap, -1 while being sent
	again     bool   // a newer announce came while this one was being sent
}

// forwardQueue holds what is due at one indexer, each publisher once. So it is
// bounded by the number of kept announces. An indexer that does not answer at
// all is paused as a whole; one that answers with an error is asked again for
// that publisher only. Guarded by pool.mu.
type forwardQueue struct {
	by     map[peer.ID]*forward
	heap   forwardHeap
	order  uint64
	resume time.Time // paused until then
	pauses int       // in a row
}

func newForwardQueue() forwardQueue {
	return forwardQueue{by: make(map[peer.ID]*forward)}
}

func (q *forwardQueue) push(f *forward, due time.Time) {
	q.order++
	f.due, f.order = due, q.order
	heap.Push(&q.heap, f)
}

// reschedule makes f, which is in the heap, due at another time.
func (q *forwardQueue) reschedule(f *forward, due time.Time) {
	heap.Remove(&q.heap, f.index)
	q.push(f, due)
}

// pop takes what is due first; the heap must not be empty.
func (q *forwardQueue) pop() *forward { return heap.Pop(&q.heap).(*forward) }

// remove takes what is due for the publisher out of the queue.
func (q *forwardQueue) remove(publisher peer.ID) {
	f := q.by[publisher]
	if f == nil {
		return
	}
	delete(q.by, publisher)
	if f.index >= 0 {
		heap.Remove(&q.heap, f.index)
	}
}

// enqueueForward makes the kept announce of the publisher, if there is one, due
// at n now.
func (p *pool) enqueueForward(n *node, publisher peer.ID, now time.Time) {
	k := p.kept.get(publisher)
	if k == nil || n.gone {
		return
	}
	p.known(k, now)
	q := &n.forwards
	switch f := q.by[publisher]; {
	case f == nil:
		f = &forward{publisher: publisher}
		q.by[publisher] = f
		q.push(f, now)
		k.queued++
	case f.index < 0:
		f.again = true
	default:
		f.attempts = 0
		q.reschedule(f, now)
	}
	wake(n.forwardNow)
}

// resumeForwards ends a pause of n, which has shown that it is back.
func (p *pool) resumeForwards(n *node) {
	n.forwards.resume = time.Time{}
	wake(n.forwardNow)
}

// dropForwards empties n's queue for good.
func (p *pool) dropForwards(n *node) {
	for publisher := range n.forwards.by {
		if k := p.kept.get(publisher); k != nil {
			k.queued--
		}
	}
	n.forwards = newForwardQueue()
}

// dispatch is one send.
type dispatch struct {
	*forward
	announce announce.Announce
	seq      uint64
	url      string
}

// nextForward takes the next announce due at n, or says how long there is
// nothing to do.
func (p *pool) nextForward(n *node, now time.Time) (d dispatch, wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := &n.forwards
	if now.Before(q.resume) {
		return dispatch{}, q.resume.Sub(now)
	}
	for len(q.heap) > 0 {
		f := q.heap[0]
		if now.Before(f.due) {
			return dispatch{}, f.due.Sub(now)
		}
		heap.Pop(&q.heap)
		k := p.kept.get(f.publisher)
		if k == nil || !n.has(f.publisher) {
			p.doneForward(n, f)
			continue
		}
		if len(q.heap) > 0 {
			wake(n.forwardNow) // the next worker
		}
		return dispatch{forward: f, announce: k.Announce, seq: k.seq, url: n.member.Ingest}, 0
	}
	return dispatch{}, forwardIdleWakeup
}

// doneForward takes f, which is not in the heap, out of the queue.
func (p *pool) doneForward(n *node, f *forward) {
	delete(n.forwards.by, f.publisher)
	if k := p.kept.get(f.publisher); k != nil {
		k.queued--
	}
}

// finishForward records how a send ended and queues what has to go out again.
func (p *pool) finishForward(n *node, d dispatch, err error, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	q, f := &n.forwards, d.forward
	if q.by[f.publisher] != f {
		return // n has left the pool
	}
	p.cfg.metrics.forwarded(err)
	if err == nil {
		q.pauses = 0
		p.delivered(n, f.publisher, d.seq)
	} else {
		p.noteForwardFailure(n, d, err, now)
	}
	switch {
	case f.again:
		f.again, f.attempts = false, 0
		q.push(f, now)
	case err == nil:
		p.doneForward(n, f)
	case isAnswer(err):
		f.attempts++
		q.push(f, now.Add(backoff(f.attempts, forwardRetry, maxForwardRetry)))
	default:
		q.push(f, now)
	}
	wake(n.forwardNow)
}

// noteForwardFailure pauses an indexer that gives no answer, and looks at one
// that does not know the publisher. Sends that fail together count once.
func (p *pool) noteForwardFailure(n *node, d dispatch, err error, now time.Time) {
	if k := p.kept.get(d.publisher); k != nil {
		p.cfg.forget(k.key)
	}
	q := &n.forwards
	log := p.cfg.log.With("publisher", d.publisher, "head", d.announce.Head, "indexer", n.name(), "err", err)
	switch {
	case errors.Is(err, announce.ErrNotAllowed):
		log.Warn("indexer does not take announces of a publisher it has assigned")
		wake(n.lookNow)
	case isAnswer(err):
		log.Warn("indexer does not take an announce")
	case !now.Before(q.resume):
		q.pauses++
		q.resume = now.Add(backoff(q.pauses, forwardPause, maxForwardPause))
		if q.pauses == 1 {
			log.Warn("announces do not reach indexer")
		}
	}
}

// isAnswer: the indexer answered, if not as hoped.
func isAnswer(err error) bool {
	var status *announce.StatusError
	return errors.As(err, &status)
}

// forward sends announces to n as they become due.
func (a *Assigner) forward(ctx context.Context, n *node) {
	for a.standby.untilActive(ctx) {
		d, wait := a.pool.nextForward(n, time.Now())
		if d.forward == nil {
			if !untilWoken(ctx, n.forwardNow, wait) {
				return
			}
			continue
		}
		call, cancel := context.WithTimeout(ctx, a.cfg.CallTimeout)
		err := a.links.send(call, d.url, d.announce)
		cancel()
		if ctx.Err() != nil {
			return
		}
		a.pool.finishForward(n, d, err, time.Now())
	}
}

// untilWoken waits for a signal, at most for d, and reports whether ctx still
// goes on.
func untilWoken(ctx context.Context, signal <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
	case <-signal:
	}
	return true
}

// forwardHeap orders by due time, then by order.
type forwardHeap []*forward

func (h forwardHeap) Len() int { return len(h) }

func (h forwardHeap) Less(i, j int) bool {
	if !h[i].due.Equal(h[j].due) {
		return h[i].due.Before(h[j].due)
	}
	return h[i].order < h[j].order
}

func (h forwardHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *forwardHeap) Push(x any) {
	f := x.(*forward)
	f.index = len(*h)
	*h = append(*h, f)
}

func (h *forwardHeap) Pop() any {
	old := *h
	f := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	f.index = -1
	return f
}
