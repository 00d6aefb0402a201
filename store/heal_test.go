package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/multiformats/go-multihash"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// healConfig is testConfig for a store that recovers as soon as it can.
func healConfig(fs vfs.FS) Config {
	cfg := testConfig(fs)
	cfg.healMin, cfg.healMax = time.Millisecond, 4*time.Millisecond
	return cfg
}

// awaitRecovery waits for the channel, which was taken before the failure.
func awaitRecovery(t testing.TB, recovered <-chan struct{}) {
	t.Helper()
	select {
	case <-recovered:
	case <-time.After(time.Minute):
		t.Fatal("no recovery within a minute")
	}
}

// TestDiskFullAtAnyWrite has others fill the disk at the n-th write operation,
// for every n that a run makes. Then they give it back: the same store goes on
// with exactly a prefix of the operations that has all durable ones, and so does
// one that finds the disk as a power loss leaves it, at the failure, right after
// the recovery and later.
func TestDiskFullAtAnyWrite(t *testing.T) {
	seed := modelSeed(t).Uint64()
	if env, err := strconv.ParseUint(os.Getenv("RUN"), 10, 64); err == nil {
		seed = env
	}
	stride := int64(3)
	if *soak {
		stride = 1
	}
	if testing.Short() {
		stride = 11
	}
	n, runs, failures := 1+int64(seed%uint64(stride)), 0, 0
	for ; ; n += stride {
		hit, failed := fullAt(t, seed, n, 200)
		if !hit {
			break
		}
		runs++
		if failed {
			failures++
		}
	}
	t.Logf("%d write operations, full at %d of them, which failed %d stores", n, runs, failures)
}

func fullAt(t *testing.T, seed uint64, n int64, steps int) (hit, failed bool) {
	t.Helper()
	mem := vfs.NewCrashableMem()
	disk := newQuotaFS(mem, 1<<30)
	rng := rand.New(rand.NewPCG(seed, 2))
	r := &runner{world: newWorld(rng), cfg: healConfig(disk)}
	r.cfg.ReserveBytes = 1 << 20
	fatal := func(what string, err error) {
		t.Helper()
		t.Fatalf("SEED=%d, full at write %d, %s after %d operations, %d durable: %v", seed, n, what, len(r.ops), r.durable, err)
	}
	s, err := Open(r.cfg)
	if err != nil {
		fatal("open", err)
	}
	defer func() {
		err := s.Close()
		late := hit && !failed && errors.Is(err, syscall.ENOSPC) // met in the background, and told after it was asked for
		if err != nil && !late {
			t.Error(err)
		}
	}()
	if err := r.recovered(s); err != nil {
		fatal("begin", err)
	}
	disk.mu.Lock()
	disk.fillAt = disk.ops + n
	disk.mu.Unlock()
	recovered, life := s.Recovered(), s.disk
	err = r.steps(steps)
	if err != nil && !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, ErrNoSpace) {
		fatal("unexpected error", err)
	}
	if err == nil {
		_ = r.sync() // it may say that the disk has failed
	}
	if !disk.hit() {
		return false, false
	}
	if _, err := s.Find(testMH(1)); err != nil { // reads go on
		fatal("find", err)
	}
	power := func(what string) { t.Helper(); r.afterPowerLoss(t, mem, rng, seed, n, what) }
	power("at the failure")
	failed = life.err() != nil // else there was nothing more to write
	disk.fill(1 << 29)
	if !failed {
		return true, false
	}
	awaitRecovery(t, recovered)
	power("at the recovery")
	if err := r.recovered(s); err != nil {
		fatal("recovery", err)
	}
	if err := r.steps(30); err != nil {
		fatal("going on", err)
	}
	if err := r.current().verify(s); err != nil {
		fatal("going on", err)
	}
	power("after the recovery")
	return true, true
}

