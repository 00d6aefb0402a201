package ipnisync

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/multiformats/go-multiaddr"

	"github.com/signpost-index/signpost/ingest/schema"
)

// listenStreams is a publisher's libp2p host on loopback.
func listenStreams(t *testing.T, m *Memory, listen ...string) host.Host {
	t.Helper()
	if len(listen) == 0 {
		listen = []string{"/ip4/127.0.0.1/tcp/0"}
	}
	h, err := libp2p.New(libp2p.Identity(m.key), libp2p.ListenAddrStrings(listen...), libp2p.DisableRelay(), libp2p.DisableMetrics(),
		libp2p.Transport(tcp.NewTCPTransport), libp2p.Transport(libp2pquic.NewTransport), libp2p.ForceReachabilityPublic())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Errorf("close host: %v", err)
		}
	})
	return h
}

// serveStreamsTest serves until the end of the test.
func serveStreamsTest(t *testing.T, h host.Host, handler http.Handler) {
	t.Helper()
	ln, err := ListenStreams(h)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var served sync.WaitGroup
	served.Go(func() {
		if err := ServeStreams(ctx, ln, handler); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); served.Wait() })
}

func newStreamClient(t *testing.T, allowPrivate bool, more ...libp2p.Option) *Client {
	t.Helper()
	s, err := openStreams(allowPrivate, more...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close streams: %v", err)
		}
	})
	return newTestClient(t, ClientConfig{AllowPrivate: allowPrivate, Streams: s})
}

