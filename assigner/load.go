package assigner

import (
	"container/heap"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
)

// What makes an indexer loaded, each relative to the mean of the candidates:
// the ingest of the publishers it owns, the ads it lags behind, and the bytes
// it has. The sum is divided by the indexer's weight: twice the room takes
// twice the load, so that the disks of a pool become full at the same time; but
// none is given more than double or less than half of what an average one is.
const (
	rateShare   = 1.0
	lagShare    = 0.25
	storedShare = 0.05
	maxLag      = 4.0 // times the mean: one that hangs counts so much at most

	leastWeight = 0.5
	mostWeight  = 2.0
)

// Loads are sums of whole thousandths of a multihash a second, so that the
// order of adding does not matter.
const loadUnit = 1000

// idleShare of the mean is what a publisher counts for that is idle now; one
// nothing is known of counts for the mean.
const idleShare = 0.05

// scale are the means an index is relative to, never 0.
type scale struct{ load, lag, stored float64 }

// weigh works out weights, loads and indexes, and who is a candidate.
func (t *tally) weigh() {
	var sum, busyOnes float64
	for p := range t.copies {
		if l := t.rateOf(p); l > 0 {
			sum += float64(units(l))
			busyOnes++
		}
	}
	t.mean = loadUnit
	if busyOnes > 0 {
		t.mean = sum / busyOnes
	}
	var room, rooms, n float64
	for _, e := range t.indexers {
		for _, h := range e.Held {
			if h.Role == admin.RoleOwner {
				e.load += t.loadOf(h.Publisher)
				e.publishers++
			}
		}
		for _, p := range e.Expected {
			e.load += t.loadOf(p)
			e.publishers++
		}
		if !e.candidate() {
			continue
		}
		n++
		t.scale.load += float64(e.load)
		t.scale.lag += float64(e.Lag)
		t.scale.stored += float64(e.Stored)
		if e.Room > 0 {
			room += float64(e.Room)
			rooms++
		}
	}
	for _, v := range []*float64{&t.scale.load, &t.scale.lag, &t.scale.stored} {
		if *v = *v / max(n, 1); *v == 0 {
			*v = 1
		}
	}
	for _, e := range t.indexers {
		e.weight = 1
		if e.Room >= 0 && rooms > 0 {
			e.weight = min(max(float64(e.Room)/(room/rooms), leastWeight), mostWeight)
		}
		e.index = t.loadIndex(e)
		if e.candidate() {
			heap.Push(&t.free, e)
		}
	}
}

// loadIndex is how loaded an indexer is: about 1 on average.
func (t *tally) loadIndex(e *entry) float64 {
	busy := rateShare*float64(e.load)/t.scale.load +
		lagShare*min(float64(e.Lag)/t.scale.lag, maxLag) +
		storedShare*float64(e.Stored)/t.scale.stored
	return busy / e.weight
}

// credit adds to what an indexer owns.
func (t *tally) credit(e *entry, load int64, publishers int) {
	e.load += load
	e.publishers += publishers
	e.index = t.loadIndex(e)
	if e.at >= 0 {
		heap.Fix(&t.free, e.at)
	}
}

// loadOf is what p counts for where it is owned.
func (t *tally) loadOf(p peer.ID) int64 {
	cs := t.copies[p]
	rate := units(t.rateOf(p))
	if rate == 0 && !slices.ContainsFunc(cs, func(c placement) bool { return c.Weight > leastWeighed }) {
		return int64(t.mean)
	}
	return max(rate, int64(t.mean*idleShare))
}

// How much must have been measured, as a share of the twelve hours that a mean
// is about: some 15 minutes so that little is not taken for much, and two hours
// so that a mean is relied on, as many publish a few times an hour.
const (
	leastWeighed = 1.0 / 48
	wellWeighed  = 1.0 / 6
)

// rateOf is what is ingested of p by one owner: the mean of all that was
// measured of it in the last hours, by whoever owned it. So neither a move nor a
// restart changes it.
func (t *tally) rateOf(p peer.ID) float64 {
	rate, _ := t.measured(p)
	return rate
}

func (t *tally) measured(p peer.ID) (rate, weight float64) {
	var sum float64
	for _, c := range t.copies[p] {
		sum += c.Load * c.Weight
		weight += c.Weight
	}
	return sum / max(weight, leastWeighed), weight
}

func units(rate float64) int64 { return int64(max(rate, 0) * loadUnit) }
