package ipnisync

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/signpost-index/signpost/ingest/schema"
)

func newMemory(t testing.TB) *Memory {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return NewMemory(key, "/indexer/ingest/mainnet")
}

// chain fills m with n blocks and a head on the last, and returns their CIDs.
func chain(t testing.TB, m *Memory, n int) []cid.Cid {
	t.Helper()
	var cids []cid.Cid
	for i := range n {
		cids = append(cids, m.Put(fmt.Appendf(nil, `{"block":%d}`, i), schema.DagJSON))
	}
	if n > 0 {
		if err := m.SetHead(cids[n-1]); err != nil {
			t.Fatal(err)
		}
	}
	return cids
}

func newTestClient(t testing.TB, cfg ClientConfig) *Client {
	t.Helper()
	c := NewClient(cfg)
	c.pauses = pauses{first: time.Millisecond, max: time.Millisecond}
	t.Cleanup(c.Close)
	return c
}

// serveTest starts a server that is closed with the test.
func serveTest(t testing.TB, h http.Handler) *httptest.Server {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv
}

func maddr(t testing.TB, rawURL string) multiaddr.Multiaddr {
	t.Helper()
	u, err := url.Parse(rawURL)
	if err != nil {
		t.Fatal(err)
	}
	a, err := FromURL(u)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// at is publisher id at the given URLs, asked by a client that may dial loopback.
func at(t testing.TB, id peer.ID, urls ...string) *Publisher {
	t.Helper()
	return atWith(t, newTestClient(t, ClientConfig{AllowPrivate: true}), id, urls...)
}

func atWith(t testing.TB, c *Client, id peer.ID, urls ...string) *Publisher {
	t.Helper()
	info := peer.AddrInfo{ID: id}
	for _, u := range urls {
		info.Addrs = append(info.Addrs, maddr(t, u))
	}
	p, err := c.Publisher(info)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPublisherFetchesHeadAndBlocks(t *testing.T) {
	m := newMemory(t)
	cids := chain(t, m, 3)
	var mu sync.Mutex
	var requests []string
	h := NewHandler(m)
	srv := serveTest(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		requests = append(requests, r.Method+" "+r.URL.Path+" "+r.Header.Get(HintHeader)+" "+r.UserAgent()+" "+r.Header.Get("Accept-Encoding"))
		mu.Unlock()
		h.ServeHTTP(w, r)
	}))
	p := at(t, m.ID(), srv.URL)
	head, err := p.Head(t.Context())
	if err != nil || head.Head != cids[2] || head.Topic != "/indexer/ingest/mainnet" {
		t.Fatalf("head %+v, %v", head, err)
	}
	for i, hint := range []Hint{HintAdvertisement, HintEntryChunk, ""} {
		got, err := p.Block(t.Context(), cids[i], hint)
		want, _ := m.Block(t.Context(), cids[i])
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("block %d: %q, %v", i, got, err)
		}
	}
	if p.ID() != m.ID() || p.Addr().String() != maddr(t, srv.URL).String() {
		t.Errorf("publisher %s at %s", p.ID(), p.Addr())
	}
	want := []string{
		"GET /ipni/v1/ad/head  signpost gzip",
		"GET /ipni/v1/ad/" + cids[0].String() + " Advertisement signpost gzip",
		"GET /ipni/v1/ad/" + cids[1].String() + " EntryChunk signpost gzip",
		"GET /ipni/v1/ad/" + cids[2].String() + "  signpost gzip",
	}
	if diff := cmp.Diff(want, requests); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestPublisherBelowAPath(t *testing.T) {
	m := newMemory(t)
	cids := chain(t, m, 1)
	mux := http.NewServeMux()
	mux.Handle("/some/base/", http.StripPrefix("/some/base", NewHandler(m)))
	srv := serveTest(t, mux)
	for _, suffix := range []string{"/some/base", "/some/base/"} {
		if _, err := at(t, m.ID(), srv.URL+suffix).Block(t.Context(), cids[0], ""); err != nil {
			t.Error(err)
		}
	}
}