func atStreams(t *testing.T, c *Client, id peer.ID, addrs ...multiaddr.Multiaddr) *Publisher {
	t.Helper()
	p, err := c.Publisher(peer.AddrInfo{ID: id, Addrs: addrs})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPublisherIsFetchedOverStreams(t *testing.T) {
	for _, listen := range []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"} {
		t.Run(listen, func(t *testing.T) {
			m := newMemory(t)
			cids := chain(t, m, 50)
			large := make([]byte, schema.MaxBlockBytes)
			largest := m.Put(large, schema.DagCBOR)
			h := listenStreams(t, m, listen)
			serveStreamsTest(t, h, NewHandler(m))
			p := atStreams(t, newStreamClient(t, true), m.ID(), h.Addrs()...)
			if head, err := p.Head(t.Context()); err != nil || head.Head != cids[49] {
				t.Fatalf("head %+v, %v", head, err)
			}
			var all sync.WaitGroup
			for _, c := range cids {
				all.Go(func() {
					if _, err := p.Block(t.Context(), c, HintAdvertisement); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			b := NewBudget(16 << 20)
			block, err := p.Fetch(t.Context(), largest, HintEntryChunk, b)
			if err != nil || len(block.Bytes) != len(large) || b.Used() == 0 {
				t.Errorf("%d bytes, %v", len(block.Bytes), err)
			}
			block.Release()
			if !p.Addr().Equal(h.Addrs()[0]) || p.Stats().RTT == 0 {
				t.Errorf("at %s, %+v", p.Addr(), p.Stats())
			}
			if n := len(h.Network().Conns()); n != 1 {
				t.Errorf("%d connections", n)
			}
			missing := schema.LinkOf(schema.DagJSON, []byte("missing"))
			if _, err := p.Block(t.Context(), missing, ""); !errors.Is(err, ErrNotFound) {
				t.Errorf("missing block: %v", err)
			}
		})
	}
}

func TestHTTPAddressesGoBeforeStreams(t *testing.T) {
	m := newMemory(t)
	cids := chain(t, m, 1)
	h := listenStreams(t, m)
	serveStreamsTest(t, h, http.NotFoundHandler())
	srv := serveTest(t, NewHandler(m))
	p := atStreams(t, newStreamClient(t, true), m.ID(), h.Addrs()[0], maddr(t, srv.URL))
	if _, err := p.Block(t.Context(), cids[0], ""); err != nil || len(h.Network().Conns()) > 0 {
		t.Errorf("%d stream connections, %v", len(h.Network().Conns()), err)
	}
}

func TestStreamAddressesNeedStreams(t *testing.T) {
	m := newMemory(t)
	a := multiaddr.StringCast("/ip4/192.0.2.1/tcp/4001")
	_, err := newTestClient(t, ClientConfig{}).Publisher(peer.AddrInfo{ID: m.ID(), Addrs: []multiaddr.Multiaddr{a}})
	if !errors.Is(err, ErrNoAddress) || !strings.Contains(err.Error(), "streams are not open here") {
		t.Errorf("got %v", err)
	}
	c := newStreamClient(t, true)
	other := newMemory(t).ID()
	for _, text := range []string{
		"/ip4/192.0.2.1/tcp/4001/p2p/" + other.String() + "/p2p-circuit", "/ip4/192.0.2.1/tcp/4001/p2p/" + other.String(),
		"/p2p/" + m.ID().String(), "/unix/sock", "/ip4/192.0.2.1", "/ip4/192.0.2.1/udp/4001",
	} {
		if p, err := c.Publisher(peer.AddrInfo{ID: m.ID(), Addrs: []multiaddr.Multiaddr{nil, multiaddr.StringCast(text)}}); !errors.Is(err, ErrNoAddress) {
			t.Errorf("%s: %v, %v", text, p, err)
		}
	}
	for _, text := range []string{
		"/ip4/192.0.2.1/tcp/4001/p2p/" + m.ID().String(), "/dns4/pub.example.com/tcp/4001", "/dnsaddr/pub.example.com",
		"/ip6/2001:db8::1/udp/4001/quic-v1", "/dns/pub.example.com/tcp/443/tls/ws",
	} {
		if p, err := c.Publisher(peer.AddrInfo{ID: m.ID(), Addrs: []multiaddr.Multiaddr{multiaddr.StringCast(text)}}); err != nil || p.Addr() == nil {
			t.Errorf("%s: %v, %v", text, p, err)
		}
	}
}

func TestDiscoveryPathIsUsed(t *testing.T) {
	m := newMemory(t)
	cids := chain(t, m, 1)
	chainAt := func(prefix string) http.Handler { return http.StripPrefix(prefix, NewHandler(m)) }
	serveProtocols := func(path, answer string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != path {
				http.NotFound(w, r)
				return
			}
			io.WriteString(w, answer)
		}
	}
	const wellKnown, legacy = "/.well-known/libp2p/protocols", "/.well-known/libp2p"
	for name, tc := range map[string]struct {
		at, answer, prefix string
	}{
		"as we serve it":       {wellKnown, `{"/ipni/v1/ad":{"path":"/ipni/v1/ad"},"/other":{"path":"/"}}`, ""},
		"with a slash":         {wellKnown, `{"/ipni/v1/ad":{"path":"/ipni/v1/ad/"}}`, ""},
		"older place":          {legacy, `{"/ipni/v1/ad":{"path":"/ipni/v1/ad/"}}`, ""},
		"below a path":         {wellKnown, `{"/ipni/v1/ad":{"path":"/some/base/ipni/v1/ad/"}}`, "/some/base"},
		"the path it is below": {wellKnown, `{"/ipni/v1/ad":{"path":"/some/base"}}`, "/some/base"},
		"the root":             {wellKnown, `{"/ipni/v1/ad":{"path":"/"}}`, ""},
		"nothing":              {wellKnown, `{"/ipni/v1/ad":{}}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			mux := http.NewServeMux()
			mux.Handle("/.well-known/", serveProtocols(tc.at, tc.answer))
			mux.Handle(tc.prefix+Path+"/", chainAt(tc.prefix))
			h := listenStreams(t, m)
			serveStreamsTest(t, h, mux)
			p := atStreams(t, newStreamClient(t, true), m.ID(), h.Addrs()...)
			for range 2 {
				if _, err := p.Block(t.Context(), cids[0], ""); err != nil {
					t.Fatal(err)
				}
			}
			if n := p.Stats().Requests; n > 4 {
				t.Errorf("%+v: it was not remembered", p.Stats())
			}
		})
	}
}

func TestWithoutDiscoveryNothingIsSaidAboutBlocks(t *testing.T) {
	m := newMemory(t)
	cids := chain(t, m, 1)
	for name, handler := range map[string]http.HandlerFunc{
		"not found":  http.NotFound,
		"no content": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) },
		"no JSON":    func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") },
		"no ipni":    func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"/other":{"path":"/"}}`) },
		"too long":   func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, maxProtocolsBytes+1)) },
	} {
		t.Run(name, func(t *testing.T) {
			h := listenStreams(t, m)
			serveStreamsTest(t, h, handler)
			p := atStreams(t, newStreamClient(t, true), m.ID(), h.Addrs()...)
			_, err := p.Block(t.Context(), cids[0], "")
			if !errors.Is(err, errNoStreamHTTP) || errors.Is(err, ErrNotFound) {
				t.Errorf("got %v", err)
			}
			if _, err := p.Head(t.Context()); !errors.Is(err, errNoStreamHTTP) || errors.Is(err, ErrNoHead) {
				t.Errorf("head: %v", err)
			}
			if s := p.Stats(); s.Requests > 4 || s.Retries > 0 {
				t.Errorf("%+v", s)
			}
		})
	}
	t.Run("data-transfer only", func(t *testing.T) {
		p := atStreams(t, newStreamClient(t, true), m.ID(), listenStreams(t, m).Addrs()...)
		if _, err := p.Block(t.Context(), cids[0], ""); !errors.Is(err, errNoStreamHTTP) || !strings.Contains(err.Error(), "data-transfer") {
			t.Errorf("got %v", err)
		}
	})
}

