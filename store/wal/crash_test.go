package wal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// TestWhatSyncReportedSurvivesEveryCrash lets lives of one log end at random
// file operations, by kill -9 or by power loss, and looks at what the next
// life finds.
func TestWhatSyncReportedSurvivesEveryCrash(t *testing.T) {
	seed := testSeed(t)
	want := 5000
	if testing.Short() {
		want = 1000
	}
	if *soak {
		want = 200_000
	}
	points := 0
	for run := uint64(0); points < want; run++ {
		n, err := crashes(seed+run, 6)
		if err != nil {
			t.Fatalf("SEED=%d, life %d: %v", seed+run, n, err)
		}
		points += n
	}
	t.Logf("%d crashes", points)
}

func crashes(seed uint64, lives int) (life int, err error) {
	rng := rand.New(rand.NewPCG(seed, 1))
	r := newRunner(rng)
	mem := vfs.NewCrashableMem()
	must := Pos(0)
	for life = range lives {
		var after *vfs.MemFS
		power := rng.IntN(3) > 0
		crash := &breaking{n: 1 + rng.Int64N(120), all: true}
		crash.at = func() {
			after, must = mem, max(r.flushed, r.durable)
			if power {
				percent := []int{0, 100, rng.IntN(101)}[rng.IntN(3)]
				after, must = mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng}), r.durable
			}
		}
		if err := live(r, errorfs.Wrap(mem, crash), crash, must); err != nil {
			return life, err
		}
		if after == nil { // a quiet life, closed in good order
			after, must = mem, r.durable
		}
		mem = after
	}
	return lives, r.open(mem, must)
}

// live opens the log and uses it until the crash, or closes it.
func live(r *runner, fs vfs.FS, crash *breaking, must Pos) error {
	if err := r.open(fs, must); err != nil {
		return unlessInjected(err)
	}
	for range 400 {
		if err := r.step(); err != nil || crash.hit() {
			return err
		}
	}
	end := r.l.Next()
	if err := r.l.Close(); err != nil {
		return unlessInjected(err)
	}
	r.durable = end
	return nil
}

func unlessInjected(err error) error {
	if errors.Is(err, errorfs.ErrInjected) {
		return nil
	}
	return err
}

// TestFailedOperationLosesNothingDurable fails the n-th file operation, for
// every n of a run, and looks at what a restart and a power loss find.
func TestFailedOperationLosesNothingDurable(t *testing.T) {
	seed := testSeed(t)
	isRead := func(k errorfs.OpKind) bool { return k.ReadOrWrite() == errorfs.OpIsRead }
	for _, all := range []bool{false, true} {
		for what, kinds := range map[string]func(errorfs.OpKind) bool{"any": nil, "read": isRead} {
			t.Run(fmt.Sprintf("%s,all-after=%v", what, all), func(t *testing.T) {
				n := int64(1)
				for ; ; n++ {
					b := &breaking{n: n, all: all, kinds: kinds}
					if err := failing(seed, b); err != nil {
						t.Fatalf("SEED=%d, operation %d: %v", seed, n, err)
					}
					if !b.hit() {
						break
					}
				}
				t.Logf("%d operations", n)
			})
		}
	}
}

func failing(seed uint64, b *breaking) error {
	rng := rand.New(rand.NewPCG(seed, 2))
	r := newRunner(rng)
	mem := vfs.NewCrashableMem()
	// A first life, so that there is something to open.
	if err := r.open(mem, 0); err != nil {
		return err
	}
	for range 60 {
		if err := r.step(); err != nil {
			return err
		}
	}
	if err := r.l.Flush(); err != nil {
		return err
	}
	must := r.l.Next()
	err := r.open(errorfs.Wrap(mem, b), must)
	if err != nil && !errors.Is(err, errorfs.ErrInjected) {
		return err
	}
	if err == nil {
		for range 150 {
			if err := r.step(); err != nil {
				return err
			}
		}
	}
	lost := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(3) * 50, RNG: rng})
	restart := max(r.flushed, r.durable)
	if r.l != nil {
		end := r.l.Next()
		if err := r.l.Close(); err == nil {
			restart = end
		} else if !errors.Is(err, ErrFailed) {
			return err
		}
	} else {
		restart = must
	}
	model, durable, dropped := r.model, r.durable, r.dropped
	for _, after := range []struct {
		what string
		fs   vfs.FS
		must Pos
	}{{"power loss", lost, durable}, {"restart", mem, restart}} {
		r.model, r.durable, r.dropped = model, durable, dropped
		if err := r.open(after.fs, after.must); err != nil {
			return fmt.Errorf("%s: %w", after.what, err)
		}
		for range 20 {
			if err := r.step(); err != nil {
				return fmt.Errorf("%s: %w", after.what, err)
			}
		}
	}
	return nil
}
