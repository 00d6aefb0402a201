package publish

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	carv2 "github.com/ipld/go-car/v2"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/signpost-index/signpost/ingest/ipnisync"
	"github.com/signpost-index/signpost/ingest/schema"
)

func serve(t *testing.T, p *Publisher) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(p.Handler())
	t.Cleanup(func() {
		s.Client().CloseIdleConnections()
		s.Close()
	})
	return s
}

func get(t *testing.T, s *httptest.Server, path, accept string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	resp, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, body
}

func TestEveryAdvertisedBlockIsServed(t *testing.T) {
	p := open(t, testConfig(t.TempDir()))
	dir := write(t, map[string]string{"a": randomBytes(1, 900_000), "sub/b": "hello world", "empty": ""})
	for i := range 200 {
		if err := os.WriteFile(fmt.Sprintf("%s/sub/%03d", dir, i), fmt.Appendf(nil, "file %d", i), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	root := add(t, p, dir).Roots[0]
	add(t, p, tempFile(t, "1.car", carV1(numbered("one", 20)...)))
	add(t, p, tempFile(t, "2.car", carV2(carV1(numbered("two", 20)...))))
	s := serve(t, p)

	// As the indexer learns it and as a client fetches it.
	for _, ad := range walk(t, p) {
		mhs, _ := entries(t, p, ad)
		for _, mh := range mhs {
			k := cidOf(mh)
			for _, ask := range []struct{ query, accept string }{{"?format=raw", ""}, {"", "application/vnd.ipld.raw"}} {
				resp, body := get(t, s, "/ipfs/"+k.String()+ask.query, ask.accept)
				if resp.StatusCode != http.StatusOK || checkBlock(k, body) != nil || resp.Header.Get("Access-Control-Allow-Origin") != "*" {
					t.Fatalf("%s: %s, %d bytes", k, resp.Status, len(body))
				}
			}
		}
	}

	// The whole DAG as a CAR.
	for _, ask := range []struct{ query, accept string }{{"?format=car", ""}, {"", "application/vnd.ipld.car"}} {
		resp, body := get(t, s, "/ipfs/"+root.String()+ask.query, ask.accept)
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("CAR: %s %s", resp.Status, body)
		}
		r, err := carv2.NewBlockReader(bytes.NewReader(body)) // checks hashes
		if err != nil {
			t.Fatal(err)
		}
		got := make(map[string]bool)
		for {
			block, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			got[string(block.Cid().Hash())] = true
		}
		mhs, _ := entries(t, p, walk(t, p)[0])
		for _, mh := range mhs {
			if !got[mh] {
				t.Errorf("block %x is not in the CAR", mh)
			}
		}
		if len(got) != len(mhs) {
			t.Errorf("%d blocks in the CAR, want %d", len(got), len(mhs))
		}
	}
}

func TestGatewayRefusesWhatItDoesNotServe(t *testing.T) {
	p := open(t, testConfig(t.TempDir()))
	dir := write(t, map[string]string{"a": "hello"})
	root := add(t, p, dir).Roots[0]
	s := serve(t, p)
	absent := rawCID([]byte("absent"))
	for _, c := range []struct {
		path   string
		status int
	}{
		{"/ipfs/" + root.String(), http.StatusNotAcceptable}, // no deserialized responses
		{"/ipfs/" + root.String() + "/a", http.StatusNotAcceptable},
		{"/ipfs/" + root.String() + "?format=tar", http.StatusNotAcceptable},
		{"/ipfs/" + absent.String() + "?format=raw", http.StatusNotFound},
		{"/ipfs/nonsense?format=raw", http.StatusBadRequest},
		{"/ipfs/bafkqaaa?format=raw", http.StatusOK}, // the specification's probe
		{"/ipns/example.com?format=raw", http.StatusNotFound},
		{"/etc/passwd", http.StatusNotFound},
	} {
		if resp, body := get(t, s, c.path, ""); resp.StatusCode != c.status {
			t.Errorf("%s: %s, want %d: %s", c.path, resp.Status, c.status, body)
		}
	}
}

func TestChangedCARIsAServerError(t *testing.T) {
	blocks := numbered("block", 3)
	path := tempFile(t, "x.car", carV1(blocks...))
	p := open(t, testConfig(t.TempDir()))
	add(t, p, path)
	if err := os.WriteFile(path, bytes.Repeat([]byte{7}, 500), 0o644); err != nil {
		t.Fatal(err)
	}
	resp, body := get(t, serve(t, p), "/ipfs/"+rawCID(blocks[1]).String()+"?format=raw", "")
	if resp.StatusCode != http.StatusInternalServerError {
		t.Errorf("%s %q", resp.Status, body)
	}
}

func TestChainIsServedToIndexers(t *testing.T) {
	p := open(t, testConfig(t.TempDir()))
	path := tempFile(t, "f", []byte("x"))
	add(t, p, path)
	add(t, p, tempFile(t, "g", []byte("y")))
	if _, err := p.Remove(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	s := serve(t, p)
	client := ipnisync.NewClient(ipnisync.ClientConfig{AllowPrivate: true})
	t.Cleanup(client.Close)
	remote, err := client.Publisher(peer.AddrInfo{ID: p.ID(), Addrs: []multiaddr.Multiaddr{addrOf(t, s)}})
	if err != nil {
		t.Fatal(err)
	}
	head, err := remote.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var chain []string
	for k := head.Head; k.Defined(); {
		block, err := remote.Block(t.Context(), k, ipnisync.HintAdvertisement)
		if err != nil {
			t.Fatal(err)
		}
		ad, err := schema.DecodeAdvertisement(k, block)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ad.Verify(); err != nil {
			t.Fatal(err)
		}
		if !ad.IsRm {
			block, err := remote.Block(t.Context(), ad.Entries, ipnisync.HintEntryChunk)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := schema.DecodeEntryChunk(ad.Entries, block); err != nil {
				t.Fatal(err)
			}
		}
		chain = append(chain, k.String())
		k = ad.PreviousID
	}
	if len(chain) != 3 {
		t.Errorf("chain of %d", len(chain))
	}
	for _, path := range []string{"/.well-known/libp2p", "/.well-known/libp2p/protocols"} {
		if resp, body := get(t, s, path, ""); resp.StatusCode != http.StatusOK || !strings.Contains(string(body), "/ipni/v1/ad") {
			t.Errorf("%s: %s %s", path, resp.Status, body)
		}
	}
}

func TestIndexPageNamesRootsAndNoPaths(t *testing.T) {
	p := open(t, testConfig(t.TempDir()))
	s := serve(t, p)
	if resp, body := get(t, s, "/", ""); resp.StatusCode != http.StatusOK || !strings.Contains(string(body), "head none") {
		t.Errorf("empty: %s %s", resp.Status, body)
	}
	dir := write(t, map[string]string{"a": "hello"})
	a := add(t, p, dir)
	_, body := get(t, s, "/", "")
	for _, want := range []string{p.ID().String(), a.Ad.String(), "/ipfs/" + a.Roots[0].String()} {
		if !strings.Contains(string(body), want) {
			t.Errorf("%q is not in %s", want, body)
		}
	}
	if strings.Contains(string(body), dir) {
		t.Error("a path of this machine is shown")
	}
}

// A CAR takes longer than the server's write time-out for as long as its client
// keeps reading.
func TestLongAnswerOutlivesTheServersTimeout(t *testing.T) {
	p := open(t, testConfig(t.TempDir()))
	root := add(t, p, tempFile(t, "big", []byte(randomBytes(1, 4<<20)))).Roots[0]
	s := httptest.NewUnstartedServer(p.Handler())
	s.Config.WriteTimeout = time.Nanosecond // over before the answer begins
	s.Start()
	t.Cleanup(s.Close)
	resp, err := s.Client().Get(s.URL + "/ipfs/" + root.String() + "?format=car")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err != nil || n < 4<<20 {
		t.Errorf("%d bytes, %v", n, err)
	}
}

func addrOf(t *testing.T, s *httptest.Server) multiaddr.Multiaddr {
	t.Helper()
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	a, err := ipnisync.FromURL(u)
	if err != nil {
		t.Fatal(err)
	}
	return a
}