func TestResetStreamIsTriedAgain(t *testing.T) {
	m := newMemory(t)
	cids := chain(t, m, 1)
	h := listenStreams(t, m)
	serveStreamsTest(t, h, NewHandler(m))
	p := atStreams(t, newStreamClient(t, true), m.ID(), h.Addrs()...)
	if _, err := p.Head(t.Context()); err != nil {
		t.Fatal(err)
	}
	// From now on the host resets the first stream of each request.
	var streams atomic.Int32
	h.SetStreamHandler(streamProtocol, func(s network.Stream) {
		if streams.Add(1)%2 == 1 {
			s.Reset()
			return
		}
		defer s.Close()
		if _, err := http.ReadRequest(bufio.NewReader(s)); err != nil {
			t.Error(err)
		}
		block, _ := m.Block(context.Background(), cids[0])
		fmt.Fprintf(s, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(block), block)
	})
	for range 3 {
		if _, err := p.Block(t.Context(), cids[0], ""); err != nil {
			t.Error(err)
		}
	}
	if n := streams.Load(); n != 6 || p.Stats().Retries != 3 {
		t.Errorf("%d streams, %+v", n, p.Stats())
	}
}

func TestStreamsOnlyGoToPublicAddresses(t *testing.T) {
	m := newMemory(t)
	cids := chain(t, m, 1)
	h := listenStreams(t, m)
	serveStreamsTest(t, h, NewHandler(m))
	port, err := h.Addrs()[0].ValueForProtocol(multiaddr.P_TCP)
	if err != nil {
		t.Fatal(err)
	}
	c := newStreamClient(t, false)
	for _, host := range []string{"/ip4/127.0.0.1", "/dns4/localhost", "/ip4/10.255.255.1", "/ip6/::1", "/ip6/::ffff:127.0.0.1"} {
		p := atStreams(t, c, m.ID(), multiaddr.StringCast(host+"/tcp/"+port))
		if _, err := p.Block(t.Context(), cids[0], ""); !errors.Is(err, ErrPrivateAddress) {
			t.Errorf("%s: %v", host, err)
		}
	}
	if n := len(h.Network().Conns()); n > 0 {
		t.Errorf("%d connections", n)
	}
	g := outward{}
	for text, public := range map[string]bool{
		"/ip4/8.8.8.8/tcp/4001": true, "/ip6/2606:4700::1/udp/4001/quic-v1": true,
		"/ip4/192.168.1.1/tcp/4001": false, "/ip4/169.254.169.254/udp/80/quic-v1": false, "/ip6zone/eth0/ip6/fe80::1/tcp/1": false,
		"/dns4/example.com/tcp/4001": false, "/dnsaddr/example.com": false, "/ip6/64:ff9b::7f00:1/tcp/1": false,
		"/ip4/8.8.8.8/tcp/4001/p2p/" + m.ID().String() + "/p2p-circuit": false,
	} {
		if got := g.InterceptAddrDial("", multiaddr.StringCast(text)); got != public {
			t.Errorf("%s: dialled %v", text, got)
		}
	}
	if g.InterceptAccept(nil) {
		t.Error("takes connections in")
	}
}

