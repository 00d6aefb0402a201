package ingest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/ingest/ipnisync"
	"github.com/signpost-index/signpost/ingest/schema"
	"github.com/signpost-index/signpost/store"
)

var errNotThere = fmt.Errorf("fetch: %w", &ipnisync.StatusError{Code: 404})

func anyone(peer.ID, peer.ID) bool { return true }

// content appends an ad with entries and returns both.
func (c *testChain) content(ctxID string, n int) (ad, entries cid.Cid) {
	c.t.Helper()
	entries = c.entries(testMultihashes(c.t, ctxID, n), 10)
	return c.ad(schema.Advertisement{ContextID: []byte(ctxID), Metadata: bitswap, Entries: entries}), entries
}

func (n *testNode) untilApplied(c *testChain, head cid.Cid) {
	n.t.Helper()
	n.until("the head is applied", func() bool { return n.store.Progress(c.id()).Mark.Ad == head })
}

// TestRemovedLaterCostsNoEntries: keyed by provider and context, so another
// provider's content under the same context ID is fetched.
func TestRemovedLaterCostsNoEntries(t *testing.T) {
	c, other := newTestChain(t), newTestChain(t)
	gone, goneEntries := c.content("ctx", 20)
	keptEntries := c.entries(testMultihashes(t, "kept", 20), 10)
	kept := schema.Advertisement{Provider: other.id().String(), ContextID: []byte("ctx"), Metadata: bitswap, Entries: keptEntries}
	c.ad(kept)
	c.remove("ctx")
	n := openNodeOn(t, store.Config{Dir: "data", FS: vfs.NewMem(), MemoryBytes: 64 << 20, SyncEvery: time.Millisecond}, anyone, c)
	n.sync(c)
	if asked := c.timesAsked(goneEntries); asked != 0 {
		t.Errorf("entries of the superseded ad were asked for %d times", asked)
	}
	if st := n.verdict(gone); st.Verdict != store.Superseded {
		t.Errorf("verdict %v, want superseded", st.Verdict)
	}
	n.wantFound(testMultihashes(t, "kept", 20), "ctx")
	n.wantGone(testMultihashes(t, "ctx", 20))
}

// TestEntriesOfSeveralAdsAreFetchedAtOnce holds every first chunk until four
// are asked for.
func TestEntriesOfSeveralAdsAreFetchedAtOnce(t *testing.T) {
	c := newTestChain(t)
	firsts := make(map[cid.Cid]bool)
	for k := range 8 {
		_, e := c.content(fmt.Sprint(k), 10)
		firsts[e] = true
	}
	var mu sync.Mutex
	at, enough := 0, make(chan struct{})
	c.setFault(func(k cid.Cid, _ ipnisync.Hint) error {
		if !firsts[k] {
			return nil
		}
		mu.Lock()
		if at++; at == 4 {
			close(enough)
		}
		mu.Unlock()
		select {
		case <-enough:
			return nil
		case <-time.After(testWait):
			return errors.New("fetched one by one")
		}
	})
	n := openNode(t, vfs.NewMem(), c)
	n.sync(c)
	for k := range 8 {
		n.wantFound(testMultihashes(t, fmt.Sprint(k), 10), fmt.Sprint(k))
	}
}

// TestNewHeadDoesNotWaitForABacklog: all lanes hang in old entries.
func TestNewHeadDoesNotWaitForABacklog(t *testing.T) {
	c := newTestChain(t)
	old := make(map[cid.Cid]bool)
	for k := range 3 * maxLanes {
		_, e := c.content(fmt.Sprint("old", k), 10)
		old[e] = true
	}
	release, hanging := make(chan struct{}), make(chan struct{})
	once := sync.OnceFunc(func() { close(hanging) })
	c.setFault(func(k cid.Cid, _ ipnisync.Hint) error {
		if old[k] {
			once()
			<-release
		}
		return nil
	})
	n := openNode(t, vfs.NewMem(), c)
	n.notify(c, c.head)
	<-hanging
	c.content("new", 10)
	n.notify(c, c.head)
	n.until("the new head's content is found", func() bool { return len(n.found(testMultihashes(t, "new", 10)[9])) == 1 })
	close(release)
	n.untilApplied(c, c.head)
	n.wantFound(testMultihashes(t, "old95", 10), "old95")
}

