package store

import (
	"errors"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
)

var skipped = Effect{Kind: EffectMetadata, Verdict: SkippedFrozen}

// reopenCrashed is the store as a power loss now would leave it.
func reopenCrashed(t *testing.T, fs *vfs.MemFS) *Store {
	t.Helper()
	return openTest(t, fs.CrashClone(vfs.CrashCloneCfg{}))
}

func closeOne(t *testing.T, s *Store, pub peer.ID) Closed {
	t.Helper()
	closed, err := s.CloseRoles([]peer.ID{pub}, testTime)
	if err != nil || len(closed) != 1 || closed[0].Err != nil {
		t.Fatalf("close: %+v, %v", closed, err)
	}
	return closed[0]
}

func openOne(t *testing.T, s *Store, pub peer.ID) {
	t.Helper()
	must(t, s.Open([]peer.ID{pub}, testTime)[0])
}

func wantRole(t *testing.T, s *Store, pub peer.ID, role Role, ranges ...Range) RoleState {
	t.Helper()
	st, ok, err := s.RoleState(pub)
	if err != nil || !ok || st.Role != role || !slices.Equal(st.Ranges, ranges) {
		t.Fatalf("role %d, ranges %v (%v, %v); want %d, %v", st.Role, st.Ranges, ok, err, role, ranges)
	}
	must(t, checkInvariants(s))
	return st
}

// TestClosingIsAtomicWithTheMark: role, end of the range and FrozenAt are on
// disk together before CloseRoles returns; the mark goes on, the range does not;
// and closing again says the same.
func TestClosingIsAtomicWithTheMark(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := openTest(t, fs)
	c := newChain("pub", "prov")
	openOne(t, s, "pub")
	first := c.ad("a", "m")
	write(t, s, first, content, testMH(1))
	last := c.ad("b", "m")
	write(t, s, last, content, testMH(2))
	gap := c.ad("c", "m")
	above := c.ad("d", "m")
	must(t, s.AddPending("pub", []AdRef{above.AdRef, gap.AdRef}))
	u := content
	u.Provider = &ProviderUpdate{Addrs: []string{"/ip4/127.0.0.1"}}
	write(t, s, above, u, testMH(4))
	if _, err := s.CloseRoles([]peer.ID{"stranger"}, testTime); err != nil {
		t.Fatal(err)
	}
	got := closeOne(t, s, "pub")
	if got.Ad != last.Ad || got.Height != 2 || !slices.Equal(got.Applied, []cid.Cid{above.Ad}) {
		t.Fatalf("closed at %+v, want %v, height 2, %v applied above", got, last.Ad, above.Ad)
	}
	crashed := reopenCrashed(t, fs)
	for _, s := range []*Store{s, crashed} {
		wantRole(t, s, "pub", RoleHolder, Range{To: last.Ad})
		if p, ok, err := s.Provider("prov"); err != nil || !ok || p.FrozenAt != last.Ad {
			t.Errorf("frozen at %v, %v; want %v", p.FrozenAt, err, last.Ad)
		}
		if s.Takes("pub") || !s.Takes("other") || s.Frozen() {
			t.Error("content of the publisher is taken, or that of no other")
		}
		write(t, s, gap, skipped)
		write(t, s, c.ad("e", "m"), skipped)
		c.prev = above.AdRef
		if again := closeOne(t, s, "pub"); again.Stand != got.Stand || !slices.Equal(again.Applied, got.Applied) {
			t.Errorf("closed again at %+v, want %+v", again, got)
		}
		st := wantRole(t, s, "pub", RoleHolder, Range{To: last.Ad})
		must(t, s.Sync())
		if st, _, _ = s.RoleState("pub"); st.Pos <= got.Pos {
			t.Errorf("mark %d stays at that of the closing", st.Pos)
		}
	}
	closed, err := s.CloseRoles([]peer.ID{"stranger"}, testTime)
	if err != nil || !errors.Is(closed[0].Err, ErrNotFound) {
		t.Errorf("close of a publisher that is not owned: %+v, %v", closed, err)
	}
}