// TestFullDiskIsMetBeforeItHappens puts until ErrNoSpace. What is under way
// then, and a flush and compactions of all there is, still find room, even
// though nobody makes any.
func TestFullDiskIsMetBeforeItHappens(t *testing.T) {
	cfg := testConfig(nil)
	cfg.ReserveBytes = defaultReserve(minMemoryBytes)
	disk := newQuotaFS(vfs.NewMem(), cfg.ReserveBytes+32<<20)
	cfg.FS = disk
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c := newChain("pub", "prov")
	puts := uint64(0)
	for err == nil {
		_, err = tryWrite(s, c.ad("a", "m"), content, testMHs(puts<<20, 20000)...)
		puts++
	}
	if !errors.Is(err, ErrNoSpace) {
		t.Fatalf("put: %v, want ErrNoSpace", err)
	}
	left, _ := disk.GetDiskUsage("")
	write(t, s, c.ad("a", "m2"), metadata)
	if err := errors.Join(s.tidyLog(t.Context(), true), s.index.Compact(t.Context()), s.Sync()); err != nil {
		t.Fatal(err)
	}
	if err := s.disk.err(); err != nil {
		t.Fatal(err)
	}
	if got := found(t, s, testMHs((puts-2)<<20, 20000)[19999]); got["a"] != "m2" {
		t.Errorf("found %v", got)
	}
	t.Logf("%d puts; %d MiB free at ErrNoSpace, reserve %d MiB", puts-1, left.AvailBytes>>20, cfg.ReserveBytes>>20)
	if spent := cfg.ReserveBytes - int64(left.AvailBytes); spent > cfg.ReserveBytes/10 {
		t.Errorf("%d bytes of the reserve were gone before it was noticed", spent)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// afterPowerLoss opens what a power loss now would leave, and checks it. The
// runner itself is not changed.
func (r *runner) afterPowerLoss(t *testing.T, mem *vfs.MemFS, rng *rand.Rand, seed uint64, n int64, what string) {
	t.Helper()
	clone := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(2) * 50, RNG: rng})
	after := &runner{world: r.world, cfg: testConfig(clone), durable: r.durable, numberBefore: r.numberBefore}
	ops := slices.Clone(r.ops)
	defer func() { r.ops = ops }()
	s, err := Open(after.cfg)
	if err == nil {
		err = errors.Join(after.recovered(s), s.Close())
	}
	if err != nil {
		t.Fatalf("SEED=%d, full at write %d, power loss %s after %d operations, %d durable: %v", seed, n, what, len(ops), r.durable, err)
	}
}