// TestInterruptedWalkGoesOnAfterARestart: what was passed before is not walked
// again, and nothing is announced.
func TestInterruptedWalkGoesOnAfterARestart(t *testing.T) {
	c := newTestChain(t)
	c.content("first", 10)
	var ads []cid.Cid
	for range 3 * scanBatch {
		ads = append(ads, c.ad(schema.Advertisement{}))
	}
	stop := ads[scanBatch/2]
	c.setFault(func(k cid.Cid, _ ipnisync.Hint) error {
		if k == stop {
			return errors.New("connection reset")
		}
		return nil
	})
	fs := vfs.NewMem()
	n := openNode(t, fs, c)
	n.know(c)
	n.notify(c, c.head)
	n.until("the walk failed", func() bool { return len(n.failed) > 0 })
	n.until("what it passed is applied", func() bool { return n.store.Progress(c.id()).AppliedCount == 3*scanBatch-scanBatch/2-1 })
	n.close()
	c.setFault(nil)
	before := c.timesAsked(ads[len(ads)-1])

	again := openNode(t, fs, c)
	again.run()
	again.untilApplied(c, c.head)
	again.wantFound(testMultihashes(t, "first", 10), "first")
	if asked := c.timesAsked(ads[len(ads)-1]); asked != before {
		t.Errorf("an ad done before the restart was asked for again")
	}
	if got := c.timesAsked(ads[0]); got != 1 {
		t.Errorf("an ad behind the place of the walk was asked for %d times, want once", got)
	}
}

// TestGapIsShownAndClosesWhenTheAdComesBack: newer ads are applied meanwhile.
func TestGapIsShownAndClosesWhenTheAdComesBack(t *testing.T) {
	c := newTestChain(t)
	c.content("old", 10)
	missing, _ := c.content("missing", 10)
	c.content("new", 10)
	c.setFault(func(k cid.Cid, _ ipnisync.Hint) error {
		if k == missing {
			return errNotThere
		}
		return nil
	})
	n := openNode(t, vfs.NewMem(), c)
	n.notify(c, c.head)
	n.until("the gap was tried twice", func() bool {
		scans, err := n.store.Scans(c.id())
		return err == nil && len(scans) == 1 && scans[0].Next == missing && scans[0].Trouble.Attempts >= 2
	})
	n.wantFound(testMultihashes(t, "new", 10), "new")
	n.wantGone(testMultihashes(t, "old", 10))
	if p := n.store.Progress(c.id()); p.Mark.Ad.Defined() {
		t.Errorf("mark %s stands above a gap", p.Mark.Ad)
	}
	// Another head on top does not walk over the gap a second time.
	c.content("newer", 10)
	n.notify(c, c.head)
	n.until("the newer ad is applied", func() bool { return len(n.found(testMultihashes(t, "newer", 1)[0])) == 1 })
	if scans, _ := n.store.Scans(c.id()); len(scans) != 1 {
		t.Errorf("gaps %v, want one", scans)
	}
	c.setFault(nil)
	n.idle()
	n.wantFound(testMultihashes(t, "old", 10), "old")
	n.wantFound(testMultihashes(t, "missing", 10), "missing")
	if p := n.store.Progress(c.id()); p.Mark.Ad != c.head || len(p.Scans) != 0 {
		t.Errorf("mark %s and gaps %v, want the head %s and none", p.Mark.Ad, p.Scans, c.head)
	}
}

func TestSkippedGapLetsTheMarkGoOn(t *testing.T) {
	c := newTestChain(t)
	missing, _ := c.content("missing", 10)
	c.content("new", 10)
	c.mem.Delete(missing)
	n := openNode(t, vfs.NewMem(), c)
	n.notify(c, c.head)
	n.until("the gap is known", func() bool { s, _ := n.store.Scans(c.id()); return len(s) == 1 && s[0].Trouble.Attempts > 0 })
	n.until("the newer ad is applied", func() bool { return len(n.found(testMultihashes(t, "new", 1)[0])) == 1 })
	if err := n.i.Skip(c.id(), missing, "history lost"); err != nil {
		t.Fatal(err)
	}
	n.untilApplied(c, c.head)
	if st := n.verdict(missing); st.Verdict != store.Rejected || !strings.Contains(st.Reason, "history lost") {
		t.Errorf("verdict %v (%s), want rejected with the operator's reason", st.Verdict, st.Reason)
	}
	n.idle()
	if err := n.i.Skip(c.id(), missing, "again"); !errors.Is(err, ErrNotPending) {
		t.Errorf("a second skip: %v, want ErrNotPending", err)
	}
}