// TestNoPutAfterClosing: nor of a writer begun before, and other publishers are
// not affected.
// TestAdsAppliedAboveTheFreezeAreOffered although the mark passes them before the
// publisher is closed, and the store is opened anew.
func TestAdsAppliedAboveTheFreezeAreOffered(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := openTest(t, fs)
	c := newChain("pub", "prov")
	openOne(t, s, "pub")
	first := c.ad("a", "m")
	write(t, s, first, content, testMH(1))
	gap, above := c.ad("b", "m"), c.ad("c", "m")
	must(t, s.AddPending("pub", []AdRef{above.AdRef, gap.AdRef}))
	write(t, s, above, content, testMH(3))
	must(t, s.Freeze(testTime))
	if st := wantRole(t, s, "pub", RoleOwner, Range{}); st.Ad != first.Ad || st.Height != 1 || !st.Unsure {
		t.Errorf("frozen at %+v; want the first ad, and something unsure above", st)
	}
	write(t, s, gap, skipped)
	must(t, s.Sync())
	if st := wantRole(t, s, "pub", RoleOwner, Range{}); st.Ad != first.Ad || st.Height != 1 || st.Top != 3 || st.Unsure {
		t.Errorf("frozen at %+v; want the first ad, and three ads to make up for", st)
	}
	for _, s := range []*Store{reopenCrashed(t, fs), s} {
		if got := closeOne(t, s, "pub"); got.Ad != first.Ad || !slices.Equal(got.Applied, []cid.Cid{above.Ad}) {
			t.Errorf("closed at %v with %v above, want %v, %v", got.Ad, got.Applied, first.Ad, above.Ad)
		}
	}
}

func TestNoPutAfterClosing(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	c, other := newChain("pub", "prov"), newChain("other", "else")
	openOne(t, s, "pub")
	w, err := s.Begin(c.ad("a", "m"))
	must(t, err, w.Put([]multihash.Multihash{testMH(1)}))
	if got := closeOne(t, s, "pub"); got.Ad.Defined() {
		t.Errorf("closed at %v, nothing was done", got)
	}
	wantRole(t, s, "pub", RoleHolder)
	if err := w.Put([]multihash.Multihash{testMH(2)}); !errors.Is(err, ErrFrozen) {
		t.Errorf("put after closing: %v", err)
	}
	if _, err := tryWrite(s, c.ad("b", "m"), content, testMH(3)); !errors.Is(err, ErrFrozen) {
		t.Errorf("put of a new ad: %v", err)
	}
	write(t, s, other.ad("a", "m"), content, testMH(4))
	openOne(t, s, "pub")
	wantRole(t, s, "pub", RoleOwner, Range{})
	must(t, w.Put([]multihash.Multihash{testMH(2)}))
}

// TestPublisherStandsAtTheClosingUntilWhatWasSkippedIsHere: and a closing in
// between ends where the first one did.
func TestPublisherStandsAtTheClosingUntilWhatWasSkippedIsHere(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	c := newChain("pub", "prov")
	openOne(t, s, "pub")
	first := c.ad("a", "m")
	write(t, s, first, content, testMH(1))
	closeOne(t, s, "pub")
	lost := c.ad("b", "m")
	write(t, s, lost, skipped)
	for range 2 {
		openOne(t, s, "pub")
		must(t, s.Sync())
		if st := wantRole(t, s, "pub", RoleOwner, Range{To: first.Ad}, Range{From: first.Ad}); st.Ad != first.Ad || st.Height != 1 || !st.Behind {
			t.Errorf("stands at %+v, want %v", st.Stand, first.Ad)
		}
		wish, ok, err := s.Revisit("pub")
		if err != nil || !ok || !wish.Skipped || wish.Floor.Ad != first.Ad {
			t.Fatalf("wish %+v, %v, %v", wish, ok, err)
		}
		if got := closeOne(t, s, "pub"); got.Ad != first.Ad {
			t.Errorf("closed at %+v, want %v", got, first.Ad)
		}
	}
	openOne(t, s, "pub")
	wish, _, err := s.Revisit("pub")
	must(t, err, s.AddAgain("pub", []AdRef{lost.AdRef}, true), s.RevisitWalked("pub", wish.Number))
	if _, ok, err := s.Revisit("pub"); !ok || err != nil {
		t.Error("the wish has ended before the ad was applied")
	}
	write(t, s, lost, content, testMH(2))
	must(t, s.Sync())
	if st := wantRole(t, s, "pub", RoleOwner, Range{To: first.Ad}, Range{From: first.Ad}); st.Ad != lost.Ad || st.Height != 2 || st.Behind || st.Multihashes != 2 {
		t.Errorf("state %+v", st)
	}
	if _, ok, err := s.Revisit("pub"); ok || err != nil {
		t.Errorf("something is wished still: %v", err)
	}
}

