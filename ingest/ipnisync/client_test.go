package ipnisync

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/signpost-index/signpost/ingest/schema"
)

func TestCallerCanStopAFetch(t *testing.T) {
	m := newMemory(t)
	cids := chain(t, m, 1)
	asked := make(chan struct{}, 10)
	h := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked <- struct{}{}; <-r.Context().Done() })
	p := at(t, m.ID(), serveTest(t, h).URL, serveTest(t, h).URL)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	if _, err := p.Block(ctx, cids[0], ""); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if len(asked) > 0 {
		t.Error("the second address was asked after the end")
	}
}

func TestTruncatedBodyIsAnError(t *testing.T) {
	m := newMemory(t)
	cids := chain(t, m, 1)
	srv := serveTest(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, "some")
	}))
	if b, err := at(t, m.ID(), srv.URL).Block(t.Context(), cids[0], ""); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %q, %v", b, err)
	}
}

func TestAnswersAreBounded(t *testing.T) {
	m := newMemory(t)
	cids := chain(t, m, 1)
	zeros := func(w io.Writer, n int64) { io.CopyN(w, zeroReader{}, n) }
	for name, h := range map[string]http.HandlerFunc{
		"announced length": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(schema.MaxBlockBytes+1))
			zeros(w, 1<<10)
		},
		"unannounced length": func(w http.ResponseWriter, _ *http.Request) {
			w.(http.Flusher).Flush()
			zeros(w, schema.MaxBlockBytes+1)
		},
		"gzip bomb": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			zeros(z, 64<<20) // 64 KiB on the wire
			z.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := at(t, m.ID(), serveTest(t, h).URL)
			if b, err := p.Block(t.Context(), cids[0], ""); !errors.Is(err, ErrTooLarge) {
				t.Errorf("got %d bytes, %v", len(b), err)
			}
			if _, err := p.Head(t.Context()); !errors.Is(err, ErrTooLarge) {
				t.Errorf("head: %v", err)
			}
		})
	}
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestLargestBlockIsTaken(t *testing.T) {
	m := newMemory(t)
	block := make([]byte, schema.MaxBlockBytes)
	c := m.Put(block, schema.DagCBOR)
	plain := serveTest(t, NewHandler(m))
	zipped := serveTest(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		z.Write(block)
		z.Close()
	}))
	for _, srv := range []*httptest.Server{plain, zipped} {
		if b, err := at(t, m.ID(), srv.URL).Block(t.Context(), c, ""); err != nil || !bytes.Equal(b, block) {
			t.Errorf("%d bytes, %v", len(b), err)
		}
	}
}

func TestPrivateAddressesAreRefused(t *testing.T) {
	m := newMemory(t)
	cids := chain(t, m, 1)
	var asked atomic.Int32
	srv := serveTest(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	port := srv.Listener.Addr().(*net.TCPAddr).Port
	c := newTestClient(t, ClientConfig{})
	for _, host := range []string{"127.0.0.1", "localhost", "0.0.0.0", "[::1]", "10.255.255.1", "169.254.169.254"} {
		p := atWith(t, c, m.ID(), fmt.Sprintf("http://%s:%d", host, port))
		if _, err := p.Block(t.Context(), cids[0], ""); !errors.Is(err, ErrPrivateAddress) {
			t.Errorf("%s: %v", host, err)
		}
	}
	if n := asked.Load(); n > 0 {
		t.Errorf("%d requests arrived", n)
	}
}

// A redirect to a private address has to be refused even if the first server is
// a public one. None is at hand, so here one loopback address stands for it.
func TestRedirectToAPrivateAddressIsRefused(t *testing.T) {
	m := newMemory(t)
	cids := chain(t, m, 1)
	var asked atomic.Int32
	secret := serveTest(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	front := serveTest(t, http.RedirectHandler(secret.URL, http.StatusFound))
	c := newTestClient(t, ClientConfig{})
	exceptFor(c, front.Listener.Addr().String())
	if _, err := atWith(t, c, m.ID(), front.URL).Block(t.Context(), cids[0], ""); !errors.Is(err, ErrPrivateAddress) {
		t.Errorf("got %v", err)
	}
	if n := asked.Load(); n > 0 {
		t.Errorf("%d requests arrived", n)
	}
}

// exceptFor makes c's guard let one address through.
func exceptFor(c *Client, address string) {
	guarded := c.http.Transport.(*http.Transport)
	dial := guarded.DialContext
	guarded.DialContext = func(ctx context.Context, network, a string) (net.Conn, error) {
		if a == address {
			return new(net.Dialer).DialContext(ctx, network, a)
		}
		return dial(ctx, network, a)
	}
}

func TestRedirectsAreFollowedTenTimes(t *testing.T) {
	m := newMemory(t)
	cids := chain(t, m, 1)
	h := NewHandler(m)
	for _, tc := range []struct {
		redirects int
		ok        bool
	}{{1, true}, {10, true}, {11, false}, {1 << 30, false}} {
		var left atomic.Int32
		left.Store(int32(tc.redirects))
		srv := serveTest(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if left.Add(-1) >= 0 {
				http.Redirect(w, r, fmt.Sprintf("%s?again=%d", r.URL.Path, left.Load()), http.StatusTemporaryRedirect)
				return
			}
			h.ServeHTTP(w, r)
		}))
		_, err := at(t, m.ID(), srv.URL).Block(t.Context(), cids[0], "")
		if (err == nil) != tc.ok {
			t.Errorf("%d redirects: %v", tc.redirects, err)
		}
	}
}

func TestHundredBlocksUseOneConnection(t *testing.T) {
	m := newMemory(t)
	cids := chain(t, m, 100)
	var opened atomic.Int32
	srv := httptest.NewUnstartedServer(NewHandler(m))
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			opened.Add(1)
		}
	}
	srv.Start()
	t.Cleanup(srv.Close)
	p := at(t, m.ID(), srv.URL)
	for i, c := range cids {
		if i%10 == 9 { // what is not there must not cost the connection either
			m.Delete(c)
		}
		if _, err := p.Block(t.Context(), c, ""); err != nil && !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
	}
	if n := opened.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

func TestHTTP2IsUsedWhereOffered(t *testing.T) {
	m := newMemory(t)
	cids := chain(t, m, 1)
	var proto atomic.Value
	h := NewHandler(m)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proto.Store(r.Proto)
		h.ServeHTTP(w, r)
	}))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	c := newTestClient(t, ClientConfig{AllowPrivate: true})
	c.http.Transport.(*http.Transport).TLSClientConfig = srv.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	if _, err := atWith(t, c, m.ID(), srv.URL).Block(t.Context(), cids[0], ""); err != nil {
		t.Fatal(err)
	}
	if proto.Load() != "HTTP/2.0" {
		t.Errorf("spoke %v", proto.Load())
	}
}

func TestUntrustedCertificateIsRefused(t *testing.T) {
	m := newMemory(t)
	cids := chain(t, m, 1)
	srv := httptest.NewUnstartedServer(NewHandler(m))
	srv.Config.ErrorLog = discardLog
	srv.StartTLS()
	t.Cleanup(srv.Close)
	if _, err := at(t, m.ID(), srv.URL).Block(t.Context(), cids[0], ""); err == nil {
		t.Error("fetched")
	}
}

func TestNoProxyIsUsed(t *testing.T) {
	// The environment is read once in a process, so the transport is looked at.
	c := newTestClient(t, ClientConfig{})
	if c.http.Transport.(*http.Transport).Proxy != nil {
		t.Error("a proxy would hide the address that is dialled")
	}
}
