package indexer

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// publisherRateFade is the time constant of a publisher's rate.
	publisherRateFade = time.Hour
	// publisherRateEvery is how often multihashes are counted for it.
	publisherRateEvery = time.Minute
)

// publisherRates are multihashes a second by publisher, means that fade. They
// begin anew with the process, and are means of its time as long as that is
// short: a node that starts anew must not look idle. Safe for concurrent use.
type publisherRates struct {
	mu    sync.Mutex
	known map[peer.ID]publisherRate
	began time.Time // the first count
	at    time.Time // of the last count
}

type publisherRate struct {
	count     uint64
	perSecond float64
}

// run counts until ctx ends.
func (r *publisherRates) run(ctx context.Context, counts func() map[peer.ID]uint64) error {
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

// see takes new counts. Of a publisher not seen before they say nothing yet.
func (r *publisherRates) see(now time.Time, counts map[peer.ID]uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	passed := now.Sub(r.at)
	if passed <= 0 {
		return
	}
	kept := math.Exp(-passed.Seconds() / publisherRateFade.Seconds())
	next := make(map[peer.ID]publisherRate, len(counts))
	for id, count := range counts {
		rate, seen := r.known[id]
		if seen && count >= rate.count {
			rate.perSecond = kept*rate.perSecond + (1-kept)*float64(count-rate.count)/passed.Seconds()
		}
		rate.count = count
		next[id] = rate
	}
	r.known, r.at = next, now
	if r.began.IsZero() {
		r.began = now
	}
}

func (r *publisherRates) perSecond(id peer.ID) float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	age := r.at.Sub(r.began)
	if age <= 0 {
		return 0
	}
	return r.known[id].perSecond / (1 - math.Exp(-age.Seconds()/publisherRateFade.Seconds()))
}
