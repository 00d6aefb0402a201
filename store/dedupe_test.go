package store

import (
	"slices"
	"testing"

	"github.com/signpost-index/signpost/store/postings"
)

func TestDedupeKeepsTheFirstOfEach(t *testing.T) {
	rng := modelSeed(t)
	var b putBuffer
	for range 200 {
		n, distinct := rng.IntN(2000), 1+rng.Uint64N(1500)
		var want []postings.Hash
		seen := make(map[postings.Hash]bool)
		b.hs = b.hs[:0]
		for range n {
			v := rng.Uint64N(distinct)
			h := postings.Hash{byte(v), byte(v >> 8), 2: byte(v % 3)} // many share a place
			b.hs = append(b.hs, h)
			if !seen[h] {
				seen[h] = true
				want = append(want, h)
			}
		}
		if got := b.dedupe(); !slices.Equal(got, want) {
			t.Fatalf("%d of %d distinct: got %d, want %d", n, distinct, len(got), len(want))
		}
	}
}
