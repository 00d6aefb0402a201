package postings

import (
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// TestFlushIsTriedAgain: tables that cannot be written fail the Flush and
// nothing else; when the disk is well again the next Flush has everything.
func TestFlushIsTriedAgain(t *testing.T) {
	var broken atomic.Bool
	full := errors.New("disk is full")
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if broken.Load() && op.Kind == errorfs.OpCreate {
			return full
		}
		return nil
	}))
	x := openTest(t, Config{FS: fs, Dir: "data", MemoryBytes: 1})
	rng := rand.New(rand.NewPCG(1, 1))
	broken.Store(true)
	put(t, x, 1, 1, testHashes(0, 100)...)
	if err := x.Flush(t.Context()); !errors.Is(err, full) {
		t.Fatalf("flush: %v", err)
	}
	wantIDs(t, x, testHash(rng.Uint64N(100)), 1)
	// Puts go on until memory is full, and then fail.
	pos, err := uint64(2), error(nil)
	for ; err == nil; pos++ {
		err = x.Put(pos, pos, testHashes(pos*1000, 1000))
	}
	if !errors.Is(err, full) {
		t.Fatalf("put: %v", err)
	}
	pos--
	if err := x.Put(pos+1, 5, nil); !errors.Is(err, ErrPosition) {
		t.Errorf("another put after one that failed: %v", err)
	}
	broken.Store(false)
	put(t, x, pos, pos, testHashes(pos*1000, 1000)...)
	flush(t, x)
	if x.Flushed() != pos {
		t.Errorf("flushed %d, want %d", x.Flushed(), pos)
	}
	for p := uint64(2); p <= pos; p++ {
		wantIDs(t, x, testHash(p*1000+rng.Uint64N(1000)), p)
	}
}

func TestNothingIsIngestedBeforeTheLogAllowsIt(t *testing.T) {
	refused := errors.New("log is not synced")
	var allow atomic.Bool
	cfg := memConfig()
	cfg.BeforeIngest = func(pos uint64) error {
		if pos != 7 {
			t.Errorf("asked for %d, want 7", pos)
		}
		if !allow.Load() {
			return refused
		}
		return nil
	}
	x := openTest(t, cfg)
	put(t, x, 7, 1, testHash(1))
	if err := x.Flush(t.Context()); !errors.Is(err, refused) {
		t.Errorf("flush: %v", err)
	}
	if n := x.meta.Load().regions; x.Flushed() != 0 || n[testHash(1)[0]].entries != 0 {
		t.Errorf("flushed %d", x.Flushed())
	}
	allow.Store(true)
	flush(t, x)
	wantIDs(t, x, testHash(1), 1)
}

// TestFailedReadOfACompactionDoesNotStopPuts: Pebble keeps off what a compaction
// could not read for half a minute or more; flushes that wait for level 0 to be
// compacted must not, if nothing is damaged.
func TestFailedReadOfACompactionDoesNotStopPuts(t *testing.T) {
	var fail atomic.Bool
	cfg := memConfig()
	cfg.FS = errorfs.Wrap(cfg.FS, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileReadAt && fail.Load() {
			return errorfs.ErrInjected // no damage, which would be salvaged
		}
		return nil
	}))
	pos := uint64(0)
	fill := func(x *Index, flushes int) {
		for range flushes {
			pos++
			put(t, x, pos, pos, testHashes(1<<30, 300)...)
			flush(t, x)
		}
	}
	x, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	fill(x, 2)
	if err := x.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	fill(x, 2)                        // too few to be compacted by themselves
	if err := x.Close(); err != nil { // nothing is cached then
		t.Fatal(err)
	}
	x = openTest(t, cfg)
	fail.Store(true)
	if err := x.Compact(t.Context()); !errors.Is(err, errorfs.ErrInjected) {
		t.Fatalf("compaction that could not read: %v", err)
	}
	fail.Store(false)
	if n := x.db.Metrics().Compact.NumProblemSpans; n == 0 {
		t.Fatal("Pebble does not keep off what it could not read")
	}
	fill(x, maxSublevels+2)
	if n := x.db.Metrics().Compact.NumProblemSpans; n == 0 {
		t.Error("Pebble kept off nothing any more")
	}
	got, err := x.Find(testHash(1 << 30))
	if err != nil || uint64(len(got)) != pos {
		t.Errorf("%d found of %d, %v", len(got), pos, err)
	}
}
