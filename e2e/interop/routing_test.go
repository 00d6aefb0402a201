package interop

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/boxo/ipns"
	"github.com/ipfs/boxo/routing/http/client"
	"github.com/ipfs/boxo/routing/http/contentrouter"
	"github.com/ipfs/boxo/routing/http/filters"
	"github.com/ipfs/boxo/routing/http/types"
	"github.com/ipfs/boxo/routing/http/types/iter"
	"github.com/ipfs/go-cid"
	"github.com/ipni/go-libipni/metadata"
	"github.com/ipni/index-provider/engine"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/routing"
	"github.com/multiformats/go-multihash"
	"github.com/multiformats/go-varint"
)

// What Accept header a client sends; boxo's own is both.
const (
	acceptJSON   = "application/json"
	acceptNDJSON = "application/x-ndjson"
)

// accepting sends requests with one Accept header and notes the last answer.
type accepting struct {
	accept string
	status int
	answer string // Content-Type
}

func (a *accepting) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set("Accept", a.accept)
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err == nil {
		a.status, a.answer = resp.StatusCode, resp.Header.Get("Content-Type")
	}
	return resp, err
}

// routingClient is boxo's client, without filters unless they are given.
func routingClient(t *testing.T, url, accept string, options ...client.Option) *client.Client {
	t.Helper()
	return routingClientOver(t, url, &accepting{accept: accept}, options...)
}

