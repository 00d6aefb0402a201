package ingest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/ingest/ipnisync"
	"github.com/signpost-index/signpost/ingest/schema"
	"github.com/signpost-index/signpost/store"
)

const (
	vectorHead     = "baguqeera2ocl5mgh7zoitqrmfykahhhsgsgl7o53oluagt7ffqvaxxrazjiq"
	vectorCBORHead = "bafyreicfkkluoysgt3y7ngjo4uaiyuc6neuq7pk2gg2gk6kxkm2l6zwvlq"
)

// TestVectorChainEndsAsTheSpecSays applies the recorded chain: state after
// chain-11 as the vectors' README gives it.
func TestVectorChainEndsAsTheSpecSays(t *testing.T) {
	c := vectorChain(t, vectorHead)
	n := openNode(t, vfs.NewMem(), c)
	n.sync(c)

	hamt := testMultihashes(t, "hamt1000", 1000)
	n.wantFound(hamt, "context-hamt")
	p, ok, err := n.store.Provider(c.id())
	if err != nil || !ok {
		t.Fatalf("provider: %v, %v", ok, err)
	}
	if len(p.Addrs) == 0 {
		t.Error("provider has no address")
	}
	if p.Extended == nil || len(p.Extended.Providers) == 0 {
		t.Error("the chain-level extended providers of chain-07 were wiped by chain-08")
	}
	contexts := make(map[string]int)
	for _, name := range vectorMultihashes(t, c) {
		for _, v := range n.found(name) {
			contexts[string(v.ContextID)]++
		}
	}
	if contexts["context-one"] != 15 {
		t.Errorf("context-one has %d multihashes, want 15", contexts["context-one"])
	}
	if contexts["context-two"] != 0 {
		t.Errorf("context-two was removed, found %d", contexts["context-two"])
	}
	binary := 0
	for ctx, k := range contexts {
		if ctx != "context-one" && ctx != "context-hamt" {
			binary += k
		}
	}
	if binary != 5 {
		t.Errorf("the binary context has %d multihashes, want 5", binary)
	}
}

// vectorMultihashes decodes every entry chunk of the chain's ads.
func vectorMultihashes(t *testing.T, c *testChain) []multihash.Multihash {
	t.Helper()
	seen := make(map[string]bool)
	var out []multihash.Multihash
	for ad := c.head; ad.Defined(); {
		b, err := c.mem.Block(context.Background(), ad)
		if err != nil {
			t.Fatal(err)
		}
		a, err := schema.DecodeAdvertisement(ad, b)
		if err != nil {
			t.Fatal(err)
		}
		for e := a.Entries; e != schema.NoEntries && e.Defined(); {
			b, err := c.mem.Block(context.Background(), e)
			if err != nil {
				t.Fatal(err)
			}
			chunk, err := schema.DecodeEntryChunk(e, b)
			if err != nil {
				break // the HAMT
			}
			for _, mh := range chunk.Entries {
				if !seen[string(mh)] {
					seen[string(mh)] = true
					out = append(out, mh)
				}
			}
			e = chunk.Next
		}
		ad = a.PreviousID
	}
	return out
}

func TestCBORVectorChainIsApplied(t *testing.T) {
	c := vectorChain(t, vectorCBORHead)
	n := openNode(t, vfs.NewMem(), c)
	n.sync(c)
	for _, mh := range vectorMultihashes(t, c) {
		if v := n.found(mh); len(v) != 0 {
			t.Errorf("cbor-04 removes what cbor-01 put, found %v", v)
		}
	}
}

func TestPutRemovePutGivesOnlyTheLast(t *testing.T) {
	c := newTestChain(t)
	old, fresh, kept := testMultihashes(t, "old", 25), testMultihashes(t, "new", 25), testMultihashes(t, "kept", 5)
	c.put("ctx", old)
	c.put("other", kept)
	c.remove("ctx")
	c.put("ctx", fresh)
	n := openNode(t, vfs.NewMem(), c)
	n.sync(c)
	n.wantGone(old)
	n.wantFound(fresh, "ctx")
	n.wantFound(kept, "other")
}

func TestMetadataUpdateReachesAllMultihashes(t *testing.T) {
	c := newTestChain(t)
	mhs := testMultihashes(t, "a", 30)
	c.put("ctx", mhs)
	n := openNode(t, vfs.NewMem(), c)
	n.sync(c)
	md := []byte{0xa0, 0x12, 0x00}
	c.ad(schema.Advertisement{ContextID: []byte("ctx"), Metadata: md})
	n.sync(c)
	for _, mh := range mhs {
		if v := n.found(mh); len(v) != 1 || string(v[0].Metadata) != string(md) {
			t.Fatalf("found %v, want metadata %x", v, md)
		}
	}
}

