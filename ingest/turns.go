package ingest

import (
	"container/heap"
	"context"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/semaphore"
)

// seats bounds how many publishers have a session at once. They are given in
// the order of asking; a session gives its seat back at the end of its time
// slice if somebody waits. A seat costs a few connections and goroutines, no
// processor: that is what turns are for.
type seats struct {
	free    chan struct{}
	waiting atomic.Int64
	slice   time.Duration
}

// seat is held by one session.
type seat struct {
	s     *seats
	since time.Time
}

func newSeats(n int, slice time.Duration) *seats {
	s := &seats{free: make(chan struct{}, n), slice: slice}
	for range n {
		s.free <- struct{}{}
	}
	return s
}

func (s *seats) take(ctx context.Context) (*seat, error) {
	s.waiting.Add(1)
	defer s.waiting.Add(-1)
	select {
	case <-s.free:
		return &seat{s: s, since: time.Now()}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// over says whether the session has had its time and another publisher waits.
func (s *seat) over() bool {
	return s.s.waiting.Load() > 0 && time.Since(s.since) >= s.s.slice
}

func (s *seat) leave() { s.s.free <- struct{}{} }

// turns shares the processor among publishers: of those that want a turn, the
// one that has had the least time so far goes first. A turn is the decoding
// and storing of one block, some milliseconds. No turn is held while waiting
// for a publisher. Large blocks, which take some ten milliseconds, may not have
// all turns at once: there is always one that ends soon.
type turns struct {
	large   *semaphore.Weighted // turns large blocks may have
	mu      sync.Mutex
	free    int
	waiting turnQueue
	used    map[peer.ID]*usage // of publishers that have or wait for a turn, or have had more than others
	floor   time.Duration      // what the one served last had had: newcomers begin there
	order   uint64
}

// usage is what one publisher has had.
type usage struct {
	time time.Duration
	refs int // turns held and waited for
}

const (
	// fetchCost is what fetching a block takes of the processor besides a turn: a
	// request, its answer and their share of the collector's work.
	fetchCost = 100 * time.Microsecond
	// maxUsages bounds the publishers whose use is remembered for longer than
	// they have or wait for a turn.
	maxUsages = 4096
)

func newTurns(n int) *turns {
	return &turns{large: semaphore.NewWeighted(int64(max(n-1, 1))), free: n, used: make(map[peer.ID]*usage)}
}

// largeBlock is what a large block has at least: twice a usual chunk.
const largeBlock = 2 << 20

// takeFor is take for a block of so many bytes.
func (t *turns) takeFor(ctx context.Context, publisher peer.ID, bytes int) (func(), error) {
	if bytes < largeBlock {
		return t.take(ctx, publisher)
	}
	if err := t.large.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	end, err := t.take(ctx, publisher)
	if err != nil {
		t.large.Release(1)
		return nil, err
	}
	return func() { end(); t.large.Release(1) }, nil
}

// take waits for a turn of publisher. The function returned ends it.
func (t *turns) take(ctx context.Context, publisher peer.ID) (func(), error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t.mu.Lock()
	u := t.usage(publisher)
	u.refs++
	if t.free > 0 {
		t.free--
		t.floor = max(t.floor, u.time)
		t.mu.Unlock()
		return t.ender(publisher, u), nil
	}
	w := &turnWait{u: u, order: t.order, ready: make(chan struct{})}
	t.order++
	heap.Push(&t.waiting, w)
	t.mu.Unlock()
	select {
	case <-w.ready:
		return t.ender(publisher, u), nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if w.index >= 0 {
		heap.Remove(&t.waiting, w.index)
	} else { // it came at the same time
		t.pass()
	}
	t.drop(publisher, u)
	return nil, ctx.Err()
}

// charge books work on a publisher that was done without a turn.
func (t *turns) charge(publisher peer.ID, d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	u := t.usage(publisher)
	u.time += d
	t.forget(publisher, u)
}

// usage is that of a publisher, which is not below the floor. The caller holds mu.
func (t *turns) usage(publisher peer.ID) *usage {
	u := t.used[publisher]
	if u == nil {
		u = &usage{}
		t.used[publisher] = u
	}
	if u.refs == 0 {
		u.time = max(u.time, t.floor)
	}
	return u
}

// waits is how many wait for a turn: then the processor is what is short, and
// more blocks in memory would only wait longer.
func (t *turns) waits() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.waiting)
}

func (t *turns) ender(publisher peer.ID, u *usage) func() {
	start := time.Now()
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		u.time += time.Since(start)
		t.pass()
		t.drop(publisher, u)
	}
}

// pass gives a turn on. The caller holds mu.
func (t *turns) pass() {
	if len(t.waiting) == 0 {
		t.free++
		return
	}
	heap.Init(&t.waiting) // times have moved since they were pushed
	w := heap.Pop(&t.waiting).(*turnWait)
	t.floor = max(t.floor, w.u.time)
	close(w.ready)
}

func (t *turns) drop(publisher peer.ID, u *usage) {
	u.refs--
	t.forget(publisher, u)
}

// forget drops what says nothing more, and everything nobody waits with when that
// is too much. The caller holds mu.
func (t *turns) forget(publisher peer.ID, u *usage) {
	if u.refs == 0 && u.time <= t.floor {
		delete(t.used, publisher)
	}
	if len(t.used) > maxUsages {
		maps.DeleteFunc(t.used, func(_ peer.ID, u *usage) bool { return u.refs == 0 })
	}
}

type turnWait struct {
	u     *usage
	order uint64
	ready chan struct{}
	index int // in the queue; -1 once it was given its turn
}

// turnQueue is a heap: least used first, then in the order of asking.
type turnQueue []*turnWait

func (q turnQueue) Len() int { return len(q) }
func (q turnQueue) Less(i, j int) bool {
	if q[i].u.time != q[j].u.time {
		return q[i].u.time < q[j].u.time
	}
	return q[i].order < q[j].order
}
func (q turnQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}
func (q *turnQueue) Push(x any) {
	w := x.(*turnWait)
	w.index = len(*q)
	*q = append(*q, w)
}
func (q *turnQueue) Pop() any {
	old := *q
	w := old[len(old)-1]
	*q = old[:len(old)-1]
	w.index = -1
	return w
}
