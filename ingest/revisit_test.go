package ingest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/ingest/ipnisync"
	"github.com/signpost-index/signpost/store"
)

// longChain has n ads with 10 multihashes each, under contexts "0", "1", …
func longChain(t *testing.T, n int) (c *testChain, ads []cid.Cid) {
	c = newTestChain(t)
	for k := range n {
		ads = append(ads, c.put(fmt.Sprint(k), testMultihashes(t, fmt.Sprint(k), 10)))
	}
	return c, ads
}

// TestResyncGoesOnAfterARestart: a resync that met an ad the publisher did not
// have is gone on with by the next life of the node, unasked.
func TestResyncGoesOnAfterARestart(t *testing.T) {
	c, ads := longChain(t, 40)
	fs := vfs.NewMem()
	n := openNode(t, fs, c)
	n.know(c)
	n.sync(c)
	if _, err := n.store.RemoveProvider(c.id()); err != nil {
		t.Fatal(err)
	}
	n.wantGone(testMultihashes(t, "0", 10))
	c.setFault(func(k cid.Cid, _ ipnisync.Hint) error {
		if k == ads[20] {
			return ipnisync.ErrNotFound
		}
		return nil
	})
	if err := n.i.Sync(c.id(), SyncOptions{Resync: true}); err != nil {
		t.Fatal(err)
	}
	n.until("the newer half is back", func() bool { return len(n.found(testMultihashes(t, "21", 1)[0])) == 1 })
	if got := n.i.Syncing(); !slices.Contains(got, c.id()) {
		t.Errorf("syncing %v, want the publisher among them", got)
	}
	if err := n.store.Sync(); err != nil {
		t.Fatal(err)
	}
	n.close()
	c.setFault(nil)

	again := openNode(t, fs, c)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- again.i.Run(ctx) }()
	again.until("the oldest ad is back", func() bool { return len(again.found(testMultihashes(t, "0", 1)[0])) == 1 })
	again.until("nothing is wished any more", func() bool { return len(again.i.Syncing()) == 0 })
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestNewHeadDoesNotWaitForAResync: nor for one of a limited depth.
func TestNewHeadDoesNotWaitForAResync(t *testing.T) {
	c, ads := longChain(t, 60)
	n := openNode(t, vfs.NewMem(), c)
	n.know(c)
	n.sync(c)
	let := make(chan struct{})
	reached := make(chan struct{})
	var once sync.Once
	c.setFault(func(k cid.Cid, _ ipnisync.Hint) error {
		if k == ads[40] {
			once.Do(func() { close(reached) })
			<-let
		}
		return nil
	})
	if err := n.i.Sync(c.id(), SyncOptions{Resync: true}); err != nil {
		t.Fatal(err)
	}
	<-reached
	c.setFault(func(k cid.Cid, _ ipnisync.Hint) error {
		if k == ads[0] {
			return ipnisync.ErrNotFound // the resync does not come to its end
		}
		return nil
	})
	fresh := c.put("fresh", testMultihashes(t, "fresh", 10))
	n.notify(c, fresh)
	close(let)
	n.until("the new ad is applied", func() bool { return len(n.found(testMultihashes(t, "fresh", 1)[0])) == 1 })
	if got := n.i.Syncing(); !slices.Contains(got, c.id()) {
		t.Error("the resync was over before the new head, so nothing is shown")
	}
}

// TestDepthHoldsWhenANewHeadCutsTheWalk: ads further back than asked for are
// not fetched, although the walk gave way in between.
func TestDepthHoldsWhenANewHeadCutsTheWalk(t *testing.T) {
	const depth = 50
	c, ads := longChain(t, 100)
	n := openNode(t, vfs.NewMem(), c)
	n.know(c)
	let, reached := make(chan struct{}), make(chan struct{})
	var once sync.Once
	c.setFault(func(k cid.Cid, _ ipnisync.Hint) error {
		if k == ads[80] {
			once.Do(func() { close(reached) })
			<-let
		}
		return nil
	})
	if err := n.i.Sync(c.id(), SyncOptions{Depth: depth}); err != nil {
		t.Fatal(err)
	}
	<-reached
	fresh := c.put("fresh", testMultihashes(t, "fresh", 10))
	n.notify(c, fresh)
	close(let)
	n.untilApplied(c, fresh)
	n.idle()
	for k, ad := range ads {
		if got, want := c.timesAsked(ad) > 0, k >= len(ads)-depth; got != want {
			t.Errorf("ad %d of %d was asked for: %v, want %v", k, len(ads), got, want)
		}
	}
	n.wantFound(testMultihashes(t, "50", 10), "50")
	n.wantGone(testMultihashes(t, "49", 10))
}

// TestContentOfARetiredPublisherComesFromWhoLeansOnIt: a chain whose ads stood
// as another publisher's has its content when that one is retired.
func TestContentOfARetiredPublisherComesFromWhoLeansOnIt(t *testing.T) {
	first := newTestChain(t)
	first.content("a", 20)
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
	mirror.setHead(first.head)
	n.know(mirror)
	n.sync(mirror)
	gone := func(p peer.ID) bool { return p == first.id() }
	if _, err := n.store.RemoveProvider(first.id()); err != nil {
		t.Fatal(err)
	}
	if _, done, err := n.store.RetirePublisher(first.id(), nil, gone, time.Now(), func(store.PublisherState) bool { return true }); err != nil || !done {
		t.Fatal(done, err)
	}
	n.wantGone(testMultihashes(t, "a", 20))
	if got, err := n.store.Revisits(); err != nil || len(got) != 1 || got[0] != mirror.id() {
		t.Fatalf("to be looked at again: %v, %v; want the other publisher", got, err)
	}
	n.sync(mirror)
	n.until("the content is back", func() bool { return len(n.found(testMultihashes(t, "a", 1)[0])) == 1 })
}

// TestRequeueIsBounded: more named ads than a wish holds are refused as busy.
func TestRequeueIsBounded(t *testing.T) {
	n := openNode(t, vfs.NewMem())
	many := make([]cid.Cid, store.MaxRevisitAds)
	for k := range many {
		many[k] = cid.NewCidV1(cid.Raw, testMultihashes(t, fmt.Sprint(k), 1)[0])
	}
	if err := n.store.AddRevisit("publisher", store.Revisit{Ads: many}); err != nil {
		t.Fatal(err)
	}
	one := store.Revisit{Ads: []cid.Cid{cid.NewCidV1(cid.Raw, testMultihashes(t, "one more", 1)[0])}}
	if err := n.i.revisit("publisher", one); !errors.Is(err, ErrBusy) {
		t.Errorf("one more: %v, want ErrBusy", err)
	}
}
