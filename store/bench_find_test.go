package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/multiformats/go-multihash"
)

const (
	findSamples = 50_000 // a goroutine and kind
	// besidePerSecond is the rate of lookups beside ingest.
	besidePerSecond = 1000
	besideWorkers   = 32
	batchKeys       = 1000
	batches         = 200
)

// benchFinds measures lookups of the multihashes of the case, and of such as
// are not there, by one goroutine and by two, while nothing else happens.
func (r *benchRun) benchFinds(ctx context.Context, when string) error {
	inCache, err := warm(r.dir)
	if err != nil {
		return err
	}
	if !inCache {
		r.say("files do not fit into the page cache: lookups %s read the disk", when)
	}
	for _, goroutines := range []int{1, 2} {
		for _, kind := range findKinds {
			r.phase(fmt.Sprintf("%s %s, %d goroutines", kind.name, when, goroutines), nil)
			if err := r.benchFind(ctx, when, kind, goroutines); err != nil {
				return err
			}
		}
	}
	return r.benchBatches(ctx, when)
}

type findKind struct {
	name string
	add  uint64 // to the number of a multihash that is there
	want bool
}

var findKinds = []findKind{{"hit", 0, true}, {"miss", missing, false}}

func (r *benchRun) benchFind(ctx context.Context, when string, kind findKind, goroutines int) error {
	took := make([][]time.Duration, goroutines)
	errs := make([]error, goroutines)
	var start time.Time
	var cpu float64
	for _, samples := range []int{r.Finds / 5, r.Finds} { // the first warms up
		start, cpu = time.Now(), cpuSeconds()
		var wg sync.WaitGroup
		for i := range goroutines {
			wg.Go(func() {
				took[i], errs[i] = r.findMany(ctx, kind, samples, uint64(i))
			})
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
	elapsed, n := time.Since(start).Seconds(), float64(r.Finds*goroutines)
	name := fmt.Sprintf("%s %s, %d goroutines", kind.name, when, goroutines)
	if goroutines == 1 {
		name = fmt.Sprintf("%s %s", kind.name, when)
	}
	r.out.add(more, n/elapsed, "%s, lookups/s", name)
	r.out.add(more, n/(cpuSeconds()-cpu), "%s, lookups per CPU second", name)
	r.addLatencies(name, slices.Concat(took...))
	return nil
}

func (r *benchRun) findMany(ctx context.Context, kind findKind, samples int, seed uint64) ([]time.Duration, error) {
	rng := rand.New(rand.NewPCG(seed, uint64(samples)))
	took := make([]time.Duration, 0, samples)
	var m benchMHs
	for range samples {
		mh := m.of(rng.Uint64N(r.mhs) + kind.add)[0]
		start := time.Now()
		found, err := r.db.find(mh)
		took = append(took, time.Since(start))
		if err != nil {
			return nil, err
		}
		if found != kind.want {
			return nil, fmt.Errorf("%s: found %v", kind.name, found)
		}
	}
	return took, ctx.Err()
}

// addLatencies reports quantiles.
func (r *benchRun) addLatencies(name string, took []time.Duration) {
	slices.Sort(took)
	us := func(p float64) float64 { return float64(took[int(p*float64(len(took)-1))].Nanoseconds()) / 1e3 }
	r.out.add(less, us(0.5), "%s, p50 us", name)
	r.out.add(less, us(0.99), "%s, p99 us", name)
	r.out.add(less, us(0.999), "%s, p99.9 us", name)
}

// benchBeside measures lookups, hits and misses in turns, while ads are written
// at a rate. Lookups begin at their intended times, also while others hang, and
// each is measured from its intended time on, so that nothing is left out of
// the figures by waiting. Only multihashes of the case are looked up.
func (r *benchRun) benchBeside(ctx context.Context, g *ingest, mhsPerSecond float64) error {
	r.phase("lookups beside ingest", &g.done)
	ingesting, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	before, cpu := g.done.Load(), cpuSeconds()
	pace := pacer{start: time.Now(), perSecond: besidePerSecond}
	go func() { ended <- g.run(ingesting, 1<<50, mhsPerSecond) }()
	took, err := r.findAtRate(ctx, pace)
	elapsed := time.Since(pace.start)
	put, cpu := g.done.Load()-before, cpuSeconds()-cpu
	stop()
	if err := errors.Join(err, <-ended); err != nil {
		return err
	}
	r.out.add(noMatter, mhsPerSecond, "beside ingest, wanted puts/s (half of full speed)")
	r.out.add(noMatter, float64(put)/elapsed.Seconds(), "beside ingest, puts/s")
	r.out.add(noMatter, float64(len(took))/elapsed.Seconds(), "beside ingest, lookups/s")
	r.out.add(noMatter, cpu/elapsed.Seconds(), "beside ingest, cores busy")
	for i, kind := range findKinds {
		var due, find []time.Duration
		for n, t := range took {
			if n%2 == i {
				due, find = append(due, t.sinceDue), append(find, t.inFind)
			}
		}
		r.addLatencies(kind.name+" beside ingest, from the intended time", due)
		r.addLatencies(kind.name+" beside ingest, the call alone", find)
	}
	return nil
}

// latency is how long a lookup took since it was due, and the call alone.
type latency struct{ sinceDue, inFind time.Duration }

func (r *benchRun) findAtRate(ctx context.Context, pace pacer) ([]latency, error) {
	took := make([]latency, int(r.Beside.Seconds()*pace.perSecond))
	errs := make([]error, besideWorkers)
	var wg sync.WaitGroup
	for w := range errs {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 7))
			var m benchMHs
			for n := w; n < len(took) && errs[w] == nil; n += besideWorkers {
				kind := findKinds[n%2]
				mh := m.of(rng.Uint64N(r.mhs) + kind.add)[0]
				if errs[w] = ctx.Err(); errs[w] != nil {
					return
				}
				due := pace.due(uint64(n))
				for time.Until(due) > 0 {
					sleep(time.Until(due))
				}
				start := time.Now()
				found, err := r.db.find(mh)
				took[n] = latency{time.Since(due), time.Since(start)}
				if errs[w] = err; err == nil && found != kind.want {
					errs[w] = fmt.Errorf("%s: found %v", kind.name, found)
				}
			}
		})
	}
	wg.Wait()
	return took, errors.Join(errs...)
}

