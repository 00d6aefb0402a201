package assigner

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/announce"
)

const (
	outletWorkers = 4
	// maxOutlet is of how many publishers an announce waits at one outlet;
	// strangers get half of that.
	maxOutlet = 20_000
	// outletTries is how often an announce is sent that is answered with an
	// error that may pass.
	outletTries = 12
)

// outlet passes announces on to somebody outside the pool: gossip, or a URL. It
// holds the newest of each publisher, of a bounded number of publishers: what
// has no room is dropped and counted. One that does not answer is paused as a
// whole. Safe for concurrent use.
type outlet struct {
	way     string // in the metrics
	name    string
	send    func(ctx context.Context, an announce.Announce) error
	log     *slog.Logger
	metrics *announceMetrics
	now     chan struct{} // an announce is due

	mu     sync.Mutex
	queue  forwardQueue
	newest map[peer.ID]announce.Announce
}

func newOutlet(way, name string, log *slog.Logger, m *announceMetrics, send func(context.Context, announce.Announce) error) *outlet {
	return &outlet{
		way: way, name: name, send: send, log: log, metrics: m, now: make(chan struct{}, 1),
		queue: newForwardQueue(), newest: make(map[peer.ID]announce.Announce),
	}
}

// offer queues an announce in place of the publisher's last.
func (o *outlet) offer(an announce.Announce, known bool, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	publisher := an.Publisher.ID
	f := o.queue.by[publisher]
	room := maxOutlet
	if !known {
		room = maxOutlet / 2
	}
	switch {
	case f == nil && len(o.queue.by) >= room:
		o.count("dropped")
		return
	case f == nil:
		f = &forward{publisher: publisher}
		o.queue.by[publisher] = f
		o.queue.push(f, now)
	case f.index < 0:
		f.again = true
	default:
		f.attempts = 0
		o.queue.reschedule(f, now)
	}
	o.newest[publisher] = an
	wake(o.now)
}

// next takes the next announce due, or says how long there is nothing to do.
func (o *outlet) next(now time.Time) (d dispatch, wait time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	q := &o.queue
	switch {
	case now.Before(q.resume):
		return dispatch{}, q.resume.Sub(now)
	case len(q.heap) == 0:
		return dispatch{}, forwardIdleWakeup
	case now.Before(q.heap[0].due):
		return dispatch{}, q.heap[0].due.Sub(now)
	}
	f := q.pop()
	if len(q.heap) > 0 {
		wake(o.now) // the next worker
	}
	return dispatch{forward: f, announce: o.newest[f.publisher]}, 0
}

// finish records how a send ended and queues what has to go out again.
func (o *outlet) finish(d dispatch, err error, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	q, f := &o.queue, d.forward
	if err == nil {
		q.pauses = 0
		o.count("accepted")
	} else {
		o.count("failed")
	}
	switch {
	case f.again:
		f.again, f.attempts = false, 0
		q.push(f, now)
	case err == nil:
		o.forget(f)
	case isAnswer(err) || !o.pausable():
		f.attempts++
		if f.attempts >= outletTries || errors.Is(err, announce.ErrNotAllowed) || errors.Is(err, announce.ErrMalformed) {
			o.log.Debug("announce is not passed on", "publisher", f.publisher, "to", o.name, "err", err)
			o.count("dropped")
			o.forget(f)
			break
		}
		q.push(f, now.Add(backoff(f.attempts, forwardRetry, maxForwardRetry)))
	default:
		q.push(f, now)
	}
	if err != nil && !isAnswer(err) && !now.Before(q.resume) {
		q.pauses++
		q.resume = now.Add(backoff(q.pauses, forwardPause, maxForwardPause))
		if q.pauses == 1 {
			o.log.Warn("announces are not passed on", "to", o.name, "err", err)
		}
	}
	wake(o.now)
}

// pausable: an error without an answer says that nobody is there, and not that
// this announce is bad.
func (o *outlet) pausable() bool { return o.way == "url" }

func (o *outlet) forget(f *forward) {
	delete(o.queue.by, f.publisher)
	delete(o.newest, f.publisher)
}

func (o *outlet) count(result string) { o.metrics.passed.WithLabelValues(o.way, result).Inc() }

// run sends announces as they become due, until ctx ends.
func (o *outlet) run(ctx context.Context, s *standby, timeout time.Duration) {
	for s.untilActive(ctx) {
		d, wait := o.next(time.Now())
		if d.forward == nil {
			if !untilWoken(ctx, o.now, wait) {
				return
			}
			continue
		}
		call, cancel := context.WithTimeout(ctx, timeout)
		err := o.send(call, d.announce)
		cancel()
		if ctx.Err() != nil {
			return
		}
		o.finish(d, err, time.Now())
	}
}
