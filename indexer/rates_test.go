package indexer

import (
	"math"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// TestRateOfAPublisherIsRightSoonAfterAStart, and when it has moved away it fades
// while that of who goes on with it grows: together they are right.
func TestRateOfAPublisherIsRightSoonAfterAStart(t *testing.T) {
	var old, next publisherRates
	now, count, moved := time.Now(), uint64(1_000_000), uint64(0)
	near := func(what string, got float64) {
		t.Helper()
		if math.Abs(got-500) > 10 {
			t.Errorf("%s: %.1f multihashes a second, want 500", what, got)
		}
	}
	see := func(minutes int, owner *uint64) {
		for range minutes {
			now = now.Add(time.Minute)
			*owner += 500 * 60
			old.see(now, map[peer.ID]uint64{"p": count})
			next.see(now, map[peer.ID]uint64{"p": moved})
		}
	}
	old.see(now, map[peer.ID]uint64{"p": count})
	next.see(now, map[peer.ID]uint64{"p": moved})
	if got := old.perSecond("p"); got != 0 {
		t.Errorf("at the start: %v", got)
	}
	see(3, &count)
	near("after three minutes", old.perSecond("p"))
	see(600, &count)
	near("after hours", old.perSecond("p"))
	for range 6 {
		see(20, &moved)
		near("after a move", old.perSecond("p")+next.perSecond("p"))
	}
}