// TestUnfreezingHasWhatWasSkippedApplied: but not of publishers that were closed.
func TestUnfreezingHasWhatWasSkippedApplied(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	kept, gone := newChain("kept", "p"), newChain("gone", "q")
	var at AdRef
	for _, c := range []*chain{kept, gone} {
		openOne(t, s, c.publisher)
		ad := c.ad("a", "m")
		write(t, s, ad, content, testMH(1))
		at = ad.AdRef
	}
	must(t, s.Freeze(testTime))
	for _, c := range []*chain{kept, gone} {
		write(t, s, c.ad("b", "m"), skipped)
		must(t, s.Sync())
		if st := wantRole(t, s, c.publisher, RoleOwner, Range{}); st.Height != 1 || st.Top != 0 || st.Unsure {
			t.Errorf("frozen at %+v, want what was there when the latch fell, although the mark goes on", st)
		}
	}
	if got := closeOne(t, s, "gone"); got.Ad != at.Ad || got.Pos != at.Pos || got.Height != 1 {
		t.Errorf("closed at %+v, want the mark of the freeze", got)
	}
	if err := s.Open([]peer.ID{"gone"}, testTime)[0]; !errors.Is(err, ErrFrozen) {
		t.Errorf("open while frozen: %v", err)
	}
	must(t, s.Unfreeze())
	if ids, err := s.Revisits(); err != nil || !slices.Equal(ids, []peer.ID{"kept"}) {
		t.Errorf("looked at again: %v, %v", ids, err)
	}
	wantRole(t, s, "gone", RoleHolder, Range{To: at.Ad})
}

// TestTakingOverIsOneChange: role, range, mark, height, providers and what is
// held elsewhere are on disk together, and taking over again changes nothing.
func TestTakingOverIsOneChange(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := openTest(t, fs)
	mark := AdRef{Ad: testCID(7), Pos: 1 << 32}
	o := Takeover{Publisher: "pub", From: "source", Time: testTime, Mark: mark, Height: 41, Applied: []cid.Cid{testCID(9)},
		Providers: []Provider{{ID: "one", Publisher: "pub", Addrs: []string{"/a"}}, {ID: "two", Publisher: "pub"}}}
	must(t, s.TakeOver([]Takeover{o})[0])
	s = reopenCrashed(t, fs)
	must(t, s.TakeOver([]Takeover{o})[0])
	if st := wantRole(t, s, "pub", RoleOwner, Range{From: mark.Ad}); st.Ad != mark.Ad || st.Height != 41 || st.Continued != "source" {
		t.Errorf("state %+v", st)
	}
	for _, id := range []peer.ID{"one", "two"} {
		if _, ok, err := s.Provider(id); !ok || err != nil {
			t.Errorf("provider %s: %v, %v", id, ok, err)
		}
	}
	elsewhere := Ad{AdRef: AdRef{Ad: testCID(9), Prev: mark.Ad, Pos: 2 << 32}, Publisher: "pub", Provider: "one", ContextID: []byte("x"), Metadata: []byte("m")}
	if held, err := s.HeldElsewhere("pub", elsewhere.Ad); !held || err != nil {
		t.Errorf("held elsewhere: %v, %v", held, err)
	}
	write(t, s, elsewhere, Effect{Kind: EffectNone, Verdict: MarkedDone})
	if held, err := s.HeldElsewhere("pub", elsewhere.Ad); held || err != nil {
		t.Errorf("held elsewhere after its commit: %v, %v", held, err)
	}
	must(t, s.Sync())
	if st, _, _ := s.RoleState("pub"); st.Ad != elsewhere.Ad || st.Height != 42 {
		t.Errorf("stands at %+v, want the ad held elsewhere, height 42", st.Stand)
	}
	must(t, checkInvariants(s))
}

