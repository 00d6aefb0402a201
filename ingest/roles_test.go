package ingest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/signpost-index/signpost/ingest/ipnisync"
	"github.com/signpost-index/signpost/ingest/schema"
	"github.com/signpost-index/signpost/store"
)

func (n *testNode) open(c *testChain) {
	n.t.Helper()
	if err := n.store.Open([]peer.ID{c.id()}, timeNow())[0]; err != nil {
		n.t.Fatal(err)
	}
}

func (n *testNode) closeRole(c *testChain) store.Closed {
	n.t.Helper()
	closed, err := n.store.CloseRoles([]peer.ID{c.id()}, timeNow())
	if err != nil || closed[0].Err != nil {
		n.t.Fatal(closed, err)
	}
	return closed[0]
}

func (n *testNode) wantRanges(c *testChain, want ...store.Range) {
	n.t.Helper()
	if err := n.store.Sync(); err != nil {
		n.t.Fatal(err)
	}
	st, ok, err := n.store.RoleState(c.id())
	if err != nil || !ok || fmt.Sprint(st.Ranges) != fmt.Sprint(want) {
		n.t.Errorf("ranges %v (%v, %v), want %v", st.Ranges, ok, err, want)
	}
}

// TestHolderTakesNothingNewOfThatPublisherOnly: removals reach it; and once it
// owns the publisher again, it fetches what it left out.
func TestHolderTakesNothingNewOfThatPublisherOnly(t *testing.T) {
	c, other := newTestChain(t), newTestChain(t)
	n := openNode(t, vfs.NewMem(), c, other)
	n.know(c)
	n.open(c)
	c.put("a", testMultihashes(t, "a", 10))
	at := c.put("b", testMultihashes(t, "b", 10))
	n.sync(c)
	if got := n.closeRole(c); got.Ad != at || got.Height != 2 {
		t.Errorf("closed at %v, height %d; want the second ad", got.Ad, got.Height)
	}
	entries := c.entries(testMultihashes(t, "new", 10), 1)
	skipped := c.ad(schema.Advertisement{ContextID: []byte("new"), Metadata: bitswap, Entries: entries})
	c.ad(schema.Advertisement{ContextID: []byte("a"), IsRm: true})
	other.put("x", testMultihashes(t, "x", 10))
	n.sync(c)
	n.sync(other)
	n.wantGone(testMultihashes(t, "a", 10))
	n.wantFound(testMultihashes(t, "x", 10), "x")
	if st := n.verdict(skipped); st.Verdict != store.SkippedFrozen || c.timesAsked(entries) != 0 {
		t.Errorf("new ad is %v, its entries were asked for %d times", st.Verdict, c.timesAsked(entries))
	}
	n.wantRanges(c, store.Range{To: at})
	n.open(c)
	n.sync(c)
	n.wantFound(testMultihashes(t, "new", 10), "new")
	n.wantGone(testMultihashes(t, "a", 10))
	n.wantRanges(c, store.Range{To: at}, store.Range{From: at})
	if ids, err := n.store.Revisits(); err != nil || len(ids) > 0 {
		t.Errorf("to be looked at still: %v, %v", ids, err)
	}
}

// TestTakenOverAdsAreNotFetchedTwice: neither those at or below the mark, nor
// those above it that the other has.
func TestTakenOverAdsAreNotFetchedTwice(t *testing.T) {
	c, ads := longChain(t, 6)
	n := openNode(t, vfs.NewMem(), c)
	n.know(c)
	o := store.Takeover{Publisher: c.id(), From: "source", Mark: store.AdRef{Ad: ads[2], Pos: positionStride}, Height: 3, Applied: []cid.Cid{ads[4]}}
	if err := n.store.TakeOver([]store.Takeover{o})[0]; err != nil {
		t.Fatal(err)
	}
	n.sync(c)
	for k, ad := range ads {
		mhs := testMultihashes(t, fmt.Sprint(k), 10)
		if k == 3 || k == 5 {
			n.wantFound(mhs, fmt.Sprint(k))
			continue
		}
		n.wantGone(mhs)
		if k < 3 && c.timesAsked(ad) > 0 {
			t.Errorf("ad %d at or below the mark was asked for", k)
		}
	}
	if st := n.verdict(ads[4]); st.Verdict != store.MarkedDone {
		t.Errorf("ad that is held elsewhere is %v", st.Verdict)
	}
	// Contexts that are new here may be what the other has, and are counted.
	if got := testutil.ToFloat64(n.i.metrics.maybeRepeated); got != 20 {
		t.Errorf("%v multihashes are counted that may be repeated, want those of two ads", got)
	}
	if err := n.store.Sync(); err != nil {
		t.Fatal(err)
	}
	st, _, err := n.store.RoleState(c.id())
	if err != nil || st.Ad != ads[5] || st.Height != 6 {
		t.Errorf("stands at %v, height %d, %v; want the head, 6", st.Ad, st.Height, err)
	}
	// It says what it lacks, and a backfill fetches that too.
	if l := st.Lacks(); len(l) != 1 || l[0].From != "source" || !slices.Equal(l[0].Ads, []cid.Cid{ads[4]}) {
		t.Errorf("lacks %v", l)
	}
	if err := n.store.Backfill(c.id()); err != nil {
		t.Fatal(err)
	}
	n.notify(c, c.head)
	n.until("the chain is whole", func() bool {
		st, _, err := n.store.RoleState(c.id())
		return err == nil && !st.Filling && len(st.Lacks()) == 0
	})
	for k := range ads {
		n.wantFound(testMultihashes(t, fmt.Sprint(k), 10), fmt.Sprint(k))
	}
	n.wantRanges(c, store.Range{To: ads[2]}, store.Range{From: ads[2]})
}

