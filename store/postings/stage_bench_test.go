package postings

import (
	"math/rand/v2"
	"testing"

	"github.com/multiformats/go-multihash"
)

func stageHashes(n int) []Hash {
	rng := rand.New(rand.NewPCG(1, 2))
	hs := make([]Hash, n)
	for i := range hs {
		for j := range hs[i] {
			hs[i][j] = byte(rng.Uint32())
		}
	}
	return hs
}

// BenchmarkStages reports the stages of a posting's way to its table, in
// nanoseconds a posting: the hash of its multihash, the memtable, the order
// of a partition, and the tables.
func BenchmarkStages(b *testing.B) {
	const chunk, chunks = 16384, 700
	hs := stageHashes(chunk * 64)
	b.Run("hash", func(b *testing.B) {
		var s Secret
		mhs := make([]multihash.Multihash, chunk)
		for i := range mhs {
			mhs[i] = benchMultihash(make([]byte, 34), uint64(i))
		}
		out := make([]Hash, 0, chunk)
		for b.Loop() {
			out = s.HashAll(out[:0], mhs)
		}
		perEntry(b, chunk)
	})
	partBits, slabs := shapeOf(192 << 20)
	a, err := newArena(slabs)
	if err != nil {
		b.Fatal(err)
	}
	defer a.free()
	var m *memtable
	b.Run("memtable", func(b *testing.B) {
		for b.Loop() {
			m = newMemtable(a, partBits)
			for c := range chunks {
				if m.put(uint64(c), hs[c%64*chunk:][:chunk]) != chunk {
					b.Fatal("full")
				}
			}
		}
		perEntry(b, chunk*chunks)
	})
	// Distinct entries, as in life.
	m = newMemtable(a, partBits)
	rng := rand.New(rand.NewPCG(3, 4))
	for c := range chunks {
		part := hs[c%64*chunk:][:chunk]
		for i := range part {
			v := rng.Uint64()
			for j := range 8 {
				part[i][j+1] ^= byte(v >> (8 * j))
			}
		}
		m.put(uint64(c/5), part)
	}
	b.Run("sort", func(b *testing.B) {
		var s sorter
		for b.Loop() {
			for part := range m.parts {
				s.sorted(m, part)
			}
		}
		perEntry(b, chunk*chunks)
	})
	b.Run("tables", func(b *testing.B) {
		x, err := Open(Config{Dir: b.TempDir(), MemoryBytes: 1 << 20})
		if err != nil {
			b.Fatal(err)
		}
		defer x.Close()
		for b.Loop() {
			next := *x.meta.Load()
			t := x.newTables()
			if err := t.addMemtable(m, &next); err != nil {
				b.Fatal(err)
			}
			if err := t.drop(); err != nil {
				b.Fatal(err)
			}
		}
		perEntry(b, chunk*chunks)
	})
}

func perEntry(b *testing.B, n int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/posting")
	b.ReportMetric(0, "ns/op")
}
