package postings

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// randomPostings makes n sorted postings; shared is the part of hashes that
// have several IDs.
func randomPostings(rng *rand.Rand, n int, width uint, ids uint64, shared float64) (ps []posting) {
	for len(ps) < n {
		p := posting{rng.Uint64() & suffixMask(width), rng.Uint64N(ids)}
		ps = append(ps, p)
		for rng.Float64() < shared {
			ps = append(ps, posting{p.suffix, rng.Uint64N(ids)})
		}
	}
	slices.SortFunc(ps, posting.compare)
	return slices.Compact(ps)
}

func diffPostings(got, want []posting) string {
	return cmp.Diff(got, want, cmp.AllowUnexported(posting{}))
}

func TestBucketGivesBackWhatWasPut(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var e encoder
	for i := range 3000 {
		width := []uint{64, 60, 58, 40, 7, 1}[i%6]
		ids := uint64(1) << rng.UintN(64)
		shared := []float64{0, 0.1, 0.9}[rng.IntN(3)]
		n := rng.IntN(1 << rng.IntN(9))
		want := randomPostings(rng, n, width, ids, shared)
		b := e.encode([]byte("before"), want, width)[6:]
		got, _, err := decode(nil, b, width, nil)
		if err != nil {
			t.Fatalf("width %d, %d postings: %v", width, len(want), err)
		}
		if d := diffPostings(got, want); d != "" {
			t.Fatalf("width %d, %d postings: %s", width, len(want), d)
		}
		checkFind(t, rng, b, width, want)
	}
}

func checkFind(t *testing.T, rng *rand.Rand, b []byte, width uint, ps []posting) {
	t.Helper()
	want := make(map[uint64][]uint64)
	for _, p := range ps {
		want[p.suffix] = append(want[p.suffix], p.id)
	}
	for range 8 {
		s := rng.Uint64() & suffixMask(width)
		want[s] = slices.Clone(want[s])
	}
	for s, ids := range want {
		got, err := find(nil, b, width, s, nil)
		if err != nil || !slices.Equal(got, ids) {
			t.Fatalf("find %x: %v, %v, want %v", s, got, err, ids)
		}
	}
}

func TestBucketEdges(t *testing.T) {
	for name, ps := range map[string][]posting{
		"nothing":       nil,
		"least":         {{0, 0}},
		"largest":       {{math.MaxUint64, math.MaxUint64}},
		"both ends":     {{0, math.MaxUint64}, {math.MaxUint64, 0}},
		"ends shared":   {{0, 0}, {0, math.MaxUint64}, {math.MaxUint64, 0}, {math.MaxUint64, math.MaxUint64}},
		"far neighbour": {{1, 3}, {2, 3}, {3, 3}, {math.MaxUint64, 3}},
	} {
		t.Run(name, func(t *testing.T) {
			var e encoder
			b := e.encode(nil, ps, 64)
			got, _, err := decode(nil, b, 64, nil)
			if err != nil {
				t.Fatal(err)
			}
			if d := diffPostings(got, ps); d != "" {
				t.Error(d)
			}
			checkFind(t, rand.New(rand.NewPCG(1, 1)), b, 64, ps)
		})
	}
}

// 80 - log2(N) + 1.5 bits for the hash, and the bits of the ID.
func TestBucketIsNearTheFloor(t *testing.T) {
	for _, c := range []struct {
		n     int
		width uint
		ids   uint64
	}{{300, 64, 250}, {240, 58, 12500}, {100, 60, 2500}, {400, 60, 2500}} {
		rng := rand.New(rand.NewPCG(3, 4))
		var e encoder
		var size, n int
		for range 200 {
			ps := randomPostings(rng, c.n, c.width, c.ids, 0)
			size += len(e.encode(nil, ps, c.width))
			n += len(ps)
		}
		got := float64(size) * 8 / float64(n)
		want := float64(c.width) - math.Log2(float64(c.n)) + 1.6 + math.Ceil(math.Log2(float64(c.ids))) + 5*8/float64(c.n)
		if got > want {
			t.Errorf("%+v: %.2f bits an entry, want at most %.2f", c, got, want)
		}
	}
}

