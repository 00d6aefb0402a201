package ipnisync

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/ingest/schema"
)

// putAd signs an advertisement with key, stores it, and makes it m's head.
func putAd(t *testing.T, m *Memory, key crypto.PrivKey, change func(*schema.Advertisement)) cid.Cid {
	t.Helper()
	entries, err := (&schema.EntryChunk{Entries: []multihash.Multihash{schema.LinkOf(schema.DagJSON, nil).Hash()}}).Encode(schema.DagJSON)
	if err != nil {
		t.Fatal(err)
	}
	ad := &schema.Advertisement{
		Provider: m.ID().String(), Addresses: []string{"/ip4/192.0.2.1/tcp/3104/http"},
		Entries: m.Put(entries, schema.DagJSON), ContextID: []byte("context"), Metadata: []byte{0xa0, 0x12},
	}
	if change != nil {
		change(ad)
	}
	if err := ad.Sign(key); err != nil {
		t.Fatal(err)
	}
	block, err := ad.Encode(schema.DagJSON)
	if err != nil {
		t.Fatal(err)
	}
	c := m.Put(block, schema.DagJSON)
	if err := m.SetHead(c); err != nil {
		t.Fatal(err)
	}
	return c
}

// goodChain is a chain with one good advertisement.
func goodChain(t *testing.T) (*Memory, cid.Cid) {
	t.Helper()
	m := newMemory(t)
	return m, putAd(t, m, m.key, nil)
}

// wantProblem checks the verdict on one address.
func wantProblem(t *testing.T, v Verdict, want Problem, words ...string) {
	t.Helper()
	if len(v.Addresses) != 1 {
		t.Fatalf("%+v", v)
	}
	a := v.Addresses[0]
	if a.Problem != want || a.OK != (want == "") || v.OK != a.OK || a.Text == "" || !strings.Contains(v.Summary, a.Text) && !v.OK {
		t.Errorf("got %+v, want %q", v, want)
	}
	for _, w := range words {
		if !strings.Contains(a.Text, w) {
			t.Errorf("%q does not say %q", a.Text, w)
		}
	}
	t.Log(a.Text)
}

