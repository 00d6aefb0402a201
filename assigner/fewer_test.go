package assigner

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
)

// TestFewerMovesAreFoundBySearch: in pools with an empty indexer a search finds
// fewer moves than greedy ways do, never more, and load is as even.
func TestFewerMovesAreFoundBySearch(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 1))
	can := func(peer.ID, *side) bool { return true }
	fewerThan, searched := 0, 0
	for range 200 {
		var sides []*side
		for n := range 5 {
			s := &side{entry: &entry{Indexer: Indexer{ID: peer.ID(rune('A' + n))}, weight: 1}}
			for k := range 12 * min(n, 1) {
				o := owned{publisher: peer.ID(fmt.Sprintf("%c%02d", 'a'+n, k)), rate: float64(1000 / (1 + rng.IntN(40))), well: true}
				s.owned = append(s.owned, o)
				s.rates += o.rate
				s.free++
			}
			slices.SortFunc(s.owned, largestFirst)
			sides = append(sides, s)
		}
		setShares(sides)
		start := newRound(sides, can)
		was := start.out()
		r, whole := greedy(start, maxMoves)
		if !whole {
			t.Fatal("greedy ways come to no end")
		}
		f := fewer(start, r)
		if start.out() != was || len(start.moves) > 0 {
			t.Fatal("the search changed what it began with")
		}
		if r.out() > r.gain {
			continue
		}
		searched++
		if f.out() > f.gain {
			t.Errorf("load is uneven by %.0f after %d moves, before the search by %.0f", f.out(), len(f.made()), r.out())
		}
		switch a, b := len(f.made()), len(r.made()); {
		case a > b:
			t.Errorf("%d moves, %d without a search", a, b)
		case a < b:
			fewerThan++
		}
	}
	if fewerThan == 0 || searched < 100 {
		t.Errorf("fewer moves in %d of %d pools", fewerThan, searched)
	}
	t.Logf("fewer moves in %d of %d pools", fewerThan, searched)
}
