package interop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	"github.com/ipni/go-libipni/find/client"
	"github.com/ipni/go-libipni/find/model"
	"github.com/ipni/go-libipni/metadata"
	"github.com/ipni/index-provider/engine"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multicodec"
	"github.com/multiformats/go-multihash"
)

// content is what a context should answer with.
type content struct {
	contextID string
	mhs       []multihash.Multihash
	md        metadata.Metadata // none: the content should not be found
}

// checkContents looks every multihash up through c and compares the answers.
func checkContents(t *testing.T, c *client.Client, provider peer.ID, contents ...content) {
	t.Helper()
	for _, want := range contents {
		md := marshal(t, want.md)
		wrong := 0
		for i, mh := range want.mhs {
			resp, err := c.Find(t.Context(), mh)
			if err == nil {
				err = want.check(provider, md, mh, resp)
			}
			if err == nil {
				continue
			}
			if wrong++; wrong == 1 {
				t.Errorf("context %s, multihash %d of %d: %v", want.contextID, i, len(want.mhs), err)
			}
		}
		if wrong > 1 {
			t.Errorf("context %s: %d of %d answers are wrong", want.contextID, wrong, len(want.mhs))
		}
	}
	if t.Failed() {
		t.FailNow()
	}
}

// check compares the answer to one find with what it should be.
func (want content) check(provider peer.ID, md []byte, mh multihash.Multihash, resp *model.FindResponse) error {
	if len(md) == 0 {
		if len(resp.MultihashResults) != 0 {
			return fmt.Errorf("found: %s", resp)
		}
		return nil
	}
	if len(resp.MultihashResults) != 1 || !bytes.Equal(resp.MultihashResults[0].Multihash, mh) {
		return fmt.Errorf("want one result for %s, got %s", mh.B58String(), resp)
	}
	results := resp.MultihashResults[0].ProviderResults
	if len(results) != 1 {
		return fmt.Errorf("want one provider, got %s", resp)
	}
	r := results[0]
	switch {
	case r.Provider == nil || r.Provider.ID != provider:
		return fmt.Errorf("provider is %v, want %s", r.Provider, provider)
	case len(r.Provider.Addrs) != 1 || r.Provider.Addrs[0].String() != retrievalAddr:
		return fmt.Errorf("addresses are %v, want %s", r.Provider.Addrs, retrievalAddr)
	case string(r.ContextID) != want.contextID:
		return fmt.Errorf("context ID is %q, want %q", r.ContextID, want.contextID)
	case !bytes.Equal(r.Metadata, md):
		return fmt.Errorf("metadata is %x, want %x", r.Metadata, md)
	}
	return nil
}

// gone is the content, not to be found any more.
func (want content) gone() content {
	want.md = metadata.Default.New()
	return want
}

// TestPoolIndexesReferencePublisher follows a chain of the reference publisher
// through its life: contents, metadata, removals, again the same content.
func TestPoolIndexesReferencePublisher(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		entries engine.Option
	}{
		{"entry chunks", engine.WithChainedEntries(100)},
		{"HAMT of murmur3", engine.WithHamtEntries(multicodec.Murmur3X64_64, 3, 1)},
		{"HAMT of sha2-256", engine.WithHamtEntries(multicodec.Sha2_256, 5, 3)},
	}
	pool := startPool(t, false)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			pub := startAnnouncing(t, pool.assigner.HTTP, tt.entries)
			c := pool.frontendFind
			contents := []content{
				{"one", multihashes(tt.name+" one", 1), overBitswap},
				{"exactly a chunk", multihashes(tt.name+" chunk", 100), overGateway},
				{"many chunks", multihashes(tt.name+" many", 640), overBitswap},
			}
			var head cid.Cid
			for _, want := range contents {
				head = pub.put(want.contextID, want.mhs, want.md)
			}
			info := waitIndexed(t, c, pub.id, head)
			checkProviderInfo(t, info, pub.id)
			checkContents(t, c, pub.id, contents...)

			// The reference updates metadata by an ad with the same entries.
			contents[2].md = metadata.Default.New(metadata.Bitswap{}, metadata.IpfsGatewayHttp{})
			head = pub.put(contents[2].contextID, contents[2].mhs, contents[2].md)
			waitIndexed(t, c, pub.id, head)
			checkContents(t, c, pub.id, contents...)

			head = pub.remove(contents[2].contextID)
			waitIndexed(t, c, pub.id, head)
			checkContents(t, c, pub.id, contents[0], contents[1], contents[2].gone())

			// A removed context comes back, with half of what it had.
			again := content{contents[2].contextID, contents[2].mhs[:320], overGateway}
			lost := content{contents[2].contextID, contents[2].mhs[320:], overGateway}
			head = pub.put(again.contextID, again.mhs, again.md)
			waitIndexed(t, c, pub.id, head)
			checkContents(t, c, pub.id, contents[0], contents[1], again, lost.gone())
		})
	}
}