// TestAnnounceOfForeignCIDChangesNothing: only the signed head and its
// ancestors are applied, whatever an announce names.
func TestAnnounceOfForeignCIDChangesNothing(t *testing.T) {
	c := newTestChain(t)
	mhs := testMultihashes(t, "a", 10)
	head := c.put("ctx", mhs)
	// A removal signed by the provider that its publisher never made its head.
	evil := c.remove("ctx")
	c.setHead(head)
	n := openNode(t, vfs.NewMem(), c)
	n.notify(c, evil)
	n.until("the foreign head failed", func() bool { return len(n.failed) > 0 })
	n.idle()
	n.wantFound(mhs, "ctx")
	if _, known, _ := n.store.AdState(evil); known {
		t.Error("the foreign ad was taken on")
	}
}

// TestHeadSignedByStrangerIsRefused: the publisher client would refuse it; an
// ingester over any Publisher trusts the client with that, so this goes
// through the real client.
func TestUnsignedAndTamperedAdsAreRejectedAndTheChainGoesOn(t *testing.T) {
	var file struct {
		Vectors []struct {
			Name, Kind, File, Expect string
			CID                      string `json:"cid"`
		}
	}
	readJSON(t, "negative.json", &file)
	for _, v := range file.Vectors {
		if v.Kind != "ad" || v.CID == "" {
			continue
		}
		t.Run(v.Name, func(t *testing.T) {
			raw, err := os.ReadFile(filepath.Join("testdata", v.File))
			if err != nil {
				t.Fatal(err)
			}
			testBadAd(t, mustCID(t, v.CID), raw)
		})
	}
}

// testBadAd puts a bad ad at the bottom of a chain with a good one on top.
func testBadAd(t *testing.T, bad cid.Cid, raw []byte) {
	c := chainOf(t, vectorKey(t, "provider"))
	c.mem.PutCID(bad, raw)
	c.head = bad
	mhs := testMultihashes(t, "good", 10)
	c.put("good", mhs)
	n := openNode(t, vfs.NewMem(), c)
	n.i.cfg.GiveUpAfter = time.Nanosecond
	n.notify(c, c.head)
	_, err := schema.DecodeAdvertisement(bad, raw)
	if err != nil { // undecodable: the walk cannot go on, and says so
		n.until("the gap is shown", func() bool {
			scans, err := n.store.Scans(c.id())
			return err == nil && len(scans) == 1 && scans[0].Next == bad && scans[0].Trouble.Attempts > 0
		})
		n.until("the newer ad is applied", func() bool { return len(n.found(mhs[0])) == 1 })
		n.i.Forget(c.id())
		n.idle()
		if p := n.store.Progress(c.id()); p.Mark.Ad.Defined() {
			t.Errorf("mark %s stands above a gap", p.Mark.Ad)
		}
		return
	}
	// Ads whose predecessor is not served end the same way; give them none.
	ad, err := schema.DecodeAdvertisement(bad, raw)
	if err != nil {
		t.Fatal(err)
	}
	if ad.PreviousID.Defined() {
		n.i.Forget(c.id())
		n.idle()
		return
	}
	n.idle()
	n.wantFound(mhs, "good")
	st := n.verdict(bad)
	if st.Verdict == store.Rejected && st.Reason == "" {
		t.Error("rejected without a reason")
	}
}

func TestWrongSignerIsRejectedUnlessPolicyAllows(t *testing.T) {
	stranger := newTestChain(t)
	victim := newTestChain(t)
	mhs := testMultihashes(t, "v", 10)
	victim.put("ctx", mhs)
	ad := stranger.ad(schema.Advertisement{Provider: victim.id().String(), ContextID: []byte("ctx"), IsRm: true})

	n := openNode(t, vfs.NewMem(), victim, stranger)
	n.sync(victim)
	n.sync(stranger)
	n.wantFound(mhs, "ctx")
	if st := n.verdict(ad); st.Verdict != store.Rejected || st.Reason == "" {
		t.Errorf("verdict %v (%s), want rejected with a reason", st.Verdict, st.Reason)
	}

	n2 := openNode(t, vfs.NewMem(), victim, stranger)
	n2.i.cfg.MayPublish = func(peer.ID, peer.ID) bool { return true }
	n2.sync(victim)
	n2.sync(stranger)
	n2.wantGone(mhs)
}