// TestStoreGoesOnAfterFailure tells the whole story of one failure: what every
// method says meanwhile, what is left and what is lost.
func TestStoreGoesOnAfterFailure(t *testing.T) {
	mem := vfs.NewCrashableMem()
	broken := errorfs.Toggle{Injector: errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			return errorfs.ErrInjected
		}
		return nil
	})}
	var log lockedBuilder
	cfg := healConfig(errorfs.Wrap(mem, &broken))
	cfg.Registerer = prometheus.NewRegistry()
	cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c := newChain("pub", "prov")
	kept := write(t, s, c.ad("a", "m"), content, testMH(1))
	if err := errors.Join(s.Assign(Assignment{Publisher: "pub"}), s.Sync()); err != nil {
		t.Fatal(err)
	}
	mark := c.prev
	lost := write(t, s, c.ad("b", "m"), content, testMH(2))
	other := newChain("other", "prov2")
	write(t, s, other.ad("x", "m"), content, testMH(3)) // a publisher that will be unknown again
	begun, err := s.Begin(c.ad("c", "m"))
	if err != nil {
		t.Fatal(err)
	}
	if err := begun.Put([]multihash.Multihash{testMH(4)}); err != nil {
		t.Fatal(err)
	}
	recovered := s.Recovered()
	broken.On()
	if err := s.Sync(); !errors.Is(err, ErrFailed) {
		t.Fatalf("sync: %v", err)
	}
	if got := found(t, s, testMH(2)); got["b"] != "m" {
		t.Errorf("found %v on the failed store", got)
	}
	if err := s.WaitDurable(t.Context(), lost); !errors.Is(err, ErrFailed) {
		t.Errorf("wait for a commit above the watermark: %v", err)
	}
	broken.Off()
	awaitRecovery(t, recovered)

	if got := found(t, s, testMH(1)); got["a"] != "m" {
		t.Errorf("found %v, was durable", got)
	}
	for _, mh := range []uint64{2, 3, 4} {
		if got := found(t, s, testMH(mh)); len(got) != 0 {
			t.Errorf("found %v, was not durable", got)
		}
	}
	if p := s.Progress("pub"); p.Mark != mark {
		t.Errorf("mark %v, want %v", p.Mark, mark)
	}
	if pubs := s.Publishers(); len(pubs) != 1 || pubs[0] != "pub" {
		t.Errorf("publishers %v", pubs)
	}
	if _, ok := s.Assignment("pub"); !ok {
		t.Error("the assignment is gone")
	}
	for what, err := range map[string]error{
		"put":             begun.Put([]multihash.Multihash{testMH(5)}),
		"wait for a lost": s.WaitDurable(t.Context(), lost),
	} {
		if !errors.Is(err, ErrFailed) {
			t.Errorf("%s in the next life: %v, want ErrFailed", what, err)
		}
	}
	if _, err := begun.Commit(content); !errors.Is(err, ErrFailed) {
		t.Errorf("commit in the next life: %v, want ErrFailed", err)
	}
	if err := s.WaitDurable(t.Context(), kept); err != nil {
		t.Errorf("wait for a commit that was durable: %v", err)
	}
	c.prev = mark
	next := write(t, s, c.ad("b", "m2"), content, testMH(2))
	if next <= lost || s.Durable() >= next {
		t.Errorf("commit %d after %d, durable %d", next, lost, s.Durable())
	}
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := s.WaitDurable(t.Context(), next); err != nil {
		t.Error(err)
	}
	if err := s.WaitDurable(t.Context(), lost); !errors.Is(err, ErrFailed) {
		t.Errorf("wait for a lost commit: %v", err)
	}
	if f, r := testutil.ToFloat64(s.metrics.failed), testutil.ToFloat64(s.metrics.recoveries); f != 0 || r != 1 {
		t.Errorf("failed metric is %v, recoveries %v", f, r)
	}
	if err := checkInvariants(s); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	for _, line := range []string{"write to disk failed", "reopened store", "recovered"} {
		if strings.Count(log.String(), line) == 0 {
			t.Errorf("log does not say %q:\n%s", line, log.String())
		}
	}
	after := openTest(t, mem.CrashClone(vfs.CrashCloneCfg{}))
	if got := found(t, after, testMH(2)); got["b"] != "m2" {
		t.Errorf("found %v after power loss", got)
	}
}

type lockedBuilder struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *lockedBuilder) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuilder) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// TestStoreThatCannotBeReopenedStaysFailed fails the first attempts to reopen
// at another read each.
func TestStoreThatCannotBeReopenedStaysFailed(t *testing.T) {
	mem := vfs.NewMem()
	var mu sync.Mutex
	writes, reads, probed, failures := false, 0, false, 0
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		mu.Lock()
		defer mu.Unlock()
		if writes && op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			return errorfs.ErrInjected
		}
		if strings.HasSuffix(op.Path, probeFile) {
			probed, reads = true, 0
		}
		if probed && op.Kind.ReadOrWrite() == errorfs.OpIsRead && failures < 10 {
			if reads++; reads == 5*failures {
				failures++
				return errorfs.ErrInjected
			}
			if failures == 0 {
				failures = 1
			}
		}
		return nil
	}))
	s, err := Open(healConfig(fs))
	if err != nil {
		t.Fatal(err)
	}
	c := newChain("pub", "prov")
	write(t, s, c.ad("a", "m"), content, testMH(1))
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	write(t, s, c.ad("a", "m"), content, testMH(2))
	recovered := s.Recovered()
	set := func(on bool) { mu.Lock(); writes = on; mu.Unlock() }
	set(true)
	if err := s.Sync(); !errors.Is(err, ErrFailed) {
		t.Fatal(err)
	}
	set(false)
	for done := false; !done; { // meanwhile there is an answer or ErrFailed
		select {
		case <-recovered:
			done = true
		default:
		}
		if values, err := s.Find(testMH(1)); err != nil && !errors.Is(err, ErrFailed) && !errors.Is(err, errorfs.ErrInjected) || err == nil && len(values) != 1 {
			t.Fatalf("find: %v %v", values, err)
		}
	}
	mu.Lock()
	t.Logf("%d attempts failed", failures-1)
	if failures < 3 {
		t.Errorf("only %d attempts failed", failures-1)
	}
	mu.Unlock()
	if got := found(t, s, testMH(1)); got["a"] != "m" {
		t.Errorf("found %v", got)
	}
	if err := errors.Join(checkInvariants(s), s.Close()); err != nil {
		t.Error(err)
	}
}

