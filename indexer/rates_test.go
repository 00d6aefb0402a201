package indexer

import (
	"math"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/store"
)

// TestRateOfAPublisherIsKnownSoon after a start, and what is known of it by who
// had it and who has it now is the rate all the time.
func TestRateOfAPublisherIsKnownSoon(t *testing.T) {
	var old, next publisherRates
	now, count, moved := time.Now(), uint64(1_000_000), uint64(0)
	atOld := true
	see := func(minutes int, perSecond uint64) {
		for range minutes {
			now = now.Add(time.Minute)
			if atOld {
				count += perSecond * 60
			} else {
				moved += perSecond * 60
			}
			old.see(now, map[peer.ID]store.PutCount{"p": {Multihashes: count, Steady: atOld}})
			next.see(now, map[peer.ID]store.PutCount{"p": {Multihashes: moved, Steady: !atOld}})
		}
	}
	near := func(what string) {
		t.Helper()
		a, aw := old.rate("p")
		b, bw := next.rate("p")
		if got := (a*aw + b*bw) / (aw + bw); math.Abs(got-500) > 1 {
			t.Errorf("%s: %.1f multihashes a second, want 500", what, got)
		}
	}
	see(1, 500)
	if _, weight := old.rate("p"); weight != 0 {
		t.Errorf("one count weighs %v", weight)
	}
	see(3, 500)
	near("after three minutes")
	see(60*60, 500)
	near("after hours")
	if _, weight := old.rate("p"); weight < 0.99 {
		t.Errorf("hours weigh %v", weight)
	}
	atOld = false
	moved += 1e12 // what it fetches first is not counted
	for range 6 {
		see(240, 500)
		near("after a move")
	}
	if _, weight := old.rate("p"); weight > 0.2 {
		t.Errorf("a day later the old owner's weighs %v", weight)
	}
}