// TestGenuineAdInAnotherChainChangesNothing: the context ID is not signed, so a
// validly signed removal can be given another one; and an old put can be
// replayed after its removal.
func TestGenuineAdInAnotherChainChangesNothing(t *testing.T) {
	victim, thief := newTestChain(t), newTestChain(t)
	kept, gone := testMultihashes(t, "kept", 10), testMultihashes(t, "gone", 10)
	victim.put("kept", kept)
	oldPut := victim.put("gone", gone)
	removal := victim.remove("gone")

	load := func(c cid.Cid) *schema.Advertisement {
		b, err := victim.mem.Block(context.Background(), c)
		if err != nil {
			t.Fatal(err)
		}
		ad, err := schema.DecodeAdvertisement(c, b)
		if err != nil {
			t.Fatal(err)
		}
		if b, err = victim.mem.Block(context.Background(), ad.Entries); err == nil {
			thief.mem.PutCID(ad.Entries, b)
		}
		return ad
	}
	altered := load(removal)
	altered.ContextID = []byte("kept")
	for _, ad := range []*schema.Advertisement{load(oldPut), altered} {
		n := openNode(t, vfs.NewMem(), victim, thief)
		n.sync(victim)
		attack := thief.raw(ad)
		n.notify(thief, attack)
		n.until("the attack has its verdict", func() bool {
			p := n.store.Progress(thief.id())
			return p.Mark.Ad == attack || p.AppliedCount > 0 || len(n.failed) > 0
		})
		n.i.Forget(thief.id())
		n.idle()
		n.wantFound(kept, "kept")
		n.wantGone(gone)
	}
}

func TestReplayedOldHeadDoesNotPushTheAddressAside(t *testing.T) {
	c := newTestChain(t)
	c.put("a", testMultihashes(t, "a", 3))
	n := openNode(t, vfs.NewMem(), c)
	good, evil := "/ip4/127.0.0.1/tcp/1/http", "/ip4/127.0.0.1/tcp/666/http"
	at := good
	n.i.cfg.Dial = func(ai peer.AddrInfo) (Publisher, error) {
		return addressed{FromSource(ai.ID, c), parseAddrs([]string{at})[0]}, nil
	}
	n.sync(c)
	at = evil // an old head, validly signed, replayed elsewhere
	if err := n.store.AddAgain(c.id(), []store.AdRef{n.store.Progress(c.id()).Mark}, false); err != nil {
		t.Fatal(err) // and something to be applied from there
	}
	n.notify(c, cid.Undef)
	n.idle()
	if got := n.store.PublisherAddrs(c.id()); len(got) == 0 || got[0] != good {
		t.Errorf("addresses %v, want %s first", got, good)
	}
	c.put("b", testMultihashes(t, "b", 3))
	moved := "/ip4/127.0.0.1/tcp/2/http"
	at = moved
	n.sync(c)
	if got := n.store.PublisherAddrs(c.id()); len(got) == 0 || got[0] != moved {
		t.Errorf("addresses %v, want %s first: it served new ads", got, moved)
	}
}

// addressed is a Publisher reached at an address.
type addressed struct {
	Publisher
	addr multiaddr.Multiaddr
}

func (a addressed) Addr() multiaddr.Multiaddr { return a.addr }

// TestMissingEntriesAreRetriedThenRejectedWhileTheChainGoesOn: newer and older
// ads are applied meanwhile, and nothing is stored half.
func TestMissingEntriesAreRetriedThenRejectedWhileTheChainGoesOn(t *testing.T) {
	c := newTestChain(t)
	old, gone, kept := testMultihashes(t, "old", 30), testMultihashes(t, "gone", 30), testMultihashes(t, "kept", 30)
	c.put("old", old)
	entries := c.entries(gone, 10)
	bad := c.ad(schema.Advertisement{ContextID: []byte("gone"), Metadata: bitswap, Entries: entries})
	c.put("kept", kept)
	chunk, err := c.mem.Block(context.Background(), entries)
	if err != nil {
		t.Fatal(err)
	}
	first, err := schema.DecodeEntryChunk(entries, chunk)
	if err != nil {
		t.Fatal(err)
	}
	c.mem.Delete(first.Next) // the second chunk answers 404
	n := openNode(t, vfs.NewMem(), c)
	n.i.cfg.GiveUpAfter = time.Hour
	n.notify(c, c.head)
	n.until("the ad was tried twice", func() bool { st, ok, _ := n.store.AdState(bad); return ok && st.Trouble.Attempts >= 2 })
	if st := n.verdict(bad); st.Verdict != store.Pending || !strings.Contains(st.Trouble.Reason, "not found") {
		t.Errorf("verdict %v, trouble %+v, want pending and what is missing", st.Verdict, st.Trouble)
	}
	n.until("the others are applied", func() bool { return len(n.found(kept[29])) == 1 && len(n.found(old[29])) == 1 })
	n.wantFound(kept, "kept")
	n.wantFound(old, "old")
	n.wantGone(gone)
	n.close()

	n = openNodeOn(t, n.cfg, nil, c)
	n.i.cfg.GiveUpAfter = time.Nanosecond
	n.sync(c)
	if st := n.verdict(bad); st.Verdict != store.Rejected || !strings.Contains(st.Reason, "given up") {
		t.Errorf("verdict %v (%s), want rejected with a reason", st.Verdict, st.Reason)
	}
	n.wantFound(kept, "kept")
	n.wantGone(gone)
}

