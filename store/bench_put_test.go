package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

const (
	adChunks   = 5
	chunkMHs   = 16384
	benchAdMHs = adChunks * chunkMHs
)

// ingest is load on a benchDB: ads of adMHs multihashes in chunks of at most
// chunkMHs, by some publishers at once. The i-th ad has the multihashes
// numbered from i*adMHs on.
type ingest struct {
	adMHs   uint64
	writers []benchWriter
	next    atomic.Uint64 // ad

	done    atomic.Uint64 // multihashes
	calling atomic.Int64  // nanoseconds spent in the writers' calls, all together
}

func newIngest(db benchDB, adMHs uint64, writers int) *ingest {
	g := &ingest{adMHs: adMHs}
	for i := range writers {
		g.writers = append(g.writers, db.writer(i))
	}
	return g
}

// run writes ads until there are ads of them, or until ctx ends, which is not
// an error; at mhsPerSecond all together, or as fast as it goes if that is 0.
// An ad under way at the end stays unfinished.
func (g *ingest) run(ctx context.Context, ads uint64, mhsPerSecond float64) error {
	errs := make([]error, len(g.writers))
	pace := pacer{start: time.Now(), from: g.done.Load(), perSecond: mhsPerSecond}
	var wg sync.WaitGroup
	for i, w := range g.writers {
		wg.Go(func() {
			var made benchMHs
			for ad := g.next.Add(1) - 1; ad < ads && errs[i] == nil; ad = g.next.Add(1) - 1 {
				errs[i] = g.write(ctx, w, ad, &made, pace)
			}
			if errors.Is(errs[i], context.Canceled) {
				errs[i] = nil
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (g *ingest) write(ctx context.Context, w benchWriter, ad uint64, made *benchMHs, pace pacer) error {
	call := func(f func() error) error {
		start := time.Now()
		defer func() { g.calling.Add(int64(time.Since(start))) }()
		return f()
	}
	if err := call(func() error { return w.begin(ad) }); err != nil {
		return fmt.Errorf("begin ad %d: %w", ad, err)
	}
	for at := uint64(0); at < g.adMHs; at += chunkMHs {
		n := min(chunkMHs, g.adMHs-at)
		if err := pace.wait(ctx, g.done.Load()); err != nil {
			return err
		}
		mhs := made.from(ad*g.adMHs+at, n)
		if err := call(func() error { return w.put(mhs) }); err != nil {
			return fmt.Errorf("put into ad %d: %w", ad, err)
		}
		g.done.Add(n)
	}
	if err := call(w.commit); err != nil {
		return fmt.Errorf("commit ad %d: %w", ad, err)
	}
	return nil
}

// pacer holds work back to a rate: the work numbered n is due n/perSecond after
// the start, whether or not what came before was late.
type pacer struct {
	start     time.Time
	from      uint64
	perSecond float64
}

func (p pacer) due(n uint64) time.Time {
	return p.start.Add(time.Duration(float64(n-p.from) / p.perSecond * 1e9))
}

// wait returns when work n is due, or with ctx's error.
func (p pacer) wait(ctx context.Context, n uint64) error {
	if p.perSecond == 0 {
		return ctx.Err()
	}
	ahead := time.Until(p.due(n))
	if ahead <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(ahead)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// makingCPU is the CPU time a multihash costs to make, measured with up to n.
func makingCPU(adMHs, n uint64) (seconds float64) {
	var made benchMHs
	n = max(min(n, 20e6), 1e6)
	start := cpuSeconds()
	for i := uint64(0); i < n; i += min(adMHs, chunkMHs) {
		made.from(i, min(adMHs, chunkMHs))
	}
	return (cpuSeconds() - start) / float64(n)
}

// benchPuts puts all multihashes of a case, flushes and settles, and says what
// each costs. It returns the speed of the ingest alone, making the multihashes
// included, in multihashes a second.
func (r *benchRun) benchPuts(ctx context.Context, g *ingest, ads uint64) (mhsPerSecond float64, err error) {
	making := makingCPU(g.adMHs, r.mhs)
	r.phase("puts", &g.done)
	start, cpu, io := time.Now(), cpuSeconds(), ioWrittenBytes()
	if err := g.run(ctx, ads, 0); err != nil {
		return 0, err
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	put := time.Since(start)
	r.phase("flush", nil)
	if err := r.db.flush(ctx); err != nil {
		return 0, fmt.Errorf("flush: %w", err)
	}
	flushed, flushedCPU := time.Since(start), cpuSeconds()-cpu
	var flushedBytes [diskParts]uint64
	if flushedBytes, err = partBytes(r.dir); err != nil {
		return 0, err
	}
	r.phase("settle", nil)
	quiet, err := r.fs.settle(ctx, r.Quiet, r.db.busy)
	if err != nil {
		return 0, fmt.Errorf("settle: %w", err)
	}
	settled, settledCPU := max(quiet.Sub(start), flushed), cpuSeconds()-cpu

	n := float64(r.mhs)
	f := &r.out
	f.add(noMatter, n, "multihashes")
	f.add(more, n/(time.Duration(g.calling.Load()).Seconds()/float64(len(g.writers))), "puts/s, time in the store's calls")
	f.add(more, n/put.Seconds(), "puts/s, making included")
	f.add(more, n/flushed.Seconds(), "puts/s, until flushed")
	f.add(more, n/settled.Seconds(), "puts/s, until settled")
	f.add(noMatter, making*1e6, "CPU us/mh, making (already taken off below)")
	f.add(less, (flushedCPU/n-making)*1e6, "CPU us/mh, until flushed")
	f.add(less, (settledCPU/n-making)*1e6, "CPU us/mh, until settled")
	f.add(more, 1/(settledCPU/n-making), "puts per CPU second, until settled")
	r.addWritten(n, "mh", ioWrittenBytes()-io)
	r.addBytes(flushedBytes, "flushed")
	err = r.addDiskBytes("settled")
	f.add(noMatter, float64(peakBytes())/(1<<20), "peak memory MiB (VmHWM), puts until settled")
	return n / put.Seconds(), err
}

// addWritten reports what was written so far, by part of the directory.
func (r *benchRun) addWritten(n float64, unit string, kernel uint64) {
	parts, sum := r.fs.writtenBytes()
	r.out.add(less, float64(sum)/n, "bytes/%s written, counted at the file system", unit)
	for part, name := range []string{logPart: "log", rowsPart: "rows", flushedPart: "postings flushed",
		compactedPart: "postings compacted", otherPart: "other files"} {
		if parts[part] > sum/1000 {
			r.out.add(noMatter, float64(parts[part])/n, "  of it %s", name)
		}
	}
	r.out.add(less, float64(kernel)/n, "bytes/%s written, /proc/self/io", unit)
}

// addDiskBytes reports the bytes on disk of all multihashes of the case.
func (r *benchRun) addDiskBytes(when string) error {
	parts, err := partBytes(r.dir)
	r.addBytes(parts, when)
	if s, ok := r.db.(interface{ DiskUsage() int64 }); ok {
		r.out.add(noMatter, float64(s.DiskUsage())/float64(r.mhs), "  with log as DiskUsage says, %s", when)
	}
	return err
}

// addBytes reports bytes on disk. What is left of the log is apart: it does not
// grow with the number of multihashes.
func (r *benchRun) addBytes(parts [diskParts]uint64, when string) {
	sum := uint64(0)
	for _, n := range parts {
		sum += n
	}
	r.out.add(less, float64(sum-parts[logPart])/float64(r.mhs), "bytes/mh on disk, %s, without log", when)
	r.out.add(noMatter, float64(parts[logPart])/1e6, "  MB of log left, %s", when)
}
