package announce

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/crypto/blake2b"
)

const loopback = "/ip4/127.0.0.1/tcp/0"

var testPauses = pauses{first: time.Millisecond, most: 5 * time.Millisecond, lasting: time.Hour}

func newKey(t *testing.T) crypto.PrivKey {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// openTest opens a Gossip that is closed with the test.
func openTest(t *testing.T, cfg GossipConfig) *Gossip {
	t.Helper()
	if cfg.Key == nil {
		cfg.Key = newKey(t)
	}
	g, err := openGossip(cfg, testPauses)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return g
}

func infoOf(t *testing.T, g *Gossip) peer.AddrInfo {
	t.Helper()
	infos, err := peer.AddrInfosFromP2pAddrs(g.Addrs()...)
	if err != nil || len(infos) != 1 {
		t.Fatalf("addresses %v: %v", g.Addrs(), err)
	}
	return infos[0]
}

// runTest runs g and returns the announces it receives.
func runTest(t *testing.T, g *Gossip) <-chan Announce {
	t.Helper()
	out := make(chan Announce, 16)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- g.Run(ctx, func(_ context.Context, a Announce) error { out <- a; return nil })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, ErrClosed) {
			t.Errorf("run: %v", err)
		}
	})
	return out
}

func waitForPeer(t *testing.T, g *Gossip) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := g.WaitForPeer(ctx); err != nil {
		t.Fatal(err)
	}
}

func receive(t *testing.T, from <-chan Announce) Announce {
	t.Helper()
	select {
	case a := <-from:
		return a
	case <-time.After(20 * time.Second):
		t.Fatal("no announce arrived")
		panic("unreachable")
	}
}

// pair is a listening receiver and a sender that only dials.
func pair(t *testing.T) (receiver, sender *Gossip, received <-chan Announce) {
	t.Helper()
	receiver = openTest(t, GossipConfig{Listen: []string{loopback}})
	received = runTest(t, receiver)
	sender = openTest(t, GossipConfig{Peers: []peer.AddrInfo{infoOf(t, receiver)}})
	waitForPeer(t, sender)
	return receiver, sender, received
}