// TestCloseOfAFailedStoreDoesNotWait closes while the store waits for the disk,
// with a compaction that stands still.
func TestCloseOfAFailedStoreDoesNotWait(t *testing.T) {
	var broken errorfs.Toggle
	broken.Injector = errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			return errorfs.ErrInjected
		}
		return nil
	})
	s, err := Open(testConfig(errorfs.Wrap(vfs.NewMem(), &broken)))
	if err != nil {
		t.Fatal(err)
	}
	c := newChain("pub", "prov")
	for i := range 5 {
		write(t, s, c.ad(fmt.Sprint(i), "m"), content, testMH(uint64(i)))
		if err := s.db.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	broken.On()
	_, _ = tryWrite(s, c.ad("x", "m"), metadata)
	_ = s.Sync()
	<-s.disk.resting
	if err := s.enter(); err != nil { // as a method that compacts would
		t.Fatal(err)
	}
	closed := make(chan error)
	go func() { closed <- s.Close() }()
	ctx, cancel := s.whileWell(t.Context())
	err = s.db.Compact(ctx, []byte{0}, []byte{0xff}, false)
	cancel()
	s.exit()
	if !errors.Is(err, ErrFailed) && !errors.Is(err, context.Canceled) {
		t.Errorf("compaction: %v, want ErrFailed", err)
	}
	if err := <-closed; !errors.Is(err, ErrFailed) {
		t.Errorf("close: %v, want ErrFailed", err)
	}
}

// TestLookupsWhileTheDiskComesAndGoes has lookups and a writer work through
// many failures.
func TestLookupsWhileTheDiskComesAndGoes(t *testing.T) {
	mem := vfs.NewCrashableMem()
	disk := newQuotaFS(mem, 1<<30)
	cfg := healConfig(disk)
	cfg.ReserveBytes = 1 << 20
	cfg.SyncEvery = time.Millisecond
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c := newChain("pub", "prov")
	write(t, s, c.ad("a", "m"), content, testMH(0))
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var finds sync.WaitGroup
	for range 2 {
		finds.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if got, err := s.Find(testMH(0)); err != nil || len(got) != 1 {
					t.Errorf("find: %v %v", got, err)
					return
				}
			}
		})
	}
	durable := Position(0)
	for round := range 20 {
		recovered := s.Recovered()
		for i := range 10 {
			if i == 5 {
				disk.fill(0)
			}
			ad := c.ad("a", "m")
			seq, err := tryWrite(s, ad, content, testMH(uint64(ad.Pos)))
			if err == nil {
				err = s.WaitDurable(t.Context(), seq)
			}
			if err != nil {
				break
			}
			durable = ad.Pos
		}
		if err := s.Sync(); err != nil && !errors.Is(err, ErrFailed) {
			t.Fatal(err)
		}
		if _, err := tryWrite(s, c.ad("z", "m"), metadata); err == nil {
			_ = s.Sync()
		}
		disk.fill(1 << 29)
		awaitRecovery(t, recovered)
		if mark := s.Progress("pub").Mark; mark.Pos < durable {
			t.Fatalf("round %d: mark %d, was durable at %d", round, mark.Pos, durable)
		}
		c.prev = s.Progress("pub").Mark
	}
	close(stop)
	finds.Wait()
	for pos := Position(20); pos <= durable; pos += 10 {
		if got := found(t, s, testMH(uint64(pos))); len(got) != 1 {
			t.Errorf("found %v of the ad at %d, durable at %d", got, pos, durable)
		}
	}
	if err := errors.Join(checkInvariants(s), s.Close()); err != nil {
		t.Error(err)
	}
}
