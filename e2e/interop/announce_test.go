package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipni/go-libipni/announce/httpsender"
	"github.com/ipni/go-libipni/announce/message"
	"github.com/ipni/go-libipni/apierror"
	"github.com/ipni/go-libipni/ingest/client"
	"github.com/ipni/index-provider/engine"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

// announcers are the ways the reference announces over HTTP.
var announcers = []struct {
	name string
	send func(ctx context.Context, url string, head cid.Cid, publisher peer.AddrInfo) error
}{
	{"sender, CBOR", func(ctx context.Context, url string, head cid.Cid, publisher peer.AddrInfo) error {
		return sendHTTP(ctx, url, head, publisher, false)
	}},
	{"sender, CBOR with extra data", func(ctx context.Context, url string, head cid.Cid, publisher peer.AddrInfo) error {
		return sendHTTP(ctx, url, head, publisher, false, httpsender.WithExtraData([]byte("f01234")))
	}},
	{"sender, JSON", func(ctx context.Context, url string, head cid.Cid, publisher peer.AddrInfo) error {
		return sendHTTP(ctx, url, head, publisher, true)
	}},
	{"sender, deprecated path", func(ctx context.Context, url string, head cid.Cid, publisher peer.AddrInfo) error {
		return sendHTTP(ctx, url+"/ingest/announce", head, publisher, false)
	}},
	{"ingest client", func(ctx context.Context, url string, head cid.Cid, publisher peer.AddrInfo) error {
		c, err := client.New(url)
		if err != nil {
			return err
		}
		return c.Announce(ctx, &publisher, head)
	}},
}

func sendHTTP(ctx context.Context, text string, head cid.Cid, publisher peer.AddrInfo, asJSON bool, options ...httpsender.Option) error {
	u, err := url.Parse(text)
	if err != nil {
		return err
	}
	s, err := httpsender.New([]*url.URL{u}, publisher.ID, options...)
	if err != nil {
		return err
	}
	defer s.Close()
	msg := message.Message{Cid: head}
	msg.SetAddrs(publisher.Addrs)
	if asJSON {
		return s.SendJson(ctx, msg)
	}
	return s.Send(ctx, msg)
}

// TestReferenceAnnounceLeadsToIndexedAd: an announce by each HTTP sender of the
// reference, to an indexer and to an assigner, is all that it takes.
func TestReferenceAnnounceLeadsToIndexedAd(t *testing.T) {
	t.Parallel()
	pool := startPool(t, false)
	_, single := startIndexer(t, "none")
	receivers := []struct{ name, announce, find string }{
		{"indexer", single.Ingest, single.Find},
		{"assigner", pool.assigner.HTTP, pool.frontend.HTTP},
	}
	for _, r := range receivers {
		for _, a := range announcers {
			t.Run(r.name+"/"+a.name, func(t *testing.T) {
				pub, addr := startSilent(t)
				want := content{"announced", multihashes(t.Name(), 10), overBitswap}
				head := pub.put(want.contextID, want.mhs, want.md)
				if err := a.send(t.Context(), r.announce, head, addr); err != nil {
					t.Fatal(err)
				}
				c := findClient(t, r.find)
				waitIndexed(t, c, pub.id, head)
				checkContents(t, c, pub.id, want)
				if err := a.send(t.Context(), r.announce, head, addr); err != nil {
					t.Errorf("announced again: %v, want success", err)
				}
			})
		}
	}
}

// TestPublisherAddresses: whatever addresses reference publishers announce, the
// one that serves the chain is found.
func TestPublisherAddresses(t *testing.T) {
	t.Parallel()
	_, ix := startIndexer(t, "none")
	c := findClient(t, ix.Find)
	check := func(t *testing.T, pub *publisher, announced func(head cid.Cid)) {
		want := content{"addressed", multihashes(t.Name(), 10), overBitswap}
		head := pub.put(want.contextID, want.mhs, want.md)
		announced(head)
		waitIndexed(t, c, pub.id, head)
		checkContents(t, c, pub.id, want)
	}
	// Others than the one that works, all of which occur.
	around := []multiaddr.Multiaddr{
		parseAddr(t, "/ip4/127.0.0.1/tcp/1/http"), // nobody there
		parseAddr(t, "/dnsaddr/bootstrap.example.com"),
		parseAddr(t, "/ip4/127.0.0.1/udp/1/quic-v1"),
	}
	t.Run("among others", func(t *testing.T) {
		pub, addr := startSilent(t)
		addr.Addrs = append(slices.Clone(around), addr.Addrs...)
		check(t, pub, func(head cid.Cid) {
			if err := sendHTTP(t.Context(), ix.Ingest, head, addr, false); err != nil {
				t.Fatal(err)
			}
		})
	})
	t.Run("below a path", func(t *testing.T) {
		pub, addr := startSilentAt(t, "/some/path")
		check(t, pub, func(head cid.Cid) {
			if err := sendHTTP(t.Context(), ix.Ingest, head, addr, false); err != nil {
				t.Fatal(err)
			}
		})
	})
	t.Run("libp2p streams alone", func(t *testing.T) {
		pub := newPublisher(t)
		pub.openAnnouncing(ix.Ingest, engine.WithPublisherKind(engine.Libp2pPublisher), engine.WithHost(newHost(t, libp2p.Identity(pub.key))))
		t.Cleanup(pub.shutdown)
		check(t, pub, func(cid.Cid) {})
	})
	t.Run("HTTP and libp2p streams", func(t *testing.T) {
		pub := newPublisher(t)
		pub.openAnnouncing(ix.Ingest, engine.WithPublisherKind(engine.Libp2pHttpPublisher), engine.WithHost(newHost(t, libp2p.Identity(pub.key))))
		t.Cleanup(pub.shutdown)
		check(t, pub, func(cid.Cid) {})
	})
}

