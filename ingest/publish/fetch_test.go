package publish

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/ingest/metadata"
)

func encoded(t *testing.T, codes ...metadata.Code) []byte {
	t.Helper()
	md, err := metadata.Encode(codes...)
	if err != nil {
		t.Fatal(err)
	}
	return md
}

func handle(t *testing.T, h http.HandlerFunc) multiaddr.Multiaddr {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(func() {
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		s.Close()
	})
	return addrOf(t, s)
}

func TestFetchTakesTheFirstTrueBlock(t *testing.T) {
	p := open(t, testConfig(t.TempDir()))
	add(t, p, tempFile(t, "f", []byte("hello world")))
	s := serve(t, p)
	k := rawCID([]byte("hello world"))
	gateway := encoded(t, metadata.Bitswap, metadata.IPFSGatewayHTTP)
	liar := handle(t, func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte("hello world!")) })
	missing := handle(t, http.NotFound)
	huge := handle(t, func(w http.ResponseWriter, r *http.Request) {
		for range maxFetchBytes/1024 + 2 {
			if _, err := w.Write(make([]byte, 1024)); err != nil {
				return
			}
		}
	})
	dead := multiaddr.StringCast("/ip4/127.0.0.1/tcp/1/http")
	stream := multiaddr.StringCast("/ip4/127.0.0.1/tcp/4001")
	bad := []FetchProvider{
		{ID: p.ID(), Addrs: []multiaddr.Multiaddr{addrOf(t, s)}, Metadata: encoded(t, metadata.Bitswap)},
		{Metadata: gateway},
		{Addrs: []multiaddr.Multiaddr{stream, dead}, Metadata: gateway},
		{Addrs: []multiaddr.Multiaddr{liar, missing, huge}, Metadata: gateway},
	}
	good := FetchProvider{Addrs: []multiaddr.Multiaddr{addrOf(t, s)}, Metadata: gateway}

	block, from, err := Fetch(t.Context(), nil, k, append(bad, good))
	if err != nil || string(block) != "hello world" || from != s.URL+"/ipfs/"+k.String()+"?format=raw" {
		t.Errorf("got %q from %s, %v", block, from, err)
	}

	_, _, err = Fetch(t.Context(), nil, k, bad)
	var failed *FetchError
	if !errors.As(err, &failed) || len(failed.Attempts) != 7 || !errors.Is(err, errHashMismatch) {
		t.Fatalf("got %v", err)
	}
	for i, want := range []string{
		p.ID().String() + ": does not speak transport-ipfs-gateway-http", "has no address", "not an HTTP address",
		"refused", "bytes do not match the CID", "status 404", "more than 8388608 bytes",
	} {
		a := failed.Attempts[i]
		if got := a.From + ": " + a.Err.Error(); !strings.Contains(got, want) {
			t.Errorf("attempt %d says %q, want %q", i, got, want)
		}
		if !strings.Contains(err.Error(), a.Err.Error()) {
			t.Errorf("the error does not tell attempt %d: %v", i, err)
		}
	}
}

func TestFetchNeedsNobodyForAnIdentityCID(t *testing.T) {
	mh, err := multihash.Sum([]byte("inside"), multihash.IDENTITY, -1)
	if err != nil {
		t.Fatal(err)
	}
	block, _, err := Fetch(t.Context(), nil, cid.NewCidV1(cid.Raw, mh), nil)
	if err != nil || string(block) != "inside" {
		t.Errorf("got %q, %v", block, err)
	}
}

func TestFetchUnderAPathOfTheAddress(t *testing.T) {
	k := rawCID([]byte("x"))
	a := handle(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/some/gateway/ipfs/"+k.String() && r.Header.Get("Accept") == "application/vnd.ipld.raw" {
			_, _ = w.Write([]byte("x"))
			return
		}
		http.NotFound(w, r)
	})
	a = a.Encapsulate(multiaddr.StringCast("/http-path/some%2Fgateway"))
	block, _, err := Fetch(t.Context(), nil, k, []FetchProvider{{
		Addrs: []multiaddr.Multiaddr{a}, Metadata: encoded(t, metadata.IPFSGatewayHTTP),
	}})
	if err != nil || string(block) != "x" {
		t.Errorf("got %q, %v", block, err)
	}
}

func TestFetchEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	a := handle(t, func(w http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	})
	_, _, err := Fetch(ctx, nil, rawCID([]byte("x")), []FetchProvider{{
		Addrs: []multiaddr.Multiaddr{a, a}, Metadata: encoded(t, metadata.IPFSGatewayHTTP),
	}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestFetchTriesABoundedNumberOfAddresses(t *testing.T) {
	many := FetchProvider{Metadata: encoded(t, metadata.IPFSGatewayHTTP)}
	for range 3 * maxAttempts {
		many.Addrs = append(many.Addrs, multiaddr.StringCast("/ip4/127.0.0.1/tcp/4001"))
	}
	_, _, err := Fetch(t.Context(), nil, rawCID([]byte("x")), []FetchProvider{many})
	var failed *FetchError
	if !errors.As(err, &failed) || len(failed.Attempts) != maxAttempts {
		t.Errorf("got %v", err)
	}
}