func TestEmptyChainHasNoHead(t *testing.T) {
	m := newMemory(t)
	srv := serveTest(t, NewHandler(m))
	if head, err := at(t, m.ID(), srv.URL).Head(t.Context()); !errors.Is(err, ErrNoHead) {
		t.Errorf("got %+v, %v", head, err)
	}
}

func TestUnknownBlockIsNotFound(t *testing.T) {
	m := newMemory(t)
	cids := chain(t, m, 2)
	srv := serveTest(t, NewHandler(m))
	p := at(t, m.ID(), srv.URL)
	m.Delete(cids[0])
	for range 2 { // before and after the publisher has served anything
		_, err := p.Block(t.Context(), cids[0], HintEntryChunk)
		var status *StatusError
		if !errors.Is(err, ErrNotFound) || !errors.As(err, &status) || status.Code != 404 || !strings.Contains(status.URL, Path) {
			t.Fatalf("got %v", err)
		}
		if _, err := p.Block(t.Context(), cids[1], HintEntryChunk); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.Block(t.Context(), cid.Undef, ""); err == nil {
		t.Error("fetched an undefined CID")
	}
}

func TestOtherStatusesAreTransient(t *testing.T) {
	m := newMemory(t)
	cids := chain(t, m, 1)
	for _, code := range []int{204, 206, 400, 403, 410, 429, 500, 502, 503} {
		srv := serveTest(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }))
		_, err := at(t, m.ID(), srv.URL).Block(t.Context(), cids[0], "")
		var status *StatusError
		if errors.Is(err, ErrNotFound) || !errors.As(err, &status) || status.Code != code {
			t.Errorf("%d: got %v", code, err)
		}
	}
}

func TestHeadVectorsVerify(t *testing.T) {
	var file struct {
		Vectors []struct{ Name, JSON, Head, Signer, Topic string }
	}
	readVectors(t, "heads.json", &file)
	var body atomic.Pointer[string]
	srv := serveTest(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, *body.Load()) }))
	for _, v := range file.Vectors {
		t.Run(v.Name, func(t *testing.T) {
			id, err := peer.Decode(v.Signer)
			if err != nil {
				t.Fatal(err)
			}
			body.Store(&v.JSON)
			head, err := at(t, id, srv.URL).Head(t.Context())
			if err != nil || head.Head.String() != v.Head || head.Topic != v.Topic {
				t.Errorf("got %+v, %v", head, err)
			}
		})
	}
}

func TestBadHeadsAreRefused(t *testing.T) {
	var file struct {
		Vectors []struct{ Name, Hex string }
	}
	readVectors(t, "negative.json", &file)
	provider, err := peer.Decode("12D3KooWF2uBBKjGJA7LqUWjAcXcnwkAjXjBQDKFTafDkfgCUJDw")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range file.Vectors {
		var body []byte
		if _, err := fmt.Sscanf(v.Hex, "%x", &body); err != nil {
			t.Fatal(err)
		}
		srv := serveTest(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(body) }))
		if head, err := at(t, provider, srv.URL).Head(t.Context()); !errors.Is(err, ErrBadHead) {
			t.Errorf("%s: got %+v, %v", v.Name, head, err)
		}
	}
}

func TestHeadThatTurnsBadIsRefused(t *testing.T) {
	m, other := newMemory(t), newMemory(t)
	chain(t, m, 1)
	chain(t, other, 1)
	var h atomic.Value
	h.Store(NewHandler(m))
	srv := serveTest(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.Load().(http.Handler).ServeHTTP(w, r) }))
	p := at(t, m.ID(), srv.URL)
	if _, err := p.Head(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.Store(NewHandler(other))
	if head, err := p.Head(t.Context()); !errors.Is(err, ErrBadHead) {
		t.Errorf("got %+v, %v", head, err)
	}
}