// TestRequeuedAdIsAppliedUnlessRemovedSince: a rejected ad, long below the mark.
func TestRequeuedAdIsAppliedUnlessRemovedSince(t *testing.T) {
	for _, removed := range []bool{false, true} {
		t.Run(fmt.Sprintf("removed=%v", removed), func(t *testing.T) {
			c := newTestChain(t)
			bad, entries := c.content("ctx", 10)
			block, err := c.mem.Block(context.Background(), entries)
			if err != nil {
				t.Fatal(err)
			}
			c.mem.Delete(entries)
			c.content("other", 10)
			n := openNode(t, vfs.NewMem(), c)
			n.i.cfg.GiveUpAfter = time.Nanosecond
			n.know(c)
			n.sync(c)
			if st := n.verdict(bad); st.Verdict != store.Rejected {
				t.Fatalf("verdict %v, want rejected", st.Verdict)
			}
			c.mem.PutCID(entries, block)
			want := store.Applied
			if removed {
				c.remove("ctx")
				c.ad(schema.Advertisement{})
				n.sync(c)
				want = store.Superseded
			}
			if _, err := n.i.Requeue(bad); err != nil {
				t.Fatal(err)
			}
			n.idle()
			if st := n.verdict(bad); st.Verdict != want {
				t.Errorf("verdict %v (%s), want %v", st.Verdict, st.Reason, want)
			}
			if removed {
				n.wantGone(testMultihashes(t, "ctx", 10))
			} else {
				n.wantFound(testMultihashes(t, "ctx", 10), "ctx")
			}
			if _, err := n.i.Requeue(bad); !errors.Is(err, ErrNotRejected) {
				t.Errorf("requeue of an ad that is not rejected: %v", err)
			}
		})
	}
}

// TestSameAdsUnderAnotherPublisherAreNotFetchedAgain: a mirror of a chain under
// another identity costs its ads and no entries, while the first one's stand.
func TestSameAdsUnderAnotherPublisherAreNotFetchedAgain(t *testing.T) {
	first := newTestChain(t)
	_, a := first.content("a", 20)
	_, b := first.content("b", 20)
	mirror := newTestChain(t)
	mirror.mem = ipnisync.NewMemory(mirror.key, "")
	second := &otherHead{testChain: mirror, of: first}
	cfg := store.Config{Dir: "data", FS: vfs.NewMem(), MemoryBytes: 64 << 20, SyncEvery: time.Millisecond}
	n := openNodeOn(t, cfg, anyone, first, mirror)
	dial := n.i.cfg.Dial
	n.i.cfg.Dial = func(ai peer.AddrInfo) (Publisher, error) {
		if ai.ID == mirror.id() {
			return FromSource(ai.ID, second), nil
		}
		return dial(ai)
	}
	n.sync(first)
	before := first.timesAsked(a) + first.timesAsked(b)
	mirror.setHead(first.head)
	n.sync(mirror)
	if again := first.timesAsked(a) + first.timesAsked(b); again != before {
		t.Errorf("entries were fetched %d more times for the mirror", again-before)
	}
	n.wantFound(testMultihashes(t, "a", 20), "a")
	if st := n.verdict(first.head); st.Publisher != first.id() || st.Verdict != store.Applied {
		t.Errorf("the ad's state is %v of %s, want applied by the first publisher", st.Verdict, st.Publisher)
	}
	if _, err := n.store.RemoveProvider(first.id()); err != nil {
		t.Fatal(err)
	}
	n.wantGone(testMultihashes(t, "a", 20))
	if err := n.i.Sync(mirror.id(), SyncOptions{Addrs: parseAddrs([]string{"/ip4/127.0.0.1/tcp/1/http"}), Resync: true}); err != nil {
		t.Fatal(err)
	}
	n.idle()
	n.wantFound(testMultihashes(t, "a", 20), "a")
}

// otherHead serves the blocks of another chain under its own head.
type otherHead struct {
	*testChain
	of *testChain
}

