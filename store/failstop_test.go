package store

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/multiformats/go-multihash"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// TestAfterAFailedWriteReadsGoOnAndNothingReachesTheDisk fills a store beyond
// its memtables while the disk fails, so that flushes happen after it.
func TestAfterAFailedWriteReadsGoOnAndNothingReachesTheDisk(t *testing.T) {
	mem := vfs.NewCrashableMem()
	broken := errorfs.Toggle{Injector: errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			return errorfs.ErrInjected
		}
		return nil
	})}
	cfg := testConfig(errorfs.Wrap(mem, &broken))
	cfg.Registerer = prometheus.NewRegistry()
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c := newChain("pub", "prov")
	write(t, s, c.ad("a", "m"), content, testMH(1))
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	broken.On()
	var failed error
	for i := uint64(0); failed == nil && i < 1000; i++ {
		_, failed = tryWrite(s, c.ad("a", "m"), content, testMHs(i<<20, 20000)...)
	}
	if !errors.Is(failed, ErrFailed) || !errors.Is(failed, errorfs.ErrInjected) {
		t.Fatalf("write on a broken disk: %v, want ErrFailed and its cause", failed)
	}
	if err := s.WaitDurable(t.Context(), 1000); !errors.Is(err, ErrFailed) {
		t.Errorf("wait for durability: %v, want ErrFailed", err)
	}
	if err := s.Freeze(time.Now()); !errors.Is(err, ErrFailed) || s.Frozen() {
		t.Errorf("freeze: %v, frozen %v; want ErrFailed", err, s.Frozen())
	}
	if err := s.Sync(); !errors.Is(err, ErrFailed) {
		t.Errorf("sync: %v, want ErrFailed", err)
	}
	if got := found(t, s, testMH(1)); got["a"] != "m" {
		t.Errorf("found %v on a failed store", got)
	}
	if n := testutil.ToFloat64(s.metrics.failed); n != 1 {
		t.Errorf("failed metric is %v", n)
	}
	if c := s.Condition(); !errors.Is(c.Failed, ErrFailed) || c.NoSpace != nil || c.LostShare != 0 {
		t.Errorf("condition of a failed store: %+v", c)
	}
	if err := s.Close(); !errors.Is(err, ErrFailed) {
		t.Errorf("close: %v, want ErrFailed", err)
	}
	for _, fs := range []vfs.FS{mem.CrashClone(vfs.CrashCloneCfg{}), mem} {
		s := openTest(t, fs)
		if got := found(t, s, testMH(1)); got["a"] != "m" {
			t.Errorf("found %v after reopen", got)
		}
		if err := checkInvariants(s); err != nil {
			t.Error(err)
		}
	}
}

// TestStalledWriterOfAFailedStoreIsReleased has writers wait for flushes that
// fail: they must come back.
func TestStalledWriterOfAFailedStoreIsReleased(t *testing.T) {
	mem := vfs.NewMem()
	var broken atomic.Bool
	cfg := testConfig(errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if broken.Load() && op.Kind == errorfs.OpCreate && isTable(op.Path) {
			return errorfs.ErrInjected
		}
		return nil
	})))
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	broken.Store(true)
	w, err := s.Begin(newChain("pub", "prov").ad("a", "m"))
	if err != nil {
		t.Fatal(err)
	}
	var mhs []multihash.Multihash
	for i := uint64(0); ; i++ {
		mhs = append(mhs[:0], testMHs(i<<20, 20000)...)
		if err := w.Put(mhs); err != nil {
			if !errors.Is(err, ErrFailed) {
				t.Errorf("put: %v, want ErrFailed", err)
			}
			break
		}
	}
	if err := s.Close(); !errors.Is(err, ErrFailed) {
		t.Errorf("close: %v, want ErrFailed", err)
	}
}
