package store

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
	"golang.org/x/sys/unix"
)

// testMH is the n-th multihash of a series.
func testMH(n uint64) multihash.Multihash {
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(nil, n))
	return append(multihash.Multihash{multihash.SHA2_256, 32}, sum[:]...)
}

func testMHs(from, n uint64) []multihash.Multihash {
	mhs := make([]multihash.Multihash, n)
	for i := range mhs {
		mhs[i] = testMH(from + uint64(i))
	}
	return mhs
}

func testCID(n uint64) cid.Cid {
	return cid.NewCidV1(cid.DagJSON, testMH(n|1<<63))
}

const benchAd = 5 * 16384 // multihashes of an ad

// fill puts n multihashes in ads of benchAd, in chunks of 16384, and returns
// the time spent in the store.
func fill(b *testing.B, s *Store, pub peer.ID, first, n uint64) time.Duration {
	b.Helper()
	var spent time.Duration
	prev := cid.Undef
	for i := uint64(0); i*benchAd < n; i++ {
		ad := testCID(first + i)
		var chunks [][]multihash.Multihash
		for c := uint64(0); c < 5; c++ {
			chunks = append(chunks, testMHs(first+i*benchAd+c*16384, 16384))
		}
		start := time.Now()
		w, err := s.Begin(Ad{AdRef: AdRef{Ad: ad, Prev: prev, Pos: Position(i + 1)}, Publisher: pub, Provider: pub,
			ContextID: fmt.Appendf(nil, "context-%d", i), Metadata: []byte{0x80, 0x12}})
		if err != nil {
			b.Fatal(err)
		}
		for _, c := range chunks {
			if err := w.Put(c); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := w.Commit(Effect{Kind: EffectContent, Verdict: Applied}); err != nil {
			b.Fatal(err)
		}
		spent += time.Since(start)
		prev = ad
	}
	return spent
}

// benchSizes are the numbers of multihashes of BenchmarkPut: 1M, and what the
// environment variable STORE_N says, such as 20000000.
func benchSizes(b *testing.B) []uint64 {
	sizes := []uint64{1e6}
	if text := os.Getenv("STORE_N"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		sizes = append(sizes, n)
	}
	return sizes
}

// cpuSeconds is what this process has used.
func cpuSeconds(b *testing.B) float64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// BenchmarkPut reports puts a second with one writer while syncs and
// compactions go on, and the disk space once all is flushed and compacted;
// "plain" is the base line, the layout with one Merge key a multihash. CPU
// includes making the multihashes, which "make" measures alone.
func BenchmarkPut(b *testing.B) {
	for _, n := range benchSizes(b) {
		b.Run(fmt.Sprintf("make/%dM", n/1e6), func(b *testing.B) {
			for b.Loop() {
				cpu := cpuSeconds(b)
				for i := uint64(0); i < n; i += 16384 {
					testMHs(i, 16384)
				}
				b.ReportMetric((cpuSeconds(b)-cpu)*1e6/float64(n), "cpu-us/mh")
			}
		})
		b.Run(fmt.Sprintf("store/%dM", n/1e6), func(b *testing.B) {
			for b.Loop() {
				benchStore(b, n)
			}
		})
		b.Run(fmt.Sprintf("plain/%dM", n/1e6), func(b *testing.B) {
			for b.Loop() {
				benchPlain(b, n)
			}
		})
	}
}

func benchStore(b *testing.B, n uint64) {
	s, err := Open(Config{Dir: b.TempDir(), MemoryBytes: 1 << 30})
	if err != nil {
		b.Fatal(err)
	}
	cpu, begin := cpuSeconds(b), time.Now()
	spent := fill(b, s, "publisher", 0, n)
	st, err := s.Stats()
	if err != nil {
		b.Fatal(err)
	}
	if err := s.tidyLog(b.Context(), true); err != nil {
		b.Fatal(err)
	}
	flushed := time.Since(begin)
	cpu = cpuSeconds(b) - cpu
	flushedBytes := s.db.Metrics().DiskSpaceUsage() + s.index.DiskBytes()
	if err := s.index.Compact(b.Context()); err != nil {
		b.Fatal(err)
	}
	per := float64(st.Postings)
	b.ReportMetric(per/spent.Seconds(), "puts/s")
	b.ReportMetric(per/flushed.Seconds(), "flushed-mhs/s")
	b.ReportMetric(cpu*1e6/per, "cpu-us/mh")
	b.ReportMetric(float64(flushedBytes)/per, "B/mh-flushed")
	b.ReportMetric(float64(s.db.Metrics().DiskSpaceUsage()+s.index.DiskBytes())/per, "B/mh-compacted")
	benchFinds(b, n, func(mh multihash.Multihash) bool {
		v, err := s.Find(mh)
		if err != nil {
			b.Fatal(err)
		}
		return len(v) > 0
	})
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
}

// benchPlain puts the same multihashes, records of benchAd, into a database of
// the plain layout.
func benchPlain(b *testing.B, n uint64) {
	opts := (&Store{cfg: Config{MemoryBytes: 4 << 30}.withDefaults(), disk: newFailStop(vfs.Default, func(error) {})}).pebbleOptions()
	opts.DisableWAL, opts.Merger = false, postingMerger
	db, err := pebble.Open(b.TempDir(), opts)
	if err != nil {
		b.Fatal(err)
	}
	var spent time.Duration
	cpu, begin := cpuSeconds(b), time.Now()
	for i := uint64(0); i < n; i += 16384 {
		mhs := testMHs(i, 16384)
		start := time.Now()
		_, err := putPostings(db, 1+i/benchAd, mhs, func(batch *pebble.Batch) error {
			return errors.Join(db.Apply(batch, pebble.NoSync), batch.Close())
		})
		if err != nil {
			b.Fatal(err)
		}
		spent += time.Since(start)
	}
	if err := db.Flush(); err != nil {
		b.Fatal(err)
	}
	flushed := time.Since(begin)
	cpu = cpuSeconds(b) - cpu
	tables := func() (sum float64) {
		for _, l := range db.Metrics().Levels {
			sum += float64(l.TablesSize)
		}
		return sum
	}
	flushedBytes := tables()
	if err := db.Compact(b.Context(), []byte{0}, []byte{0xff}, true); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(n)/spent.Seconds(), "puts/s")
	b.ReportMetric(float64(n)/flushed.Seconds(), "flushed-mhs/s")
	b.ReportMetric(cpu*1e6/float64(n), "cpu-us/mh")
	b.ReportMetric(flushedBytes/float64(n), "B/mh-flushed")
	b.ReportMetric(tables()/float64(n), "B/mh-compacted")
	benchFinds(b, n, func(mh multihash.Multihash) bool {
		ids, err := lookupPostings(db, mh)
		if err != nil {
			b.Fatal(err)
		}
		return len(ids) > 0
	})
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
}