func TestManyIDsOfOneHashAreCompact(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	var ps []posting
	for range 100_000 {
		ps = append(ps, posting{77, rng.Uint64N(1 << 20)})
	}
	ps = append(ps, posting{99, 5}, posting{99, 6})
	slices.SortFunc(ps, posting.compare)
	ps = slices.Compact(ps)
	var e encoder
	b := e.encode(nil, ps, 58)
	if bits := float64(len(b)) * 8 / float64(len(ps)); bits > 6 {
		t.Errorf("%.2f bits an ID", bits)
	}
	checkFind(t, rng, b, 58, ps)
}

func TestDecodeRefusesDamage(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	var e encoder
	b := e.encode(nil, randomPostings(rng, 50, 60, 1000, 0.2), 60)
	for cut := 1; cut < len(b); cut++ {
		if _, _, err := decode(nil, b[:cut], 60, nil); !errors.Is(err, ErrCorrupt) {
			t.Errorf("cut at %d: %v", cut, err)
		}
	}
	if _, _, err := decode(nil, append(b, 0, 0), 60, nil); !errors.Is(err, ErrCorrupt) {
		t.Errorf("longer: %v", err)
	}
}

func TestCodecDoesNotAllocateForEntries(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 9))
	ps := randomPostings(rng, 250, 58, 12500, 0.05)
	var e encoder
	b := e.encode(nil, ps, 58)
	var dst, scratch []posting
	var ids []uint64
	round := func() {
		var err error
		if dst, scratch, err = decode(dst[:0], b, 58, scratch); err != nil {
			t.Fatal(err)
		}
		b = e.encode(b[:0], dst, 58)
		ids, _ = find(ids[:0], b, 58, ps[100].suffix, nil)
	}
	round()
	if n := testing.AllocsPerRun(100, round); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzBucket: hostile bytes neither panic nor take more memory than they
// announce, and what they decode to can be written and read again.
func FuzzBucket(f *testing.F) {
	rng := rand.New(rand.NewPCG(1, 1))
	var e encoder
	for _, n := range []int{0, 1, 2, 30} {
		f.Add(e.encode(nil, randomPostings(rng, n, 58, 1000, 0.3), 58), uint64(5))
	}
	f.Fuzz(func(t *testing.T, b []byte, suffix uint64) {
		const width = 58
		_, _ = find(nil, b, width, suffix, nil)
		ps, _, err := decode(nil, b, width, nil)
		if err != nil {
			return
		}
		slices.SortFunc(ps, posting.compare)
		ps = slices.Compact(ps)
		var e encoder
		again, _, err := decode(nil, e.encode(nil, ps, width), width, nil)
		if err != nil {
			t.Fatal(err)
		}
		if d := diffPostings(again, ps); d != "" {
			t.Fatal(d)
		}
	})
}

func BenchmarkBucket(b *testing.B) {
	rng := rand.New(rand.NewPCG(9, 9))
	ps := randomPostings(rng, 250, 58, 12500, 0)
	var e encoder
	raw := e.encode(nil, ps, 58)
	perEntry := func(b *testing.B) {
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(ps)), "ns/entry")
	}
	b.Run("encode", func(b *testing.B) {
		var dst []byte
		for b.Loop() {
			dst = e.encode(dst[:0], ps, 58)
		}
		perEntry(b)
	})
	b.Run("decode", func(b *testing.B) {
		var dst, scratch []posting
		for b.Loop() {
			dst, scratch, _ = decode(dst[:0], raw, 58, scratch)
		}
		perEntry(b)
	})
	b.Run("find", func(b *testing.B) {
		var dst []uint64
		for b.Loop() {
			dst, _ = find(dst[:0], raw, 58, ps[125].suffix, nil)
		}
	})
	b.Run("hash", func(b *testing.B) {
		var s Secret
		mh := []byte(fmt.Sprintf("%034d", 7))
		for b.Loop() {
			mh[5] = s.HashOf(mh)[0]
		}
	})
}
