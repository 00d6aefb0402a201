package indexer

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/api/admin"
	"github.com/signpost-index/signpost/api/find"
	"github.com/signpost-index/signpost/ingest/ipnisync"
	"github.com/signpost-index/signpost/ingest/schema"
)

// newRevised is a chain in which one context gets other metadata with each ad, and its
// extended provider with every second; mh is in the first.
func newRevised(t *testing.T, mh multihash.Multihash) (g *growing, main, extended peer.ID) {
	t.Helper()
	key, xkey := newKey(t), newKey(t)
	mem := ipnisync.NewMemory(key, "")
	extended, err := peer.IDFromPrivateKey(xkey)
	if err != nil {
		t.Fatal(err)
	}
	g = &growing{t: t, mem: mem}
	chunk, err := (&schema.EntryChunk{Entries: []multihash.Multihash{mh}}).Encode(schema.DagJSON)
	if err != nil {
		t.Fatal(err)
	}
	head, entries := cid.Undef, mem.Put(chunk, schema.DagJSON)
	for n := range 6 {
		ad := schema.Advertisement{PreviousID: head, Provider: mem.ID().String(), Addresses: []string{"/ip4/203.0.113.1/tcp/1"},
			Entries: entries, ContextID: []byte("ctx"), Metadata: fmt.Appendf(nil, "main %d", n)}
		if n%2 == 1 {
			ad.ExtendedProvider = &schema.ExtendedProvider{Providers: []schema.Provider{
				{ID: extended.String(), Addresses: []string{"/ip4/203.0.113.2/tcp/2"}, Metadata: fmt.Appendf(nil, "extended %d", n)},
				{ID: mem.ID().String(), Addresses: []string{"/ip4/203.0.113.1/tcp/1"}},
			}}
		}
		err := ad.Sign(key)
		if ad.ExtendedProvider != nil {
			err = ad.SignWithExtended(key, func(string) (crypto.PrivKey, error) { return xkey, nil })
		}
		if err != nil {
			t.Fatal(err)
		}
		block, err := ad.Encode(schema.DagJSON)
		if err != nil {
			t.Fatal(err)
		}
		head, entries = mem.Put(block, schema.DagJSON), schema.NoEntries
		g.ads = append(g.ads, head)
	}
	if err := mem.SetHead(g.ads[0]); err != nil {
		t.Fatal(err)
	}
	g.info = serveChain(t, mem)
	return g, mem.ID(), extended
}

// results are those of a node, as a frontend gets them.
func (n *node) results(mh multihash.Multihash) (results []find.ProviderResult) {
	n.t.Helper()
	client, err := find.NewClient(n.find, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	defer client.Close()
	for r, err := range client.Find(n.t.Context(), mh) {
		if err != nil {
			n.t.Fatal(err)
		}
		results = append(results, r)
	}
	return results
}

// TestTheNewerOfTwoNodesWins: what a node that lags says of a record is left out
// beside what one knows that does not, whichever way it got there; but not what another
// publisher says.
func TestTheNewerOfTwoNodesWins(t *testing.T) {
	var b [8]byte
	rand.Read(b[:])
	mh := mustSum(b[:])
	g, main, extended := newRevised(t, mh)
	source, whole, late := startNode(t, pooled), startNode(t, nil), startNode(t, nil)
	ids := []peer.ID{g.info.ID}
	out, err := source.roleClient().Open(t.Context(), ids)
	wantDone(t, out, err)
	g.grow(2, source)
	g.grow(3, late)
	g.grow(5, whole, source)

	text := func(results []find.ProviderResult) map[string]uint64 {
		at := make(map[string]uint64)
		for _, r := range results {
			name := map[peer.ID]string{main: "main", extended: "extended"}[r.Provider.ID]
			at[fmt.Sprintf("%s: %s", name, r.Metadata)] = r.Position.Height
		}
		return at
	}
	behind, ahead := late.results(mh), whole.results(mh)
	want := map[string]uint64{"main: main 3": 4, "extended: extended 3": 4}
	if diff := cmp.Diff(want, text(behind)); diff != "" {
		t.Fatalf("the node that lags (-want +got)\n%s", diff)
	}
	want = map[string]uint64{"main: main 5": 6, "extended: extended 5": 6}
	for name, results := range map[string][]find.ProviderResult{"whole": ahead, "grown with it": source.results(mh)} {
		if diff := cmp.Diff(want, text(results)); diff != "" {
			t.Fatalf("the node that is %s (-want +got)\n%s", name, diff)
		}
	}
	for _, all := range [][]find.ProviderResult{slices.Concat(behind, ahead), slices.Concat(ahead, behind)} {
		if diff := cmp.Diff(want, text(find.Merge(all))); diff != "" {
			t.Errorf("together (-want +got)\n%s", diff)
		}
	}
	other := slices.Clone(behind)
	for i := range other {
		other[i].Position.Chain[0]++
	}
	if got := text(find.Merge(slices.Concat(other, ahead))); len(got) != 4 {
		t.Errorf("beside another chain: %v, want all", slices.Collect(maps.Keys(got)))
	}

	// Clients that do not ask do not see it.
	_, _, body := whole.call(http.MethodGet, whole.find+"/multihash/"+mh.B58String(), "")
	var response find.Response
	if err := json.Unmarshal([]byte(body), &response); err != nil || len(response.MultihashResults) != 1 {
		t.Fatalf("%s: %v", body, err)
	}
	for _, r := range response.MultihashResults[0].ProviderResults {
		if r.Position != (find.Position{}) {
			t.Errorf("a position for everybody: %s", body)
		}
	}
}

// TestPositionsGoOnAfterAHandoff: who took a publisher over counts as who had it all.
func TestPositionsGoOnAfterAHandoff(t *testing.T) {
	g := newGrowing(t)
	ids := []peer.ID{g.info.ID}
	mid, last := len(g.ads)/2, len(g.ads)-1
	source, target := startNode(t, pooled), startNode(t, pooled)
	out, err := source.roleClient().Open(t.Context(), ids)
	wantDone(t, out, err)
	g.grow(mid, source)
	offers, err := source.roleClient().Close(t.Context(), ids)
	if err != nil || offers[0].ChainHeight != uint64(mid+1) {
		t.Fatalf("%+v, %v", offers, err)
	}
	out, err = target.roleClient().TakeOver(t.Context(), admin.TakeOver{From: source.ix.ID(), Offers: offers})
	wantDone(t, out, err)
	g.grow(last, source, target)
	for n, ad := range g.ads[mid:] {
		for _, node := range []*node{source, target} {
			st, _, err := node.ix.store.AdState(ad)
			if err != nil {
				t.Fatal(err)
			}
			if got := node.ix.store.PlaceOf(g.info.ID, st.Pos); got.Height != uint64(mid+n+1) || string(got.Chain[:]) != string(offers[0].Chain) {
				t.Errorf("ad %d: %v at %s", mid+n, got, node.find)
			}
		}
	}
}
