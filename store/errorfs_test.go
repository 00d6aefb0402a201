package store

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// failFrom fails write operations (or read operations) by number: the n-th,
// or the n-th and all after.
type failFrom struct {
	n       int64
	kind    errorfs.OpReadWrite
	all     bool
	count   atomic.Int64
	hit     atomic.Bool
	stopped atomic.Bool // the store
}

func (f *failFrom) String() string { return fmt.Sprintf("fail from %d", f.n) }

func (f *failFrom) MaybeError(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() != f.kind || op.Kind == errorfs.OpLock {
		return nil
	}
	n := f.count.Add(1)
	if n == f.n || (f.all && n > f.n) {
		f.hit.Store(true)
		if *verbose {
			fmt.Fprintf(os.Stderr, "FAIL %d %v %s\n", n, op.Kind, op.Path)
		}
		return errorfs.ErrInjected
	}
	return nil
}

// TestFailedWriteNeverLeadsToAWrongState fails the n-th write to disk, for
// every n that a run of some operations makes, and then looks at what a
// restart and what a power loss would find.
func TestFailedWriteNeverLeadsToAWrongState(t *testing.T) {
	for _, all := range []bool{false, true} {
		t.Run(fmt.Sprintf("all-after=%v", all), func(t *testing.T) {
			seed := modelSeed(t).Uint64()
			if env, err := strconv.ParseUint(os.Getenv("RUN"), 10, 64); err == nil {
				seed = env
			}
			stride := int64(7)
			if *soak {
				stride = 1
			}
			if testing.Short() {
				stride = 23
			}
			stride = spread(t, seed, errorfs.OpIsWrite, stride)
			n := 1 + int64(seed%uint64(stride))
			runs, stopped := 0, 0
			for ; ; n += stride {
				f := &failFrom{n: n, kind: errorfs.OpIsWrite, all: all}
				if runWithErrors(t, seed, f, 120); !f.hit.Load() {
					break
				}
				runs++
				if f.stopped.Load() {
					stopped++
				}
			}
			t.Logf("%d writes, failed %d of them, which stopped %d stores", n, runs, stopped)
		})
	}
}

// TestFailedReadChangesNothing fails the n-th read: some operation may say so,
// but the store goes on, and what is on disk is complete.
func TestFailedReadChangesNothing(t *testing.T) {
	seed := modelSeed(t).Uint64()
	stride := int64(5)
	if *soak {
		stride = 1
	}
	stride = spread(t, seed, errorfs.OpIsRead, stride)
	n := 1 + int64(seed%uint64(stride))
	for ; ; n += stride {
		f := &failFrom{n: n, kind: errorfs.OpIsRead}
		if runWithErrors(t, seed, f, 120); !f.hit.Load() {
			break
		}
	}
	t.Logf("%d reads", n)
}

// shortFailures is how many operations the short form fails at most: a run of
// some seeds makes thousands.
const shortFailures = 40

// spread widens a stride so that the short form does not fail more operations
// than that, spread over the whole run.
func spread(t *testing.T, seed uint64, kind errorfs.OpReadWrite, stride int64) int64 {
	t.Helper()
	if *soak {
		return stride
	}
	f := &failFrom{n: math.MaxInt64, kind: kind}
	runWithErrors(t, seed, f, 120)
	return max(stride, f.count.Load()/shortFailures)
}

func runWithErrors(t *testing.T, seed uint64, f *failFrom, steps int) {
	t.Helper()
	mem := vfs.NewCrashableMem()
	rng := rand.New(rand.NewPCG(seed, 2))
	r := &runner{world: newWorld(rng), cfg: testConfig(errorfs.Wrap(mem, f))}
	fatal := func(what string, err error) {
		t.Helper()
		t.Fatalf("SEED=%d, operation %d failed, %s after %d operations, %d durable: %v", seed, f.n, what, len(r.ops), r.durable, err)
	}
	s, err := Open(r.cfg)
	if err == nil {
		if err := r.recovered(s); err == nil {
			err = r.steps(steps)
			// A progress that could not be read is zero.
			misread := f.kind == errorfs.OpIsRead && f.hit.Load()
			if err != nil && !errors.Is(err, errorfs.ErrInjected) && !misread {
				fatal("unexpected error", err)
			}
		}
		if s.disk.err() != nil {
			f.stopped.Store(true)
		}
		_ = r.sync()
		_, err := s.Find(testMH(1)) // reads go on
		if err != nil && !errors.Is(err, errorfs.ErrInjected) {
			fatal("find", err)
		}
	}
	lost := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(2) * 50, RNG: rng})
	if s != nil {
		if err := s.Close(); err == nil {
			r.durable = r.certain
		}
	} else if !errors.Is(err, errorfs.ErrInjected) {
		fatal("open", err)
	}
	ops, durable := r.ops, r.durable
	for what, fs := range map[string]vfs.FS{"restart": mem, "power loss": lost} {
		r.ops, r.durable = slices.Clone(ops), durable
		r.cfg = testConfig(fs)
		s, err := Open(r.cfg)
		if err != nil {
			fatal("open after "+what, err)
		}
		err = r.recovered(s)
		if err == nil {
			err = r.steps(20)
		}
		if err == nil {
			err = r.current().verify(s)
		}
		if err = errors.Join(err, s.Close()); err != nil {
			fatal(what, err)
		}
	}
}

func (r *runner) steps(n int) error {
	for range n {
		if err := r.step(); err != nil {
			return err
		}
	}
	return nil
}
