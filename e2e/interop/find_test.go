package interop

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipni/go-libipni/apierror"
	"github.com/ipni/go-libipni/find/client"
	"github.com/ipni/go-libipni/find/model"
	"github.com/ipni/go-libipni/pcache"
	"github.com/ipni/index-provider/engine/xproviders"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multihash"
)

// oddMultihashes are some of other kinds than sha2-256.
func oddMultihashes(t *testing.T) []multihash.Multihash {
	t.Helper()
	var mhs []multihash.Multihash
	for _, kind := range []struct {
		code   uint64
		length int
	}{
		{multihash.IDENTITY, -1}, {multihash.SHA1, -1}, {multihash.SHA2_512, -1}, {multihash.DBL_SHA2_256, -1},
		{multihash.SHA2_256, 20}, {multihash.MURMUR3X64_64, -1},
	} {
		mh, err := multihash.Sum([]byte("odd"), kind.code, kind.length)
		if err != nil {
			t.Fatal(err)
		}
		mhs = append(mhs, mh)
	}
	return mhs
}

// nodes are those of the pool that answer finds for the provider.
func (p *pool) nodes(t *testing.T, provider peer.ID) map[string]*client.Client {
	t.Helper()
	nodes := map[string]*client.Client{"frontend": p.frontendFind}
	for _, ix := range p.indexers {
		c := findClient(t, ix.Find)
		if _, err := c.GetProvider(t.Context(), provider); err == nil {
			nodes["indexer"] = c
		}
	}
	if len(nodes) != 2 {
		t.Fatalf("provider %s is on no indexer", provider)
	}
	return nodes
}

