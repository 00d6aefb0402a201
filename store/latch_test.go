package store

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

func TestFreezeStopsPutsOfWritersAlreadyBegun(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	c := newChain("pub", "prov")
	w, err := s.Begin(c.ad("a", "m"))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Put(testMHs(0, 10)); err != nil {
		t.Fatal(err)
	}
	if err := s.Freeze(testTime); err != nil {
		t.Fatal(err)
	}
	if err := w.Put(testMHs(10, 10)); !errors.Is(err, ErrFrozen) {
		t.Errorf("put after freeze: %v, want ErrFrozen", err)
	}
	if err := w.Put(nil); !errors.Is(err, ErrFrozen) {
		t.Errorf("empty put after freeze: %v, want ErrFrozen", err)
	}
	if _, err := tryWrite(s, c.ad("b", "m"), content, testMH(20)); !errors.Is(err, ErrFrozen) {
		t.Errorf("put of a writer begun after freeze: %v, want ErrFrozen", err)
	}
	if err := s.Unfreeze(); err != nil {
		t.Fatal(err)
	}
	if err := w.Put(testMHs(10, 10)); err != nil {
		t.Errorf("put after unfreeze: %v", err)
	}
}

func TestFrozenStoreGoesOnWithRemovalsMetadataAndAddresses(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	c := newChain("pub", "prov")
	write(t, s, c.ad("a", "m1"), content, testMH(1))
	write(t, s, c.ad("b", "m1"), content, testMH(1))
	if err := s.Freeze(testTime); err != nil {
		t.Fatal(err)
	}
	write(t, s, c.ad("a", "m2"), metadata)
	write(t, s, c.ad("b", ""), removal)
	moved := c.ad("", "")
	e := address
	e.Provider = &ProviderUpdate{Addrs: []string{"/ip4/1.2.3.4/tcp/5"}}
	write(t, s, moved, e)
	if got := found(t, s, testMH(1)); len(got) != 1 || got["a"] != "m2" {
		t.Errorf("found %v, want a:m2", got)
	}
	if p, _, err := s.Provider("prov"); err != nil || len(p.Addrs) != 1 || p.LastAd != moved.Ad {
		t.Errorf("provider %+v, %v", p, err)
	}
	if p := s.Progress("pub"); p.Mark != moved.AdRef {
		t.Errorf("mark %v, want %v", p.Mark.Pos, moved.Pos)
	}
}

func TestContentSkippedWhileFrozenChangesOnlyWhatIsHeld(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	c := newChain("pub", "prov")
	write(t, s, c.ad("held", "m1"), content, testMH(1))
	partial := c.ad("partial", "m1")
	w, err := s.Begin(partial)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Put(testMHs(2, 1)); err != nil {
		t.Fatal(err)
	}
	if err := s.Freeze(testTime); err != nil {
		t.Fatal(err)
	}
	skipped := Effect{Kind: EffectMetadata, Verdict: SkippedFrozen, Reason: "frozen"}
	if _, err := w.Commit(skipped); err != nil {
		t.Fatal(err)
	}
	again := c.ad("held", "m2")
	write(t, s, again, skipped)
	write(t, s, c.ad("new", "m3"), skipped)
	if got := found(t, s, testMH(1)); len(got) != 1 || got["held"] != "m2" {
		t.Errorf("found %v, want held:m2", got)
	}
	if got := found(t, s, testMH(2)); len(got) != 0 {
		t.Errorf("found %v of an ad skipped half way", got)
	}
	st, err := s.Stats()
	if err != nil || st.Records != 1 || st.Postings != 1 {
		t.Errorf("stats %+v, %v; want one record, one posting", st, err)
	}
	if got, _, err := s.AdState(again.Ad); err != nil || got.Verdict != SkippedFrozen || got.Indexed() || got.Reason != "frozen" {
		t.Errorf("state %+v, %v", got, err)
	}
	if err := checkInvariants(s); err != nil {
		t.Error(err)
	}
}

