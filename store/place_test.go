package store

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// asWalked are the first n ads of a chain at positions as walks of some ads each give
// them to it, from one stride above the one before downward.
func asWalked(random *rand.Rand, top Position, n int) (ads []AdRef) {
	for len(ads) < n {
		walk := min(1+random.IntN(4)*random.IntN(4), n-len(ads))
		top += anewStride
		for k := range walk {
			ref := AdRef{Ad: testCID(uint64(len(ads) + 1)), Pos: top - Position(walk-1-k)}
			if len(ads) > 0 {
				ref.Prev = ads[len(ads)-1].Ad
			}
			ads = append(ads, ref)
		}
	}
	return ads
}

// wantPlaces: up to the mark the ads have the heights from first on, above none is
// known.
func wantPlaces(t *testing.T, s *Store, ads []AdRef, first uint64) {
	t.Helper()
	mark := s.Progress("pub").Mark.Pos
	chain := chainOf("pub", AdRef{Ad: testCID(1)})
	for n, ad := range ads {
		want := Place{}
		if ad.Pos <= mark && first > 0 {
			want = Place{chain, first + uint64(n)}
		}
		if got := s.PlaceOf("pub", ad.Pos); got != want {
			t.Fatalf("ad %d of %d at %d, mark %d: place %d of %x, want %d of %x", n+1, len(ads), ad.Pos, mark, got.Height, got.Chain, want.Height, want.Chain)
		}
	}
}

// TestPlacesAreTheSameOnAllNodes: whatever walks a chain was found by, and in
// whatever order its ads were applied.
func TestPlacesAreTheSameOnAllNodes(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range 20 {
		fs := vfs.NewCrashableMem()
		s := openTest(t, fs)
		ads := asWalked(random, 0, 1+random.IntN(60))
		order := random.Perm(len(ads))
		if random.IntN(2) == 0 {
			slices.Sort(order)
		}
		for _, n := range order {
			write(t, s, Ad{AdRef: ads[n], Publisher: "pub"}, address)
			if random.IntN(8) == 0 {
				wantPlaces(t, s, ads, 1)
			}
		}
		wantPlaces(t, s, ads, 1)
		must(t, s.Sync())
		must(t, checkInvariants(s))
		s = reopenCrashed(t, fs)
		wantPlaces(t, s, ads, 1)
	}
}

// TestPlacesGoOnFromAnotherIndexer: who takes a publisher over counts from the mark
// that was said, and without its place knows none.
func TestPlacesGoOnFromAnotherIndexer(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	all := asWalked(random, 0, 50)
	a := openTest(t, vfs.NewMem())
	openOne(t, a, "pub")
	for _, ad := range all[:30] {
		write(t, a, Ad{AdRef: ad, Publisher: "pub"}, address)
	}
	must(t, a.Sync())
	closed := closeOne(t, a, "pub")
	for _, tc := range []struct {
		name        string
		told, wrong bool
	}{{"told", true, false}, {"not told", false, false}, {"told what cannot be", false, true}} {
		t.Run(tc.name, func(t *testing.T) {
			o := Takeover{Publisher: "pub", From: "a", Mark: AdRef{Ad: closed.Ad, Pos: anewStride}, Height: closed.Height}
			first := uint64(0)
			if tc.wrong {
				o.Place = Place{ChainID{1}, 1<<64 - 1}
			}
			if tc.told {
				o.Place, first = a.PlaceOf("pub", closed.Pos), 31
			}
			b := openTest(t, vfs.NewMem())
			must(t, b.TakeOver([]Takeover{o})[0])
			rest := slices.Clone(all[30:])
			for n, pos := range asWalked(random, anewStride, len(rest)) {
				rest[n].Pos = pos.Pos
				write(t, b, Ad{AdRef: rest[n], Publisher: "pub"}, address)
			}
			if b.Progress("pub").Mark.Ad != all[49].Ad {
				t.Fatal("the mark is not at the last ad")
			}
			wantPlaces(t, b, rest, first)
			// Older ads that are fetched later lie below the mark, and no run is theirs.
			for k := range Position(40) {
				if at := b.PlaceOf("pub", anewStride-1-k); at != (Place{}) {
					t.Fatalf("place %v below the mark taken over", at)
				}
			}
			must(t, checkInvariants(b))
		})
	}
}

// TestPlacesAreNotGuessed: a mark that is set by hand has none, nor has what follows it;
// what is released and met again is counted anew.
func TestPlacesAreNotGuessed(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	ads := asWalked(rand.New(rand.NewPCG(3, 4)), 0, 20)
	for _, ad := range ads[:10] {
		write(t, s, Ad{AdRef: ad, Publisher: "pub"}, address)
	}
	must(t, s.SetMark("pub", ads[12]))
	for _, ad := range ads[13:] {
		write(t, s, Ad{AdRef: ad, Publisher: "pub"}, address)
	}
	wantPlaces(t, s, ads[:10], 1)
	wantPlaces(t, s, ads[10:], 0)
	must(t, s.SetMark("pub", ads[5]))
	wantPlaces(t, s, ads[:5], 1)
	wantPlaces(t, s, ads[5:], 0)
	if known, err := s.Release("pub", nil, nil); !known || err != nil {
		t.Fatal(known, err)
	}
	top, err := s.Top("pub")
	must(t, err)
	again := slices.Clone(ads)
	for n, at := range asWalked(rand.New(rand.NewPCG(5, 6)), top+anewStride, 20) {
		again[n].Pos = at.Pos
		write(t, s, Ad{AdRef: again[n], Publisher: "pub"}, address)
	}
	wantPlaces(t, s, again, 1)
	must(t, checkInvariants(s))
}

// TestPlacesOfLongHistoriesAreBounded: the oldest of too many runs are not known, and
// none is wrong.
func TestPlacesOfLongHistoriesAreBounded(t *testing.T) {
	var rs runs
	var mark Position
	chain := ChainID{1}
	rs = rs.with(0, run{pos: 7, Place: Place{chain, 1}})
	heights := map[Position]uint64{7: 1}
	mark = 7
	random := rand.New(rand.NewPCG(7, 8))
	for n := range 5 * maxRuns {
		next := mark + 1 + Position(random.IntN(5))*anewStride
		rs = rs.next(mark, next)
		mark = next
		heights[mark] = uint64(n + 2)
	}
	known := 0
	for pos, h := range heights {
		at := rs.at(pos)
		if at.Height != 0 && at != (Place{chain, h}) {
			t.Fatalf("%d: %v, want %d", pos, at, h)
		}
		if at.Height != 0 {
			known++
		}
	}
	if len(rs) > maxRuns || known < maxRuns {
		t.Errorf("%d runs, %d of %d places known", len(rs), known, len(heights))
	}
	again, err := decodeRuns(rs.encode())
	if err != nil || !slices.Equal(rs, again) {
		t.Errorf("%v: %d runs, were %d", err, len(again), len(rs))
	}
}
