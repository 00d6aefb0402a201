package ingest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/signpost-index/signpost/ingest/ipnisync"
	"github.com/signpost-index/signpost/store"
)

const (
	// firstLanes is how many ads of a publisher are fetched at once before it
	// has answered, and maxLanes the most; each one that succeeds lets one more
	// begin.
	firstLanes = 4
	maxLanes   = 32
	// freshLanes more may begin with each new head, up to maxFreshLanes beyond
	// maxLanes, so that new content does not wait for a backlog that is slow.
	freshLanes    = 4
	maxFreshLanes = 16
	// growEvery is when a session short of lanes looks for room again.
	growEvery = 100 * time.Millisecond
	// maxFailures of the way in a row, with no success between, end a session.
	maxFailures = 3
	// maxMissing is how many blocks in a row a publisher may not have, before it
	// is left alone for a while.
	maxMissing = 64
)

// session is one stretch of work with one publisher.
//
//	scanner ──► head ──► walk back ──► pending ads on disk ──► feed
//	                                                            │
//	lanes ◄─── one ad each: verify, fetch entries, Put, Commit ◄─┘
//
// The scanner takes new targets while the lanes work, so that a new head never
// waits for a backlog.
type session struct {
	i         *Ingester
	w         *worker
	publisher peer.ID
	st        *statusEntry
	feed      *feed
	// recovered is closed when the store has lost what was not durable since the
	// session began: what was read of it before may be wrong.
	recovered <-chan struct{}
	stop      context.CancelCauseFunc

	// known ends a walk besides the ledger: the mark and the newest ad when the
	// session began, heads walked since, and where other walks go on. Of the scanner.
	known map[cid.Cid]bool

	pub atomic.Pointer[source] // replaced when a head was fetched elsewhere

	mu       sync.Mutex // guards the fields below
	lanes    int
	short    bool // of lanes: the processor or the lanes of all were in use
	limit    int  // of lanes
	wg       sync.WaitGroup
	failures int  // of the way, in a row
	missing  int  // blocks not had, in a row
	served   bool // a block was served
}

// source is a publisher as dialled.
type source struct{ Publisher }

// outcome is how a session ended.
type outcome struct {
	next        time.Time // when what is left is due
	left        bool      // something is left on disk
	interrupted bool      // something is due at once
	away        bool      // the publisher could not be reached
	err         error
}

// errRecovered ends a session that began before the store failed and recovered.
var errRecovered = fmt.Errorf("the store has recovered since this session began: %w", store.ErrFailed)

// errAway ends a session with a publisher that cannot be reached.
type errAway struct{ error }

func (e errAway) Unwrap() error { return e.error }

func (i *Ingester) newSession(w *worker, seat *seat) *session {
	s := &session{
		i: i, w: w, publisher: w.publisher,
		st:    i.status.entry(w.publisher),
		known: make(map[cid.Cid]bool),
		limit: i.firstLanes,

		recovered: i.cfg.Store.Recovered(), // before anything is read of the chain
	}
	s.feed = newFeed(s.readBacklog, seat.over)
	return s
}

func (s *session) readBacklog(again bool, after store.Position, limit int) ([]store.PendingAd, error) {
	if again {
		return s.i.cfg.Store.AgainBacklog(s.publisher, after, limit)
	}
	return s.i.cfg.Store.Backlog(s.publisher, after, limit)
}

// run works until nothing is due, the time slice is over, or the publisher
// cannot be reached.
func (s *session) run(ctx context.Context) (out outcome) {
	if s.i.cfg.Allow != nil {
		if err := s.i.cfg.Allow(s.publisher); err != nil {
			return s.refused(err)
		}
	}
	ctx, span := s.i.span(ctx, "sync", "publisher", s.publisher)
	defer func() { span.end(out.err) }()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	s.stop = stop
	// A recovered store has lost what stood above: everything begins anew.
	go func() {
		select {
		case <-s.recovered:
			stop(errRecovered)
		case <-ctx.Done():
		}
	}()
	s.st.begin()
	s.st.setTotal(s.i.cfg.Store.Progress(s.publisher).Pending)
	s.pub.Store(s.w.pub)
	if addrs := parseAddrs(s.i.cfg.Store.PublisherAddrs(s.publisher)); len(addrs) > 0 {
		if p, err := s.i.cfg.Dial(peer.AddrInfo{ID: s.publisher, Addrs: addrs}); err == nil {
			s.pub.Store(&source{p})
		}
	}
	s.grow(ctx)
	err := s.scanner(ctx)
	s.wg.Wait()
	s.feed.stop()
	s.w.pub = s.pub.Load()
	s.i.durable.ask()
	s.mirrorHead(ctx)
	out = s.outcome(ctx, err)
	s.st.end(out.err)
	return out
}

// refused ends what a publisher asked for that is not allowed any more. What
// is on disk stays, and is not worked on.
func (s *session) refused(err error) outcome {
	if t, ok := s.w.takeTarget(); ok {
		s.w.targetFailed(t, err)
	}
	return outcome{err: err}
}

