package indexer

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/store"
)

const (
	// publisherRateFade is the time constant of a publisher's rate: what matters is
	// what it will bring in days, and many publish a few times an hour.
	publisherRateFade = 12 * time.Hour
	// publisherRateEvery is how often multihashes are counted for it.
	publisherRateEvery = time.Minute
)

// publisherRates are multihashes a second by publisher, means that fade, of the
// time a publisher is followed as it publishes: neither a first fetch of its
// chain nor a backfill says how much will come. They begin anew with the
// process. Safe for concurrent use.
type publisherRates struct {
	mu    sync.Mutex
	known map[peer.ID]publisherRate
	at    time.Time // of the last count
}

// publisherRate has two means that fade alike: of multihashes a second, 0 while
// they are not counted, and of whether they are. Their quotient is the rate, the
// second how much of the last hours it is about.
type publisherRate struct {
	count       uint64
	steady      int // counts in a row that were
	sum, weight float64
}

// run counts until ctx ends.
func (r *publisherRates) run(ctx context.Context, counts func() map[peer.ID]store.PutCount) error {
	tick := time.NewTicker(publisherRateEvery)
	defer tick.Stop()
	for {
		r.see(time.Now(), counts())
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// see takes new counts. What was put between two counts is of use if both, and
// the one before, found the publisher steady.
func (r *publisherRates) see(now time.Time, counts map[peer.ID]store.PutCount) {
	r.mu.Lock()
	defer r.mu.Unlock()
	passed := now.Sub(r.at)
	if passed <= 0 {
		return
	}
	kept := math.Exp(-passed.Seconds() / publisherRateFade.Seconds())
	next := make(map[peer.ID]publisherRate, len(counts))
	for id, c := range counts {
		rate := r.known[id]
		rate.sum, rate.weight = kept*rate.sum, kept*rate.weight
		if c.Steady && rate.steady >= 2 && c.Multihashes >= rate.count {
			rate.sum += (1 - kept) * float64(c.Multihashes-rate.count) / passed.Seconds()
			rate.weight += 1 - kept
		}
		if rate.steady++; !c.Steady {
			rate.steady = 0
		}
		rate.count = c.Multihashes
		next[id] = rate
	}
	r.known, r.at = next, now
}

// rate is the mean of a publisher, and how much of the last hours it is about,
// 0 to 1.
func (r *publisherRates) rate(id peer.ID) (perSecond, weight float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.known[id]
	if p.weight == 0 {
		return 0, 0
	}
	return p.sum / p.weight, p.weight
}
