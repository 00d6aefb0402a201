package postings

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

func testMemtable(t testing.TB, bytes int64) *memtable {
	t.Helper()
	partBits, slabs := shapeOf(bytes)
	a, err := newArena(slabs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.free)
	return newMemtable(a, partBits)
}

func TestMemtableKeepsWhatItTook(t *testing.T) {
	for _, bytes := range []int64{0, 1 << 20, 16 << 20, 60 << 20} {
		m := testMemtable(t, bytes)
		rng := rand.New(rand.NewPCG(uint64(bytes), 1))
		want := make(map[Hash][]uint64)
		for i := uint64(0); ; i++ {
			hs := testHashes(rng.Uint64N(200_000), rng.Uint64N(40)+1)
			id := rng.Uint64() >> rng.UintN(64)
			n := m.put(id, hs)
			for _, h := range hs[:n] {
				if !slices.Contains(want[h], id) {
					want[h] = append(want[h], id)
				}
			}
			if n < len(hs) || i == 5000 {
				break
			}
		}
		for h, ids := range want {
			got := m.find(nil, &h)
			slices.Sort(got)
			slices.Sort(ids)
			if !slices.Equal(slices.Compact(got), ids) {
				t.Fatalf("%d bytes: %x: got %v, want %v", bytes, h, got, ids)
			}
		}
		checkSorted(t, m, want)
	}
}

func checkSorted(t *testing.T, m *memtable, want map[Hash][]uint64) {
	t.Helper()
	var s sorter
	n := 0
	for part := range m.parts {
		var before entry
		for i, e := range s.sorted(m, part) {
			if i > 0 && before.compare(e) >= 0 {
				t.Fatalf("partition %d is not in order", part)
			}
			if h := m.hash(part, e); !slices.Contains(want[h], e.id) {
				t.Fatalf("%x has no %d", h, e.id)
			}
			before = e
			n++
		}
	}
	for _, ids := range want {
		n -= len(ids)
	}
	if n != 0 {
		t.Fatalf("%d entries too many", n)
	}
}

func TestMemtableIsReadWhileItIsWritten(t *testing.T) {
	m := testMemtable(t, 1<<20)
	hs := testHashes(0, 20_000)
	var done atomic.Int64
	var readers sync.WaitGroup
	for r := range 2 {
		readers.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(r), 0))
			for done.Load() < int64(len(hs)) {
				n := done.Load()
				i := rng.IntN(len(hs))
				got := m.find(nil, &hs[i])
				if int64(i) < n && !slices.Equal(got, []uint64{uint64(i) / 10}) {
					t.Errorf("%d: %v", i, got)
					return
				}
			}
		})
	}
	for i := 0; i < len(hs); i += 10 {
		if m.put(uint64(i)/10, hs[i:i+10]) != 10 {
			t.Error("full")
		}
		done.Store(int64(i + 10))
	}
	readers.Wait()
}