func (s *session) outcome(ctx context.Context, err error) outcome {
	out := outcome{err: err}
	var ferr error
	if out.next, out.left, ferr = s.feed.rest(); out.left && out.next.IsZero() {
		out.left = s.anythingLeft()
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		out.err = cause
	}
	if out.err == nil {
		out.err = ferr
	}
	if at, ok := s.w.revisitDue(); ok && (!out.left || at.Before(out.next)) {
		out.next, out.left = at, true
	}
	if out.err == nil && out.left && s.pub.Load() == nil && !out.next.After(time.Now()) {
		out.err = ErrUnknownPublisher
	}
	out.away = out.err != nil
	if scans, err := s.i.cfg.Store.Scans(s.publisher); err == nil {
		for _, sc := range scans {
			if at := sc.Trouble.Next; !out.left || at.Before(out.next) {
				out.next, out.left = at, true
			}
		}
	}
	out.interrupted = out.left && !out.next.After(time.Now())
	return out
}

// anythingLeft says whether there is something to be applied at all.
func (s *session) anythingLeft() bool {
	for _, again := range []bool{false, true} {
		if page, err := s.readBacklog(again, 0, 1); err != nil || len(page) > 0 {
			return true
		}
	}
	return false
}

// grow lets another lane begin if there is something for it.
func (s *session) grow(ctx context.Context) {
	if s.pub.Load() == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.short = false
	for s.lanes < s.limit && s.feed.more() && ctx.Err() == nil {
		if s.lanes >= s.i.firstLanes && s.i.turns.waits() > 0 {
			s.short = true // more would only wait for the processor
			return
		}
		if s.lanes > 0 && !s.i.lanes.TryAcquire(1) {
			s.short = true // of all publishers together there are enough
			return
		}
		extra := s.lanes > 0
		s.lanes++
		s.wg.Go(func() {
			if !s.lane(ctx) {
				s.mu.Lock()
				s.lanes--
				s.mu.Unlock()
			}
			if extra {
				s.i.lanes.Release(1)
			}
		})
	}
}

// growLater ticks if more lanes could begin, were there room.
func (s *session) growLater() <-chan time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.short {
		return nil
	}
	return time.After(growEvery)
}

// shrink lets a lane end when more wait for the processor than it has room for.
func (s *session) shrink() bool {
	if s.i.turns.waits() <= s.i.firstLanes {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lanes <= s.i.firstLanes {
		return false
	}
	s.lanes--
	return true
}

// lane applies one ad after the other. It returns true if it was ended by shrink.
func (s *session) lane(ctx context.Context) bool {
	l := &lane{session: s}
	defer l.close()
	for ctx.Err() == nil {
		j, ok, wait := s.feed.next()
		switch {
		case ok:
			s.feed.done(j, l.do(ctx, j))
			if s.shrink() {
				return true
			}
			s.grow(ctx)
		case wait == nil:
			return false
		default:
			select {
			case <-wait:
			case <-ctx.Done():
			}
		}
	}
	return false
}

// worked notes that the publisher has served a block.
func (s *session) worked() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures, s.missing, s.served = 0, 0, true
	s.limit = max(s.limit, min(s.limit+1, s.i.maxLanes))
}

// hasNewHead makes room for the ads of a new head.
func (s *session) hasNewHead() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.i.maxLanes > 1 {
		s.limit = min(s.limit+freshLanes, s.i.maxLanes+maxFreshLanes)
	}
}

// failed notes that it has not, and ends the session when that goes on.
func (s *session) failed(err error, k kind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch k {
	case troubleWay:
		s.limit = max(s.limit/2, 1)
		s.failures++
	case troubleBlock:
		s.missing++
	}
	if s.failures >= maxFailures || s.missing >= maxMissing {
		s.stop(errAway{err})
	}
}

func (s *session) hasServed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.served
}

// fetch fetches one block, to be released.
func (s *session) fetch(ctx context.Context, c cid.Cid, hint ipnisync.Hint) (ipnisync.Block, error) {
	p := s.pub.Load()
	if p == nil {
		return ipnisync.Block{}, ErrUnknownPublisher
	}
	start := time.Now()
	block, err := p.Fetch(ctx, c, hint, s.i.memory)
	if err != nil {
		return ipnisync.Block{}, err
	}
	s.i.metrics.fetchSeconds.Observe(time.Since(start).Seconds())
	s.i.metrics.blocksFetched.Inc()
	s.worked()
	s.i.metrics.bytesFetched.Add(float64(len(block.Bytes)))
	s.i.turns.charge(s.publisher, fetchCost)
	s.use(0, int64(len(block.Bytes)))
	return block, nil
}

// use counts what the publisher uses, and ends the session when that is too much.
func (s *session) use(ads, bytes int64) {
	if err := s.i.allowances.use(s.publisher, ads, bytes); err != nil {
		s.i.metrics.overAllowance.Inc()
		s.stop(errAway{err})
	}
}

// addr is where the publisher was reached, nil if that is not known.
func (s *session) addr() multiaddr.Multiaddr {
	if p := s.pub.Load(); p != nil {
		return p.Addr()
	}
	return nil
}
