package postings

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/multiformats/go-multihash"
)

// benchPerRecord is the number of multihashes a record has in benchmarks.
const benchPerRecord = 80_000

func benchN(b *testing.B) uint64 {
	if s := os.Getenv("POSTINGS_N"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		return n
	}
	return 2_000_000
}

func benchMemory(b *testing.B) int64 {
	if s := os.Getenv("POSTINGS_MEMORY_MIB"); s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		return n << 20
	}
	return 1 << 30
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// benchMultihash is the n-th multihash, sha2-256 in looks.
func benchMultihash(buf []byte, n uint64) multihash.Multihash {
	rng := rand.NewPCG(n, 1)
	buf = append(buf[:0], 0x12, 0x20)
	for range 4 {
		buf = binary.LittleEndian.AppendUint64(buf, rng.Uint64())
	}
	return buf
}

// BenchmarkIndex puts POSTINGS_N (2 million) multihashes of records of 80,000
// each into an index on disk, with POSTINGS_MEMORY_MIB (1024), and finds some.
// No log is written.
func BenchmarkIndex(b *testing.B) {
	n := benchN(b)
	for b.Loop() {
		x, err := Open(Config{Dir: b.TempDir(), MemoryBytes: benchMemory(b), Alive: func(id uint64) bool { return id != 1<<40 }})
		if err != nil {
			b.Fatal(err)
		}
		benchPuts(b, x, n)
		benchFinds(b, x, n, "settled")
		if err := x.Compact(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(x.tableBytes())/float64(n), "compacted-bytes/mh")
		benchFinds(b, x, n, "compacted")
		if err := x.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func benchPuts(b *testing.B, x *Index, n uint64) {
	start, cpu, idle := time.Now(), cpuTime(), time.Duration(0)
	mhs := make([]multihash.Multihash, 4096)
	for i := range mhs {
		mhs[i] = make([]byte, 34)
	}
	var hs []Hash
	pos := uint64(0)
	for i := uint64(0); i < n; i += uint64(len(mhs)) {
		// Making the multihashes is not what is measured.
		made, madeCPU := time.Now(), cpuTime()
		for j := range mhs {
			mhs[j] = benchMultihash(mhs[j], i+uint64(j))
		}
		idle += time.Since(made)
		cpu += min(cpuTime()-madeCPU, time.Since(made))
		hs = x.HashAll(hs[:0], mhs)
		pos++
		if err := x.Put(pos, i/benchPerRecord, hs); err != nil {
			b.Fatal(err)
		}
	}
	if err := x.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
	elapsed := time.Since(start) - idle
	b.ReportMetric(float64(n)/elapsed.Seconds()/1e6, "Mputs/s")
	b.ReportMetric(float64(x.tableBytes())/float64(n), "flushed-bytes/mh")
	settle(x)
	elapsed = time.Since(start) - idle
	b.ReportMetric(float64(n)/elapsed.Seconds()/1e6, "settled-Mputs/s")
	b.ReportMetric(float64((cpuTime()-cpu).Nanoseconds())/1e3/float64(n), "cpu-us/put")
	m := x.db.Metrics()
	written := uint64(0)
	for i, l := range m.Levels {
		level := l.TableBytesFlushed + l.TableBytesCompacted + l.TableBytesIngested
		written += level
		if level > 0 {
			b.ReportMetric(float64(level)/float64(n), fmt.Sprintf("written-L%d-bytes/mh", i))
		}
	}
	b.ReportMetric(float64(written)/float64(n), "written-bytes/mh")
	b.ReportMetric(float64(x.tableBytes())/float64(n), "settled-bytes/mh")
	b.ReportMetric(rss()/(1<<20), "MiB-rss-high")
}

// settle waits for compactions that come by themselves.
func settle(x *Index) {
	for x.db.Metrics().Compact.NumInProgress > 0 {
		time.Sleep(10 * time.Millisecond)
	}
}

func rss() float64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return float64(u.Maxrss) * 1024
}

func benchFinds(b *testing.B, x *Index, n uint64, when string) {
	const finds = 50_000
	for _, kind := range []string{"hit", "miss"} {
		rng := rand.New(rand.NewPCG(5, 5))
		took := make([]time.Duration, 0, finds)
		var ids []uint64
		var buf []byte
		for i := range finds + finds/5 {
			k := rng.Uint64N(n)
			if kind == "miss" {
				k += 1 << 50
			}
			buf = benchMultihash(buf, k)
			start := time.Now()
			var err error
			ids, err = x.AppendFind(ids[:0], x.HashOf(buf), 0)
			if i >= finds/5 {
				took = append(took, time.Since(start))
			}
			if err != nil || len(ids) == 1 != (kind == "hit") {
				b.Fatalf("%d: %v, %v", k, ids, err)
			}
		}
		slices.Sort(took)
		sum := time.Duration(0)
		for _, d := range took {
			sum += d
		}
		name := fmt.Sprintf("%s-%s-", when, kind)
		b.ReportMetric(finds/sum.Seconds(), name+"finds/s")
		b.ReportMetric(float64(took[finds/2].Nanoseconds())/1e3, name+"p50-us")
		b.ReportMetric(float64(took[finds*99/100].Nanoseconds())/1e3, name+"p99-us")
	}
}

// BenchmarkFind finds single hashes in POSTINGS_N (2 million) entries that lie
// in several levels, as flushes left them: with the query of a lookup, and the
// plain way, which unites the bucket and decodes it.
func BenchmarkFind(b *testing.B) {
	n := benchN(b)
	x, err := Open(Config{Dir: b.TempDir(), MemoryBytes: benchMemory(b), Alive: func(id uint64) bool { return id != 1<<40 }})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = x.Close() }()
	benchLoad(b, x, n)
	settle(x)
	levels := 0
	for i, l := range x.db.Metrics().Levels {
		if l.TablesCount > 0 && i > 0 {
			levels++
		}
	}
	levels += int(x.db.Metrics().Levels[0].Sublevels)
	var ids []uint64
	ways := []struct {
		name string
		find func(h Hash) ([]uint64, error)
	}{
		{"query", func(h Hash) (_ []uint64, err error) {
			ids, err = x.AppendFind(ids[:0], h, 0)
			return ids, err
		}},
		{"plain", func(h Hash) ([]uint64, error) { return x.findPlainly(b, h, 0), nil }},
	}
	for _, kind := range []string{"hit", "miss"} {
		for _, way := range ways {
			b.Run(kind+"/"+way.name, func(b *testing.B) {
				rng := rand.New(rand.NewPCG(5, 5))
				var buf []byte
				b.ReportAllocs()
				cpu := cpuTime()
				for b.Loop() {
					k := rng.Uint64N(n)
					if kind == "miss" {
						k += 1 << 50
					}
					buf = benchMultihash(buf, k)
					got, err := way.find(x.HashOf(buf))
					if err != nil || len(got) == 1 != (kind == "hit") {
						b.Fatalf("%d: %v, %v", k, got, err)
					}
				}
				b.ReportMetric(float64((cpuTime()-cpu).Nanoseconds())/1e3/float64(b.N), "cpu-us/find")
				b.ReportMetric(float64(levels), "places")
			})
		}
	}
	hs := make([]Hash, 1000)
	b.Run("batch-of-1000", func(b *testing.B) {
		rng := rand.New(rand.NewPCG(5, 5))
		var buf []byte
		cpu := cpuTime()
		for b.Loop() {
			for i := range hs {
				buf = benchMultihash(buf, rng.Uint64N(n))
				hs[i] = x.HashOf(buf)
			}
			if _, err := x.FindBatch(hs, 0); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64((cpuTime()-cpu).Nanoseconds())/1e6/float64(b.N), "cpu-us/find")
	})
}

// benchLoad puts n multihashes and flushes.
func benchLoad(b *testing.B, x *Index, n uint64) {
	var hs []Hash
	var buf []byte
	for i := uint64(0); i < n; {
		hs = hs[:0]
		for ; len(hs) < 4096 && i < n; i++ {
			buf = benchMultihash(buf, i)
			hs = append(hs, x.HashOf(buf))
		}
		if err := x.Put(i, (i-1)/benchPerRecord, hs); err != nil {
			b.Fatal(err)
		}
	}
	if err := x.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
}
