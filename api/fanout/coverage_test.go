package fanout

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
)

// holds makes what a frozen backend holds of words "p[from..to]@height"; without a
// height it is a holder. Ranges of one publisher follow each other.
func holds(backend string, at time.Time, words string) Holdings {
	h := Holdings{Backend: backend, AsOf: at, Coverage: admin.Coverage{ID: peer.ID(backend), Frozen: true}}
	for w := range strings.FieldsSeq(words) {
		publisher, rest, _ := strings.Cut(w, "[")
		p := admin.CoveredPublisher{Publisher: peer.ID(publisher), Role: admin.RoleHolder}
		spans, height, owner := strings.Cut(rest, "@")
		if owner {
			p.Role, p.Height = admin.RoleOwner, uint64(height[0]-'0')
		}
		for span := range strings.SplitSeq(strings.TrimSuffix(spans, "]"), "][") {
			from, to, _ := strings.Cut(span, "..")
			p.Ranges = append(p.Ranges, admin.Range{From: from, To: to})
		}
		h.Coverage.Publishers = append(h.Coverage.Publishers, p)
	}
	return h
}

// TestWhoseSilenceAnAnswerCanDoWithout: only theirs all of whose holdings are on
// others that answered.
func TestWhoseSilenceAnAnswerCanDoWithout(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		what    string
		a, b, c string
		change  func(a, b *admin.CoveredPublisher)
		want    map[string]bool // silent backends, by words
	}{
		{what: "two copies", a: "p[..]@5", b: "p[..]@5", want: map[string]bool{"a": true, "b": true, "a b": false, "c": true}},
		{what: "one copy", a: "p[..]@5", want: map[string]bool{"a": false, "b": true, "b c": true}},
		{what: "the other is behind", a: "p[..]@5", b: "p[..]@4", want: map[string]bool{"a": false, "b": true}},
		{what: "handed off", a: "p[..x]", b: "p[x..]@5", want: map[string]bool{"a": false, "b": false}},
		{what: "one has all, the others a part each", a: "p[..x]", b: "p[x..]@5", c: "p[..]@5", want: map[string]bool{"a": true, "b": true, "c": true, "a b": true, "a c": false}},
		{what: "handed off and back", a: "p[..x][y..]@5", b: "p[x..y]", c: "p[..]@5", want: map[string]bool{"a": true, "b": true, "a b": true, "c": true, "b c": false}},
		{what: "another publisher", a: "p[..]@5 q[..]@1", b: "p[..]@5", want: map[string]bool{"a": false, "b": true}},
		{what: "nobody takes what is new", a: "p[..x]", b: "p[..x]", want: map[string]bool{"a": true, "a b": false}},
		{what: "it has ads above its mark", a: "p[..]@5", b: "p[..]@5",
			change: func(a, _ *admin.CoveredPublisher) { a.Gaps = []string{"g"} }, want: map[string]bool{"a": false, "b": true}},
		{what: "it has more than up to where it stands", a: "p[..]@5", b: "p[..]@6",
			change: func(a, _ *admin.CoveredPublisher) { a.Top = 7 }, want: map[string]bool{"a": false, "b": false}},
		{what: "the other has come so far", a: "p[..]@5", b: "p[..]@7",
			change: func(a, _ *admin.CoveredPublisher) { a.Top = 7 }, want: map[string]bool{"a": true, "b": false}},
		{what: "what the other lacks it has", a: "p[..]@5", b: "p[..]@5",
			change: func(_, b *admin.CoveredPublisher) { b.Lacks = []admin.Lack{{Indexer: "a"}} }, want: map[string]bool{"a": false, "b": true}},
		{what: "nothing", want: map[string]bool{"a b c": true}},
	} {
		t.Run(c.what, func(t *testing.T) {
			all := []Holdings{holds("a", now, c.a), holds("b", now, c.b), holds("c", now, c.c)}
			if c.change != nil {
				c.change(&all[0].Coverage.Publishers[0], &all[1].Coverage.Publishers[0])
			}
			cov := newCoverage(all)
			for words, want := range c.want {
				for range 2 { // decided, and remembered
					if got := cov.dispensable(strings.Fields(words), now); got != want {
						t.Errorf("without %s: %v, want %v", words, got, want)
					}
				}
			}
		})
	}
}