// TestTakingOverAnUnknownAdOfAKnownChainBeginsAnew: nothing of the chain above
// the mark is passed over because it was met before.
func TestTakingOverAnUnknownAdOfAKnownChainBeginsAnew(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	c := newChain("pub", "prov")
	openOne(t, s, "pub")
	old := c.ad("a", "m")
	write(t, s, old, content, testMH(1))
	closed := closeOne(t, s, "pub")
	must(t, s.TakeOver([]Takeover{{Publisher: "pub", From: "x", Mark: AdRef{Ad: testCID(77), Pos: 1 << 32}, Height: 5}})[0])
	must(t, s.Sync())
	wantRole(t, s, "pub", RoleOwner, Range{To: closed.Ad}, Range{From: testCID(77)})
	if _, known, err := s.AdState(old.Ad); known || err != nil {
		t.Errorf("an ad of before is known: %v", err)
	}
	if got := found(t, s, testMH(1)); got["a"] != "m" {
		t.Error("what was held is gone")
	}
	top, err := s.Top("pub")
	if p := s.Progress("pub"); err != nil || p.Mark.Ad != testCID(77) || p.Mark.Pos <= old.Pos || top != p.Mark.Pos {
		t.Errorf("mark %v, top %d, %v", p.Mark, top, err)
	}
}

// TestBackfillMakesTheRangesWhole: when all that was noted is applied, and not
// before.
func TestBackfillMakesTheRangesWhole(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	mark := AdRef{Ad: testCID(7), Pos: 1 << 32}
	must(t, s.TakeOver([]Takeover{{Publisher: "pub", From: "source", Mark: mark, Height: 3}})[0])
	must(t, s.Backfill("pub"), s.Backfill("pub"))
	if err := s.Backfill("other"); !errors.Is(err, ErrNotFound) {
		t.Errorf("backfill of a publisher that is not owned: %v", err)
	}
	wish, ok, err := s.Revisit("pub")
	if err != nil || !ok || !wish.Fill || wish.Top.Ad != mark.Ad || wish.Top.Pos != mark.Pos {
		t.Fatalf("wish %+v, %v, %v", wish, ok, err)
	}
	old := []AdRef{{Ad: testCID(6), Prev: testCID(5), Pos: mark.Pos - 1}, {Ad: testCID(5), Pos: mark.Pos - 2}}
	must(t, s.AddAgain("pub", old, true), s.RevisitWalked("pub", wish.Number))
	for n, ref := range old {
		if st := wantRole(t, s, "pub", RoleOwner, Range{From: mark.Ad}); !st.Filling {
			t.Errorf("not filling after %d of %d", n, len(old))
		}
		write(t, s, Ad{AdRef: ref, Publisher: "pub", Provider: "prov", ContextID: []byte{byte(n)}, Metadata: []byte("m")}, content, testMH(uint64(n)))
		must(t, s.Sync())
	}
	if st := wantRole(t, s, "pub", RoleOwner, Range{To: mark.Ad}, Range{From: mark.Ad}); st.Filling || st.Height != 3 {
		t.Errorf("state %+v", st)
	}
}

// TestBackfillClosesTheGapBetweenRanges: what is older than the last range and
// not held, and nothing else, is asked for.
func TestBackfillClosesTheGapBetweenRanges(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	c := newChain("pub", "prov")
	openOne(t, s, "pub")
	first := c.ad("a", "m")
	write(t, s, first, content, testMH(1))
	closeOne(t, s, "pub")
	gap := c.ad("b", "m")
	write(t, s, gap, skipped)
	last := c.ad("c", "m")
	write(t, s, last, skipped)
	must(t, s.TakeOver([]Takeover{{Publisher: "pub", From: "x", Mark: last.AdRef, Height: 3}})[0])
	wantRole(t, s, "pub", RoleOwner, Range{To: first.Ad}, Range{From: last.Ad})
	must(t, s.Backfill("pub"))
	wish, ok, err := s.Revisit("pub")
	if err != nil || !ok || !wish.Fill || wish.Top.Ad != last.Ad || wish.Top.Pos != last.Pos {
		t.Fatalf("wish %+v, %v, %v", wish, ok, err)
	}
	must(t, s.AddAgain("pub", []AdRef{last.AdRef, gap.AdRef}, true), s.RevisitWalked("pub", wish.Number))
	write(t, s, gap, content, testMH(2))
	write(t, s, last, content, testMH(3))
	must(t, s.Sync())
	wantRole(t, s, "pub", RoleOwner, Range{To: last.Ad}, Range{From: last.Ad})
}

