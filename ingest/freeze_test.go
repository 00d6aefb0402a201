package ingest

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/ingest/ipnisync"
	"github.com/signpost-index/signpost/ingest/schema"
	"github.com/signpost-index/signpost/store"
)

// TestFreezeTakesHoldWithinTheAdInFlight freezes a node in the middle of an ad
// of 500 that are queued: entries of no other are fetched, everything not done
// yet is skipped, and the mark of the freeze is the last ad below.
func TestFreezeTakesHoldWithinTheAdInFlight(t *testing.T) {
	c := newTestChain(t)
	before := testMultihashes(t, "before", 20)
	c.put("before", before)
	n := openNode(t, vfs.NewMem(), c)
	n.i.firstLanes, n.i.maxLanes = 1, 1
	n.sync(c)
	mark := c.head

	// Each ad has two chunks, of which the second does not come until the freeze.
	const queued = 500
	var ads, firsts, seconds []cid.Cid
	var mhs []multihash.Multihash
	for k := range queued {
		two := testMultihashes(t, fmt.Sprint("queued ", k), 2)
		first := c.entries(two, 1)
		mhs, firsts, seconds = append(mhs, two...), append(firsts, first), append(seconds, c.entries(two[:1], 1))
		ads = append(ads, c.ad(schema.Advertisement{ContextID: fmt.Append(nil, k), Metadata: bitswap, Entries: first}))
	}
	gate := make(chan struct{})
	open := sync.OnceFunc(func() { close(gate) })
	t.Cleanup(open)
	c.setFault(func(k cid.Cid, _ ipnisync.Hint) error {
		if slices.Contains(seconds, k) {
			<-gate
		}
		return nil
	})
	asked := func(blocks []cid.Cid) (sum int) {
		for _, k := range blocks {
			sum += c.timesAsked(k)
		}
		return sum
	}
	n.notify(c, c.head)
	n.until("all is queued and an ad is in flight", func() bool {
		return n.store.Progress(c.id()).Pending == queued && asked(seconds) == 1
	})
	if err := n.store.Freeze(timeNow()); err != nil {
		t.Fatal(err)
	}
	open()
	n.idle()
	if got := asked(firsts); got != 1 {
		t.Errorf("entries of %d ads were asked for, want those of the one in flight", got)
	}
	for _, ad := range ads {
		if st := n.verdict(ad); st.Verdict != store.SkippedFrozen {
			t.Fatalf("ad %s is %v, want skipped", ad, st.Verdict)
		}
	}
	n.wantGone(mhs)
	n.wantFound(before, "before")
	if p, ok, err := n.store.Provider(c.id()); err != nil || !ok || p.FrozenAt != mark {
		t.Errorf("frozen at %v, %v; want %v, the last ad below the one in flight", p.FrozenAt, err, mark)
	}
	if p := n.store.Progress(c.id()); p.Mark.Ad != c.head || p.Pending != 0 {
		t.Errorf("mark %v, %d pending; want the head %v", p.Mark.Ad, p.Pending, c.head)
	}
}

// TestFrozenNodeTakesUpNothingNew: metadata and addresses of contexts and
// providers that are not held leave no trace.
func TestFrozenNodeTakesUpNothingNew(t *testing.T) {
	c, other := newTestChain(t), newTestChain(t)
	mhs := testMultihashes(t, "a", 10)
	c.put("a", mhs)
	n := openNode(t, vfs.NewMem(), c, other)
	n.sync(c)
	if err := n.store.Freeze(timeNow()); err != nil {
		t.Fatal(err)
	}
	moved := []string{"/ip4/203.0.113.9/tcp/9"}
	unknown := c.ad(schema.Advertisement{ContextID: []byte("new"), Metadata: bitswap})
	held := c.ad(schema.Advertisement{Addresses: moved})
	stranger := other.ad(schema.Advertisement{Addresses: moved})
	content := other.put("b", testMultihashes(t, "b", 10))
	n.sync(c)
	n.sync(other)
	for ad, want := range map[cid.Cid]store.Verdict{
		held: store.Applied, unknown: store.SkippedFrozen, stranger: store.SkippedFrozen, content: store.SkippedFrozen,
	} {
		if st := n.verdict(ad); st.Verdict != want {
			t.Errorf("ad %s is %v, want %v", ad, st.Verdict, want)
		}
	}
	if p, _, err := n.store.Provider(c.id()); err != nil || len(p.Addrs) != 1 || p.Addrs[0] != moved[0] {
		t.Errorf("addresses of the provider that is held: %v, %v", p.Addrs, err)
	}
	if _, ok, err := n.store.Provider(other.id()); ok || err != nil {
		t.Errorf("a new provider was taken up: %v, %v", ok, err)
	}
	if st, err := n.store.Stats(); err != nil || st.Records != 1 {
		t.Errorf("%d records, %v; want one", st.Records, err)
	}
}

// TestUnfrozenNodeFetchesWhatItSkipped: also after a restart in between; and
// until then the publisher stands where it was frozen.
func TestUnfrozenNodeFetchesWhatItSkipped(t *testing.T) {
	for _, restart := range []bool{false, true} {
		c := newTestChain(t)
		fs := vfs.NewMem()
		n := openNode(t, fs, c)
		n.know(c)
		c.put("a", testMultihashes(t, "a", 10))
		n.sync(c)
		if err := n.store.Freeze(timeNow()); err != nil {
			t.Fatal(err)
		}
		skipped := c.put("skipped", testMultihashes(t, "skipped", 10))
		removed := c.put("removed", testMultihashes(t, "removed", 10))
		c.ad(schema.Advertisement{ContextID: []byte("removed"), IsRm: true})
		n.sync(c)
		if err := n.store.Unfreeze(); err != nil {
			t.Fatal(err)
		}
		if restart {
			n.close()
			n = openNode(t, fs, c)
			n.know(c)
		}
		c.put("later", testMultihashes(t, "later", 10))
		n.sync(c)
		n.wantFound(testMultihashes(t, "skipped", 10), "skipped")
		n.wantFound(testMultihashes(t, "later", 10), "later")
		n.wantGone(testMultihashes(t, "removed", 10))
		if st := n.verdict(skipped); st.Verdict != store.Applied {
			t.Errorf("skipped ad is %v after the node was unfrozen (restarted: %v)", st.Verdict, restart)
		}
		if st := n.verdict(removed); st.Indexed() {
			t.Errorf("ad whose context was removed is %v", st.Verdict)
		}
		if ids, err := n.store.Revisits(); err != nil || len(ids) > 0 {
			t.Errorf("to be looked at still: %v, %v", ids, err)
		}
	}
}
