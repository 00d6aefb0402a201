package keyset

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
)

func randoms(seed uint64, n int) []uint64 {
	rng := rand.New(rand.NewPCG(seed, 7))
	keys := make([]uint64, n)
	for i := range keys {
		keys[i] = rng.Uint64()
	}
	return keys
}

// TestPartHasWhatItWasMadeOf: against a map, for widths and numbers of all sizes.
func TestPartHasWhatItWasMadeOf(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		width := uint64(1) + rng.Uint64N(1<<(1+rng.UintN(24)))
		in := make(map[uint64]bool)
		var values []uint64
		for range rng.IntN(3000) {
			v := rng.Uint64N(width)
			values = append(values, v)
			in[v] = true
		}
		slices.Sort(values)
		p := NewPart(slices.Clone(values), width)
		if p.Len() != uint64(len(in)) {
			t.Fatalf("%d values of %d", p.Len(), len(in))
		}
		q, err := ParsePart(p.Append(nil), width)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range []*Part{p, q, Merge(q, nil, width)} {
			if got := p.AppendValues(nil); !slices.Equal(got, slices.Compact(slices.Clone(values))) {
				t.Fatalf("width %d: %d values come out as %d", width, len(values), len(got))
			}
			for v := range in {
				if !p.Has(v) {
					t.Fatalf("width %d, %d values: %d is not in", width, p.Len(), v)
				}
			}
			for range 2000 {
				if v := rng.Uint64N(width); p.Has(v) != in[v] {
					t.Fatalf("width %d, %d values: %d is in: %v", width, p.Len(), v, in[v])
				}
			}
			if p.Has(width) || p.Has(1<<63) {
				t.Fatal("something beyond the width is in")
			}
		}
	}
}

// TestHostilePartsDoNoHarm: whatever bytes are taken for a part, asking it ends.
func TestHostilePartsDoNoHarm(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	const width = 5000
	good := NewPart([]uint64{1, 2, 3, 70, 71, 900, 4999}, width).Append(nil)
	for n := range 200_000 {
		b := slices.Clone(good)
		for range 1 + n%4 {
			b[rng.IntN(len(b))] = byte(rng.Uint32())
		}
		if n%5 == 0 {
			b = b[:rng.IntN(len(b))]
		}
		p, err := ParsePart(b, width)
		if err != nil {
			continue
		}
		for range 50 {
			p.Has(rng.Uint64N(width))
		}
		if vs := p.AppendValues(nil); uint64(len(vs)) != p.Len() {
			t.Fatalf("%d values, %d said", len(vs), p.Len())
		}
	}
}

// TestSetForgetsNothing: while a set grows, through all its levels, readers find
// whatever was added before they looked, and few other keys.
func TestSetForgetsNothing(t *testing.T) {
	keys := randoms(1, 300_000)
	s := New(SpaceFor(uint64(len(keys)), 128))
	half := slices.Clone(keys[:100_000])
	slices.Sort(half)
	w := s.Space().Width()
	for r := range Regions {
		var values []uint64
		for _, k := range half {
			if region, at := s.Space().Split(s.Space().Value(k)); region == r {
				values = append(values, at)
			}
		}
		s.AddPart(r, NewPart(values, w))
	}
	var added sync.Map
	var wg sync.WaitGroup
	for g := range 2 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 1))
			for range 200_000 {
				n := rng.IntN(len(keys))
				if _, ok := added.Load(n / 1000); (ok || n < 100_000) && !s.Has(keys[n]) {
					t.Errorf("key %d was added and is not in", n)
					return
				}
			}
		})
	}
	for n := 100_000; n < len(keys); n += 1000 {
		s.Add(keys[n : n+1000])
		added.Store(n/1000, true)
	}
	wg.Wait()
	for n, k := range keys {
		if !s.Has(k) {
			t.Fatalf("key %d is not in", n)
		}
	}
	wrong := 0
	others := randoms(2, 200_000)
	for _, k := range others {
		if s.Has(k) {
			wrong++
		}
	}
	if share := float64(wrong) / float64(len(others)); share > 0.01 {
		t.Errorf("%.4f of keys that were not added are in", share)
	}
	t.Logf("%d keys, %.2f bits a key, %d of %d others are in", len(keys), 8*float64(s.Bytes())/float64(len(keys)), wrong, len(others))
}

func BenchmarkHas(b *testing.B) {
	keys := randoms(1, 4_000_000)
	s := New(SpaceFor(uint64(len(keys)), 128))
	for k := range slices.Chunk(keys, 1<<16) {
		s.Add(k)
	}
	b.ReportMetric(8*float64(s.Bytes())/float64(len(keys)), "bits/key")
	others := randoms(2, 1<<16)
	for _, c := range []struct {
		name string
		keys []uint64
	}{{"hit", keys}, {"miss", others}} {
		b.Run(c.name, func(b *testing.B) {
			n := 0
			for b.Loop() {
				s.Has(c.keys[n%len(c.keys)])
				n += 7919
			}
		})
	}
}

func BenchmarkAdd(b *testing.B) {
	keys := randoms(1, 4_000_000)
	for b.Loop() {
		s := New(SpaceFor(uint64(len(keys)), 128))
		for k := range slices.Chunk(keys, 1<<16) {
			s.Add(k)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(keys)), "ns/key")
}

// BenchmarkBytes prints what a key takes: of a set that was read, and of one
// that has doubled since.
func BenchmarkBytes(b *testing.B) {
	const n = 8_000_000
	keys := randoms(1, n)
	slices.Sort(keys)
	for b.Loop() {
		s := New(SpaceFor(n, 128))
		for r, rest := 0, keys; r < Regions; r++ {
			var values []uint64
			for len(rest) > 0 && int(rest[0]>>56) == r {
				_, at := s.Space().Split(s.Space().Value(rest[0]))
				values, rest = append(values, at), rest[1:]
			}
			s.AddPart(r, NewPart(values, s.Space().Width()))
		}
		b.ReportMetric(float64(s.Bytes())/n, "B/key")
		s.Add(randoms(3, n))
		b.ReportMetric(float64(s.Bytes())/(2*n), "B/key-doubled")
	}
}
