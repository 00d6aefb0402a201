package postings

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/multiformats/go-multihash"
	"github.com/prometheus/client_golang/prometheus"
)

// Config says where the index lives and what it may use.
type Config struct {
	Dir    string // required; nothing else may be in it
	FS     vfs.FS // nil: the disk
	Secret Secret // keys the hashes; the index refuses a directory of another
	// MemoryBytes is shared by two memtables and the block cache, a quarter
	// each; the rest is for flushes and compactions. Default
	// DefaultMemoryBytes.
	MemoryBytes int64
	// Alive tells compactions and lookups which record IDs still mean
	// something. Once false for an ID it must stay false, and it must be true
	// for an ID from before its first Put. It is called from many goroutines
	// at once, for every entry a compaction passes, and must not call the
	// index. Nil: all are alive.
	Alive func(id uint64) bool
	// BeforeIngest is called before postings up to a position get on disk, and
	// must return only when the caller's log is durable up to there. Nil:
	// nothing to wait for.
	BeforeIngest func(pos uint64) error
	// Processors is how many there are, of whose time puts and compactions leave
	// half to lookups while there are some; 0: what the runtime says.
	Processors int
	Logger     *slog.Logger          // nil: discard
	Registerer prometheus.Registerer // nil: no metrics

	fill, patience uint64 // see bucketFill; tests lower them
	// LeaveDamage has damage stay until Salvage is called.
	LeaveDamage bool
}

// Defaults of Config.
const (
	DefaultMemoryBytes = 256 << 20

	minMemoryBytes = 256 << 10
	maxArenaBytes  = 1 << 30
)

func (c Config) withDefaults() Config {
	if c.FS == nil {
		c.FS = vfs.Default
	}
	if c.MemoryBytes <= 0 {
		c.MemoryBytes = DefaultMemoryBytes
	}
	c.MemoryBytes = max(c.MemoryBytes, minMemoryBytes)
	if c.Logger == nil {
		c.Logger = discard
	}
	if c.fill == 0 {
		c.fill, c.patience = bucketFill, bucketPatience
	}
	return c
}

// view is what lookups see beside the database. What leaves a view is in the
// database before.
type view struct{ active, flushing *memtable }

// Index is an open index. It is safe for concurrent use.
//
// Locks, in the order they are taken: life (held for reading by every method,
// for writing by Close), putting (one Put, or one turn of memtables, at a
// time), ingesting (one change of buckets at a time), mu (the state of
// memtables). Lookups take only life.
type Index struct {
	cfg     Config
	opts    *pebble.Options
	db      *pebble.DB
	metrics *metrics
	pace    *pacer

	life   sync.RWMutex
	closed bool

	view atomic.Pointer[view]
	meta atomic.Pointer[meta] // replaced under ingesting
	// moving is odd while keys of a region are replaced by others.
	moving  [regions]atomic.Uint32
	moves   atomic.Uint64 // odd while those of any are
	ingests ingests
	readers sync.Pool // of *reader

	putting sync.Mutex
	lastPos uint64 // position of the last Put, written under putting and mu
	torn    bool   // that Put failed and is not in the memtables as a whole

	mu       sync.Mutex
	cond     *sync.Cond // any of the below changed
	job      job        // about view.flushing
	flushErr error      // view.flushing could not be flushed
	sealed   uint64     // no Put may come at or below
	ended    bool       // the flusher is gone
	spare    *arena
	partBits uint

	ingesting sync.Mutex
	nextFile  uint64

	compacted  signal
	damaged    chan struct{}              // holds one if damage was met
	salvaged   atomic.Pointer[[]keyRange] // the tables the last Salvage found damaged
	saidDamage atomic.Int64               // Unix time when that was logged last
	stop       context.CancelFunc
	flusher    sync.WaitGroup
}

// job says what flushing a memtable makes durable.
type job struct {
	mark uint64 // all Puts up to here are in it or in the buckets
	max  uint64 // the largest position in it
}

