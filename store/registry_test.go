package store

import (
	"fmt"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

func xp(names ...string) *ExtendedSet {
	set := &ExtendedSet{}
	for _, n := range names {
		set.Providers = append(set.Providers, ExtendedProvider{ID: peer.ID(n), Addrs: []string{"/dns/" + n}, Metadata: []byte(n)})
	}
	return set
}

func updating(e Effect, u ProviderUpdate) Effect {
	e.Provider = &u
	return e
}

func TestRegistryIsThatOfTheNewestAds(t *testing.T) {
	fs := vfs.NewMem()
	s := openTest(t, fs)
	c := newChain("pub", "prov")
	ads := []Ad{c.ad("a", "m0"), c.ad("b", "m1"), c.ad("", ""), c.ad("a", "m3")}
	effects := []Effect{
		updating(content, ProviderUpdate{Addrs: []string{"/dns/old"}, Time: testTime, Extended: xp("x0")}),
		updating(content, ProviderUpdate{Time: testTime.Add(1), Extended: xp("x1")}),
		updating(address, ProviderUpdate{Addrs: []string{"/dns/new"}, Time: testTime.Add(2), Extended: xp("chain")}),
		updating(metadata, ProviderUpdate{PublisherAddrs: []string{"/dns/pub"}, Time: testTime.Add(3)}),
	}
	for _, i := range []int{3, 1, 2, 0} {
		write(t, s, ads[i], effects[i])
	}
	if err := s.SetError("pub", "no answer", testTime.Add(5)); err != nil {
		t.Fatal(err)
	}
	want := Provider{
		ID: "prov", Addrs: []string{"/dns/new"}, LastAd: ads[3].Ad, LastAdTime: testTime.Add(3),
		Publisher: "pub", PublisherAddrs: []string{"/dns/pub"},
		Extended:   xp("chain"),
		Contextual: []ContextualSet{{[]byte("a"), *xp("x0")}, {[]byte("b"), *xp("x1")}},
		LastError:  "no answer", LastErrorTime: testTime.Add(5),
	}
	check := func(s *Store) {
		t.Helper()
		got, ok, err := s.Provider("prov")
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		same := cmp.Comparer(func(a, b cid.Cid) bool { return a == b })
		if diff := cmp.Diff(want, got, same); diff != "" {
			t.Errorf("provider (-want +got):\n%s", diff)
		}
		all, err := s.Providers()
		if diff := cmp.Diff([]Provider{want}, all, same); diff != "" || err != nil {
			t.Errorf("providers %v (-want +got):\n%s", err, diff)
		}
		chain, ctx, err := s.Extended("prov", []byte("b"))
		if err != nil || !cmp.Equal(chain, want.Extended, fromAnyAd) || !cmp.Equal(*ctx, want.Contextual[1].ExtendedSet, fromAnyAd) || chain.Pos == ctx.Pos || chain.Publisher != ctx.Publisher {
			t.Errorf("extended %v %v %v", chain, ctx, err)
		}
	}
	check(s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, fs)
	check(s)

	write(t, s, c.ad("a", ""), updating(removal, ProviderUpdate{}))
	write(t, s, c.ad("", ""), updating(address, ProviderUpdate{Extended: &ExtendedSet{}}))
	p, _, err := s.Provider("prov")
	if err != nil || p.Extended != nil || len(p.Contextual) != 1 || string(p.Contextual[0].ContextID) != "b" {
		t.Errorf("after removals: %+v, %v", p, err)
	}
	if err := s.SetError("pub", "", testTime); err != nil {
		t.Fatal(err)
	}
	if p, _, _ := s.Provider("prov"); p.LastError != "" || !p.LastErrorTime.IsZero() {
		t.Errorf("error is still %q", p.LastError)
	}
	if _, ok, err := s.Provider("nobody"); ok || err != nil {
		t.Error(ok, err)
	}
}

func TestRegisterProviderDoesNotPushNewerAside(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	c := newChain("pub", "prov")
	given := Provider{ID: "prov", Addrs: []string{"/dns/given"}, LastAd: testCID(1), LastAdTime: testTime, Publisher: "pub",
		PublisherAddrs: []string{"/dns/pub"}, Extended: xp("x"), FrozenAt: testCID(1), LastError: "theirs"}
	if err := s.RegisterProvider(given); err != nil {
		t.Fatal(err)
	}
	p, _, err := s.Provider("prov")
	if err != nil || !slices.Equal(p.Addrs, given.Addrs) || p.LastAd != given.LastAd || !slices.Equal(p.PublisherAddrs, given.PublisherAddrs) ||
		p.Extended == nil || p.FrozenAt.Defined() || p.LastError != "" {
		t.Errorf("registered as %+v, %v", p, err)
	}
	ad := c.ad("a", "m")
	write(t, s, ad, updating(content, ProviderUpdate{Addrs: []string{"/dns/own"}, Time: testTime.Add(1), Extended: xp("y")}))
	if err := s.RegisterProvider(given); err != nil {
		t.Fatal(err)
	}
	if p, _, _ := s.Provider("prov"); p.LastAd != ad.Ad || p.Addrs[0] != "/dns/own" {
		t.Errorf("an older registration won: %+v", p)
	}
}

func TestAssignments(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := openTest(t, fs)
	mark := link(7, 6)
	a := Assignment{Publisher: "pub", Continued: "frozen-indexer", Time: testTime}
	if err := s.AssignWithMark(a, &mark, []Provider{{ID: "prov", Publisher: "pub", Addrs: []string{"/dns/x"}, LastAdTime: testTime}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Assign(Assignment{Publisher: "other", Time: testTime}); err != nil {
		t.Fatal(err)
	}
	if err := s.Unassign("other"); err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]*Store{"now": s, "after power loss": openTest(t, fs.CrashClone(vfs.CrashCloneCfg{}))} {
		if got := s.Assignments(); len(got) != 1 || got[0].Publisher != a.Publisher || got[0].Continued != a.Continued || !got[0].Time.Equal(a.Time) {
			t.Errorf("%s: assignments %v", name, got)
		}
		if p := s.DurableProgress("pub"); p.Mark != mark {
			t.Errorf("%s: mark %v", name, p.Mark)
		}
		if p, ok, err := s.Provider("prov"); !ok || err != nil || len(p.Addrs) != 1 {
			t.Errorf("%s: provider %+v %v %v", name, p, ok, err)
		}
		if got := s.Publishers(); !slices.Equal(got, []peer.ID{"pub"}) {
			t.Errorf("%s: publishers %v", name, got)
		}
	}
}

func TestPublisherAddrs(t *testing.T) {
	fs := vfs.NewMem()
	s := openTest(t, fs)
	addrs := []string{"/dns/a", "/dns/b"}
	if err := s.SetPublisherAddrs("pub", addrs); err != nil {
		t.Fatal(err)
	}
	addrs[0] = "changed by the caller"
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, fs)
	if got := fmt.Sprint(s.PublisherAddrs("pub"), s.PublisherAddrs("nobody")); got != "[/dns/a /dns/b] []" {
		t.Error(got)
	}
}

// TestOverrideWithoutProvidersHidesTheChain: such a set has an effect, so it
// stands until its context is removed.
func TestOverrideWithoutProvidersHidesTheChain(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	c := newChain("pub", "prov")
	write(t, s, c.ad("a", "md"), updating(content, ProviderUpdate{Extended: &ExtendedSet{Override: true}}))
	_, set, err := s.Extended("prov", []byte("a"))
	if err != nil || set == nil || !set.Override {
		t.Fatalf("override: %+v, %v", set, err)
	}
	write(t, s, c.ad("a", ""), removal)
	if _, set, err = s.Extended("prov", []byte("a")); err != nil || set != nil {
		t.Fatalf("after removal: %+v, %v", set, err)
	}
}