// benchFinds reports p50 and p99 of hits and misses, one goroutine, warm.
func benchFinds(b *testing.B, n uint64, find func(multihash.Multihash) bool) {
	const samples = 20000
	for _, kind := range []struct {
		name string
		from uint64
		want bool
	}{{"hit", 0, true}, {"miss", 1 << 40, false}} {
		took := make([]time.Duration, 0, samples)
		for round := range 2 { // the first warms up
			took = took[:0]
			for i := range uint64(samples) {
				mh := testMH(kind.from + (i*2654435761+uint64(round))%n)
				start := time.Now()
				got := find(mh)
				took = append(took, time.Since(start))
				if got != kind.want {
					b.Fatalf("%s: found %v", kind.name, got)
				}
			}
		}
		slices.Sort(took)
		b.ReportMetric(float64(took[samples/2].Nanoseconds())/1e3, kind.name+"-p50-us")
		b.ReportMetric(float64(took[samples*99/100].Nanoseconds())/1e3, kind.name+"-p99-us")
	}
}

// BenchmarkFind reports lookups a second of one goroutine and of several, in
// a compacted store of a million multihashes whose files are in the page cache.
func BenchmarkFind(b *testing.B) {
	s, err := Open(Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	const n = 1e6
	fill(b, s, "publisher", 0, n)
	if err := s.db.Flush(); err != nil {
		b.Fatal(err)
	}
	if err := s.db.Compact(b.Context(), []byte{0}, []byte{0xff}, true); err != nil {
		b.Fatal(err)
	}
	for _, name := range []string{"hit", "miss"} {
		base := uint64(0)
		if name == "miss" {
			base = 1 << 40
		}
		find := func(b *testing.B, i uint64) {
			values, err := s.Find(testMH(base + i*7919%n))
			if err != nil || (len(values) == 1) != (base == 0) {
				b.Fatal(values, err)
			}
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			i := uint64(0)
			for b.Loop() {
				i++
				find(b, i)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "finds/s")
		})
		b.Run(name+"-parallel", func(b *testing.B) {
			b.RunParallel(func(pb *testing.PB) {
				for i := uint64(0); pb.Next(); i++ {
					find(b, i)
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "finds/s")
		})
	}
}

// BenchmarkCommit reports ads a second that only change metadata.
func BenchmarkCommit(b *testing.B) {
	s, err := Open(Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	b.ReportAllocs()
	prev := AdRef{}
	for i := uint64(1); b.Loop(); i++ {
		ref := AdRef{Ad: testCID(i), Prev: prev.Ad, Pos: Position(i)}
		w, err := s.Begin(Ad{AdRef: ref, Publisher: "publisher", Provider: "provider",
			ContextID: fmt.Appendf(nil, "context-%d", i), Metadata: []byte{0x80, 0x12}})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := w.Commit(Effect{Kind: EffectMetadata, Verdict: Applied}); err != nil {
			b.Fatal(err)
		}
		prev = ref
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ads/s")
}