// batchFinder is a store that looks up many multihashes in one call.
type batchFinder interface {
	FindBatch([]multihash.Multihash) ([][]Value, error)
}

// benchBatches measures batches of random multihashes that are all there, if
// the database takes batches.
func (r *benchRun) benchBatches(ctx context.Context, when string) error {
	b, ok := r.db.(batchFinder)
	if !ok {
		return nil
	}
	r.phase("batches "+when, nil)
	rng := rand.New(rand.NewPCG(3, 3))
	var m benchMHs
	var took []time.Duration
	numbers := make([]uint64, batchKeys)
	for range batches {
		for i := range numbers {
			numbers[i] = rng.Uint64N(r.mhs)
		}
		mhs := m.of(numbers...)
		start := time.Now()
		values, err := b.FindBatch(mhs)
		took = append(took, time.Since(start))
		if err != nil {
			return err
		}
		if len(values) != batchKeys || slices.ContainsFunc(values, func(v []Value) bool { return len(v) != 1 }) {
			return errors.New("batch: not all were found")
		}
	}
	sum := time.Duration(0)
	for _, t := range took {
		sum += t
	}
	name := fmt.Sprintf("batch of %d %s", batchKeys, when)
	r.out.add(more, batchKeys*batches/sum.Seconds(), "%s, lookups/s", name)
	slices.Sort(took)
	r.out.add(less, took[batches/2].Seconds()*1e3, "%s, p50 ms", name)
	r.out.add(less, took[batches*99/100].Seconds()*1e3, "%s, p99 ms", name)
	return ctx.Err()
}

// BenchmarkFind reports lookups a second of one goroutine and of several, in
// a compacted store of a million multihashes whose files are in the page cache.
func BenchmarkFind(b *testing.B) {
	db, err := openBenchStore(b.TempDir(), newCountingFS(), DefaultMemoryBytes)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	const ads uint64 = 1_000_000/benchAdMHs + 1
	const n = ads * benchAdMHs
	err = errors.Join(newIngest(db, benchAdMHs, 1).run(b.Context(), ads, 0), db.flush(b.Context()), db.compact(b.Context()))
	if err != nil {
		b.Fatal(err)
	}
	for _, kind := range findKinds {
		find := func(b *testing.B, m *benchMHs, i uint64) {
			found, err := db.find(m.of(i*7919%n + kind.add)[0])
			if err != nil || found != kind.want {
				b.Error(found, err)
			}
		}
		b.Run(kind.name, func(b *testing.B) {
			b.ReportAllocs()
			var m benchMHs
			for i := uint64(0); b.Loop(); i++ {
				find(b, &m, i)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "finds/s")
		})
		b.Run(kind.name+"-parallel", func(b *testing.B) {
			b.RunParallel(func(pb *testing.PB) {
				var m benchMHs
				for i := rand.Uint64N(n); pb.Next(); i++ {
					find(b, &m, i)
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "finds/s")
		})
	}
}