func routingClientOver(t *testing.T, url string, transport http.RoundTripper, options ...client.Option) *client.Client {
	t.Helper()
	c, err := client.New(url, append([]client.Option{
		client.WithHTTPClient(&http.Client{Transport: transport}),
		client.WithProtocolFilter(nil),
	}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func rawCID(mh multihash.Multihash) cid.Cid { return cid.NewCidV1(cid.Raw, mh) }

// findRecords returns what FindProviders yields, all of which must be of the
// peer schema.
func findRecords(t *testing.T, c *client.Client, mh multihash.Multihash) []*types.PeerRecord {
	t.Helper()
	it, err := c.FindProviders(t.Context(), rawCID(mh))
	if err != nil {
		t.Fatal(err)
	}
	return readRecords(t, it)
}

func readRecords(t *testing.T, it iter.ResultIter[types.Record]) []*types.PeerRecord {
	t.Helper()
	defer it.Close()
	all, err := iter.ReadAllResults(it)
	if err != nil {
		t.Fatal(err)
	}
	var records []*types.PeerRecord
	for _, r := range all {
		p, ok := r.(*types.PeerRecord)
		if !ok || p.GetSchema() != types.SchemaPeer || p.ID == nil {
			t.Fatalf("record %+v is not of the peer schema", r)
		}
		records = append(records, p)
	}
	return records
}

// recordTexts renders records in an order that depends on them alone.
func recordTexts(t *testing.T, records []*types.PeerRecord) []string {
	t.Helper()
	var texts []string
	for _, r := range records {
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(b))
	}
	slices.Sort(texts)
	return texts
}

// routed is a pool with one multihash that providers of all sorts provide.
type routed struct {
	pool      *pool
	mh        multihash.Multihash
	providers map[string]*publisher
	metadata  map[string]metadata.Metadata
}

func startRouted(t *testing.T) *routed {
	t.Helper()
	const unknownCode = 0x3f1234
	piece := rawCID(sum([]byte("piece")))
	graphsync := &metadata.GraphsyncFilecoinV1{PieceCID: piece, VerifiedDeal: true, FastRetrieval: true}
	unknown := append(varint.ToUvarint(unknownCode), 3, 'a', 'b', 'c')
	r := &routed{
		pool: startPool(t, false), mh: sum([]byte("routed")), providers: make(map[string]*publisher),
		metadata: map[string]metadata.Metadata{
			"bitswap":    overBitswap,
			"gateway":    overGateway,
			"three":      metadata.Default.New(metadata.Bitswap{}, graphsync, metadata.IpfsGatewayHttp{}),
			"unknown":    metadata.Default.New(&metadata.Unknown{Code: unknownCode, Payload: unknown}),
			"unreadable": metadata.Default.New(&metadata.Unknown{Payload: []byte{0xff, 0xff}}),
		},
	}
	addrs := map[string][]string{
		"bitswap":    {"/ip4/192.0.2.1/tcp/4001", "/ip4/192.0.2.1/udp/4001/quic-v1", "/ip6/2001:db8::1/tcp/4001"},
		"gateway":    {"/dns/gateway.example.com/tcp/443/https"},
		"three":      {"/ip4/192.0.2.3/udp/4001/quic-v1/webtransport", "/ip4/192.0.2.3/tcp/4001/ws"},
		"unknown":    {"/ip4/192.0.2.4/tcp/4001"},
		"unreadable": {"/ip6/2001:db8::5/udp/4001/quic-v1"},
	}
	for name, md := range r.metadata {
		pub := startAnnouncing(t, r.pool.assigner.HTTP, engine.WithRetrievalAddrs(addrs[name]...))
		waitIndexed(t, r.pool.frontendFind, pub.id, pub.put("routed", []multihash.Multihash{r.mh}, md))
		r.providers[name] = pub
	}
	return r
}

// TestDelegatedRoutingClient: the client that Kubo uses understands our
// frontend, whatever it asks for.
func TestDelegatedRoutingClient(t *testing.T) {
	t.Parallel()
	r := startRouted(t)
	t.Run("records", r.testRecords)
	t.Run("nothing found", r.testNothing)
	t.Run("filters", r.testFilters)
	t.Run("content routing as Kubo does it", r.testContentRouting)
	t.Run("what a content index does not serve", r.testNotServed)
}

func (r *routed) testRecords(t *testing.T) {
	want := map[string][]string{
		"bitswap":    {"transport-bitswap"},
		"gateway":    {"transport-ipfs-gateway-http"},
		"three":      {"transport-bitswap", "transport-graphsync-filecoinv1", "transport-ipfs-gateway-http"},
		"unknown":    {"Code(4133428)"},
		"unreadable": nil,
	}
	for _, accept := range []string{acceptJSON, acceptNDJSON} {
		transport := &accepting{accept: accept}
		records := findRecords(t, routingClientOver(t, r.pool.frontend.HTTP, transport), r.mh)
		if transport.status != http.StatusOK || !strings.HasPrefix(transport.answer, accept) {
			t.Errorf("%s: status %d, type %q", accept, transport.status, transport.answer)
		}
		if len(records) != len(want) {
			t.Errorf("%s: %d records, want %d", accept, len(records), len(want))
		}
		for name, protocols := range want {
			pub := r.providers[name]
			n := slices.IndexFunc(records, func(rec *types.PeerRecord) bool { return *rec.ID == pub.id })
			if n < 0 {
				t.Errorf("%s: no record of %s", accept, name)
				continue
			}
			rec := records[n]
			if !slices.Equal(rec.Protocols, protocols) {
				t.Errorf("%s: protocols of %s are %q, want %q", accept, name, rec.Protocols, protocols)
			}
			info, err := r.pool.frontendFind.GetProvider(t.Context(), pub.id)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := fmt.Sprint(rec.Addrs), fmt.Sprint(info.AddrInfo.Addrs); got != want {
				t.Errorf("%s: addresses of %s are %s, want %s", accept, name, got, want)
			}
			checkExtra(t, rec, marshal(t, r.metadata[name]))
		}
	}
}

// checkExtra: each protocol has a field with its record, and together they are
// the metadata.
func checkExtra(t *testing.T, rec *types.PeerRecord, md []byte) {
	t.Helper()
	if rec.Protocols == nil {
		md = nil
	}
	var joined []byte
	for _, p := range rec.Protocols {
		var text string
		if err := json.Unmarshal(rec.Extra[p], &text); err != nil {
			t.Errorf("field %s of %s is %q: %v", p, rec.ID, rec.Extra[p], err)
			return
		}
		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			t.Errorf("field %s: %v", p, err)
		}
		joined = append(joined, b...)
	}
	if string(joined) != string(md) || len(rec.Extra) != len(rec.Protocols) {
		t.Errorf("fields of %s are %s, want the parts of %x", rec.ID, rec.Extra, md)
	}
}

func (r *routed) testNothing(t *testing.T) {
	for _, accept := range []string{acceptJSON, acceptNDJSON} {
		transport := &accepting{accept: accept}
		c := routingClientOver(t, r.pool.frontend.HTTP, transport)
		if records := findRecords(t, c, sum([]byte("absent"))); len(records) != 0 {
			t.Errorf("%s: found %v", accept, records)
		}
		// IPIP-513: empty is 200, of the type asked for.
		if transport.status != http.StatusOK || !strings.HasPrefix(transport.answer, accept) {
			t.Errorf("%s: status %d, type %q", accept, transport.status, transport.answer)
		}
	}
}

// testFilters holds our filters (IPIP-484) against those boxo applies itself.
func (r *routed) testFilters(t *testing.T) {
	tests := []struct{ protocols, addrs string }{
		{"transport-bitswap", ""},
		{"Transport-Bitswap", ""},
		{"transport-ipfs-gateway-http", ""},
		{"unknown", ""},
		{"transport-bitswap,unknown", ""},
		{"transport-graphsync-filecoinv1,transport-filecoin-piece-http", ""},
		{"transport-filecoin-piece-http", ""},
		{"", "tcp"},
		{"", "!tcp"},
		{"", "quic-v1,!webtransport"},
		{"", "!ip6,!https"},
		{"", "https"},
		{"", "unknown"},
		{"", "unknown,ip6"},
		{"", "p2p-circuit"},
		{"", "!p2p-circuit"},
		{"transport-bitswap", "!tcp"},
		{"unknown,transport-ipfs-gateway-http", "https,udp"},
	}
	split := func(s string) []string {
		if s == "" {
			return nil
		}
		return strings.Split(s, ",")
	}
	for _, accept := range []string{acceptJSON, acceptNDJSON} {
		for _, tt := range tests {
			unfiltered := routingClient(t, r.pool.frontend.HTTP, accept)
			it, err := unfiltered.FindProviders(t.Context(), rawCID(r.mh))
			if err != nil {
				t.Fatal(err)
			}
			lower := split(strings.ToLower(tt.protocols))
			want := recordTexts(t, readRecords(t, filters.ApplyFiltersToIter(it, split(tt.addrs), lower)))

			ours := routingClient(t, r.pool.frontend.HTTP, accept, client.WithDisabledLocalFiltering(true),
				client.WithProtocolFilter(split(tt.protocols)), client.WithAddrFilter(split(tt.addrs)))
			got := recordTexts(t, findRecords(t, ours, r.mh))
			if !slices.Equal(got, want) {
				t.Errorf("%s: protocols %q, addresses %q: got\n\t%s\nwant\n\t%s", accept, tt.protocols, tt.addrs,
					strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
			}
		}
	}
}

// testContentRouting goes the way Kubo goes, with boxo's defaults: both types
// accepted, and records of bitswap or unknown protocols only.
func (r *routed) testContentRouting(t *testing.T) {
	c, err := client.New(r.pool.frontend.HTTP + "/routing/v1")
	if err != nil {
		t.Fatal(err)
	}
	router := contentrouter.NewContentRoutingClient(c)
	var got []peer.ID
	for info := range router.FindProvidersAsync(t.Context(), rawCID(r.mh), 0) {
		if len(info.Addrs) == 0 {
			t.Errorf("provider %s has no addresses", info.ID)
		}
		got = append(got, info.ID)
	}
	slices.Sort(got)
	want := []peer.ID{r.providers["bitswap"].id, r.providers["three"].id, r.providers["unreadable"].id}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("providers are %v, want %v", got, want)
	}
}

// testNotServed: no peers, names or closest peers are taken for "none" or an
// error, and nothing can be provided.
func (r *routed) testNotServed(t *testing.T) {
	key, id := newIdentity(t)
	c, err := client.New(r.pool.frontend.HTTP, client.WithIdentity(key), client.WithProviderInfo(id, nil))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := contentrouter.NewContentRoutingClient(c).FindPeer(t.Context(), id); !errors.Is(err, routing.ErrNotFound) {
		t.Errorf("find peer: %v, want not found", err)
	}
	if _, err := c.GetIPNS(t.Context(), ipns.NameFromPeer(id)); !errors.Is(err, routing.ErrNotFound) {
		t.Errorf("get IPNS: %v, want not found", err)
	}
	//lint:ignore SA1019 old Kubos still call it
	if _, err := c.ProvideBitswap(t.Context(), []cid.Cid{rawCID(r.mh)}, time.Hour); err == nil { //nolint:staticcheck
		t.Error("provide: no error")
	}
}
