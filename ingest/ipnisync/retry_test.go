package ipnisync

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func TestOnlyWhatPassesSoonIsAskedAgain(t *testing.T) {
	m := newMemory(t)
	cids := chain(t, m, 1)
	for code, want := range map[int]int32{
		204: 1, 400: 1, 403: 2, 404: 2, 408: 1, 410: 1, 500: 1, 501: 1, // 403 and 404: with and without the path
		429: 3, 502: 3, 503: 3, 504: 3,
	} {
		var asked atomic.Int32
		srv := serveTest(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			asked.Add(1)
			w.WriteHeader(code)
		}))
		p := at(t, m.ID(), srv.URL)
		if _, err := p.Block(t.Context(), cids[0], ""); !hasStatus(err, code) {
			t.Errorf("%d: %v", code, err)
		}
		if n := asked.Load(); n != want {
			t.Errorf("%d: asked %d times, want %d", code, n, want)
		}
		if s := p.Stats(); s.Requests != int64(want) || code >= 429 && code != 500 && code != 501 && s.Retries != 2 {
			t.Errorf("%d: %+v", code, s)
		}
	}
}

// cutOff ends the connection in the middle of an answer.
func cutOff(w http.ResponseWriter) {
	conn, buf, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	fmt.Fprint(buf, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nsome of it")
	buf.Flush()
	conn.Close()
}

func TestBrokenConnectionIsTriedAgain(t *testing.T) {
	m := newMemory(t)
	cids := chain(t, m, 1)
	h := NewHandler(m)
	for _, tc := range []struct {
		broken int32
		ok     bool
	}{{1, true}, {2, true}, {3, false}} {
		var asked atomic.Int32
		srv := serveTest(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if asked.Add(1) <= tc.broken {
				cutOff(w)
				return
			}
			h.ServeHTTP(w, r)
		}))
		_, err := at(t, m.ID(), srv.URL).Block(t.Context(), cids[0], "")
		if n := asked.Load(); (err == nil) != tc.ok || n != min(tc.broken+1, 3) {
			t.Errorf("%d broken: asked %d times, %v", tc.broken, n, err)
		}
	}
}

func TestGoodAddressThatDiesInTheMiddleIsLeft(t *testing.T) {
	m := newMemory(t)
	cids := chain(t, m, 3)
	h := NewHandler(m)
	var asked atomic.Int32
	first := serveTest(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) > 1 {
			cutOff(w)
			return
		}
		h.ServeHTTP(w, r)
	}))
	second := serveTest(t, h)
	p := at(t, m.ID(), deadURL(t), first.URL, second.URL)
	for _, c := range cids {
		if _, err := p.Block(t.Context(), c, ""); err != nil {
			t.Fatal(err)
		}
	}
	if n := asked.Load(); n != 2 || p.Addr().String() != maddr(t, second.URL).String() {
		t.Errorf("asked the dead one %d times, at %s now", n, p.Addr())
	}
}

func TestWhatCannotChangeIsNotTriedAgain(t *testing.T) {
	m := newMemory(t)
	cids := chain(t, m, 1)
	tls := httptest.NewUnstartedServer(NewHandler(m))
	tls.Config.ErrorLog = discardLog
	tls.StartTLS()
	t.Cleanup(tls.Close)
	loop := serveTest(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, r.URL.Path, http.StatusFound)
	}))
	plain := serveTest(t, NewHandler(m))
	for _, u := range []string{tls.URL, loop.URL, strings.Replace(plain.URL, "http:", "https:", 1)} {
		p := at(t, m.ID(), u)
		if _, err := p.Block(t.Context(), cids[0], ""); err == nil || p.Stats().Retries > 0 {
			t.Errorf("%s: %+v, %v", u, p.Stats(), err)
		}
	}
	p := atWith(t, newTestClient(t, ClientConfig{}), m.ID(), plain.URL)
	if _, err := p.Block(t.Context(), cids[0], ""); !errors.Is(err, ErrPrivateAddress) || p.Stats().Retries > 0 {
		t.Errorf("private: %+v, %v", p.Stats(), err)
	}
	if !isNoSuchHost(fmt.Errorf("dial: %w", &net.DNSError{IsNotFound: true})) || isNoSuchHost(&net.DNSError{IsTemporary: true}) {
		t.Error("a name that is not there is not told from a resolver in trouble")
	}
}

// held answers nobody until so many requests are there at once.
type held struct {
	next    http.Handler
	arrived chan struct{}
	release chan struct{}
}

func holdRequests(next http.Handler) *held {
	return &held{next: next, arrived: make(chan struct{}, 1000), release: make(chan struct{})}
}

func (h *held) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.arrived <- struct{}{}
	<-h.release
	h.next.ServeHTTP(w, r)
}

func TestPublisherHas32RequestsAtOnce(t *testing.T) {
	for name, h2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			m := newMemory(t)
			cids := chain(t, m, 1)
			h := holdRequests(NewHandler(m))
			var opened atomic.Int32
			srv := httptest.NewUnstartedServer(h)
			srv.EnableHTTP2 = h2
			srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
				if s == http.StateNew {
					opened.Add(1)
				}
			}
			c := newTestClient(t, ClientConfig{AllowPrivate: true})
			if h2 {
				srv.StartTLS()
				c.http.Transport.(*http.Transport).TLSClientConfig = srv.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
			} else {
				srv.Start()
			}
			t.Cleanup(srv.Close)
			p := atWith(t, c, m.ID(), srv.URL)
			ask := func() {
				if _, err := p.Block(t.Context(), cids[0], ""); err != nil {
					t.Error(err)
				}
			}
			go func() { h.release <- struct{}{} }()
			ask() // so that the connection is there
			<-h.arrived
			// A second object of the publisher counts with the first.
			q := atWith(t, c, m.ID(), srv.URL)
			var all sync.WaitGroup
			for range maxInFlight {
				all.Go(ask)
			}
			for range maxInFlight {
				<-h.arrived
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := q.Block(ctx, cids[0], ""); !errors.Is(err, context.Canceled) || q.Stats().InFlight != maxInFlight {
				t.Errorf("one more: %+v, %v", q.Stats(), err)
			}
			// Another publisher on the same host is not held up.
			other := atWith(t, c, newMemory(t).ID(), srv.URL)
			all.Go(func() {
				if _, err := other.Block(t.Context(), cids[0], ""); err != nil {
					t.Error(err)
				}
			})
			<-h.arrived
			close(h.release)
			all.Wait()
			if n := opened.Load(); h2 && n != 1 {
				t.Errorf("%d connections", n)
			}
		})
	}
}