func TestGossipedAnnounceArrivesWithItsSignerAsPublisher(t *testing.T) {
	_, sender, received := pair(t)
	m := &Message{Cid: testCID(t, 1), Addrs: mustAddrs(t, "/ip4/203.0.113.9/tcp/3103/http"), ExtraData: []byte{1}}
	if err := sender.Publish(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	a := receive(t, received)
	if a.Head != m.Cid || a.Publisher.ID != sender.ID() || a.Direct {
		t.Errorf("got %+v", a)
	}
	if diff := cmp.Diff(addrStrings(m.Addrs), addrStrings(a.Publisher.Addrs)); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
}

func TestRepublishedAnnounceNamesItsPublisher(t *testing.T) {
	_, relay, received := pair(t)
	atRelay := runTest(t, relay)
	direct := Announce{
		Head:      testCID(t, 1),
		Publisher: peer.AddrInfo{ID: mustPeer(t, providerID), Addrs: mustAddrs(t, "/dns/a.example/https")},
		Direct:    true,
	}
	if err := relay.Republish(t.Context(), direct); err != nil {
		t.Fatal(err)
	}
	a := receive(t, received)
	if a.Head != direct.Head || a.Publisher.String() != direct.Publisher.String() || a.Direct {
		t.Errorf("got %+v", a)
	}
	if err := relay.Republish(t.Context(), a); err == nil {
		t.Error("a gossiped announce was re-published")
	}
	// The relay hears of its own publications, which come after its
	// re-publication, but not of that.
	own := &Message{Cid: testCID(t, 2)}
	if err := relay.Publish(t.Context(), own); err != nil {
		t.Fatal(err)
	}
	if a := receive(t, atRelay); a.Head != own.Cid {
		t.Errorf("relay was told its own re-publication: %+v", a)
	}
}

// careless is a peer of the topic that does not check what it publishes.
func careless(t *testing.T, target peer.AddrInfo) *pubsub.Topic {
	t.Helper()
	h, err := newHost(GossipConfig{Key: newKey(t)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() { cancel(); h.Close() })
	ps, err := pubsub.NewGossipSub(ctx, h, pubsub.WithMessageIdFn(messageID), pubsub.WithFloodPublish(true))
	if err != nil {
		t.Fatal(err)
	}
	topic, err := ps.Join(DefaultTopic)
	if err != nil {
		t.Fatal(err)
	}
	events, err := topic.EventHandler()
	if err != nil {
		t.Fatal(err)
	}
	defer events.Cancel()
	if err := h.Connect(ctx, target); err != nil {
		t.Fatal(err)
	}
	if _, err := events.NextPeerEvent(t.Context()); err != nil {
		t.Fatal(err)
	}
	return topic
}

func TestMalformedGossipIsNotDelivered(t *testing.T) {
	registry := prometheus.NewRegistry()
	receiver := openTest(t, GossipConfig{Listen: []string{loopback}, Registerer: registry})
	received := runTest(t, receiver)
	topic := careless(t, infoOf(t, receiver))
	if err := receiver.topic.Publish(t.Context(), []byte("no announce")); err == nil {
		t.Error("published what is no announce")
	}
	before := malformedCount(t, registry)
	if err := topic.Publish(t.Context(), []byte("no announce either")); err != nil {
		t.Fatal(err)
	}
	// Good messages go on arriving while the bad one is being refused.
	for i := 0; malformedCount(t, registry) == before; i++ {
		m := &Message{Cid: testCID(t, i)}
		data, err := m.EncodeCBOR()
		if err != nil {
			t.Fatal(err)
		}
		if err := topic.Publish(t.Context(), data); err != nil {
			t.Fatal(err)
		}
		if a := receive(t, received); a.Head != m.Cid {
			t.Fatalf("got %+v", a)
		}
	}
}

func TestRunEndsWithItsContextAndWithClose(t *testing.T) {
	g := openTest(t, GossipConfig{})
	never := func(context.Context, Announce) error { return nil }
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- g.Run(ctx, never) }()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("after its context ended: %v", err)
	}
	go func() { done <- g.Run(t.Context(), never) }()
	if err := g.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, ErrClosed) {
		t.Errorf("after close: %v", err)
	}
	if err := g.Run(t.Context(), never); !errors.Is(err, ErrClosed) {
		t.Errorf("run after close: %v", err)
	}
	if err := g.Publish(t.Context(), &Message{Cid: testCID(t, 1)}); !errors.Is(err, ErrClosed) {
		t.Errorf("publish after close: %v", err)
	}
	if err := g.WaitForPeer(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("wait after close: %v", err)
	}
	if err := g.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
}

func TestLostPeerIsDialledAgain(t *testing.T) {
	receiver, sender, _ := pair(t)
	events, err := receiver.host.EventBus().Subscribe(new(event.EvtPeerConnectednessChanged))
	if err != nil {
		t.Fatal(err)
	}
	defer events.Close()
	if err := receiver.host.Network().ClosePeer(sender.ID()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []network.Connectedness{network.NotConnected, network.Connected} {
		select {
		case e := <-events.Out():
			if got := e.(event.EvtPeerConnectednessChanged); got.Peer != sender.ID() || got.Connectedness != want {
				t.Fatalf("got %+v, want %s", got, want)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("never %s", want)
		}
	}
}

// gate is a TCP listener that slams the door until it is opened, and then
// passes connections on.
type gate struct {
	net.Listener
	refused chan struct{} // a token for each connection turned away
	open    chan struct{}
	conns   sync.WaitGroup
}

func newGate(t *testing.T, target string) *gate {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{Listener: l, refused: make(chan struct{}, 1000), open: make(chan struct{})}
	g.conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			select {
			case <-g.open:
				g.conns.Go(func() { forward(c, target) })
			default:
				c.Close()
				g.refused <- struct{}{}
			}
		}
	})
	t.Cleanup(func() { l.Close(); g.conns.Wait() })
	return g
}

