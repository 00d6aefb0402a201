package ipnisync

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"
)

// readStep is the most that is read of a body at once where a rate holds, so
// that a publisher's bodies share it evenly.
const readStep = 64 << 10

// peerState is what a Client holds per publisher, shared by all Publisher
// objects of that peer ID. Safe for concurrent use.
type peerState struct {
	limiter *rate.Limiter // nil: no bound
	slots   chan struct{} // one element for each request in flight

	requests, retries, timeouts, stalls, bytes atomic.Int64
}

// Stats is what a Client has seen of one publisher since it first asked it, or
// since it forgot it among thousands of others.
type Stats struct {
	// RTT is the smoothed time from a request to the head of its answer, at the
	// address that served last. Zero while none has answered.
	RTT time.Duration
	// AnswerTimeout is how long the next answer will be waited for.
	AnswerTimeout time.Duration
	Requests      int64 // HTTP requests, retries and discovery included
	Retries       int64 // rounds over the addresses that were repeated
	Timeouts      int64 // requests without an answer in time
	Stalls        int64 // bodies that came too slowly
	Bytes         int64 // of bodies, after decompression
	InFlight      int   // requests now
}

// peerOf returns what is held for a publisher.
func (c *Client) peerOf(id peer.ID) *peerState {
	if s, ok := c.peers.Get(id); ok {
		return s
	}
	s := &peerState{slots: make(chan struct{}, maxInFlight)}
	if c.rateBytes > 0 {
		// A second's worth may come at once, and at least one step.
		s.limiter = rate.NewLimiter(rate.Limit(c.rateBytes), int(max(min(c.rateBytes, 1<<30), readStep)))
	}
	if earlier, ok, _ := c.peers.PeekOrAdd(id, s); ok {
		return earlier
	}
	return s
}

// paceOf returns the pace of one address of a publisher.
func (c *Client) paceOf(id peer.ID, address string) *pace {
	key := string(id) + "\x00" + address
	if p, ok := c.paces.Get(key); ok {
		return p
	}
	p := &pace{}
	if earlier, ok, _ := c.paces.PeekOrAdd(key, p); ok {
		return earlier
	}
	return p
}

// enter waits for one of the publisher's slots.
func (s *peerState) enter(ctx context.Context) error {
	select {
	case s.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *peerState) leave() { <-s.slots }

// owe is how long to wait after having read n bytes, at most readStep.
func (s *peerState) owe(n int) time.Duration {
	if s.limiter == nil || n == 0 {
		return 0
	}
	return s.limiter.ReserveN(time.Now(), n).Delay()
}

func (s *peerState) step() int {
	if s.limiter == nil {
		return int(^uint(0) >> 1)
	}
	return readStep
}

// sleep waits for d or the end of ctx, whose error it returns.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