func TestFrozenAtIsTheDurableMark(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := openTest(t, fs)
	e := content
	e.Provider = &ProviderUpdate{Addrs: []string{"/ip4/1.2.3.4/tcp/5"}}
	c := newChain("pub", "prov")
	first, hole := c.ad("a", "m"), c.ad("a", "m")
	above := c.ad("a", "m")
	write(t, s, first, e, testMH(1))
	write(t, s, above, e, testMH(2)) // above a hole: not contiguous
	if err := s.Freeze(testTime); err != nil {
		t.Fatal(err)
	}
	// What was applied before the freeze is on disk with it.
	for name, s := range map[string]*Store{"frozen": s, "after power loss": openTest(t, fs.CrashClone(vfs.CrashCloneCfg{}))} {
		p, _, err := s.Provider("prov")
		if err != nil || !s.Frozen() || p.FrozenAt != first.Ad || !p.FrozenAtTime.Equal(testTime) {
			t.Errorf("%s: frozen %v at %v %v %v, want %v", name, s.Frozen(), p.FrozenAt, p.FrozenAtTime, err, first.Ad)
		}
		if d := s.DurableProgress("pub"); d.Mark != first.AdRef || d.AppliedCount != 1 {
			t.Errorf("%s: durable progress %+v", name, d)
		}
		if len(found(t, s, testMH(2))) != 1 {
			t.Errorf("%s: what was applied above the mark is missing", name)
		}
		// Later progress does not move it.
		write(t, s, hole, Effect{Verdict: Rejected, Reason: "test"})
		write(t, s, newChain("new", "newprov").ad("a", ""), Effect{Verdict: Applied, Provider: e.Provider})
		if p, _, _ := s.Provider("prov"); p.FrozenAt != first.Ad {
			t.Errorf("%s: frozen at moved to %v", name, p.FrozenAt)
		}
		if p, _, _ := s.Provider("newprov"); p.FrozenAt != cid.Undef {
			t.Errorf("%s: provider met after the freeze is frozen at %v", name, p.FrozenAt)
		}
		if err := s.Unfreeze(); err != nil {
			t.Fatal(err)
		}
		if p, _, _ := s.Provider("prov"); s.Frozen() || p.FrozenAt != cid.Undef || !p.FrozenAtTime.IsZero() {
			t.Errorf("%s: unfrozen, but frozen at %v", name, p.FrozenAt)
		}
	}
}

func TestFreezeTwiceKeepsTheFirst(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	c := newChain("pub", "prov")
	first := c.ad("a", "m")
	e := content
	e.Provider = &ProviderUpdate{}
	write(t, s, first, e)
	if err := s.Freeze(testTime); err != nil {
		t.Fatal(err)
	}
	write(t, s, c.ad("a", ""), removal)
	if err := s.Freeze(testTime.Add(1)); err != nil {
		t.Fatal(err)
	}
	if p, _, _ := s.Provider("prov"); p.FrozenAt != first.Ad || !p.FrozenAtTime.Equal(testTime) {
		t.Errorf("frozen at %v %v, want the first time's", p.FrozenAt, p.FrozenAtTime)
	}
}

// TestNoPutSucceedsAfterFreezeReturned races writers against the latch.
func TestNoPutSucceedsAfterFreezeReturned(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	var wg sync.WaitGroup
	frozen := make(chan struct{})
	for i := range 4 {
		w, err := s.Begin(newChain(publisherID(i), "prov").ad("a", "m"))
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for n := uint64(0); ; n++ {
				told := false
				select {
				case <-frozen:
					told = true
				default:
				}
				err := w.Put(testMHs(n*100, 100))
				if err == nil && told {
					t.Error("put succeeded after Freeze had returned")
				}
				if err != nil {
					if !errors.Is(err, ErrFrozen) {
						t.Error(err)
					}
					return
				}
			}
		})
	}
	if err := s.Freeze(testTime); err != nil {
		t.Fatal(err)
	}
	close(frozen)
	wg.Wait()
}

// TestNothingSkippedIsBelowTheMarkOfTheFreeze races ads against the latch: an
// ad that is skipped because of it is above FrozenAt, as the node that takes
// over goes on from there.
func TestNothingSkippedIsBelowTheMarkOfTheFreeze(t *testing.T) {
	raceSkipped(t, func(s *Store, _ []peer.ID) error { return s.Freeze(testTime) },
		func(s *Store, _ []peer.ID) error { return s.Unfreeze() })
}