// TestBackfillMakesAChainWhole: what a newer removal has removed stays away, as
// do old metadata; a kill in between does no harm; and a backfill that cannot
// be done keeps the ranges.
func TestBackfillMakesAChainWhole(t *testing.T) {
	c, ads := longChain(t, 30)
	c.put("3", testMultihashes(t, "3 too", 10))
	mark := c.put("mark", testMultihashes(t, "mark", 10))
	c.ad(schema.Advertisement{ContextID: []byte("7"), IsRm: true})
	c.put("last", testMultihashes(t, "last", 10))
	fs := vfs.NewMem()
	n := openNode(t, fs, c)
	n.know(c)
	o := store.Takeover{Publisher: c.id(), From: "source", Mark: store.AdRef{Ad: mark, Pos: positionStride}, Height: 32}
	if err := n.store.TakeOver([]store.Takeover{o})[0]; err != nil {
		t.Fatal(err)
	}
	n.sync(c)
	n.wantGone(testMultihashes(t, "mark", 10))
	c.setFault(func(k cid.Cid, _ ipnisync.Hint) error {
		if k == ads[10] {
			return ipnisync.ErrNotFound
		}
		return nil
	})
	if err := n.store.Backfill(c.id()); err != nil {
		t.Fatal(err)
	}
	n.notify(c, c.head)
	n.until("the newer ads are here", func() bool { return len(n.found(testMultihashes(t, "20", 1)[0])) == 1 })
	n.wantRanges(c, store.Range{From: mark})
	n.close()

	c.setFault(nil)
	n = openNode(t, fs, c)
	n.know(c)
	n.notify(c, c.head)
	n.until("the oldest ad is here", func() bool { return len(n.found(testMultihashes(t, "0", 1)[0])) == 1 })
	n.idle()
	n.wantFound(testMultihashes(t, "mark", 10), "mark")
	n.wantFound(testMultihashes(t, "3", 10), "3")
	n.wantFound(testMultihashes(t, "3 too", 10), "3")
	n.wantGone(testMultihashes(t, "7", 10))
	n.wantRanges(c, store.Range{To: mark}, store.Range{From: mark})
	if st, _, err := n.store.RoleState(c.id()); err != nil || st.Filling || st.Height != 34 {
		t.Errorf("state %+v, %v; want height 34", st.Stand, err)
	}
}

// TestReleasedPublisherIsFetchedAnew: all of it, from the genesis on.
func TestReleasedPublisherIsFetchedAnew(t *testing.T) {
	c, _ := longChain(t, 5)
	n := openNode(t, vfs.NewMem(), c)
	n.know(c)
	n.open(c)
	n.sync(c)
	gone := func(p peer.ID) bool { return p == c.id() }
	if known, err := n.store.Release(c.id(), []peer.ID{c.id()}, gone); err != nil || !known {
		t.Fatal(known, err)
	}
	for k := range 5 {
		n.wantGone(testMultihashes(t, fmt.Sprint(k), 10))
	}
	n.open(c)
	n.sync(c)
	for k := range 5 {
		n.wantFound(testMultihashes(t, fmt.Sprint(k), 10), fmt.Sprint(k))
	}
	n.wantRanges(c, store.Range{})
}

