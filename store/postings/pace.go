package postings

import (
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Go gives a goroutine up to 10 ms before another runs in its place, and looks
// at the network only when a processor has nothing to do. With puts, a flush
// and two compactions on a few processors a lookup would wait that long, often
// twice. So while lookups come, all of this work together may take a part of
// the processors' time only: it is counted as it is handed in, at what it costs
// on average, and whoever brings work too early sleeps, which leaves processors
// idle. Nothing is held back while nobody looks anything up.
const (
	// paceMemory is how long after a lookup the next one is expected.
	paceMemory = 100 * time.Millisecond
	// paceShare is the part of all processors' time that is left to work
	// while there are lookups. On slower machines than the one the costs are
	// from it is more, on faster ones less.
	paceShare = 0.5
	// paceGrain is the least sleep: timers are not more exact. Less than that is
	// remembered.
	paceGrain = 500 * time.Microsecond
	// paceBurst bounds the time not used that may be made up for. It is that of
	// a few pieces of work, as the time of a piece counts for the next.
	paceBurst = 2 * time.Millisecond
	// putPiece is the number of hashes put at a time: a piece of work.
	putPiece = 1 << 14

	// Costs by BenchmarkIndex and store's BenchmarkPut: a multihash hashed,
	// logged and put; a byte of a table merged or sorted, encoded and written.
	putCost  = 50 * time.Nanosecond
	byteCost = 11 * time.Nanosecond / 2
)

// pacer makes work give way to lookups. It is safe for concurrent use.
type pacer struct {
	seen atomic.Bool // a lookup came since work asked

	mu     sync.Mutex
	procs  int
	until  time.Time     // lookups are expected
	next   time.Time     // when the work so far has had its time
	paused time.Duration // summed over goroutines
}

// newPacer makes a pacer for so many processors; 0: as many as there are, or
// GOMAXPROCS if that is less. GOMAXPROCS may be more, which brings lookups a
// thread of their own, but no more time.
func newPacer(procs int) *pacer {
	if procs <= 0 {
		procs = min(runtime.NumCPU(), runtime.GOMAXPROCS(0))
	}
	return &pacer{procs: procs}
}

// lookup is called by each lookup.
func (p *pacer) lookup() {
	if !p.seen.Load() {
		p.seen.Store(true)
	}
}

// work is called before each piece of work, of a millisecond or so, with the
// time of a processor it costs, holding nothing a lookup waits for.
func (p *pacer) work(cost time.Duration) {
	if wait := p.wait(time.Now(), cost); wait > 0 {
		time.Sleep(wait)
	}
}

// wait decides how long work has to wait.
func (p *pacer) wait(now time.Time, cost time.Duration) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.seen.Swap(false) {
		p.until = now.Add(paceMemory)
	}
	if !now.Before(p.until) {
		p.next = now
		return 0
	}
	if earliest := now.Add(-paceBurst); p.next.Before(earliest) {
		p.next = earliest
	}
	p.next = p.next.Add(time.Duration(float64(cost) / (paceShare * float64(p.procs))))
	wait := p.next.Sub(now)
	if wait < paceGrain {
		return 0
	}
	p.paused += wait
	return wait
}

// pausedSeconds is the time work was held back.
func (p *pacer) pausedSeconds() float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.paused.Seconds()
}

// pacedFS paces the writing of tables: flushes, rewritten regions and
// compactions all end there, and lookups never.
type pacedFS struct {
	vfs.FS
	pace *pacer
}

// Create implements vfs.FS.
func (fs pacedFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.Create(name, category)
	if err != nil || !strings.HasSuffix(name, ".sst") {
		return f, err
	}
	return pacedFile{f, fs.pace}, nil
}

// Unwrap implements vfs.FS.
func (fs pacedFS) Unwrap() vfs.FS { return fs.FS }

type pacedFile struct {
	vfs.File
	pace *pacer
}

// Write implements vfs.File.
func (f pacedFile) Write(b []byte) (int, error) {
	f.pace.work(time.Duration(len(b)) * byteCost)
	return f.File.Write(b)
}