func TestTransientErrorDelaysTheAdAlone(t *testing.T) {
	c := newTestChain(t)
	a, b := testMultihashes(t, "a", 10), testMultihashes(t, "b", 10)
	c.put("a", a)
	entries := c.entries(b, 10)
	c.ad(schema.Advertisement{ContextID: []byte("b"), Metadata: bitswap, Entries: entries})
	c.setFault(func(k cid.Cid, _ ipnisync.Hint) error {
		if k == entries {
			return errors.New("503")
		}
		return nil
	})
	n := openNode(t, vfs.NewMem(), c)
	n.notify(c, c.head)
	n.until("the ad has failed", func() bool { p, ok, _ := n.store.Provider(c.id()); return ok && p.LastError != "" })
	n.wantFound(a, "a")
	n.wantGone(b)
	p, ok, err := n.store.Provider(c.id())
	if err != nil || !ok || p.LastError == "" {
		t.Errorf("provider %v %v: LastError %q, want the trouble named", ok, err, p.LastError)
	}
	c.setFault(nil)
	n.idle()
	n.wantFound(b, "b")
}

// TestInterruptedScanGoesOnWhereItWas: the part scanned before the fault is
// not fetched again, and the order of effects holds.
func TestInterruptedScanGoesOnWhereItWas(t *testing.T) {
	c := newTestChain(t)
	old, fresh := testMultihashes(t, "old", 10), testMultihashes(t, "new", 10)
	c.put("ctx", old)
	bottom := c.remove("ctx")
	for range 2 * scanBatch {
		c.ad(schema.Advertisement{}) // address-only
	}
	c.put("ctx", fresh)
	c.setFault(func(k cid.Cid, _ ipnisync.Hint) error {
		if k == bottom {
			return errors.New("connection reset")
		}
		return nil
	})
	n := openNode(t, vfs.NewMem(), c)
	n.notify(c, c.head)
	n.until("the walk failed", func() bool { return len(n.failed) > 0 })
	n.until("what is above the gap is applied", func() bool { return n.store.Progress(c.id()).AppliedCount > 2*scanBatch })
	n.wantFound(fresh, "ctx")
	c.setFault(nil)
	n.idle()
	if got := n.store.Progress(c.id()).Mark.Ad; got != c.head {
		t.Errorf("mark %s, want %s", got, c.head)
	}
	n.wantGone(old)
	n.wantFound(fresh, "ctx")
}

func TestNewerHeadsAreFollowed(t *testing.T) {
	c := newTestChain(t)
	n := openNode(t, vfs.NewMem(), c)
	var all []multihash.Multihash
	for k := range 5 {
		mhs := testMultihashes(t, string(rune('a'+k)), 15)
		all = append(all, mhs...)
		c.put("ctx", mhs)
		n.sync(c)
	}
	n.wantFound(all, "ctx")
	first := n.store.Progress(c.id()).Mark
	c.remove("ctx")
	n.sync(c)
	n.wantGone(all)
	if last := n.store.Progress(c.id()).Mark; last.Pos <= first.Pos {
		t.Errorf("positions do not grow: %d after %d", last.Pos, first.Pos)
	}
}