func (m *otherHead) Block(ctx context.Context, c cid.Cid) ([]byte, error) { return m.of.Block(ctx, c) }

// TestAnnounceThatWasAnsweredSurvivesACrash: nil from Announce means that the
// head will be looked at, even if power goes the moment after.
func TestAnnounceThatWasAnsweredSurvivesACrash(t *testing.T) {
	c := newTestChain(t)
	c.content("a", 10)
	fs := vfs.NewCrashableMem()
	cfg := store.Config{Dir: "data", FS: fs, MemoryBytes: 64 << 20, SyncEvery: time.Hour}
	n := openNodeOn(t, cfg, nil, c)
	release := make(chan struct{})
	dial := n.i.cfg.Dial
	n.i.cfg.Dial = func(ai peer.AddrInfo) (Publisher, error) {
		<-release // nothing happens before the crash
		return dial(ai)
	}
	info := peer.AddrInfo{ID: c.id(), Addrs: parseAddrs([]string{"/ip4/127.0.0.1/tcp/1/http"})}
	if err := n.i.Announce(t.Context(), info, c.head); err != nil {
		t.Fatal(err)
	}
	crashed := fs.CrashClone(vfs.CrashCloneCfg{})
	close(release)
	n.close()

	cfg.FS = crashed
	again := openNodeOn(t, cfg, nil, c)
	again.run()
	again.untilApplied(c, c.head)
	again.wantFound(testMultihashes(t, "a", 10), "a")
	again.until("the announce is forgotten", func() bool { a, err := again.store.Announced(); return err == nil && len(a) == 0 })
}

// TestHangingPublishersDoNotHoldOthersUp: more strangers hang than there are
// seats for them.
func TestHangingPublishersDoNotHoldOthersUp(t *testing.T) {
	c := newTestChain(t)
	c.content("a", 10)
	n := openNode(t, vfs.NewMem(), c)
	n.know(c)
	release := make(chan struct{})
	defer close(release)
	dial := n.i.cfg.Dial
	n.i.cfg.Dial = func(ai peer.AddrInfo) (Publisher, error) {
		if ai.ID == c.id() {
			return dial(ai)
		}
		return hanging{FromSource(ai.ID, c), release}, nil
	}
	for range 3 * maxGuests {
		info := peer.AddrInfo{ID: newTestChain(t).id(), Addrs: parseAddrs([]string{"/ip4/127.0.0.1/tcp/9/http"})}
		if err := n.i.Notify(info, testMultihashCID(t)); err != nil {
			t.Fatal(err)
		}
	}
	n.notify(c, c.head)
	n.untilApplied(c, c.head)
}

// hanging is a Publisher that never answers.
type hanging struct {
	Publisher
	release chan struct{}
}

func (h hanging) Head(ctx context.Context) (*schema.SignedHead, error) {
	select {
	case <-h.release:
	case <-ctx.Done():
	}
	return nil, errors.New("hung up")
}

// TestChainOverItsBudgetBacksOffWithAReason: and goes on where it was.
func TestChainOverItsBudgetBacksOffWithAReason(t *testing.T) {
	c := newTestChain(t)
	c.content("first", 10)
	for range 50 {
		c.ad(schema.Advertisement{})
	}
	n := openNode(t, vfs.NewMem(), c)
	n.i.maxWalk = 20
	n.know(c)
	n.notify(c, c.head)
	n.until("the budget is named", func() bool {
		text, _ := n.store.PublisherError(c.id())
		return strings.Contains(text, "budget")
	})
	n.untilApplied(c, c.head)
	n.wantFound(testMultihashes(t, "first", 10), "first")
	if got := c.timesAsked(c.head); got != 1 {
		t.Errorf("the head was asked for %d times", got)
	}
}

// TestChainOfAWholeBatchIsWalkedToItsEnd: the last ad of a batch is the first
// of the chain.
func TestChainOfAWholeBatchIsWalkedToItsEnd(t *testing.T) {
	c := newTestChain(t)
	c.content("first", 10)
	for range scanBatch - 1 {
		c.ad(schema.Advertisement{})
	}
	n := openNode(t, vfs.NewMem(), c)
	n.sync(c)
	n.wantFound(testMultihashes(t, "first", 10), "first")
}
