package store

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

func sure(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestPublisherStateAndPolicySurviveACrash(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := openTest(t, fs)
	want := PublisherState{Phase: PhaseInactive, Contact: testTime, Silent: time.Hour, PollInterval: -1}
	_, err := s.UpdatePublisherState("pub", func(st *PublisherState) { *st = want })
	sure(t, err)
	sure(t, s.SetPolicy([]byte(`{"a":1}`)))
	if err := s.SetPolicy([]byte(`{`)); !errors.Is(err, ErrInvalid) {
		t.Errorf("policy that is no JSON: %v", err)
	}
	sure(t, s.Probe())
	again := openTest(t, fs.CrashClone(vfs.CrashCloneCfg{}))
	states, err := again.PublisherStates()
	sure(t, err)
	same := cmp.Comparer(func(a, b cid.Cid) bool { return a == b })
	if diff := cmp.Diff(map[peer.ID]PublisherState{"pub": want}, states, same); diff != "" {
		t.Error(diff)
	}
	if b, err := again.Policy(); err != nil || string(b) != `{"a":1}` {
		t.Errorf("policy %s, %v", b, err)
	}
	sure(t, checkInvariants(again))
}

// TestRetiredPublisherTakesOnlyItsOwnProviders: a provider somebody else
// publishes for stays, whoever published for it last.
func TestRetiredPublisherTakesOnlyItsOwnProviders(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := openTest(t, fs)
	other, pub := newChain("other", "shared"), newChain("pub", "shared")
	own := newChain("pub", "own")
	own.prev = AdRef{Ad: testCID(77), Pos: 5}
	write(t, s, other.ad("a", "m0"), updating(content, ProviderUpdate{Time: testTime}), testMH(1))
	write(t, s, pub.ad("b", "m1"), updating(content, ProviderUpdate{Time: testTime.Add(1), PublisherAddrs: []string{"/dns/pub"}}), testMH(2))
	write(t, s, own.ad("c", "m2"), updating(content, ProviderUpdate{Time: testTime}), testMH(3))
	sure(t, s.Sync())

	by, err := s.ProvidersByPublisher()
	sure(t, err)
	slices.Sort(by["pub"])
	if diff := cmp.Diff(map[peer.ID][]peer.ID{"pub": {"own", "shared"}}, by); diff != "" {
		t.Error(diff)
	}
	gone := func(p peer.ID) bool { return p == "pub" }
	for p, want := range map[peer.ID]bool{"own": true, "shared": false, "unknown": false} {
		if only, err := s.ServedOnlyBy(t.Context(), p, gone); err != nil || only != want {
			t.Errorf("%s is served by pub only: %v, %v", p, only, err)
		}
	}
	_, done, err := s.RetirePublisher("pub", []peer.ID{"own"}, gone, testTime, func(PublisherState) bool { return false })
	if err != nil || done {
		t.Fatalf("retired in spite of the decision: %v", err)
	}
	st, done, err := s.RetirePublisher("pub", []peer.ID{"own"}, gone, testTime, func(PublisherState) bool { return true })
	if err != nil || !done || st.Phase != PhaseRemoved || st.Removals != 1 || !slices.Equal(st.Addrs, []string{"/dns/pub"}) {
		t.Fatalf("retired %+v, %v, %v", st, done, err)
	}
	check := func(s *Store) {
		t.Helper()
		sure(t, checkInvariants(s))
		for mh, want := range map[uint64]int{1: 1, 2: 1, 3: 0} {
			if v, err := s.Find(testMH(mh)); err != nil || len(v) != want {
				t.Errorf("multihash %d: %v, %v", mh, v, err)
			}
		}
		if a := s.PublisherAddrs("pub"); len(a) != 0 {
			t.Errorf("addresses of a removed publisher: %v", a)
		}
		if states, err := s.PublisherStates(); err != nil || states["pub"].Removals != 1 {
			t.Errorf("states %v, %v", states, err)
		}
	}
	check(s)
	check(openTest(t, fs.CrashClone(vfs.CrashCloneCfg{})))
	all := func(peer.ID) bool { return true }
	if only, err := s.ServedOnlyBy(t.Context(), "shared", all); err != nil || !only {
		t.Errorf("shared when all are gone: %v, %v", only, err)
	}
}

func TestRegisteredProvidersAreBounded(t *testing.T) {
	cfg := testConfig(vfs.NewMem())
	cfg.maxRegistered = 3
	s, err := Open(cfg)
	sure(t, err)
	defer func() { sure(t, s.Close()) }()
	name := func(n uint64) peer.ID { return peer.ID(fmt.Sprint("provider-", n)) }
	for n := uint64(1); n <= 3; n++ {
		sure(t, s.Register(name(n), []string{"/dns/a"}, n, 0))
	}
	if err := s.Register(name(4), nil, 4, 0); !errors.Is(err, ErrTooMany) {
		t.Errorf("a fourth: %v", err)
	}
	if err := s.Register(name(1), nil, 1, 0); !errors.Is(err, ErrOldSequence) {
		t.Errorf("again with the same number: %v", err)
	}
	sure(t, s.Register(name(1), []string{"/dns/b"}, 10, 0))
	c := newChain("pub", name(2))
	write(t, s, c.ad("a", "m"), updating(content, ProviderUpdate{Time: testTime}), testMH(1))
	sure(t, s.Register(name(4), []string{"/dns/a"}, 4, 4)) // 2 and 3 are forgotten
	for n, want := range map[uint64][]string{1: {"/dns/b"}, 2: {"/dns/a"}, 4: {"/dns/a"}} {
		if addrs, _, ok, err := s.ProviderEntry(name(n)); err != nil || !ok || !slices.Equal(addrs, want) {
			t.Errorf("%d: %v %v %v", n, addrs, ok, err)
		}
	}
	if _, _, ok, err := s.ProviderEntry(name(3)); err != nil || ok {
		t.Errorf("3 was not forgotten: %v", err)
	}
	sure(t, checkInvariants(s))
}

// TestProviderViewIsWhatItsPartsSay: and Changes moves with each of them.
func TestProviderViewIsWhatItsPartsSay(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	c := newChain("pub", "prov")
	before := s.Changes()
	view := func() ProviderView {
		t.Helper()
		v, err := s.ProviderView("prov")
		if err != nil {
			t.Fatal(err)
		}
		if now := s.Changes(); now == before {
			t.Error("Changes has not moved")
		} else {
			before = now
		}
		return v
	}
	if v, err := s.ProviderView("prov"); err != nil || v.Known {
		t.Errorf("%+v, %v", v, err)
	}
	write(t, s, c.ad("a", "m"), Effect{Kind: EffectContent, Verdict: Applied, Provider: &ProviderUpdate{Addrs: []string{"/ip4/1.2.3.4/tcp/1"}}}, testMHs(0, 3)...)
	if v := view(); !v.Known || len(v.Addrs) != 1 || v.Publisher != "pub" || v.Chain != nil || v.Contextual {
		t.Errorf("%+v", v)
	}
	set := &ExtendedSet{Providers: []ExtendedProvider{{ID: "other"}}}
	write(t, s, c.ad("a", "m"), Effect{Kind: EffectContent, Verdict: Applied, Provider: &ProviderUpdate{Extended: set}})
	if v := view(); v.Chain != nil || !v.Contextual {
		t.Errorf("%+v", v)
	}
	chain := c.ad("", "")
	write(t, s, chain, Effect{Kind: EffectNone, Verdict: Applied, Provider: &ProviderUpdate{Extended: set}})
	if v := view(); v.Chain == nil || len(v.Chain.Providers) != 1 || !v.Contextual {
		t.Errorf("%+v", v)
	}
}