func TestFrozenNodeTakesRemovalsAndMetadataOnly(t *testing.T) {
	c := newTestChain(t)
	a, b, fresh := testMultihashes(t, "a", 10), testMultihashes(t, "b", 10), testMultihashes(t, "new", 10)
	c.put("a", a)
	c.put("b", b)
	n := openNode(t, vfs.NewMem(), c)
	n.sync(c)
	if err := n.store.Freeze(timeNow()); err != nil {
		t.Fatal(err)
	}
	entries := c.entries(fresh, 10)
	skipped := c.ad(schema.Advertisement{ContextID: []byte("new"), Metadata: bitswap, Entries: entries})
	c.remove("a")
	md := []byte{0xa0, 0x12, 0x00}
	c.ad(schema.Advertisement{ContextID: []byte("b"), Metadata: md})
	n.sync(c)
	n.wantGone(fresh)
	n.wantGone(a)
	for _, mh := range b {
		if v := n.found(mh); len(v) != 1 || string(v[0].Metadata) != string(md) {
			t.Fatalf("found %v, want metadata %x", v, md)
		}
	}
	if c.timesAsked(entries) != 0 {
		t.Error("a frozen node fetched entries")
	}
	if st := n.verdict(skipped); st.Verdict != store.SkippedFrozen {
		t.Errorf("verdict %v, want skipped while frozen", st.Verdict)
	}
}

func TestRestartResumesUnasked(t *testing.T) {
	c := newTestChain(t)
	mhs := testMultihashes(t, "a", 40)
	entries := c.entries(mhs, 10)
	ad := c.ad(schema.Advertisement{ContextID: []byte("a"), Metadata: bitswap, Entries: entries})
	broken := true
	c.setFault(func(k cid.Cid, _ ipnisync.Hint) error {
		if broken && k == entries {
			return errors.New("reset")
		}
		return nil
	})
	fs := vfs.NewMem()
	n := openNode(t, fs, c)
	if err := n.store.SetPublisherAddrs(c.id(), []string{"/ip4/127.0.0.1/tcp/1/http"}); err != nil {
		t.Fatal(err)
	}
	n.notify(c, c.head)
	n.until("the ad has failed", func() bool { st, ok, _ := n.store.AdState(ad); return ok && st.Trouble.Attempts > 0 })
	n.close()
	c.setFault(nil)

	again := openNode(t, fs, c)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- again.i.Run(ctx) }()
	again.until("everything is applied", func() bool { return again.store.Progress(c.id()).Mark.Ad == c.head })
	again.wantFound(mhs, "a")
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestResyncAppliesAgainWithoutMovingTheMark(t *testing.T) {
	c := newTestChain(t)
	a, b := testMultihashes(t, "a", 10), testMultihashes(t, "b", 10)
	c.put("a", a)
	c.remove("a")
	c.put("b", b)
	n := openNode(t, vfs.NewMem(), c)
	n.sync(c)
	mark := n.store.Progress(c.id()).Mark
	addrs := parseAddrs([]string{"/ip4/127.0.0.1/tcp/1/http"})
	if err := n.i.Sync(c.id(), SyncOptions{Addrs: addrs, Resync: true}); err != nil {
		t.Fatal(err)
	}
	n.idle()
	n.wantGone(a)
	n.wantFound(b, "b")
	if got := n.store.Progress(c.id()).Mark; got != mark {
		t.Errorf("mark moved from %v to %v", mark, got)
	}
}

func TestDepthLimitCountsOlderAdsAsDone(t *testing.T) {
	c := newTestChain(t)
	old, fresh := testMultihashes(t, "old", 10), testMultihashes(t, "new", 10)
	lost := c.put("old", old)
	c.put("new", fresh)
	c.mem.Delete(lost) // truncated history
	n := openNode(t, vfs.NewMem(), c)
	addrs := parseAddrs([]string{"/ip4/127.0.0.1/tcp/1/http"})
	if err := n.i.Sync(c.id(), SyncOptions{Addrs: addrs, Depth: 1}); err != nil {
		t.Fatal(err)
	}
	n.idle()
	n.wantFound(fresh, "new")
	if got := n.store.Progress(c.id()).Mark.Ad; got != c.head {
		t.Errorf("mark %s, want %s", got, c.head)
	}
}