// TestReopenedPublisherKeepsWhereItWasClosed: another indexer may have gone on
// from there, and comes back.
func TestReopenedPublisherKeepsWhereItWasClosed(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	c := newChain("pub", "prov")
	openOne(t, s, "pub")
	var ads []Ad
	for n := range 3 {
		ads = append(ads, c.ad(string(rune('a'+n)), "m"))
		write(t, s, ads[n], content, testMH(uint64(n)))
		must(t, s.Sync())
		if n < 2 {
			closeOne(t, s, "pub")
			openOne(t, s, "pub")
			closeOne(t, s, "pub") // nothing came
			openOne(t, s, "pub")
		}
	}
	seams := []Range{{To: ads[0].Ad}, {From: ads[0].Ad, To: ads[1].Ad}, {From: ads[1].Ad}}
	wantRole(t, s, "pub", RoleOwner, seams...)
	must(t, s.Backfill("pub"))
	if _, ok, err := s.Revisit("pub"); ok || err != nil {
		t.Errorf("something is fetched although all is held: %v", err)
	}
}

// TestBackfillBeginsBelowAllThatIsHeldInARow: a publisher that was closed and
// opened again has nothing fetched of what it had before that.
func TestBackfillBeginsBelowAllThatIsHeldInARow(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	mark := AdRef{Ad: testCID(7), Pos: 1 << 32}
	must(t, s.TakeOver([]Takeover{{Publisher: "pub", From: "source", Mark: mark, Height: 3}})[0])
	ref := AdRef{Ad: testCID(8), Prev: mark.Ad, Pos: mark.Pos + 1}
	write(t, s, Ad{AdRef: ref, Publisher: "pub", Provider: "prov", ContextID: []byte("a"), Metadata: []byte("m")}, content, testMH(8))
	must(t, s.Sync())
	closeOne(t, s, "pub")
	openOne(t, s, "pub")
	wantRole(t, s, "pub", RoleOwner, Range{From: mark.Ad, To: ref.Ad}, Range{From: ref.Ad})
	must(t, s.Backfill("pub"))
	wish, ok, err := s.Revisit("pub")
	if err != nil || !ok || wish.Top.Ad != mark.Ad || wish.Top.Pos != mark.Pos {
		t.Fatalf("wish %+v, %v, %v", wish, ok, err)
	}
	must(t, s.RevisitWalked("pub", wish.Number))
	wantRole(t, s, "pub", RoleOwner, Range{To: mark.Ad}, Range{From: mark.Ad, To: ref.Ad}, Range{From: ref.Ad})
}

// TestRangesWithoutEndLoseNothing: beyond the bound what is held stays said.
func TestRangesWithoutEndLoseNothing(t *testing.T) {
	a := Assignment{}
	ad := func(n int) cid.Cid { return testCID(uint64(n)) }
	a.Ranges = []Range{{From: ad(1000), To: ad(1001)}}
	for n := range 2 * maxRanges {
		r := Range{From: ad(n), To: ad(n + 1)}
		if n == 0 {
			r.From = cid.Undef
		}
		a = a.withRange(r, Position(n))
	}
	if len(a.Ranges) != maxRanges || a.Ranges[0].From != ad(1000) || !a.whole() || a.Ranges[maxRanges-1].To != ad(2*maxRanges) {
		t.Errorf("%d ranges, whole %v", len(a.Ranges), a.whole())
	}
}

// TestFreezingHasABackfillBeginAnew: nothing that was skipped counts as filled.
func TestFreezingHasABackfillBeginAnew(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	mark := AdRef{Ad: testCID(7), Pos: 1 << 32}
	must(t, s.TakeOver([]Takeover{{Publisher: "pub", From: "x", Mark: mark}})[0], s.Backfill("pub"))
	wish, _, err := s.Revisit("pub")
	must(t, err, s.AddAgain("pub", []AdRef{mark}, true), s.RevisitWalked("pub", wish.Number), s.Freeze(testTime))
	write(t, s, Ad{AdRef: mark, Publisher: "pub", Provider: "p", ContextID: []byte("c"), Metadata: []byte("m")}, skipped)
	must(t, s.RevisitWalked("pub", wish.Number), s.Unfreeze())
	if st := wantRole(t, s, "pub", RoleOwner, Range{From: mark.Ad}); !st.Filling {
		t.Error("the backfill is over")
	}
	closeOne(t, s, "pub")
	must(t, s.Open([]peer.ID{"pub"}, testTime)[0])
	must(t, s.Sync())
	if st := wantRole(t, s, "pub", RoleOwner, Range{From: mark.Ad}); st.Filling {
		t.Error("a closed publisher is filled")
	}
}