func TestProbeSaysWhatIsWrongWithTheChain(t *testing.T) {
	status := func(code int) func(*testing.T) (peer.ID, http.Handler) {
		return func(t *testing.T) (peer.ID, http.Handler) {
			return newMemory(t).ID(), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
		}
	}
	serves := func(text string) func(*testing.T) (peer.ID, http.Handler) {
		return func(t *testing.T) (peer.ID, http.Handler) {
			return newMemory(t).ID(), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text) })
		}
	}
	chainWith := func(change func(*testing.T, *Memory)) func(*testing.T) (peer.ID, http.Handler) {
		return func(t *testing.T) (peer.ID, http.Handler) {
			m := newMemory(t)
			change(t, m)
			return m.ID(), NewHandler(m)
		}
	}
	entries := func(block string) func(*testing.T, *Memory) {
		return func(t *testing.T, m *Memory) {
			putAd(t, m, m.key, func(a *schema.Advertisement) { a.Entries = m.Put([]byte(block), schema.DagJSON) })
		}
	}
	for name, tc := range map[string]struct {
		serve   func(*testing.T) (peer.ID, http.Handler)
		problem Problem
		words   []string
	}{
		"all well": {chainWith(func(t *testing.T, m *Memory) { putAd(t, m, m.key, nil) }), "", []string{"all is well", "baguqeera", "HTTP/1.1"}},
		"removal": {chainWith(func(t *testing.T, m *Memory) {
			putAd(t, m, m.key, func(a *schema.Advertisement) { a.IsRm, a.Entries = true, schema.NoEntries })
		}), "", nil},
		"HAMT":        {chainWith(entries(`{"hamt":{"map":{"/":{"bytes":""}},"data":[]},"bucketSize":3,"hashAlg":18}`)), "", nil},
		"not found":   {status(404), ProblemNotFound, []string{"nothing is served at http://", Path, "is the path part of the address right?"}},
		"forbidden":   {status(403), ProblemNotFound, []string{"403"}},
		"bad request": {status(400), ProblemStatus, []string{"400", "https"}},
		"broken":      {status(500), ProblemStatus, []string{"500", "log"}},
		"held back":   {status(429), ProblemStatus, []string{"rate limit"}},
		"login":       {status(401), ProblemStatus, []string{"without credentials"}},
		"empty":       {chainWith(func(*testing.T, *Memory) {}), ProblemEmpty, []string{"publish something"}},
		"a page":      {serves("<html>Welcome!</html>"), ProblemHead, []string{"not a signed head"}},
		"too large":   {serves(strings.Repeat("x", schema.MaxHeadBytes+1)), ProblemTooLarge, nil},
		"other key": {func(t *testing.T) (peer.ID, http.Handler) {
			m, _ := goodChain(t)
			return newMemory(t).ID(), NewHandler(m)
		}, ProblemOtherKey, []string{"is signed by 12D3KooW", "but 12D3KooW"}},
		"head signature": {func(t *testing.T) (peer.ID, http.Handler) {
			m, _ := goodChain(t)
			head, err := m.Head(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			wrong := *head
			wrong.Head = schema.LinkOf(schema.DagJSON, []byte("another"))
			return m.ID(), NewHandler(headOf{m, &wrong})
		}, ProblemHeadSignature, []string{"signature of the head"}},
		"no ad": {chainWith(func(t *testing.T, m *Memory) { m.Delete(putAd(t, m, m.key, nil)) }), ProblemAdMissing, []string{"404"}},
		"other bytes": {chainWith(func(t *testing.T, m *Memory) { m.PutCID(putAd(t, m, m.key, nil), []byte("{}")) }), ProblemAdHash,
			[]string{"does not match"}},
		"no ad at all": {chainWith(func(t *testing.T, m *Memory) { m.SetHead(m.Put([]byte(`{"a":1}`), schema.DagJSON)) }), ProblemAd, nil},
		"ad signature": {chainWith(func(t *testing.T, m *Memory) {
			c := putAd(t, m, m.key, nil)
			block, _ := m.Block(t.Context(), c)
			m.SetHead(m.Put([]byte(strings.Replace(string(block), "192.0.2.1", "192.0.2.2", 1)), schema.DagJSON))
		}), ProblemAdSignature, []string{"signature of advertisement"}},
		"without metadata": {chainWith(func(t *testing.T, m *Memory) {
			putAd(t, m, m.key, func(a *schema.Advertisement) { a.Metadata = nil })
		}), ProblemAd, []string{"metadata"}},
		"signed by another": {chainWith(func(t *testing.T, m *Memory) { putAd(t, m, newMemory(t).key, nil) }), ProblemNotProvider, []string{"for provider", "signed by"}},
		"for another": {chainWith(func(t *testing.T, m *Memory) {
			other := newMemory(t)
			putAd(t, m, other.key, func(a *schema.Advertisement) { a.Provider = other.ID().String() })
		}), ProblemNotProvider, nil},
		"no entries": {chainWith(func(t *testing.T, m *Memory) {
			putAd(t, m, m.key, func(a *schema.Advertisement) { m.Delete(a.Entries) })
		}), ProblemEntriesMissing, []string{"404"}},
		"entries of other bytes": {chainWith(func(t *testing.T, m *Memory) {
			putAd(t, m, m.key, func(a *schema.Advertisement) { m.PutCID(a.Entries, []byte("{}")) })
		}), ProblemEntries, nil},
		"entries that are none": {chainWith(entries(`{"Entries":[1]}`)), ProblemEntries, nil},
		"entries that are an ad": {chainWith(func(t *testing.T, m *Memory) {
			c := putAd(t, m, m.key, nil)
			putAd(t, m, m.key, func(a *schema.Advertisement) { a.Entries = c })
		}), ProblemEntries, nil},
	} {
		t.Run(name, func(t *testing.T) {
			id, h := tc.serve(t)
			srv := serveTest(t, h)
			c := newTestClient(t, ClientConfig{AllowPrivate: true})
			v := c.Probe(t.Context(), peer.AddrInfo{ID: id, Addrs: []multiaddr.Multiaddr{maddr(t, srv.URL)}})
			wantProblem(t, v, tc.problem, tc.words...)
			if v.Addresses[0].URL != srv.URL+Path+"/head" || v.Publisher != id.String() {
				t.Errorf("%+v", v)
			}
		})
	}
}

// headOf serves another head.
type headOf struct {
	Source
	head *schema.SignedHead
}

func (h headOf) Head(context.Context) (*schema.SignedHead, error) { return h.head, nil }