func forward(c net.Conn, target string) {
	defer c.Close()
	d, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer d.Close()
	var back sync.WaitGroup
	back.Go(func() { io.Copy(c, d); c.Close() })
	io.Copy(d, c)
	d.Close()
	back.Wait()
}

// safeBuffer is a log target that can be read while it is written.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestUnreachablePeerIsDialledUntilItIsThere(t *testing.T) {
	receiver := openTest(t, GossipConfig{Listen: []string{loopback}})
	received := runTest(t, receiver)
	target := receiver.host.Addrs()[0]
	port, err := target.ValueForProtocol(multiaddr.P_TCP)
	if err != nil {
		t.Fatal(err)
	}
	gate := newGate(t, "127.0.0.1:"+port)
	_, gatePort, err := net.SplitHostPort(gate.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	var log safeBuffer
	sender := openTest(t, GossipConfig{
		Peers:  []peer.AddrInfo{{ID: receiver.ID(), Addrs: mustAddrs(t, "/ip4/127.0.0.1/tcp/"+gatePort)}},
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	for range 3 { // dials that fail
		<-gate.refused
	}
	close(gate.open)
	waitForPeer(t, sender)
	if err := sender.Publish(t.Context(), &Message{Cid: testCID(t, 1)}); err != nil {
		t.Fatal(err)
	}
	receive(t, received)
	if n := strings.Count(log.String(), "unreachable"); n != 1 {
		t.Errorf("logged as unreachable %d times:\n%s", n, &log)
	}
	if n := strings.Count(log.String(), "gossip peer connected"); n != 1 {
		t.Errorf("logged as connected %d times:\n%s", n, &log)
	}
}

func gatherCount(r *prometheus.Registry) (int, error) {
	families, err := r.Gather()
	return len(families), err
}

func malformedCount(t *testing.T, r *prometheus.Registry) float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetValue() == outcomeMalformed {
					return m.GetCounter().GetValue()
				}
			}
		}
	}
	t.Fatal("no such metric")
	return 0
}

func TestGossipMetricsComeAndGo(t *testing.T) {
	registry := prometheus.NewRegistry()
	cfg := GossipConfig{Key: newKey(t), Registerer: registry}
	g, err := OpenGossip(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := gatherCount(registry); err != nil || n == 0 {
		t.Errorf("%d metrics, %v", n, err)
	}
	if second, err := OpenGossip(cfg); err == nil {
		t.Error("two on one registry")
		second.Close()
	}
	if n, err := gatherCount(registry); err != nil || n == 0 {
		t.Errorf("the second one took the first one's metrics away: %d, %v", n, err)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if n, err := gatherCount(registry); err != nil || n != 0 {
		t.Errorf("%d metrics after close, %v", n, err)
	}
}

func TestGossipConfigIsJudged(t *testing.T) {
	key := newKey(t)
	id := mustPeer(t, providerID)
	for name, cfg := range map[string]GossipConfig{
		"no key":               {},
		"bad listen address":   {Key: key, Listen: []string{"0.0.0.0:3003"}},
		"peer without ID":      {Key: key, Peers: []peer.AddrInfo{{Addrs: mustAddrs(t, loopback)}}},
		"peer without address": {Key: key, Peers: []peer.AddrInfo{{ID: id}}},
		"port taken twice":     {Key: key, Listen: []string{"/ip4/127.0.0.1/tcp/99999"}},
	} {
		if g, err := OpenGossip(cfg); err == nil {
			t.Errorf("%s: opened", name)
			g.Close()
		}
	}
}

func TestSilentWithoutListenAddress(t *testing.T) {
	g := openTest(t, GossipConfig{})
	if addrs := g.Addrs(); len(addrs) > 0 {
		t.Errorf("listens on %v", addrs)
	}
}

func TestMessageIDIsOfTheDataAlone(t *testing.T) {
	data := []byte("announce")
	sum := blake2b.Sum256(data)
	for _, m := range []*pb.Message{{Data: data}, {Data: data, From: []byte("x"), Seqno: []byte{1}}} {
		if got := messageID(m); got != string(sum[:]) {
			t.Errorf("id %x", got)
		}
	}
}