// TestFalseAnnounceDoesNotSuppressTheTrueOne: somebody announces the head at an
// address where nobody answers; the true announce comes while that is tried.
func TestFalseAnnounceDoesNotSuppressTheTrueOne(t *testing.T) {
	c := newTestChain(t)
	mhs := testMultihashes(t, "a", 10)
	c.put("a", mhs)
	n := openNode(t, vfs.NewMem(), c)
	evil, good := "/ip4/127.0.0.1/tcp/666/http", "/ip4/127.0.0.1/tcp/1/http"
	dialled := make(chan struct{})
	said := sync.OnceFunc(func() { close(dialled) })
	n.i.cfg.Dial = func(ai peer.AddrInfo) (Publisher, error) {
		for _, a := range ai.Addrs {
			if a.String() == good {
				return FromSource(ai.ID, c), nil
			}
		}
		said()
		return silent{FromSource(ai.ID, c)}, nil
	}
	if err := n.i.Notify(peer.AddrInfo{ID: c.id(), Addrs: parseAddrs([]string{evil})}, c.head); err != nil {
		t.Fatal(err)
	}
	<-dialled
	if err := n.i.Notify(peer.AddrInfo{ID: c.id(), Addrs: parseAddrs([]string{good})}, c.head); err != nil {
		t.Fatal(err)
	}
	n.idle()
	n.wantFound(mhs, "a")
}

// silent is a Publisher whose head never comes.
type silent struct{ Publisher }

func (s silent) Head(context.Context) (*schema.SignedHead, error) {
	return nil, errors.New("timed out")
}

func TestWaitingAnnouncesAreMergedWithinBounds(t *testing.T) {
	var waiting target
	for k := range 3 * maxNotices {
		addr := parseAddrs([]string{fmt.Sprintf("/ip4/127.0.0.1/tcp/%d/http", k+1)})
		over := waiting.merge(target{addrs: addr, notices: []notice{{addr, testMultihashCID(t)}}})
		if want := k >= maxNotices; (len(over) == 1) != want {
			t.Fatalf("announce %d: %d reported as failed", k, len(over))
		}
	}
	if len(waiting.addrs) != maxAnnouncedAddrs || waiting.addrs[0].String() != "/ip4/127.0.0.1/tcp/1/http" {
		t.Errorf("%d addresses wait, the first %s", len(waiting.addrs), waiting.addrs[0])
	}
	waiting.merge(target{explicit: true, depth: 3})
	waiting.merge(target{})
	if !waiting.explicit || waiting.depth != 3 {
		t.Errorf("the explicit sync was lost: %+v", waiting)
	}
}

// TestStrangersLeaveNoTrace: an announce of a publisher that shows no valid
// head is tried a few times and then forgotten, on disk and in memory.
func TestStrangersLeaveNoTrace(t *testing.T) {
	c := newTestChain(t)
	n := openNode(t, vfs.NewMem(), c)
	n.i.cfg.Dial = func(peer.AddrInfo) (Publisher, error) { return nil, errors.New("nobody there") }
	n.notify(c, testMultihashCID(t))
	n.idle()
	if got := len(n.failed); got != strangerTries {
		t.Errorf("tried %d times, want %d", got, strangerTries)
	}
	if got := n.store.Publishers(); len(got) != 0 {
		t.Errorf("the store knows %v", got)
	}
}

func testMultihashCID(t *testing.T) cid.Cid {
	return cid.NewCidV1(cid.DagJSON, testMultihashes(t, "nobody", 1)[0])
}

func TestNotAllowedPublisherIsRefused(t *testing.T) {
	c := newTestChain(t)
	c.put("a", testMultihashes(t, "a", 1))
	n := openNode(t, vfs.NewMem(), c)
	no := errors.New("not ours")
	n.i.cfg.Allow = func(peer.ID) error { return no }
	if err := n.i.Notify(peer.AddrInfo{ID: c.id()}, c.head); !errors.Is(err, no) {
		t.Errorf("Notify: %v, want %v", err, no)
	}
}

func TestClosedIngesterRefusesWork(t *testing.T) {
	c := newTestChain(t)
	n := openNode(t, vfs.NewMem(), c)
	if err := n.i.Close(); err != nil {
		t.Fatal(err)
	}
	if err := n.i.Notify(peer.AddrInfo{ID: c.id()}, cid.Undef); !errors.Is(err, ErrClosed) {
		t.Errorf("Notify after Close: %v", err)
	}
}

// TestSecpKeyChain: a chain signed with another key type is followed.
func TestOtherKeyTypesAreFollowed(t *testing.T) {
	for _, name := range []string{"rsa-provider", "secp256k1-provider"} {
		t.Run(name, func(t *testing.T) {
			var key crypto.PrivKey = vectorKey(t, name)
			c := chainOf(t, key)
			mhs := testMultihashes(t, name, 12)
			c.put("ctx", mhs)
			n := openNode(t, vfs.NewMem(), c)
			n.sync(c)
			n.wantFound(mhs, "ctx")
		})
	}
}