// TestWhoTakesOverFollowsWhatItHeld: an indexer that holds older ads of a publisher
// and takes it over further on applies what the ads between do to what it holds,
// and takes none of their content: the other has that. It may know them, or have
// some of them in work, or not have met them yet.
func TestWhoTakesOverFollowsWhatItHeld(t *testing.T) {
	for _, name := range []string{"not met", "waiting", "one is done", "waiting, and filled at once"} {
		t.Run(name, func(t *testing.T) {
			fill := strings.HasSuffix(name, "filled at once")
			c := newTestChain(t)
			n := openNode(t, vfs.NewMem(), c)
			n.know(c)
			n.open(c)
			c.put("a", testMultihashes(t, "a", 10))
			c.put("b", testMultihashes(t, "b", 10))
			at := c.put("c", testMultihashes(t, "c", 10))
			n.sync(c)
			stood := n.closeRole(c)
			if stood.Ad != at {
				t.Fatalf("closed at %v", stood)
			}
			between := []cid.Cid{
				c.put("x", testMultihashes(t, "x", 10)),
				c.remove("a"),
				c.ad(schema.Advertisement{ContextID: []byte("b"), Metadata: []byte("new"), Entries: schema.NoEntries}),
				c.put("c", testMultihashes(t, "c too", 10)),
				c.put("y", testMultihashes(t, "y", 10)),
			}
			mark := between[len(between)-1]
			var refs []store.AdRef
			for k, ad := range between {
				refs = append(refs, store.AdRef{Ad: ad, Prev: append([]cid.Cid{at}, between...)[k], Pos: stood.Pos + positionStride + store.Position(k)})
			}
			if name != "not met" {
				if err := n.store.AddPending(c.id(), refs); err != nil {
					t.Fatal(err)
				}
			}
			if name == "one is done" {
				s := &session{publisher: c.id(), i: n.i}
				last := len(refs) - 1
				j := job{PendingAd: store.PendingAd{AdRef: refs[last]}, ad: &schema.Advertisement{}}
				if _, err := s.commit(j, c.id(), store.Effect{Kind: store.EffectNone, Verdict: store.SkippedFrozen, HeldOnly: true}); err != nil {
					t.Fatal(err)
				}
			}
			o := store.Takeover{Publisher: c.id(), From: "source", Mark: store.AdRef{Ad: mark, Pos: positionStride}, Height: 8}
			if err := n.store.TakeOver([]store.Takeover{o})[0]; err != nil {
				t.Fatal(err)
			}
			if st, _, err := n.store.RoleState(c.id()); err != nil || st.Ad != mark || st.Height != 8 {
				t.Errorf("stands at %v, height %d, %v; want where it took over, 8", st.Ad, st.Height, err)
			}
			c.put("z", testMultihashes(t, "z", 10))
			if fill {
				if err := n.store.Backfill(c.id()); err != nil {
					t.Fatal(err)
				}
			}
			n.sync(c)
			n.until("what is held was followed", func() bool {
				ids, err := n.store.Revisits()
				return err == nil && len(ids) == 0
			})
			n.idle()
			n.wantGone(testMultihashes(t, "a", 10))
			if v := n.found(testMultihashes(t, "b", 1)[0]); len(v) != 1 || string(v[0].Metadata) != "new" {
				t.Errorf("updated while the other had it: %v", v)
			}
			if !fill {
				for _, other := range []string{"x", "c too", "y"} {
					n.wantGone(testMultihashes(t, other, 10))
				}
				n.wantRanges(c, store.Range{To: at}, store.Range{From: mark})
			}
			n.wantFound(testMultihashes(t, "c", 10), "c")
			n.wantFound(testMultihashes(t, "z", 10), "z")
			if st, _, err := n.store.RoleState(c.id()); err != nil || st.Ad != c.head || st.Height != 9 || st.Pending > 0 {
				t.Errorf("stands at %v, height %d, %d pending, %v; want the head, 9", st.Ad, st.Height, st.Pending, err)
			}
			// A backfill fetches what the other has, all the same.
			if err := n.store.Backfill(c.id()); err != nil {
				t.Fatal(err)
			}
			n.notify(c, c.head)
			n.until("the chain is whole", func() bool {
				st, _, err := n.store.RoleState(c.id())
				return err == nil && !st.Filling
			})
			for _, other := range []string{"x", "c too", "y"} {
				n.wantFound(testMultihashes(t, other, 10), other[:1])
			}
			n.wantGone(testMultihashes(t, "a", 10))
		})
	}
}

// TestAdsHeldElsewhereUpdateWhatIsHeldHere: of an ad above the mark whose content the
// other indexer has, the metadata are of all of its context, here too.
func TestAdsHeldElsewhereUpdateWhatIsHeldHere(t *testing.T) {
	c := newTestChain(t)
	n := openNode(t, vfs.NewMem(), c)
	n.know(c)
	n.open(c)
	c.put("a", testMultihashes(t, "a", 10))
	n.sync(c)
	stood := n.closeRole(c)
	more := c.ad(schema.Advertisement{ContextID: []byte("a"), Metadata: []byte("new"), Entries: c.entries(testMultihashes(t, "more", 10), 10)})
	other := c.put("b", testMultihashes(t, "b", 10))
	o := store.Takeover{Publisher: c.id(), From: "source", Mark: store.AdRef{Ad: stood.Ad, Pos: positionStride}, Height: 1, Applied: []cid.Cid{more, other}}
	if err := n.store.TakeOver([]store.Takeover{o})[0]; err != nil {
		t.Fatal(err)
	}
	n.sync(c)
	if v := n.found(testMultihashes(t, "a", 1)[0]); len(v) != 1 || string(v[0].Metadata) != "new" {
		t.Errorf("found %v, want the new metadata", v)
	}
	n.wantGone(testMultihashes(t, "more", 10))
	n.wantGone(testMultihashes(t, "b", 10))
	for _, ad := range []cid.Cid{more, other} {
		if st := n.verdict(ad); st.Verdict != store.MarkedDone {
			t.Errorf("ad that is held elsewhere is %v", st.Verdict)
		}
	}
}