// Open opens the index in cfg.Dir, or makes one. Puts above Flushed are not
// in it and have to be repeated from the caller's log.
func Open(cfg Config) (_ *Index, err error) {
	x := &Index{cfg: cfg.withDefaults(), metrics: newMetrics(), pace: newPacer(cfg.Processors), damaged: make(chan struct{}, 1)}
	x.cfg.FS = pacedFS{x.cfg.FS, x.pace}
	x.cond = sync.NewCond(&x.mu)
	x.compacted.init()
	x.salvaged.Store(new([]keyRange))
	x.opts = x.pebbleOptions()
	if err := x.makeDirs(); err != nil {
		return nil, err
	}
	if x.db, err = x.openDB(); err != nil {
		return nil, fmt.Errorf("open postings in %s: %w", x.cfg.Dir, err)
	}
	if err := x.prepare(); err != nil {
		return nil, errors.Join(err, x.db.Close())
	}
	ctx, stop := context.WithCancel(context.Background())
	x.stop = stop
	x.flusher.Go(func() { x.flushLoop(ctx) })
	if !x.cfg.LeaveDamage {
		x.flusher.Go(func() { x.salvageLoop(ctx) })
	}
	return x, nil
}

func (x *Index) dbDir() string     { return x.cfg.FS.PathJoin(x.cfg.Dir, "buckets") }
func (x *Index) ingestDir() string { return x.cfg.FS.PathJoin(x.cfg.Dir, "ingest") }

// makeDirs makes the directories and clears what a crash left to be ingested.
func (x *Index) makeDirs() error {
	fs := x.cfg.FS
	if err := fs.RemoveAll(x.ingestDir()); err != nil {
		return fmt.Errorf("clear %s: %w", x.ingestDir(), err)
	}
	for _, dir := range []string{x.cfg.Dir, x.dbDir(), x.ingestDir()} {
		if err := fs.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make %s: %w", dir, err)
		}
	}
	// The directory's own entry too: all is lost with it.
	return errors.Join(syncDir(fs, x.cfg.Dir), syncDir(fs, fs.PathDir(x.cfg.Dir)))
}

func syncDir(fs vfs.FS, name string) error {
	dir, err := fs.OpenDir(name)
	if err != nil {
		return fmt.Errorf("open %s: %w", name, err)
	}
	if err := errors.Join(dir.Sync(), dir.Close()); err != nil {
		return fmt.Errorf("sync %s: %w", name, err)
	}
	return nil
}

// prepare reads or makes the meta row and the first memtable.
func (x *Index) prepare() error {
	m, err := readMeta(x.db)
	if err != nil {
		return err
	}
	if m == nil {
		m = &meta{fingerprint: x.cfg.Secret.fingerprint()}
		for i := range m.regions {
			m.regions[i].width = x.firstWidth()
		}
		if err := x.ingest(x.newTables(), m); err != nil {
			return err
		}
	}
	if m.fingerprint != x.cfg.Secret.fingerprint() {
		return fmt.Errorf("%w: %s", ErrSecret, x.cfg.Dir)
	}
	x.meta.Store(m)
	x.lastPos, x.sealed = m.flushed, m.flushed
	if err := x.metrics.register(x.cfg.Registerer, x); err != nil {
		return err
	}
	partBits, slabs := shapeOf(min(x.cfg.MemoryBytes/4, maxArenaBytes))
	x.partBits = partBits
	a, err := newArena(slabs)
	if err != nil {
		return err
	}
	if x.spare, err = newArena(slabs); err != nil {
		a.free()
		return err
	}
	x.view.Store(&view{active: newMemtable(a, partBits)})
	return nil
}

// Close waits for a flush under way and closes the database. It does not
// flush: what is above Flushed is in the caller's log. Closing twice is fine.
func (x *Index) Close() error {
	x.stop()
	x.mu.Lock()
	x.cond.Broadcast()
	x.mu.Unlock()
	x.flusher.Wait()
	x.life.Lock()
	defer x.life.Unlock()
	if x.closed {
		return nil
	}
	x.closed = true
	x.metrics.unregister(x.cfg.Registerer)
	v := x.view.Load()
	for _, m := range []*memtable{v.active, v.flushing} {
		if m != nil {
			m.free()
		}
	}
	if x.spare != nil {
		x.spare.free()
	}
	if err := x.db.Close(); err != nil {
		return fmt.Errorf("close postings in %s: %w", x.cfg.Dir, err)
	}
	return nil
}

// Halt ends flushing for good: Puts and Flushes that wait for it, and later
// ones that would, give ErrClosed. Lookups go on until Close.
func (x *Index) Halt() { x.stop() }

// enter holds off Close until leave.
func (x *Index) enter() error {
	x.life.RLock()
	if x.closed {
		x.life.RUnlock()
		return ErrClosed
	}
	return nil
}