// TestRefusedAnnounces: the reference's senders get errors that say why.
func TestRefusedAnnounces(t *testing.T) {
	t.Parallel()
	_, ix := startIndexer(t, "none", "--assigned-only")
	pub, addr := startSilent(t)
	head := pub.put("refused", multihashes("refused", 1), overBitswap)

	err := sendHTTP(t.Context(), ix.Ingest, head, addr, false)
	want := "403 Forbidden: announce requests not allowed from peer " + pub.id.String()
	if err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("publisher not assigned: %v, want %q", err, want)
	}
	c, err := client.New(ix.Ingest)
	if err != nil {
		t.Fatal(err)
	}
	var status *apierror.Error
	if err := c.Announce(t.Context(), &addr, head); !errors.As(err, &status) || status.Status() != http.StatusForbidden {
		t.Errorf("publisher not assigned: %v, want status 403", err)
	}
	if err := sendHTTP(t.Context(), ix.Ingest, head, peer.AddrInfo{ID: pub.id}, false); err == nil || !strings.Contains(err.Error(), "400 Bad Request") {
		t.Errorf("no addresses: %v, want 400", err)
	}
	_, other := newIdentity(t)
	if status := putTwoPublishers(t, ix.Ingest, head, addr, other); status != http.StatusBadRequest {
		t.Errorf("two publishers: status %d, want 400", status)
	}
}

// putTwoPublishers sends a reference message whose addresses name two peers,
// which the reference's own senders would not.
func putTwoPublishers(t *testing.T, url string, head cid.Cid, publisher peer.AddrInfo, other peer.ID) int {
	t.Helper()
	var addrs []multiaddr.Multiaddr
	for _, id := range []peer.ID{publisher.ID, other} {
		p2p, err := peer.AddrInfoToP2pAddrs(&peer.AddrInfo{ID: id, Addrs: publisher.Addrs})
		if err != nil {
			t.Fatal(err)
		}
		addrs = append(addrs, p2p...)
	}
	msg := message.Message{Cid: head}
	msg.SetAddrs(addrs)
	var body bytes.Buffer
	if err := msg.MarshalCBOR(&body); err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, url+"/announce", &body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

// TestReferenceReadsOurAnnounces: what signpost announce sends, in both forms,
// is what the reference's message type reads.
func TestReferenceReadsOurAnnounces(t *testing.T) {
	t.Parallel()
	_, id := newIdentity(t)
	head := rawCID(sum([]byte("some ad")))
	addrs := []string{"/ip4/192.0.2.1/tcp/3104/http", "/dns/pub.example.com/tcp/443/https/http-path/%2Fsub"}
	tests := []struct {
		name   string
		more   []string
		decode func(contentType string, body io.Reader, m *message.Message) error
	}{
		{"CBOR", nil, func(contentType string, body io.Reader, m *message.Message) error {
			if contentType == "application/json" {
				return errors.New("announced as JSON")
			}
			return m.UnmarshalCBOR(body)
		}},
		{"JSON", []string{"--json"}, func(contentType string, body io.Reader, m *message.Message) error {
			if contentType != "application/json" {
				return errors.New("type is " + contentType)
			}
			return json.NewDecoder(body).Decode(m)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var got message.Message
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if err == nil {
					err = tt.decode(r.Header.Get("Content-Type"), bytes.NewReader(body), &got)
				}
				if err != nil || r.Method != http.MethodPut || r.URL.Path != "/announce" {
					t.Errorf("%s %s: %x: %v", r.Method, r.URL.Path, body, err)
				}
				w.WriteHeader(http.StatusNoContent)
			}))
			defer srv.Close()
			tell(t, append([]string{
				"announce", "--publisher", id.String(), "--addr", addrs[0], "--addr", addrs[1], "--head", head.String(), "--to", srv.URL,
			}, tt.more...)...)
			gotAddrs, err := got.GetAddrs()
			if err != nil {
				t.Fatal(err)
			}
			infos, err := peer.AddrInfosFromP2pAddrs(gotAddrs...)
			if err != nil || len(infos) != 1 || infos[0].ID != id || len(infos[0].Addrs) != len(addrs) {
				t.Fatalf("addresses are %v of %v, %v", gotAddrs, infos, err)
			}
			for i, a := range infos[0].Addrs {
				if a.String() != addrs[i] {
					t.Errorf("address %d is %s, want %s", i, a, addrs[i])
				}
			}
			if got.Cid != head || len(got.ExtraData) != 0 || got.OrigPeer != "" {
				t.Errorf("message is %+v", got)
			}
		})
	}
}