// TestOldHoldingsStandForNobody: after ten seconds without news of a backend it
// has to answer itself; so has one that never said what it holds, and one that
// is not frozen.
func TestOldHoldingsStandForNobody(t *testing.T) {
	now := time.Now()
	cov := newCoverage([]Holdings{holds("a", now, "p[..]@5"), holds("b", now, "p[..]@5")})
	for _, c := range []struct {
		silent string
		at     time.Duration
		want   bool
	}{{"a", ConfirmedFor, true}, {"a", ConfirmedFor + 1, false}, {"foreign", 0, false}} {
		if got := cov.dispensable([]string{c.silent}, now.Add(c.at)); got != c.want {
			t.Errorf("%s after %s: %v", c.silent, c.at, got)
		}
	}
	active := holds("a", now, "p[..]@5")
	active.Coverage.Frozen = false
	if newCoverage([]Holdings{active, holds("b", now, "p[..]@5")}).dispensable([]string{"a"}, now) {
		t.Error("one that takes new content is not needed")
	}
	if (*coverage)(nil).dispensable([]string{"a"}, now) {
		t.Error("nothing is known, and somebody can be done without")
	}
}

// TestWhatAHeldBackendSaidStandsUntilItMayBeUnfrozen: for longer than what others
// said, also while nobody hears of it, and whatever somebody else says of it later.
func TestWhatAHeldBackendSaidStandsUntilItMayBeUnfrozen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		backends, _ := dials("a", "b")
		f := New(Config{Backends: backends})
		a := holds("a", time.Now(), "p[..]@5")
		a.HeldFor = 40 * time.Second
		for range 4 {
			f.SetHoldings([]Holdings{a, holds("b", time.Now(), "p[..]@6")})
			if !f.coverage.Load().dispensable([]string{"a"}, time.Now()) {
				t.Errorf("it is needed %v after it said that it is held", time.Since(a.AsOf))
			}
			if f.coverage.Load().dispensable([]string{"a", "b"}, time.Now()) {
				t.Error("nobody is needed")
			}
			time.Sleep(10*time.Second + 1)
		}
		if f.coverage.Load().dispensable([]string{"a"}, time.Now()) {
			t.Error("it is not needed although it may take content again")
		}
		f.SetHoldings([]Holdings{a, holds("b", time.Now(), "p[..]@6")})
		if f.coverage.Load().dispensable([]string{"a"}, time.Now()) {
			t.Error("what it said long ago stands")
		}
		a.AsOf, a.Coverage.Frozen = time.Now(), false
		f.SetHoldings([]Holdings{a, holds("b", time.Now(), "p[..]@6")})
		if f.coverage.Load().dispensable([]string{"a"}, time.Now()) {
			t.Error("one that is not frozen is not needed")
		}
	})
}

// TestHoldingsOfWhoIsNotAskedStandForNobody: of one that has left the pool, or
// was never in it, or of which nobody has heard for long.
func TestHoldingsOfWhoIsNotAskedStandForNobody(t *testing.T) {
	now := time.Now()
	without := func(f *Finder, silent string) bool { return f.coverage.Load().dispensable([]string{silent}, now) }
	backends, _ := dials("a", "b")
	all := []Holdings{holds("a", now, "p[..]@5"), holds("b", now, "p[..]@5"), holds("c", now, "p[..]@5")}
	f := New(Config{Backends: backends[:1]})
	f.SetHoldings(all)
	if without(f, "a") {
		t.Error("holdings of backends that are not asked make up for one that is")
	}
	f.SetBackends(backends)
	f.SetHoldings(all)
	if !without(f, "a") {
		t.Error("b does not make up for a")
	}
	f.SetBackends(backends[:1])
	if without(f, "a") {
		t.Error("b, which has left, makes up for a")
	}
	f.SetBackends(backends)
	f.SetHoldings([]Holdings{all[0], holds("b", now.Add(-ConfirmedFor-time.Second), "p[..]@5")})
	if without(f, "a") {
		t.Error("b, of which nobody has heard, makes up for a")
	}
}

// TestAnswerIsWholeWithoutWhatOthersHold: one that hangs is waited for, as it may
// hold something since it was asked what; but its silence makes nothing partial.
func TestAnswerIsWholeWithoutWhatOthersHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		backends, ds := dials("a", "b", "c")
		f := New(Config{Backends: backends})
		f.SetHoldings([]Holdings{holds("a", time.Now(), "p[..]@5"), holds("b", time.Now(), "p[..]@5"), holds("c", time.Now(), "q[..]@5")})
		ds[0].set("hang")
		for n := range 20 {
			if took, missing := oneFind(t, f); len(missing) > 0 || n > tripAfter && took != time.Millisecond {
				t.Fatalf("%s, %v; want 1 ms, complete", took, missing)
			}
			synctest.Wait()
		}
		ds[1].set("fail")
		if _, missing := oneFind(t, f); strings.Join(missing, " ") != "a b" {
			t.Errorf("missing %v, want a and b", missing)
		}
		ds[1].set("wait 1ms")
		time.Sleep(ConfirmedFor)
		if _, missing := oneFind(t, f); strings.Join(missing, " ") != "a" {
			t.Errorf("missing %v, want a: nobody says any more what it holds", missing)
		}
	})
}
