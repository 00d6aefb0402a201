package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
)

func TestCommitIsDurableAfterSyncNotBefore(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := openTest(t, fs)
	c := newChain("pub", "prov")
	first := c.ad("a", "m1")
	seq1 := write(t, s, first, content, testMH(1))
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	second := c.ad("b", "m2")
	seq2 := write(t, s, second, content, testMH(2))
	if d := s.Durable(); d < seq1 || d >= seq2 {
		t.Errorf("durable %d, want at least %d and below %d", d, seq1, seq2)
	}
	if p, d := s.Progress("pub"), s.DurableProgress("pub"); p.Mark != second.AdRef || d.Mark != first.AdRef {
		t.Errorf("mark %v, durable %v; want %v, %v", p.Mark.Pos, d.Mark.Pos, second.Pos, first.Pos)
	}
	for ad, want := range map[*Ad]bool{&first: true, &second: false} {
		if st, ok, err := s.AdState(ad.Ad); err != nil || !ok || st.Durable != want || st.Verdict != Applied || !st.Indexed() {
			t.Errorf("state of ad at %d: %+v %v %v, want durable %v", ad.Pos, st, ok, err, want)
		}
	}
	after := openTest(t, fs.CrashClone(vfs.CrashCloneCfg{}))
	if p := after.Progress("pub"); p.Mark != first.AdRef {
		t.Errorf("mark after power loss %v, want %v", p.Mark, first.AdRef)
	}
	if got := found(t, after, testMH(1)); got["a"] != "m1" {
		t.Errorf("found %v after power loss", got)
	}
	if got := found(t, after, testMH(2)); len(got) != 0 {
		t.Errorf("found %v after power loss, was never synced", got)
	}
}

func TestWaitDurable(t *testing.T) {
	cfg := testConfig(vfs.NewMem())
	cfg.SyncBytes = 1 // a commit kicks the syncer
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	seq := write(t, s, newChain("pub", "prov").ad("a", "m"), content, testMH(1))
	if err := s.WaitDurable(t.Context(), seq); err != nil {
		t.Fatal(err)
	}
	if s.Durable() < seq {
		t.Errorf("durable %d after waiting for %d", s.Durable(), seq)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.WaitDurable(ctx, seq+1); !errors.Is(err, context.Canceled) {
		t.Errorf("wait with ended context: %v", err)
	}
	waited := make(chan error)
	go func() { waited <- s.WaitDurable(context.Background(), seq+100) }()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; !errors.Is(err, ErrClosed) {
		t.Errorf("wait over Close: %v", err)
	}
}

func TestCloseSyncs(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := openTest(t, fs)
	ad := newChain("pub", "prov").ad("a", "m")
	seq := write(t, s, ad, content, testMH(1))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s.Durable() < seq {
		t.Errorf("durable %d after Close, want %d", s.Durable(), seq)
	}
	after := openTest(t, fs.CrashClone(vfs.CrashCloneCfg{}))
	if p := after.DurableProgress("pub"); p.Mark != ad.AdRef {
		t.Errorf("mark %v, want %v", p.Mark, ad.AdRef)
	}
}

func TestClosedStoreRefuses(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	w, err := s.Begin(newChain("pub", "prov").ad("a", "m"))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for name, f := range map[string]func() error{
		"begin":    func() error { _, err := s.Begin(Ad{}); return err },
		"put":      func() error { return w.Put(testMHs(0, 1)) },
		"commit":   func() error { _, err := w.Commit(content); return err },
		"find":     func() error { _, err := s.Find(testMH(1)); return err },
		"freeze":   func() error { return s.Freeze(testTime) },
		"sync":     s.Sync,
		"set mark": func() error { return s.SetMark("pub", AdRef{}) },
		"state":    func() error { _, _, err := s.AdState(testCID(1)); return err },
		"stats":    func() error { _, err := s.Stats(); return err },
		"assign":   func() error { return s.Assign(Assignment{Publisher: "pub"}) },
	} {
		if err := f(); !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v, want ErrClosed", name, err)
		}
	}
	if p := s.Progress("pub"); p.Mark.Ad.Defined() || s.DiskUsage() != 0 {
		t.Error("a closed store answers")
	}
}