// TestNothingSkippedIsBelowTheMarkOfAClosing: the same of publishers that are
// closed.
func TestNothingSkippedIsBelowTheMarkOfAClosing(t *testing.T) {
	raceSkipped(t, func(s *Store, ids []peer.ID) error {
		_, err := s.CloseRoles(ids, testTime)
		return err
	}, func(s *Store, ids []peer.ID) error { return errors.Join(s.Open(ids, testTime)...) })
}

func raceSkipped(t *testing.T, stop, goOn func(*Store, []peer.ID) error) {
	s := openTest(t, vfs.NewMem())
	var ids []peer.ID
	e := content
	e.Provider = &ProviderUpdate{}
	var chains []*chain
	for i := range 8 {
		chains = append(chains, newChain(publisherID(i), "prov"+publisherID(i)))
		ids = append(ids, publisherID(i))
	}
	must(t, errors.Join(s.Open(ids, testTime)...))
	rounds := 60
	if *soak {
		rounds = 1000
	}
	for range rounds {
		var wg sync.WaitGroup
		for _, c := range chains {
			write(t, s, c.ad("a", "m"), e, testMH(1))
			wg.Go(func() {
				for verdict := Applied; verdict == Applied; {
					ad, done := c.ad("a", "m"), e
					_, err := tryWrite(s, ad, done, testMHs(2, 1)...)
					if errors.Is(err, ErrFrozen) {
						done.Kind, done.Verdict = EffectMetadata, SkippedFrozen
						_, err = tryWrite(s, ad, done)
					}
					verdict = done.Verdict
					if err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		if err := stop(s, ids); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		for i := range chains {
			p, _, err := s.Provider("prov" + publisherID(i))
			if err != nil || !p.FrozenAt.Defined() {
				t.Fatalf("frozen at %v, %v", p.FrozenAt, err)
			}
			if st, _, err := s.AdState(p.FrozenAt); err != nil || st.Verdict != Applied {
				t.Fatalf("the ad the chain is frozen at is %v, %v; want applied", st.Verdict, err)
			}
		}
		must(t, goOn(s, ids))
		for _, id := range ids { // what was skipped is forgotten, so that the mark moves
			wish, _, err := s.Revisit(id)
			must(t, err, s.RevisitGivenUp(id, wish.Number))
		}
	}
}

// TestHeldOnlyLeavesAloneWhatIsNotHeld: an ad met while frozen makes no
// provider, no record and no extended set, and says that it was skipped.
func TestHeldOnlyLeavesAloneWhatIsNotHeld(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	c := newChain("pub", "prov")
	e := content
	e.Provider = &ProviderUpdate{Addrs: []string{"/ip4/1.2.3.4/tcp/5"}}
	write(t, s, c.ad("a", "m1"), e, testMH(1))
	if err := s.Freeze(testTime); err != nil {
		t.Fatal(err)
	}
	set := &ExtendedSet{Providers: []ExtendedProvider{{ID: "xp", Addrs: []string{"/ip4/1.2.3.4/tcp/6"}}}}
	moved := &ProviderUpdate{Addrs: []string{"/ip4/9.9.9.9/tcp/9"}, Extended: set}
	commit := func(ad Ad, kind EffectKind) Verdict {
		t.Helper()
		w, err := s.Begin(ad)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Commit(Effect{Kind: kind, Verdict: Applied, Provider: moved, HeldOnly: true}); err != nil {
			t.Fatal(err)
		}
		if st, _, err := s.AdState(ad.Ad); err != nil || st.Verdict != w.Verdict() {
			t.Errorf("ad is %v, %v; the writer says %v", st.Verdict, err, w.Verdict())
		}
		return w.Verdict()
	}
	newcomer := func(ctx string) Ad {
		ad := c.ad(ctx, "m")
		ad.Provider = "newcomer"
		return ad
	}
	for _, tc := range []struct {
		name string
		ad   Ad
		kind EffectKind
		want Verdict
	}{
		{"metadata of another context", c.ad("b", "m"), EffectMetadata, SkippedFrozen},
		{"metadata of another provider", newcomer("a"), EffectMetadata, SkippedFrozen},
		{"addresses of another provider", newcomer(""), EffectNone, SkippedFrozen},
		{"removal of what is not held", newcomer("c"), EffectRemove, Applied},
		{"metadata of what is held", c.ad("a", "m2"), EffectMetadata, Applied},
		{"addresses of a provider that is held", c.ad("", ""), EffectNone, Applied},
	} {
		if got := commit(tc.ad, tc.kind); got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
	if p, ok, err := s.Provider("newcomer"); ok || err != nil {
		t.Errorf("a provider that was not held is there: %+v, %v", p, err)
	}
	p, _, err := s.Provider("prov")
	if err != nil || p.Addrs[0] != moved.Addrs[0] || p.Extended == nil || len(p.Contextual) != 1 || string(p.Contextual[0].ContextID) != "a" {
		t.Errorf("provider that is held: %+v, %v", p, err)
	}
	if got := found(t, s, testMH(1)); len(got) != 1 || got["a"] != "m2" {
		t.Errorf("found %v, want a:m2", got)
	}
	if st, err := s.Stats(); err != nil || st.Records != 1 {
		t.Errorf("stats %+v, %v; want one record", st, err)
	}
	if err := checkInvariants(s); err != nil {
		t.Error(err)
	}
}

// TestFreezeCanBeTriedAgain: a latch that cannot be written is not in force, and
// once the disk is well again it can be set; its reason is kept, until it is
// lifted.
func TestFreezeCanBeTriedAgain(t *testing.T) {
	mem := vfs.NewCrashableMem()
	broken := errorfs.Toggle{Injector: errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			return errorfs.ErrInjected
		}
		return nil
	})}
	cfg := testConfig(errorfs.Wrap(mem, &broken))
	cfg.healMin, cfg.healMax = time.Millisecond, time.Millisecond
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	c := newChain("pub", "prov")
	e := content
	e.Provider = &ProviderUpdate{}
	write(t, s, c.ad("a", "m"), e, testMH(1))
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	broken.On()
	if err := s.FreezeFor(testTime, "first"); err == nil || s.Frozen() {
		t.Fatalf("freeze on a broken disk: %v, frozen %v", err, s.Frozen())
	}
	broken.Off()
	<-s.Recovered()
	if at, why := s.FrozenSince(); s.Frozen() || !at.IsZero() || why != "" {
		t.Errorf("after recovery: frozen %v since %v, %q", s.Frozen(), at, why)
	}
	if err := s.FreezeFor(testTime, "second"); err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]*Store{"frozen": s, "after power loss": openTest(t, mem.CrashClone(vfs.CrashCloneCfg{}))} {
		if at, why := s.FrozenSince(); !s.Frozen() || !at.Equal(testTime) || why != "second" {
			t.Errorf("%s: frozen %v since %v, %q", name, s.Frozen(), at, why)
		}
		if err := s.Check(t.Context(), func(d Damage) error { t.Errorf("%s: %v", name, d); return nil }); err != nil {
			t.Error(err)
		}
		if err := errors.Join(s.Unfreeze(), s.Freeze(testTime)); err != nil {
			t.Fatal(err)
		}
		if _, why := s.FrozenSince(); why != "" {
			t.Errorf("%s: the reason of an earlier freeze is still there: %q", name, why)
		}
	}
}

// TestFrozenAtIsOfEachPublisherAndItsProviders: every provider is frozen at the
// mark of the publisher it has.
func TestFrozenAtIsOfEachPublisherAndItsProviders(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	e := content
	e.Provider = &ProviderUpdate{}
	want := make(map[peer.ID]cid.Cid)
	for i, providers := range [][]peer.ID{{"p1"}, {"p2", "p3"}, {"p4"}} {
		c := newChain(publisherID(i), "")
		for _, p := range append(providers, providers...) {
			ad := c.ad("a", "m")
			ad.Provider = p
			write(t, s, ad, e, testMH(1))
		}
		for _, p := range providers {
			want[p] = c.prev.Ad
		}
	}
	if err := s.Freeze(testTime); err != nil {
		t.Fatal(err)
	}
	all, err := s.Providers()
	if err != nil || len(all) != len(want) {
		t.Fatalf("%d providers, %v", len(all), err)
	}
	for _, p := range all {
		if p.FrozenAt != want[p.ID] {
			t.Errorf("%s is frozen at %v, want %v", p.ID, p.FrozenAt, want[p.ID])
		}
	}
}