func TestProbeSaysWhatIsWrongWithTheAddress(t *testing.T) {
	m, _ := goodChain(t)
	text := func(s string) func(*testing.T) (multiaddr.Multiaddr, *Client) {
		return func(t *testing.T) (multiaddr.Multiaddr, *Client) {
			return multiaddr.StringCast(s), newTestClient(t, ClientConfig{AllowPrivate: true})
		}
	}
	withTLS := func(pool bool, host string) func(*testing.T) (multiaddr.Multiaddr, *Client) {
		return func(t *testing.T) (multiaddr.Multiaddr, *Client) {
			srv := httptest.NewUnstartedServer(NewHandler(m))
			srv.Config.ErrorLog = discardLog
			srv.StartTLS()
			t.Cleanup(srv.Close)
			c := newTestClient(t, ClientConfig{AllowPrivate: true})
			tr := c.http.Transport.(*http.Transport)
			if pool {
				tr.TLSClientConfig = srv.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
			}
			tr.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, srv.Listener.Addr().String())
			}
			return maddr(t, "https://"+host), c
		}
	}
	for name, tc := range map[string]struct {
		at      func(*testing.T) (multiaddr.Multiaddr, *Client)
		problem Problem
		words   []string
	}{
		"not an address": {text("/ip4/192.0.2.1/udp/1"), ProblemAddress, []string{"neither an HTTP address"}},
		"libp2p":         {text("/ip4/192.0.2.1/tcp/1"), ProblemAddress, []string{"libp2p"}},
		"relay":          {text("/ip4/192.0.2.1/tcp/1/p2p/" + m.ID().String() + "/p2p-circuit"), ProblemAddress, []string{"relayed"}},
		"another peer":   {text("/ip4/192.0.2.1/tcp/1/p2p/" + newMemory(t).ID().String()), ProblemAddress, []string{"is that of peer"}},
		"refused": {func(t *testing.T) (multiaddr.Multiaddr, *Client) {
			return maddr(t, deadURL(t)), newTestClient(t, ClientConfig{AllowPrivate: true})
		}, ProblemRefused, []string{"127.0.0.1 refuses connections to port", "is the publisher running"}},
		"private": {func(t *testing.T) (multiaddr.Multiaddr, *Client) {
			return multiaddr.StringCast("/ip4/192.168.1.1/tcp/3104/http"), newTestClient(t, ClientConfig{})
		}, ProblemPrivate, []string{"announce a public one"}},
		"unknown name": {func(t *testing.T) (multiaddr.Multiaddr, *Client) {
			c := newTestClient(t, ClientConfig{AllowPrivate: true})
			c.http.Transport.(*http.Transport).DialContext = func(context.Context, string, string) (net.Conn, error) {
				return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", IsNotFound: true}}
			}
			return maddr(t, "http://pub.example.com:3104"), c
		}, ProblemUnknownHost, []string{"pub.example.com does not resolve"}},
		"unreachable port": {func(t *testing.T) (multiaddr.Multiaddr, *Client) {
			c := newTestClient(t, ClientConfig{AllowPrivate: true})
			c.http.Transport.(*http.Transport).DialContext = func(context.Context, string, string) (net.Conn, error) {
				return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Err: "i/o timeout", IsTimeout: true}}
			}
			return maddr(t, "https://pub.example.com"), c
		}, ProblemTimeout, []string{"port 443/tcp", "firewall"}},
		"own certificate":   {withTLS(false, "example.com"), ProblemTLS, []string{"example.com", "authority"}},
		"other certificate": {withTLS(true, "pub.example.net"), ProblemTLS, []string{"not for pub.example.net", `"example.com"`}},
		"right certificate": {withTLS(true, "example.com"), "", nil},
		"no TLS": {func(t *testing.T) (multiaddr.Multiaddr, *Client) {
			srv := serveTest(t, NewHandler(m))
			return maddr(t, strings.Replace(srv.URL, "http:", "https:", 1)), newTestClient(t, ClientConfig{AllowPrivate: true})
		}, ProblemTLS, []string{"plain HTTP"}},
		"libp2p port": {func(t *testing.T) (multiaddr.Multiaddr, *Client) {
			a := listenStreams(t, m).Addrs()[0]
			return a.Encapsulate(multiaddr.StringCast("/http")), newTestClient(t, ClientConfig{AllowPrivate: true})
		}, ProblemNotHTTP, []string{"without /http"}},
		"for ever elsewhere": {func(t *testing.T) (multiaddr.Multiaddr, *Client) {
			srv := serveTest(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) }))
			return maddr(t, srv.URL), newTestClient(t, ClientConfig{AllowPrivate: true})
		}, ProblemRedirects, nil},
		"broken": {func(t *testing.T) (multiaddr.Multiaddr, *Client) {
			srv := serveTest(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { cutOff(w) }))
			return maddr(t, srv.URL), newTestClient(t, ClientConfig{AllowPrivate: true})
		}, ProblemOther, nil},
	} {
		t.Run(name, func(t *testing.T) {
			a, c := tc.at(t)
			wantProblem(t, c.Probe(t.Context(), peer.AddrInfo{ID: m.ID(), Addrs: []multiaddr.Multiaddr{a}}), tc.problem, tc.words...)
		})
	}
}