// resolver answers every name with one address.
type resolver struct{ to multiaddr.Multiaddr }

func (r resolver) ResolveDNSAddr(context.Context, peer.ID, multiaddr.Multiaddr, int, int) ([]multiaddr.Multiaddr, error) {
	return []multiaddr.Multiaddr{r.to}, nil
}

func (r resolver) ResolveDNSComponent(context.Context, multiaddr.Multiaddr, int) ([]multiaddr.Multiaddr, error) {
	return []multiaddr.Multiaddr{r.to}, nil
}

func TestStreamNamesAreJudgedByWhatTheyMean(t *testing.T) {
	m := newMemory(t)
	cids := chain(t, m, 1)
	h := listenStreams(t, m)
	serveStreamsTest(t, h, NewHandler(m))
	names := libp2p.MultiaddrResolver(resolver{h.Addrs()[0]})
	for _, text := range []string{"/dns4/pub.example.com/tcp/4001", "/dnsaddr/pub.example.com"} {
		a := multiaddr.StringCast(text)
		p := atStreams(t, newStreamClient(t, false, names), m.ID(), a)
		if _, err := p.Block(t.Context(), cids[0], ""); !errors.Is(err, ErrPrivateAddress) {
			t.Errorf("%s: %v", text, err)
		}
		p = atStreams(t, newStreamClient(t, true, names), m.ID(), multiaddr.StringCast("/ip4/127.0.0.1/tcp/1"), a)
		if _, err := p.Block(t.Context(), cids[0], ""); err != nil || !p.Addr().Equal(a) {
			t.Errorf("%s: at %s, %v", text, p.Addr(), err)
		}
	}
}

func TestStreamOfAnotherPeerIsRefused(t *testing.T) {
	m, stranger := newMemory(t), newMemory(t)
	cids := chain(t, m, 1)
	h := listenStreams(t, stranger)
	serveStreamsTest(t, h, NewHandler(m)) // it even has the blocks
	p := atStreams(t, newStreamClient(t, true), m.ID(), h.Addrs()...)
	if b, err := p.Block(t.Context(), cids[0], ""); err == nil {
		t.Errorf("fetched %q", b)
	}
}

func TestStreamAnswersAreBounded(t *testing.T) {
	m := newMemory(t)
	cids := chain(t, m, 1)
	h := listenStreams(t, m)
	serveStreamsTest(t, h, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, "/.well-known/"):
			NewHandler(m).ServeHTTP(w, r)
		case strings.HasSuffix(r.URL.Path, "/head"):
			w.Header().Set("X-Long", strings.Repeat("x", 1<<20))
		default:
			io.CopyN(w, zeroReader{}, schema.MaxBlockBytes+1)
		}
	}))
	p := atStreams(t, newStreamClient(t, true), m.ID(), h.Addrs()...)
	if _, err := p.Block(t.Context(), cids[0], ""); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v", err)
	}
	if _, err := p.Head(t.Context()); err == nil {
		t.Error("took an endless header")
	}
}

func TestStreamRedirectElsewhereIsNotFollowed(t *testing.T) {
	m := newMemory(t)
	var asked atomic.Int32
	secret := serveTest(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	h := listenStreams(t, m)
	serveStreamsTest(t, h, http.RedirectHandler(secret.URL, http.StatusFound))
	p := atStreams(t, newStreamClient(t, true), m.ID(), h.Addrs()...)
	if _, err := p.Block(t.Context(), cid.NewCidV1(cid.Raw, schema.LinkOf(schema.DagJSON, nil).Hash()), ""); !errors.Is(err, errRedirects) || asked.Load() > 0 {
		t.Errorf("%d requests: %v", asked.Load(), err)
	}
}
