package ipnisync

import (
	"context"
	"slices"
	"sync"

	"github.com/signpost-index/signpost/ingest/schema"
)

// freeBytes is what each body may take without asking its budget: enough for
// nearly every advertisement, and nothing that trickles holds more.
const freeBytes = 64 << 10

// Budget bounds the memory of bodies over all fetches that share it, whatever
// the publishers. A body takes its memory in steps as its bytes come, never on
// the word of a Content-Length alone, so who sends slowly holds little; and it
// keeps it until [Block.Release]. The first 64 KiB of each are not counted.
// Safe for concurrent use.
//
// Bodies that each hold some memory and wait for more cannot block each other
// for good: apart from the common memory there is a lane, room for one whole
// block, and the oldest that waits gets it as soon as it is free.
//
//	┌────────────────────────────────┬──────────────────┐
//	│ common: taken in steps         │ lane: one body,  │
//	│                                │ MaxBlockBytes    │
//	└────────────────────────────────┴──────────────────┘
//
// The caller's part is not to hold blocks while it waits for one that must come
// first, unless it knows that the ones held leave the lane free: the lane's
// block may be the one it keeps.
type Budget struct {
	common int64 // bytes

	mu      sync.Mutex
	free    int64     // of common
	lane    bool      // taken
	waiting []*waiter // oldest first
}

type waiter struct {
	r     *reservation
	need  int64
	ready chan struct{} // closed when granted
}

// NewBudget returns a budget of so many bytes, the lane's schema.MaxBlockBytes
// included: with less than that only one body at a time goes beyond 64 KiB.
func NewBudget(bytes int64) *Budget {
	common := max(bytes-schema.MaxBlockBytes, 0)
	return &Budget{common: common, free: common}
}

// Used is how many bytes are taken now.
func (b *Budget) Used() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	used := b.common - b.free
	if b.lane {
		used += schema.MaxBlockBytes
	}
	return used
}

// reservation is the memory of one body. It belongs to one goroutine at a time;
// its fields are guarded by the budget's mutex. A nil one is without bound.
type reservation struct {
	b     *Budget
	bytes int64 // taken of the common memory
	lane  bool
}

// grow returns once the body may take total bytes. On an error, which is that
// of ctx, it has what it had before.
func (r *reservation) grow(ctx context.Context, total int64, waits func(waiting bool)) error {
	if r == nil {
		return nil
	}
	w := r.ask(total)
	if w == nil {
		return nil
	}
	waits(true)
	defer waits(false)
	select {
	case <-w.ready:
		return nil
	case <-ctx.Done():
		r.b.withdraw(w)
		return ctx.Err()
	}
}

// ask takes what is needed at once, or joins those who wait.
func (r *reservation) ask(total int64) *waiter {
	b := r.b
	b.mu.Lock()
	defer b.mu.Unlock()
	if r.lane || total-r.bytes <= 0 {
		return nil
	}
	w := &waiter{r: r, need: total - r.bytes, ready: make(chan struct{})}
	b.waiting = append(b.waiting, w)
	b.grant()
	select {
	case <-w.ready:
		return nil
	default:
		return w
	}
}

// grant serves those who wait, oldest first, as far as the memory goes.
func (b *Budget) grant() {
	for len(b.waiting) > 0 {
		w := b.waiting[0]
		switch {
		case w.need <= b.free:
			b.free -= w.need
			w.r.bytes += w.need
		case !b.lane:
			b.lane, w.r.lane = true, true
			b.free += w.r.bytes // the lane has room for all of it
			w.r.bytes = 0
		default:
			return
		}
		close(w.ready)
		b.waiting = slices.Delete(b.waiting, 0, 1)
	}
}

func (b *Budget) withdraw(w *waiter) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if i := slices.Index(b.waiting, w); i >= 0 {
		b.waiting = slices.Delete(b.waiting, i, i+1)
		b.grant() // it may have stood before smaller ones
	}
}

// release gives everything back; it may be called again.
func (r *reservation) release() {
	if r == nil {
		return
	}
	b := r.b
	b.mu.Lock()
	defer b.mu.Unlock()
	b.free += r.bytes
	if r.lane {
		b.lane = false
	}
	r.bytes, r.lane = 0, false
	b.grant()
}

// settle says that the body is whole and takes total bytes: it leaves the lane
// to others if there is room.
func (r *reservation) settle(total int64) {
	if r == nil {
		return
	}
	b := r.b
	b.mu.Lock()
	defer b.mu.Unlock()
	if r.lane && total <= b.free {
		b.free -= total
		r.bytes, r.lane, b.lane = total, false, false
		b.grant()
	}
}