// TestPowerLossKeepsWhatWasDurable writes from several goroutines while the
// syncer works, takes the power away at random instants, and compares what
// was reported durable just before with what is there afterwards.
func TestPowerLossKeepsWhatWasDurable(t *testing.T) {
	rng := modelSeed(t)
	rounds := 3
	if *soak {
		rounds = 500
	}
	for range rounds {
		powerLoss(t, rng)
	}
}

func powerLoss(t *testing.T, rng *rand.Rand) {
	fs := vfs.NewCrashableMem()
	cfg := testConfig(fs)
	cfg.SyncEvery, cfg.SyncBytes = time.Millisecond, 4<<10
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	const writers, ads, chunk = 3, 30, 20
	type claim struct {
		clone *vfs.MemFS
		marks [writers]Position
	}
	mhs := func(pub int, pos Position) []multihash.Multihash {
		return testMHs(uint64(pub)<<40|uint64(pos)<<20, chunk)
	}
	var (
		claims []claim
		wg     sync.WaitGroup
		ticks  = make(chan struct{}) // one a commit
	)
	for pub := range writers {
		wg.Go(func() {
			id := peer.ID(fmt.Sprintf("pub-%d", pub))
			c := newChain(id, "shared")
			for range ads {
				ad := c.ad(fmt.Sprintf("%s-%d", id, c.prev.Pos/30), "m")
				if _, err := tryWrite(s, ad, content, mhs(pub, ad.Pos)...); err != nil {
					t.Error(err)
				}
				ticks <- struct{}{}
			}
		})
	}
	go func() { wg.Wait(); close(ticks) }()
	for range ticks {
		if rng.IntN(writers*ads/6) > 0 {
			continue
		}
		var c claim
		for pub := range writers {
			c.marks[pub] = s.DurableProgress(peer.ID(fmt.Sprintf("pub-%d", pub))).Mark.Pos
		}
		c.clone = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(3) * 50, RNG: rng})
		claims = append(claims, c)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range claims {
		s, err := Open(testConfig(c.clone))
		if err != nil {
			t.Fatal(err)
		}
		if err := checkInvariants(s); err != nil {
			t.Fatal(err)
		}
		for pub := range writers {
			mark := s.Progress(peer.ID(fmt.Sprintf("pub-%d", pub))).Mark.Pos
			if mark < c.marks[pub] {
				t.Errorf("mark %d after power loss, %d was durable", mark, c.marks[pub])
			}
			for pos := Position(10); pos <= mark; pos += 10 {
				for _, mh := range mhs(pub, pos) {
					if len(found(t, s, mh)) != 1 {
						t.Fatalf("mark at %d, but a multihash of the ad at %d is missing", mark, pos)
					}
				}
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRecordIDsAreNeverReused(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := openTest(t, fs)
	c := newChain("pub", "prov")
	highest := uint64(0)
	check := func() {
		t.Helper()
		for i := range 3 {
			ids, err := s.index.Find(s.index.HashOf(testMH(uint64(i))))
			if err != nil {
				t.Fatal(err)
			}
			if n := len(ids); n > 0 {
				highest = max(highest, ids[n-1])
			}
		}
	}
	for round := range 6 {
		before := highest
		write(t, s, c.ad("ctx", "m"), removal)
		write(t, s, c.ad("ctx", "m"), content, testMH(uint64(round%3)))
		check()
		if highest <= before {
			t.Fatalf("round %d: record ID %d after %d", round, highest, before)
		}
		if err := s.Sync(); err != nil {
			t.Fatal(err)
		}
		switch round % 3 {
		case 0:
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = openTest(t, fs)
		case 1:
			fs = fs.CrashClone(vfs.CrashCloneCfg{})
			s = openTest(t, fs)
		}
	}
}