func TestProbeOverStreams(t *testing.T) {
	m, head := goodChain(t)
	h := listenStreams(t, m)
	c := newStreamClient(t, true)
	ask := func(id peer.ID) Verdict {
		return c.Probe(t.Context(), peer.AddrInfo{ID: id, Addrs: h.Addrs()})
	}
	wantProblem(t, ask(m.ID()), ProblemNoStreamHTTP, "data-transfer")
	wantProblem(t, ask(newMemory(t).ID()), ProblemOtherKey, "peer "+m.ID().String()+" answers there")
	wantProblem(t, newStreamClient(t, false).Probe(t.Context(), peer.AddrInfo{ID: m.ID(), Addrs: h.Addrs()}), ProblemPrivate)
	serveStreamsTest(t, h, NewHandler(m))
	v := newStreamClient(t, true).Probe(t.Context(), peer.AddrInfo{ID: m.ID(), Addrs: h.Addrs()})
	wantProblem(t, v, "", head.String())
	closed := multiaddr.StringCast(strings.Replace(maddr(t, deadURL(t)).String(), "/http", "", 1))
	wantProblem(t, c.Probe(t.Context(), peer.AddrInfo{ID: newMemory(t).ID(), Addrs: []multiaddr.Multiaddr{closed}}), ProblemRefused, "127.0.0.1")
	// Beside an HTTP address nobody asks it.
	srv := serveTest(t, http.NotFoundHandler())
	v = newStreamClient(t, true).Probe(t.Context(), peer.AddrInfo{ID: m.ID(), Addrs: append(h.Addrs(), maddr(t, srv.URL))})
	if v.OK || !v.Addresses[0].OK || !strings.Contains(v.Addresses[0].Text, "while there are HTTP addresses") || v.Addresses[1].Problem != ProblemNotFound {
		t.Errorf("%+v", v)
	}
}

func TestProbeOfSlowPublishersEnds(t *testing.T) {
	for name, tc := range map[string]struct {
		h       http.HandlerFunc
		problem Problem
		words   string
	}{
		"hangs":    {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, ProblemTimeout, "the connection stands"},
		"trickles": {func(w http.ResponseWriter, r *http.Request) { send(w, r, 1<<10, 1, time.Second) }, ProblemStalled, "too slowly"},
		"is slow": {func(w http.ResponseWriter, r *http.Request) { send(w, r, 60<<10, 1900, time.Second) }, ProblemTimeout,
			"before the end of the probe's 30s"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, stop := pipeClient(ClientConfig{}, tc.h)
				defer stop()
				start := time.Now()
				var addrs []multiaddr.Multiaddr
				for i := range 20 {
					addrs = append(addrs, maddr(t, fmt.Sprintf("%s:%d", pipeURL, 3000+i)))
				}
				v := c.Probe(t.Context(), peer.AddrInfo{ID: newMemory(t).ID(), Addrs: addrs})
				if took := time.Since(start); took > probeTimeout || v.OK || len(v.Addresses) != maxAddresses || !strings.Contains(v.Summary, "4 were left out") {
					t.Errorf("after %v: %+v", took, v)
				}
				for _, a := range v.Addresses {
					if a.Problem != tc.problem || !strings.Contains(a.Text, tc.words) {
						t.Errorf("%+v", a)
					}
				}
			})
		})
	}
}

func TestProbeSumsUp(t *testing.T) {
	m, head := goodChain(t)
	older := NewMemory(m.key, "")
	putAd(t, older, m.key, func(a *schema.Advertisement) { a.ContextID = []byte("another") })
	good, behind := serveTest(t, NewHandler(m)), serveTest(t, NewHandler(older))
	c := newTestClient(t, ClientConfig{AllowPrivate: true})
	at := func(urls ...string) Verdict {
		info := peer.AddrInfo{ID: m.ID()}
		for _, u := range urls {
			info.Addrs = append(info.Addrs, maddr(t, u))
		}
		return c.Probe(t.Context(), info)
	}
	for _, tc := range []struct {
		v    Verdict
		ok   bool
		head string
		want string
	}{
		{at(), false, "", "no address: announce where"},
		{at(good.URL), true, head.String(), "all is well: head "},
		{at(deadURL(t), good.URL), true, head.String(), "1 of 2 addresses serve the chain, head " + head.String() + "; /ip4/127.0.0.1/tcp/"},
		{at(good.URL, behind.URL), true, head.String(), "the addresses have different heads"},
		{at(deadURL(t), deadURL(t)), false, "", "no address serves the chain; /ip4/127.0.0.1/tcp/"},
		{c.Probe(t.Context(), peer.AddrInfo{}), false, "", "no peer ID"},
	} {
		if tc.v.OK != tc.ok || tc.v.Head != tc.head || !strings.Contains(tc.v.Summary, tc.want) {
			t.Errorf("%+v, want %q", tc.v, tc.want)
		}
	}
	raw, err := json.Marshal(at(good.URL))
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{`"publisher":"12D3`, `"ok":true`, `"summary":`, `"head":"bag`, `"addresses":[{"address":"/ip4/`, `"url":"http://`, `"text":`, `"rtt_ms":`, `"http":"HTTP/1.1"`} {
		if !strings.Contains(string(raw), field) {
			t.Errorf("%s lacks %s", raw, field)
		}
	}
}
