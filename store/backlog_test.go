package store

import (
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/libp2p/go-libp2p/core/peer"
)

var testTrouble = Trouble{Attempts: 3, Since: testTime, Next: testTime.Add(time.Hour), Reason: "refused"}

// stateOf returns an ad's state, which must be known.
func stateOf(t *testing.T, s *Store, ref AdRef) AdState {
	t.Helper()
	st, ok, err := s.AdState(ref.Ad)
	if err != nil || !ok {
		t.Fatalf("state of ad %d: %v %v", ref.Pos, ok, err)
	}
	return st
}

func positions(ads []PendingAd) (pos []Position) {
	for _, ad := range ads {
		pos = append(pos, ad.Pos)
	}
	return pos
}

func backlog(t *testing.T, s *Store, pub peer.ID) []PendingAd {
	t.Helper()
	ads, err := s.Backlog(pub, 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	return ads
}

func againBacklog(t *testing.T, s *Store, pub peer.ID) []PendingAd {
	t.Helper()
	ads, err := s.AgainBacklog(pub, 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	return ads
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestTroubleStaysWithItsAdUntilThatIsDone(t *testing.T) {
	fs := vfs.NewMem()
	s := openTest(t, fs)
	ads := []AdRef{link(2, 1), link(3, 2), link(4, 3), link(5, 4)}
	must(t, s.AddPending("pub", ads), s.SetTrouble("pub", ads[0], testTrouble), s.SetTrouble("pub", ads[2], testTrouble),
		s.SetTrouble("pub", ads[3], testTrouble))
	must(t, s.AddPending("pub", ads)) // scanned once more
	must(t, s.SetTrouble("pub", ads[3], Trouble{}))
	must(t, s.SetTrouble("pub", AdRef{Ad: testCID(77), Pos: 5}, testTrouble), s.SetTrouble("pub", link(9, 8), testTrouble)) // not pending
	must(t, s.Close())
	s = openTest(t, fs)
	got := backlog(t, s, "pub")
	if want := []Position{2, 3, 4, 5}; !slices.Equal(positions(got), want) {
		t.Fatalf("backlog %v, want %v", positions(got), want)
	}
	for i, want := range []Trouble{testTrouble, {}, testTrouble, {}} {
		if got[i].Trouble != want || got[i].AdRef != ads[i] || got[i].Again {
			t.Errorf("ad %d: %+v, want %+v", got[i].Pos, got[i], want)
		}
		if st := stateOf(t, s, ads[i]); st.Trouble != want || st.Verdict != Pending {
			t.Errorf("state of ad %d: %+v, want %+v", got[i].Pos, st, want)
		}
	}
	if part, err := s.Backlog("pub", 2, 2); err != nil || !slices.Equal(positions(part), []Position{3, 4}) {
		t.Errorf("part of the backlog: %v %v", positions(part), err)
	}
	if st := stateOf(t, s, ads[0]); !st.Durable {
		t.Errorf("after a restart: %+v", st)
	}
	must(t, s.SetTrouble("pub", ads[0], Trouble{Attempts: 4}))
	if st := stateOf(t, s, ads[0]); st.Durable || st.Trouble.Attempts != 4 {
		t.Errorf("after another attempt: %+v", st)
	}
	write(t, s, Ad{AdRef: ads[2], Publisher: "pub"}, address) // above the mark
	must(t, s.SetMark("pub", ads[1]))                         // passes 2 and 3, and goes on over 4
	if got := backlog(t, s, "pub"); !slices.Equal(positions(got), []Position{5}) {
		t.Errorf("backlog above the mark: %v", positions(got))
	}
	for _, ref := range ads[:3] {
		if st := stateOf(t, s, ref); !st.Trouble.IsZero() {
			t.Errorf("done ad: %+v", st)
		}
	}
	must(t, checkInvariants(s))
}

func TestReasonOfTroubleIsCutWhereARuneBegins(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	must(t, s.AddPending("pub", []AdRef{link(2, 1), link(3, 2)}))
	must(t, s.SetTrouble("pub", link(2, 1), Trouble{Reason: "x" + strings.Repeat("ü", 1000)}), s.SetTrouble("pub", link(3, 2), Trouble{Reason: "a\xffb"}))
	got := backlog(t, s, "pub")
	if r := got[0].Trouble.Reason; len(r) != maxReasonBytes-1 || !utf8.ValidString(r) {
		t.Errorf("reason of %d bytes, valid %v", len(r), utf8.ValidString(r))
	}
	if r := got[1].Trouble.Reason; r != "a\uFFFDb" {
		t.Errorf("reason %q", r)
	}
}

func TestAdsToBeAppliedAgainWaitAtAnyPosition(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	ads := []AdRef{link(1, 0), link(2, 1), link(3, 2), link(5, 4), link(6, 5)}
	for i, ref := range ads[:4] { // mark 3, above it 5
		e := address
		if i%2 == 1 {
			e = Effect{Verdict: Rejected, Reason: "malformed"}
		}
		write(t, s, Ad{AdRef: ref, Publisher: "pub"}, e)
	}
	must(t, s.AddPending("pub", ads[4:]))
	must(t, s.AddAgain("pub", ads, true), s.AddAgain("pub", ads, true))
	got := againBacklog(t, s, "pub")
	if want := []Position{1, 2, 3, 5}; !slices.Equal(positions(got), want) || !got[0].Again {
		t.Fatalf("to be applied again: %+v, want %v", got, want)
	}
	for i, want := range []Verdict{Applied, Pending, Applied, Pending, Pending} {
		if st := stateOf(t, s, ads[i]); st.Verdict != want {
			t.Errorf("ad %d: %+v, want %s", ads[i].Pos, st, want)
		}
	}
	must(t, s.SetTrouble("pub", ads[0], testTrouble), s.SetTrouble("pub", ads[1], testTrouble), checkInvariants(s))
	if part, err := s.AgainBacklog("pub", 1, 1); err != nil || len(part) != 1 || part[0].Pos != 2 || part[0].Trouble != testTrouble {
		t.Errorf("part of what is to be applied again: %+v %v", part, err)
	}
	if a, r := stateOf(t, s, ads[0]), stateOf(t, s, ads[1]); a.Trouble != testTrouble || r.Trouble != testTrouble {
		t.Errorf("troubles: %+v, %+v", a, r)
	}
	must(t, s.SetMark("pub", ads[2])) // leaves them alone
	write(t, s, Ad{AdRef: ads[1], Publisher: "pub"}, address)
	if st := stateOf(t, s, ads[1]); st.Verdict != Applied || !st.Trouble.IsZero() {
		t.Errorf("after it was applied again: %+v", st)
	}
	if got := againBacklog(t, s, "pub"); !slices.Equal(positions(got), []Position{1, 3, 5}) {
		t.Errorf("left to be applied again: %v", positions(got))
	}
	must(t, checkInvariants(s), s.DropAgain("pub"), s.DropAgain("nobody"))
	if got := againBacklog(t, s, "pub"); got != nil {
		t.Errorf("to be applied again after all were forgotten: %v", positions(got))
	}
	if a, r := stateOf(t, s, ads[0]), stateOf(t, s, ads[3]); a.Verdict != Applied || !a.Trouble.IsZero() || r.Verdict != MarkedDone {
		t.Errorf("after all were forgotten: %+v, %+v", a, r)
	}
	if p := s.Progress("pub"); p.Mark.Pos != 3 || !slices.Equal(adNames(p.Applied), []Position{5}) {
		t.Errorf("progress %+v", p)
	}
	must(t, checkInvariants(s))
}

func TestAdThatIsPendingIsNotToBeAppliedAgainToo(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	ads := []AdRef{link(3, 2), link(4, 3)}
	must(t, s.AddAgain("pub", ads, false), s.AddPending("pub", ads[:1]), s.AddAgain("pub", ads[:1], false), checkInvariants(s))
	if p, a := backlog(t, s, "pub"), againBacklog(t, s, "pub"); !slices.Equal(positions(p), []Position{3}) || !slices.Equal(positions(a), []Position{4}) {
		t.Errorf("pending %v, again %v", positions(p), positions(a))
	}
	if _, ok, err := s.AdState(ads[1].Ad); ok || err != nil {
		t.Errorf("the ledger knows an ad it was not told of: %v %v", ok, err)
	}
}

// TestLedgerEntryOfWhoAppliedAnAdStays: a second publisher whose chain has the
// same ad does not take the entry over while the first has the ad.
func TestLedgerEntryOfWhoAppliedAnAdStays(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	ref := link(1, 0)
	mirrored := AdRef{Ad: ref.Ad, Pos: 7}
	ad := func(pub peer.ID, ref AdRef) Ad {
		return Ad{AdRef: ref, Publisher: pub, Provider: "prov", ContextID: []byte("c"), Metadata: []byte("m")}
	}
	write(t, s, ad("first", ref), content, testMH(1), testMH(2))
	for range 2 { // counted once
		write(t, s, ad("mirror", mirrored), content, testMH(1), testMH(2))
	}
	must(t, s.AddAgain("mirror", []AdRef{mirrored}, true))
	if st := stateOf(t, s, ref); st.Publisher != "first" || st.Pos != 1 || st.Verdict != Applied {
		t.Errorf("state: %+v", st)
	}
	if p := s.Progress("mirror"); p.Mark != mirrored {
		t.Errorf("progress of the mirror: %+v", p)
	}
	if by, ok, err := s.Stands(ref.Ad, "prov", []byte("c")); by != "first" || !ok || err != nil {
		t.Errorf("stands by %q, %v, %v", by, ok, err)
	}
	if s.totals.postings != 4 {
		t.Errorf("%d postings counted, want 4", s.totals.postings)
	}
	must(t, checkInvariants(s), s.SetMark("first", AdRef{})) // it has the ad no more
	write(t, s, ad("mirror", mirrored), content, testMH(1), testMH(2))
	if st := stateOf(t, s, ref); st.Publisher != "mirror" || st.Pos != 7 || st.Verdict != Applied {
		t.Errorf("state after the first has given it up: %+v", st)
	}
	must(t, checkInvariants(s))
}

func TestStandsAndRemovedAt(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	c := newChain("pub", "prov")
	a, b, gone, late := c.ad("a", "1"), c.ad("b", "2"), c.ad("a", "3"), c.ad("a", "4")
	stands := func(ad Ad, want bool) {
		t.Helper()
		by, ok, err := s.Stands(ad.Ad, ad.Provider, ad.ContextID)
		if ok != want || err != nil || (ok && by != "pub") {
			t.Errorf("ad at %d stands: %v by %q, %v; want %v", ad.Pos, ok, by, err, want)
		}
	}
	removed := func(pub peer.ID, ad Ad, want bool) {
		t.Helper()
		got, err := s.RemovedAt(pub, ad.Provider, ad.ContextID, ad.Pos)
		if got != want || err != nil {
			t.Errorf("ad at %d of %s removed: %v, %v; want %v", ad.Pos, pub, got, err, want)
		}
	}
	stands(a, false)
	removed("pub", a, false)
	write(t, s, b, content, testMH(2)) // above the mark
	stands(b, true)
	write(t, s, gone, removal)
	removed("pub", a, true)
	removed("pub", late, false)
	removed("other", a, false)
	removed("pub", b, false)
	write(t, s, a, content, testMH(1))
	stands(a, false) // its removal was known
	removed("pub", a, false)
	write(t, s, late, content, testMH(1))
	stands(late, true)
	if by, ok, err := s.Stands(late.Ad, "other", late.ContextID); ok || err != nil {
		t.Errorf("stands for another provider: %q %v", by, err)
	}
	if _, err := s.RemoveProvider("prov"); err != nil {
		t.Fatal(err)
	}
	stands(late, false)
	stands(b, false)
}