// TestReferenceFindClient asks an indexer and the frontend all that the
// reference client can ask.
func TestReferenceFindClient(t *testing.T) {
	t.Parallel()
	pool := startPool(t, false)
	pub := startAnnouncing(t, pool.assigner.HTTP)
	want := content{"find", multihashes("find", 50), overBitswap}
	odd := content{"odd", oddMultihashes(t), overGateway}
	empty := content{"", multihashes("no context ID", 3), overBitswap}
	for _, c := range []content{want, odd, empty} {
		pub.put(c.contextID, c.mhs, c.md)
	}
	head, _, err := pub.GetLatestAdv(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	waitIndexed(t, pool.frontendFind, pub.id, head)
	absent := multihashes("absent", 5)

	for name, c := range pool.nodes(t, pub.id) {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			checkContents(t, c, pub.id, want, odd, empty, content{mhs: absent})

			batch := slices.Concat(want.mhs[:10], absent, odd.mhs)
			resp, err := client.FindBatch(ctx, c, batch)
			if err != nil {
				t.Fatal(err)
			}
			var found []multihash.Multihash
			for _, r := range resp.MultihashResults {
				found = append(found, r.Multihash)
			}
			if !slices.EqualFunc(found, slices.Concat(want.mhs[:10], odd.mhs), equalBytes) {
				t.Errorf("batch found %d of 10 and %d, or others: %s", len(found), len(odd.mhs), resp)
			}
			if resp, err := client.FindBatch(ctx, c, absent); err != nil || len(resp.MultihashResults) != 0 {
				t.Errorf("batch of absent multihashes: %s, %v", resp, err)
			}

			infos, err := c.ListProviders(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if len(infos) != 1 || infos[0].LastAdvertisement != head {
				t.Fatalf("providers are %+v, want one at %s", infos, head)
			}
			checkProviderInfo(t, infos[0], pub.id)

			_, stranger := newIdentity(t)
			var status *apierror.Error
			if info, err := c.GetProvider(ctx, stranger); !errors.As(err, &status) || status.Status() != http.StatusNotFound {
				t.Errorf("unknown provider: %+v, %v, want status 404", info, err)
			}

			stats, err := c.GetStats(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if stats.EntriesEstimate <= 0 || stats.EntriesCount <= 0 {
				t.Errorf("stats are %+v", stats)
			}
		})
	}
}

// TestReferencePrivacyClientFindsNothing: reader privacy is not served, which
// its client takes for "not found", not for an error.
func TestReferencePrivacyClientFindsNothing(t *testing.T) {
	t.Parallel()
	_, ix := startIndexer(t, "none")
	c, err := client.NewDHashClient(client.WithDHStoreURL(ix.Find), client.WithProvidersURL(ix.Find))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Find(t.Context(), multihashes("private", 1)[0])
	if err != nil || len(resp.MultihashResults) != 0 {
		t.Errorf("find: %s, %v, want nothing and no error", resp, err)
	}
}

// TestFindAtFrontendMergesProviders: what two publishers on different indexers
// provide is found with both.
func TestFindAtFrontendMergesProviders(t *testing.T) {
	t.Parallel()
	pool := startPool(t, false)
	shared := multihashes("shared", 5)
	var ids []peer.ID
	for range 2 {
		pub := startAnnouncing(t, pool.assigner.HTTP)
		waitIndexed(t, pool.frontendFind, pub.id, pub.put("shared", shared, overBitswap))
		ids = append(ids, pub.id)
	}
	for _, mh := range shared {
		resp, err := pool.frontendFind.Find(t.Context(), mh)
		if err != nil || len(resp.MultihashResults) != 1 {
			t.Fatalf("find: %s, %v", resp, err)
		}
		var got []peer.ID
		for _, r := range resp.MultihashResults[0].ProviderResults {
			got = append(got, r.Provider.ID)
		}
		slices.Sort(got)
		if want := slices.Sorted(slices.Values(ids)); !slices.Equal(got, want) {
			t.Errorf("providers are %v, want %v", got, want)
		}
	}
}

// TestIndexerDownIsNoAbsence: with one indexer gone, what the other has is
// still found, and the clients take what nobody can know for an error.
func TestIndexerDownIsNoAbsence(t *testing.T) {
	t.Parallel()
	pool := startPool(t, false)
	byIndexer := make([]content, 2)
	ids := make([]peer.ID, 2)
	for i := range byIndexer {
		pub := startAnnouncing(t, pool.assigner.HTTP)
		c := content{"down", multihashes(fmt.Sprint("down ", i), 3), overBitswap}
		waitIndexed(t, pool.frontendFind, pub.id, pub.put(c.contextID, c.mhs, c.md))
		n := slices.IndexFunc(pool.indexers, func(ix ready) bool {
			_, err := findClient(t, ix.Find).GetProvider(t.Context(), pub.id)
			return err == nil
		})
		if n < 0 {
			t.Fatalf("provider %s is on no indexer", pub.id)
		}
		byIndexer[n], ids[n] = c, pub.id
	}
	if ids[0] == "" || ids[1] == "" {
		t.Fatal("both publishers are on one indexer")
	}
	pool.processes[0].stop(t)

	checkContents(t, pool.frontendFind, ids[1], byIndexer[1])
	for _, mh := range [][]multihash.Multihash{byIndexer[0].mhs, multihashes("nowhere", 3)} {
		resp, err := pool.frontendFind.Find(t.Context(), mh[0])
		if err == nil || !strings.Contains(err.Error(), http.StatusText(http.StatusServiceUnavailable)) {
			t.Errorf("find of what the lost indexer may have: %s, %v, want Service Unavailable", resp, err)
		}
	}
	for _, accept := range []string{acceptJSON, acceptNDJSON} {
		rc := routingClient(t, pool.frontend.HTTP, accept)
		if records := findRecords(t, rc, byIndexer[1].mhs[0]); len(records) != 1 {
			t.Errorf("%s: delegated routing found %d records, want 1", accept, len(records))
		}
		if it, err := rc.FindProviders(t.Context(), rawCID(byIndexer[0].mhs[0])); err == nil {
			it.Close()
			t.Errorf("%s: delegated routing: no error though an indexer is gone", accept)
		}
	}
}

// extended makes an extended provider.
func extended(t *testing.T, addr string, md []byte) xproviders.Info {
	t.Helper()
	key, id := newIdentity(t)
	return xproviders.NewInfo(id, key, md, []multiaddr.Multiaddr{parseAddr(t, addr)})
}

// publishExtended appends an ad with extended providers to the chain.
func (p *publisher) publishExtended(contextID string, md []byte, override bool, xps ...xproviders.Info) cid.Cid {
	p.t.Helper()
	last, _, err := p.GetLatestAdv(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	ad, err := xproviders.NewAdBuilder(p.id, p.key, []multiaddr.Multiaddr{parseAddr(p.t, retrievalAddr)}).
		WithContextID([]byte(contextID)).WithMetadata(md).WithOverride(override).
		WithExtendedProviders(xps...).WithLastAdID(last).BuildAndSign()
	if err != nil {
		p.t.Fatal(err)
	}
	c, err := p.Publish(p.t.Context(), *ad)
	if err != nil {
		p.t.Fatal(err)
	}
	return c
}

// TestReferenceProviderCacheAgrees: from our /providers the reference's provider
// cache makes the results, extended providers and all, that our finds have.
func TestReferenceProviderCacheAgrees(t *testing.T) {
	t.Parallel()
	pool := startPool(t, false)
	pub := startAnnouncing(t, pool.assigner.HTTP)
	md := marshal(t, overBitswap)
	contents := []content{
		{"plain", multihashes("xp plain", 3), overBitswap},
		{"more", multihashes("xp more", 3), overBitswap},
		{"instead", multihashes("xp instead", 3), overBitswap},
		{"other protocol", multihashes("xp other", 3), overGateway},
	}
	for _, c := range contents {
		pub.put(c.contextID, c.mhs, c.md)
	}
	chain1 := extended(t, "/ip4/192.0.2.11/tcp/11", nil)
	chain2 := extended(t, "/ip4/192.0.2.12/tcp/12", marshal(t, overGateway))
	inherit := extended(t, "/ip4/192.0.2.13/tcp/13", nil)
	instead := extended(t, "/ip4/192.0.2.14/tcp/14", marshal(t, overGateway))
	pub.publishExtended("", md, false, chain1, chain2)
	pub.publishExtended("more", md, false, inherit)
	head := pub.publishExtended("instead", md, true, instead)
	waitIndexed(t, pool.frontendFind, pub.id, head)

	self := pub.id.String()
	wantIDs := map[string][]string{
		"plain":          {self, chain1.ID, chain2.ID},
		"more":           {self, inherit.ID, chain1.ID, chain2.ID},
		"instead":        {self, instead.ID},
		"other protocol": {self, self, chain1.ID, chain2.ID}, // itself also with the chain's bitswap
	}
	urls := map[string]string{"frontend": pool.frontend.HTTP}
	for _, ix := range pool.indexers {
		if _, err := findClient(t, ix.Find).GetProvider(t.Context(), pub.id); err == nil {
			urls["indexer"] = ix.Find
		}
	}
	for name, u := range urls {
		t.Run(name, func(t *testing.T) {
			cache, err := pcache.New(pcache.WithSourceURL(u), pcache.WithRefreshInterval(0))
			if err != nil {
				t.Fatal(err)
			}
			info, err := cache.Get(t.Context(), pub.id)
			if err != nil || info == nil || len(cache.List()) != 1 {
				t.Fatalf("cached provider: %+v, %v, in a list of %d", info, err, len(cache.List()))
			}
			checkProviderInfo(t, info, pub.id)
			_, stranger := newIdentity(t)
			if info, err := cache.Get(t.Context(), stranger); err != nil || info != nil {
				t.Errorf("stranger: %+v, %v, want neither", info, err)
			}
			for _, c := range contents {
				resp, err := findClient(t, u).Find(t.Context(), c.mhs[0])
				if err != nil || len(resp.MultihashResults) != 1 {
					t.Fatalf("%s: find: %s, %v", c.contextID, resp, err)
				}
				found := resultTexts(resp.MultihashResults[0].ProviderResults)
				results, err := cache.GetResults(t.Context(), pub.id, []byte(c.contextID), marshal(t, c.md))
				if err != nil {
					t.Fatal(err)
				}
				if cached := resultTexts(results); !slices.Equal(found, cached) {
					t.Errorf("%s: found\n\t%s\nbut the reference makes of our providers\n\t%s", c.contextID,
						strings.Join(found, "\n\t"), strings.Join(cached, "\n\t"))
				}
				var ids []string
				for _, r := range resp.MultihashResults[0].ProviderResults {
					ids = append(ids, r.Provider.ID.String())
				}
				want := slices.Sorted(slices.Values(wantIDs[c.contextID]))
				if slices.Sort(ids); !slices.Equal(ids, want) {
					t.Errorf("%s: providers are %v, want %v", c.contextID, ids, want)
				}
			}
		})
	}
}

// resultTexts renders results in an order that depends on them alone.
func resultTexts(results []model.ProviderResult) []string {
	var texts []string
	for _, r := range results {
		texts = append(texts, fmt.Sprintf("%s %v context %q metadata %s", r.Provider.ID, r.Provider.Addrs, r.ContextID,
			cmp.Or(base64.StdEncoding.EncodeToString(r.Metadata), "none")))
	}
	slices.Sort(texts)
	return texts
}

func equalBytes(a, b multihash.Multihash) bool { return bytes.Equal(a, b) }