// TestReleasedPublisherIsFetchedAnew: what was said of its ads does not count,
// and work begun before changes nothing.
func TestReleasedPublisherIsFetchedAnew(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	c := newChain("pub", "prov")
	openOne(t, s, "pub")
	u := content
	u.Provider = &ProviderUpdate{Addrs: []string{"/a"}}
	ad := c.ad("a", "m")
	write(t, s, ad, u, testMH(1))
	late, err := s.Begin(c.ad("b", "m"))
	must(t, err)
	known, err := s.Release("pub", []peer.ID{"prov"}, func(p peer.ID) bool { return p == "pub" })
	if err != nil || !known {
		t.Fatal(known, err)
	}
	if known, err := s.Release("pub", nil, nil); known || err != nil {
		t.Errorf("released again: %v, %v", known, err)
	}
	if got := found(t, s, testMH(1)); len(got) != 0 {
		t.Errorf("found %v after the release", got)
	}
	if err := late.Put([]multihash.Multihash{testMH(2)}); !errors.Is(err, ErrInvalid) {
		t.Errorf("put of an ad begun before: %v", err)
	}
	must(t, checkInvariants(s))
	openOne(t, s, "pub")
	wantRole(t, s, "pub", RoleOwner, Range{})
	if _, known, err := s.AdState(ad.Ad); known || err != nil {
		t.Errorf("the ad is known: %v", err)
	}
	top, err := s.Top("pub")
	must(t, err)
	ad.Pos = top + 10
	must(t, s.AddPending("pub", []AdRef{ad.AdRef}))
	if st, known, err := s.AdState(ad.Ad); !known || st.Verdict != Pending || err != nil {
		t.Errorf("state %+v, %v, %v; want pending", st, known, err)
	}
	write(t, s, ad, u, testMH(1))
	must(t, s.sweepRemoved(t.Context()))
	counts, err := s.Counts()
	if got := found(t, s, testMH(1)); got["a"] != "m" || counts.Postings != 1 || err != nil {
		t.Errorf("found %v, counts %+v, %v", got, counts, err)
	}
	must(t, checkInvariants(s))
}

// TestAssignmentsOfFormat5GetTheirRanges: one taken over begins where it stands.
func TestAssignmentsOfFormat5GetTheirRanges(t *testing.T) {
	fs := vfs.NewMem()
	s := openTest(t, fs)
	c := newChain("over", "p")
	write(t, s, c.ad("a", "m"), content, testMH(1))
	ad := c.ad("b", "m")
	write(t, s, ad, content, testMH(1))
	_, err := s.update(func(t *tx) error {
		t.progress("over").height = 0
		for id, from := range map[peer.ID]peer.ID{"plain": "", "over": "source"} {
			if err := t.set(peerKey(prefixAssignment, id), assignmentRow{Continued: from, Time: testTime, legacy: true}.encode()); err != nil {
				return err
			}
		}
		return nil
	})
	must(t, err, s.Close())
	writeFile(t, fs, "data/FORMAT", "signpost-store 5\n")
	for range 2 {
		s = openTest(t, fs)
		must(t, s.Sync())
		wantRole(t, s, "plain", RoleOwner, Range{})
		if st := wantRole(t, s, "over", RoleOwner, Range{From: ad.Ad}); st.Height != 2 {
			t.Errorf("height %d, want 2", st.Height)
		}
		must(t, s.Backfill("over"), s.Close())
	}
}

// TestVersionOfRolesChangesWithThemOnly: not with progress.
func TestVersionOfRolesChangesWithThemOnly(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	c := newChain("pub", "prov")
	openOne(t, s, "pub")
	one, all, err := s.RoleStates("")
	must(t, err)
	write(t, s, c.ad("a", "m"), content, testMH(1))
	must(t, s.Sync())
	two, none, err := s.RoleStates(one)
	if one != two || len(all) != 1 || len(none) != 0 || err != nil {
		t.Errorf("version %q of %d, then %q of %d, %v", one, len(all), two, len(none), err)
	}
	closeOne(t, s, "pub")
	if three, all, err := s.RoleStates(one); three == one || len(all) != 1 || err != nil {
		t.Errorf("version %q after closing, %d, %v", three, len(all), err)
	}
}