func TestLegacyPublisherWithoutThePathIsFoundOnce(t *testing.T) {
	m := newMemory(t)
	cids := chain(t, m, 2)
	for _, hidden := range []int{http.StatusNotFound, http.StatusForbidden} {
		var long atomic.Int32
		h := NewHandler(m)
		srv := serveTest(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, Path) {
				long.Add(1)
				w.WriteHeader(hidden)
				return
			}
			r.URL.Path = Path + r.URL.Path
			h.ServeHTTP(w, r)
		}))
		p := at(t, m.ID(), srv.URL)
		for range 2 {
			if _, err := p.Head(t.Context()); err != nil {
				t.Fatalf("%d: %v", hidden, err)
			}
			if _, err := p.Block(t.Context(), cids[0], ""); err != nil {
				t.Fatalf("%d: %v", hidden, err)
			}
		}
		if n := long.Load(); n != 1 {
			t.Errorf("%d: asked with the path %d times", hidden, n)
		}
		missing := schema.LinkOf(schema.DagJSON, []byte("missing"))
		if _, err := p.Block(t.Context(), missing, ""); !errors.Is(err, ErrNotFound) {
			t.Errorf("%d: missing block: %v", hidden, err)
		}
	}
}

func TestLegacyPathIsNotTakenForAnyPage(t *testing.T) {
	m := newMemory(t)
	cids := chain(t, m, 1)
	// A site that answers everything it does not know with a page and 200.
	srv := serveTest(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, Path) {
			http.NotFound(w, r)
			return
		}
		io.WriteString(w, "<html>Welcome!</html>")
	}))
	p := at(t, m.ID(), srv.URL)
	if _, err := p.Block(t.Context(), cids[0], ""); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

func TestLegacyPublisherInTroubleHasNotSaidNotFound(t *testing.T) {
	m := newMemory(t)
	cids := chain(t, m, 1)
	for _, tc := range []struct{ long, short, want int }{
		{404, 500, 500}, {404, 403, 403}, {404, 404, 404}, {404, 400, 404}, {404, 429, 429}, {403, 404, 403}, {403, 500, 403},
	} {
		srv := serveTest(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, Path) {
				w.WriteHeader(tc.long)
				return
			}
			w.WriteHeader(tc.short)
		}))
		_, err := at(t, m.ID(), srv.URL).Block(t.Context(), cids[0], "")
		var status *StatusError
		if !errors.As(err, &status) || status.Code != tc.want {
			t.Errorf("%+v: got %v", tc, err)
		}
	}
}

// deadURL is an address nobody listens on.
func deadURL(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

func TestDeadAddressIsPassedOverAndTheGoodOneRemembered(t *testing.T) {
	m := newMemory(t)
	cids := chain(t, m, 1)
	var refused atomic.Int32
	wrong := serveTest(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		refused.Add(1)
		http.NotFound(w, r)
	}))
	good := serveTest(t, NewHandler(m))
	p := at(t, m.ID(), deadURL(t), wrong.URL, good.URL)
	for range 3 {
		if _, err := p.Block(t.Context(), cids[0], ""); err != nil {
			t.Fatal(err)
		}
	}
	if p.Addr().String() != maddr(t, good.URL).String() {
		t.Errorf("remembers %s", p.Addr())
	}
	if n := refused.Load(); n != 2 { // with and without path, once
		t.Errorf("asked the wrong address %d times", n)
	}
	// What the good address says is final.
	if _, err := p.Block(t.Context(), schema.LinkOf(schema.DagJSON, nil), ""); !errors.Is(err, ErrNotFound) {
		t.Errorf("missing block: %v", err)
	}
	if n := refused.Load(); n != 2 {
		t.Errorf("asked the wrong address again")
	}
	// While it is away nobody else's "not found" counts.
	good.Close()
	if _, err := p.Block(t.Context(), cids[0], ""); err == nil || errors.Is(err, ErrNotFound) {
		t.Errorf("with the good address gone: %v", err)
	}
}

func TestPublisherMovesToAnotherAddressWhenItsOwnDies(t *testing.T) {
	m := newMemory(t)
	cids := chain(t, m, 1)
	first, second := httptest.NewServer(NewHandler(m)), serveTest(t, NewHandler(m))
	p := at(t, m.ID(), first.URL, second.URL)
	if _, err := p.Block(t.Context(), cids[0], ""); err != nil {
		t.Fatal(err)
	}
	first.Close()
	if _, err := p.Block(t.Context(), cids[0], ""); err != nil {
		t.Fatal(err)
	}
	if p.Addr().String() != maddr(t, second.URL).String() {
		t.Errorf("remembers %s", p.Addr())
	}
}