func (x *Index) leave() { x.life.RUnlock() }

// HashOf hashes a whole multihash under the index's secret.
func (x *Index) HashOf(mh multihash.Multihash) Hash { return x.cfg.Secret.HashOf(mh) }

// HashAll appends the hashes of mhs to dst.
func (x *Index) HashAll(dst []Hash, mhs []multihash.Multihash) []Hash {
	return x.cfg.Secret.HashAll(dst, mhs)
}

// Flushed is the position up to which, inclusive, every Put is in durable
// buckets. The caller's log is needed only above it.
func (x *Index) Flushed() uint64 { return x.meta.Load().flushed }

// Put adds postings of one record. pos is the place of this Put in the
// caller's log: above Flushed and what Flush sealed, and never lower than that
// of the Put before. Several Puts may share a position.
//
// Put waits while both memtables are full, and beside lookups for a part of the
// time that is bounded. It fails if flushing fails; then the same Put has to be
// repeated before any other, or the index closed.
func (x *Index) Put(pos, id uint64, hs []Hash) error {
	if err := x.enter(); err != nil {
		return err
	}
	defer x.leave()
	x.putting.Lock()
	defer x.putting.Unlock()
	if err := x.begin(pos); err != nil {
		return err
	}
	for {
		piece := hs[:min(len(hs), putPiece)]
		x.pace.work(time.Duration(len(piece)) * putCost)
		n := x.view.Load().active.put(id, piece)
		hs = hs[n:]
		if len(hs) == 0 {
			x.torn = false
			return nil
		}
		if n == len(piece) {
			continue
		}
		x.torn = true
		if err := x.turn(context.Background(), pos-1, pos); err != nil {
			return fmt.Errorf("put %d postings at %d: %w", len(hs), pos, err)
		}
	}
}

func (x *Index) begin(pos uint64) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case pos < x.lastPos || pos <= x.sealed:
		return fmt.Errorf("%w: put at %d after %d", ErrPosition, pos, max(x.lastPos, x.sealed))
	case x.torn && pos != x.lastPos:
		return fmt.Errorf("%w: put at %d while that at %d is to be repeated", ErrPosition, pos, x.lastPos)
	}
	x.lastPos = pos
	return nil
}

// turn makes the active memtable the one to be flushed, when the one before is
// done. The caller holds putting.
func (x *Index) turn(ctx context.Context, mark, top uint64) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.awaitFlush(ctx); err != nil {
		return err
	}
	old := x.view.Load().active
	a := x.spare
	x.spare = nil
	x.job = job{mark: mark, max: top}
	x.view.Store(&view{active: newMemtable(a, x.partBits), flushing: old})
	x.cond.Broadcast()
	return nil
}

// awaitFlush waits until no memtable is being flushed, starting a flush that
// failed again. The caller holds mu.
func (x *Index) awaitFlush(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.cond.Broadcast()
	})()
	if x.flushErr != nil {
		x.flushErr = nil
		x.cond.Broadcast()
	}
	for x.view.Load().flushing != nil || x.spare == nil {
		if x.ended {
			return ErrClosed
		}
		if x.flushErr != nil {
			return x.flushErr
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		x.cond.Wait()
	}
	return nil
}

// Flush makes everything put so far durable in buckets and returns when it
// is: Flushed is then the last position put. No Put may follow at that
// position.
func (x *Index) Flush(ctx context.Context) error {
	if err := x.enter(); err != nil {
		return err
	}
	defer x.leave()
	if err := x.seal(ctx); err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.awaitFlush(ctx)
}

func (x *Index) seal(ctx context.Context) error {
	x.putting.Lock()
	defer x.putting.Unlock()
	mark := x.lastPos
	if x.torn {
		mark--
	}
	if mark <= x.Flushed() && x.view.Load().active.entries == 0 {
		return nil
	}
	x.mu.Lock()
	x.sealed = max(x.sealed, mark)
	x.mu.Unlock()
	return x.turn(ctx, mark, x.lastPos)
}

// signal wakes all who wait for it.
type signal struct {
	mu sync.Mutex
	ch chan struct{}
}

func (s *signal) init() { s.ch = make(chan struct{}) }

// next returns a channel that the next wake closes.
func (s *signal) next() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ch
}

func (s *signal) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.ch)
	s.ch = make(chan struct{})
}