// checkProviderInfo looks at what clients of the reference rely on.
func checkProviderInfo(t *testing.T, info *model.ProviderInfo, id peer.ID) {
	t.Helper()
	switch {
	case info.AddrInfo.ID != id || len(info.AddrInfo.Addrs) != 1 || info.AddrInfo.Addrs[0].String() != retrievalAddr:
		t.Errorf("provider is %v, want %s at %s", info.AddrInfo, id, retrievalAddr)
	case info.Publisher == nil || info.Publisher.ID != id || len(info.Publisher.Addrs) != 1:
		t.Errorf("publisher is %v, want %s with one address", info.Publisher, id)
	case info.LastAdvertisementTime == "":
		t.Error("no time of the last advertisement")
	case info.FrozenAt.Defined() || info.FrozenAtTime != "" || info.Inactive:
		t.Errorf("provider is frozen or inactive: %+v", info)
	case info.LastError != "":
		t.Errorf("last error is %q", info.LastError)
	}
}

// TestPublishersSpreadOverIndexers: each publisher is on one indexer, and both
// indexers have publishers.
func TestPublishersSpreadOverIndexers(t *testing.T) {
	t.Parallel()
	pool := startPool(t, false)
	const publishers = 4
	for i := range publishers {
		pub := startAnnouncing(t, pool.assigner.HTTP)
		want := content{"spread", multihashes(fmt.Sprint("spread ", i), 20), overBitswap}
		waitIndexed(t, pool.frontendFind, pub.id, pub.put(want.contextID, want.mhs, want.md))
		checkContents(t, pool.frontendFind, pub.id, want)
	}
	for i, ix := range pool.indexers {
		infos, err := findClient(t, ix.Find).ListProviders(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(infos) != publishers/2 {
			t.Errorf("indexer %d has %d providers, want %d", i, len(infos), publishers/2)
		}
	}
}

// TestRemovedBeforeIndexed: what was put and removed before the pool ever heard
// of the publisher stays out. The reference cannot serve the entries of a removed
// context for ever: it answers 404, and the chain must go on regardless.
func TestRemovedBeforeIndexed(t *testing.T) {
	t.Parallel()
	pool := startPool(t, false)
	gone := content{"gone", multihashes("gone", 250), overBitswap}
	forgotten := content{"forgotten", multihashes("forgotten", 250), overBitswap}
	kept := content{"kept", multihashes("kept", 250), overBitswap}

	pub := newPublisher(t)
	pub.open(engine.WithHttpPublisherWithoutServer(), engine.WithChainedEntries(100))
	pub.put(gone.contextID, gone.mhs, gone.md)
	pub.put(forgotten.contextID, forgotten.mhs, forgotten.md)
	pub.put(kept.contextID, kept.mhs, kept.md)
	pub.remove(gone.contextID)
	pub.shutdown()

	// The entries of one context are lost without a removal.
	forgetEntries(t, pub, forgotten.contextID)

	pub.openAnnouncing(pool.assigner.HTTP, engine.WithChainedEntries(100), engine.WithPurgeCacheOnStart(true))
	t.Cleanup(func() { pub.shutdown() })
	if _, err := pub.PublishLatest(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The lost entries are asked for again for hours, while the others go on.
	eventually(t, "the ads beside the lost one applied, and it shown", func(ctx context.Context) error {
		info, err := pool.frontendFind.GetProvider(ctx, pub.id)
		if err != nil {
			return err
		}
		for _, mh := range kept.mhs {
			resp, err := pool.frontendFind.Find(ctx, mh)
			if err == nil {
				err = kept.check(pub.id, marshal(t, kept.md), mh, resp)
			}
			if err != nil {
				return err
			}
		}
		if info.LastError == "" {
			return errors.New("no error is shown")
		}
		return nil
	})
	checkContents(t, pool.frontendFind, pub.id, gone.gone(), forgotten.gone(), kept)
}

// TestRestartedPublisherGoesOn: the chain continues where it was, at another
// address.
func TestRestartedPublisherGoesOn(t *testing.T) {
	t.Parallel()
	pool := startPool(t, false)
	first := content{"first", multihashes("restart first", 30), overBitswap}
	second := content{"second", multihashes("restart second", 30), overGateway}

	pub := newPublisher(t)
	pub.openAnnouncing(pool.assigner.HTTP)
	before := waitIndexed(t, pool.frontendFind, pub.id, pub.put(first.contextID, first.mhs, first.md))
	pub.shutdown()

	pub.openAnnouncing(pool.assigner.HTTP)
	t.Cleanup(func() { pub.shutdown() })
	after := waitIndexed(t, pool.frontendFind, pub.id, pub.put(second.contextID, second.mhs, second.md))
	checkContents(t, pool.frontendFind, pub.id, first, second)
	if a, b := before.Publisher.Addrs, after.Publisher.Addrs; slices.EqualFunc(a, b, multiaddr.Multiaddr.Equal) {
		t.Errorf("publisher address is still %v", b)
	}
}

// TestThirdPartyCannotPublishForOthers: a reference publisher that signs ads
// for somebody else's provider ID with its own key changes nothing.
func TestThirdPartyCannotPublishForOthers(t *testing.T) {
	t.Parallel()
	pool := startPool(t, false)
	victim := startAnnouncing(t, pool.assigner.HTTP)
	want := content{"theirs", multihashes("theirs", 40), overBitswap}
	head := victim.put(want.contextID, want.mhs, want.md)
	waitIndexed(t, pool.frontendFind, victim.id, head)

	thief := startAnnouncing(t, pool.assigner.HTTP)
	own := content{"own", multihashes("own", 10), overBitswap}
	waitIndexed(t, pool.frontendFind, thief.id, thief.put(own.contextID, own.mhs, own.md))
	forged := content{"forged", multihashes("forged", 10), overBitswap}
	thief.listing(forged)
	as := peer.AddrInfo{ID: victim.id, Addrs: []multiaddr.Multiaddr{parseAddr(t, "/ip4/192.0.2.66/tcp/4001")}}
	if _, err := thief.NotifyPut(t.Context(), &as, []byte(forged.contextID), forged.md); err != nil {
		t.Fatal(err)
	}
	thief.listing(want)
	if _, err := thief.NotifyPut(t.Context(), &as, []byte(want.contextID), overGateway); err != nil {
		t.Fatal(err)
	}
	if _, err := thief.NotifyRemove(t.Context(), victim.id, []byte(want.contextID)); err != nil {
		t.Fatal(err)
	}
	// Its next ad shows that the pool is past the forged ones.
	more := content{"more", multihashes("more", 10), overBitswap}
	waitIndexed(t, pool.frontendFind, thief.id, thief.put(more.contextID, more.mhs, more.md))
	checkContents(t, pool.frontendFind, victim.id, want, forged.gone())
	checkContents(t, pool.frontendFind, thief.id, own, more)
	info, err := pool.frontendFind.GetProvider(t.Context(), victim.id)
	if err != nil {
		t.Fatal(err)
	}
	if info.LastAdvertisement != head {
		t.Errorf("last advertisement is %s, want %s", info.LastAdvertisement, head)
	}
	checkProviderInfo(t, info, victim.id)
}

// forgetEntries makes a closed publisher forget which context an entries link
// belongs to, so that it answers 404 for it: this happens to long-lived ones.
func forgetEntries(t *testing.T, p *publisher, contextID string) {
	t.Helper()
	delete(p.contexts, contextID)
	// The keys are those of the engine's datastore.go.
	entries, err := p.ds.Get(t.Context(), datastore.NewKey("map/keyCid/"+contextID))
	if err != nil {
		t.Fatal(err)
	}
	_, c, err := cid.CidFromBytes(entries)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.ds.Delete(t.Context(), datastore.NewKey("map/cidProvAndKey/"+c.String())); err != nil {
		t.Fatal(err)
	}
}