func TestAddressOfAnotherPublisherIsPassedOver(t *testing.T) {
	m, stranger := newMemory(t), newMemory(t)
	chain(t, m, 1)
	chain(t, stranger, 1)
	p := at(t, m.ID(), serveTest(t, NewHandler(stranger)).URL, serveTest(t, NewHandler(m)).URL)
	if _, err := p.Head(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestStrangeAddressesReportTheMostTellingError(t *testing.T) {
	m := newMemory(t)
	c := schema.LinkOf(schema.DagJSON, nil)
	status := func(code int) string {
		return serveTest(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })).URL
	}
	if _, err := at(t, m.ID(), deadURL(t), status(404)).Block(t.Context(), c, ""); !errors.Is(err, ErrNotFound) {
		t.Errorf("dead and 404: %v", err)
	}
	if _, err := at(t, m.ID(), status(404), status(500)).Block(t.Context(), c, ""); errors.Is(err, ErrNotFound) {
		t.Errorf("404 and 500: %v", err)
	}
	if _, err := at(t, m.ID(), deadURL(t), deadURL(t)).Block(t.Context(), c, ""); err == nil || errors.Is(err, ErrNotFound) {
		t.Errorf("both dead: %v", err)
	}
}

func TestUnusableAddressesAreSkipped(t *testing.T) {
	m := newMemory(t)
	cids := chain(t, m, 1)
	srv := serveTest(t, NewHandler(m))
	c := newTestClient(t, ClientConfig{AllowPrivate: true})
	unusable := []multiaddr.Multiaddr{nil}
	for _, text := range []string{
		"/ip4/127.0.0.1/tcp/3103", "/ip4/127.0.0.1/udp/3103/quic-v1", "/dnsaddr/pub.example.com", "/dnsaddr/pub.example.com/http",
		"/unix/tmp%2Fsock/http", "/dns4/pub.example.com/tcp/443/wss", "/p2p/" + m.ID().String(),
		"/ip4/127.0.0.1/tcp/1/http/p2p/" + m.ID().String() + "/p2p-circuit",
	} {
		a, err := multiaddr.NewMultiaddr(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		unusable = append(unusable, a)
	}
	if p, err := c.Publisher(peer.AddrInfo{ID: m.ID(), Addrs: unusable}); !errors.Is(err, ErrNoAddress) {
		t.Errorf("got %v, %v", p, err)
	}
	if p, err := c.Publisher(peer.AddrInfo{ID: m.ID()}); !errors.Is(err, ErrNoAddress) {
		t.Errorf("got %v, %v", p, err)
	}
	good := maddr(t, srv.URL)
	if p, err := c.Publisher(peer.AddrInfo{Addrs: []multiaddr.Multiaddr{good}}); err == nil {
		t.Errorf("publisher without ID: %v", p)
	}
	withID := good.Encapsulate(multiaddr.StringCast("/p2p/" + m.ID().String()))
	p, err := c.Publisher(peer.AddrInfo{ID: m.ID(), Addrs: append(unusable, withID)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Block(t.Context(), cids[0], ""); err != nil || p.Addr().String() != good.String() {
		t.Errorf("at %s: %v", p.Addr(), err)
	}
}

func TestNumberOfAddressesIsBounded(t *testing.T) {
	m := newMemory(t)
	var addrs []multiaddr.Multiaddr
	for i := range 1000 {
		addrs = append(addrs, maddr(t, fmt.Sprintf("http://127.0.0.1:%d", i/2+1))) // each twice
	}
	p, err := newTestClient(t, ClientConfig{}).Publisher(peer.AddrInfo{ID: m.ID(), Addrs: addrs})
	if err != nil || len(p.endpoints) != maxAddresses || p.endpoints[1].bases.Load().long.Port() != "2" {
		t.Errorf("%d addresses, %v", len(p.endpoints), err)
	}
}
