package announce

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
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
}

func TestOwnRepublicationsAreNotHeard(t *testing.T) {
	receiver, relay, _ := pair(t)
	atRelay := runTest(t, relay)
	waitForPeer(t, receiver) // the relay has subscribed
	direct := Announce{Head: testCID(t, 1), Publisher: peer.AddrInfo{ID: mustPeer(t, providerID)}, Direct: true}
	if err := relay.Republish(t.Context(), direct); err != nil {
		t.Fatal(err)
	}
	// What the relay publishes on its own behalf it does hear, as a publisher
	// and an indexer may share a host.
	own := &Message{Cid: testCID(t, 2)}
	if err := relay.Publish(t.Context(), own); err != nil {
		t.Fatal(err)
	}
	if a := receive(t, atRelay); a.Head != own.Cid || a.Publisher.ID != relay.ID() {
		t.Errorf("got %+v", a)
	}
}

func TestBusyReceiverLosesAnnouncesAndIsCounted(t *testing.T) {
	registry := prometheus.NewRegistry()
	g := openTest(t, GossipConfig{Registerer: registry})
	busy, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var taken int
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- g.Run(ctx, func(context.Context, Announce) error {
			once.Do(func() { close(busy); <-release })
			taken++
			return errors.New("not wanted")
		})
	}()
	// Publishing before Run has subscribed reaches nobody, so publish until the
	// first has arrived.
	published := 0
	publish := func() {
		published++
		if err := g.Publish(t.Context(), &Message{Cid: testCID(t, published)}); err != nil {
			t.Fatal(err)
		}
	}
	for arrived := false; !arrived; {
		publish()
		select {
		case <-busy:
			arrived = true
		default:
		}
	}
	for range 2 * subscriptionBuffer {
		publish()
	}
	// Publish returns before the last ones are delivered; an answer of the event
	// loop says that they are.
	g.topic.ListPeers()
	dropped := metric(t, registry, "signpost_announce_gossip_dropped_messages_total", "")
	if dropped < subscriptionBuffer/2 {
		t.Errorf("%v dropped", dropped)
	}
	close(release)
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if refused := metric(t, registry, "signpost_announce_gossip_messages_total", outcomeRefused); refused != float64(taken) {
		t.Errorf("%v counted as refused of %d", refused, taken)
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
	tr := newTracer(nil)
	ps, err := pubsub.NewGossipSub(ctx, h,
		pubsub.WithMessageIdFn(messageID), pubsub.WithFloodPublish(true), pubsub.WithRawTracer(tr))
	if err != nil {
		t.Fatal(err)
	}
	topic, err := ps.Join(DefaultTopic)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Connect(ctx, target); err != nil {
		t.Fatal(err)
	}
	for {
		changed := tr.peersChanged()
		if len(topic.ListPeers()) > 0 {
			return topic
		}
		<-changed
	}
}

func TestMalformedGossipIsNotDelivered(t *testing.T) {
	registry := prometheus.NewRegistry()
	receiver := openTest(t, GossipConfig{Listen: []string{loopback}, Registerer: registry})
	received := runTest(t, receiver)
	topic := careless(t, infoOf(t, receiver))
	if err := receiver.topic.Publish(t.Context(), []byte("no announce")); err == nil {
		t.Error("published what is no announce")
	}
	before := metric(t, registry, "signpost_announce_gossip_messages_total", outcomeMalformed)
	if err := topic.Publish(t.Context(), []byte("no announce either")); err != nil {
		t.Fatal(err)
	}
	// Good messages go on arriving while the bad one is being refused.
	for i := 0; metric(t, registry, "signpost_announce_gossip_messages_total", outcomeMalformed) == before; i++ {
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

func gatherCount(r *prometheus.Registry) (int, error) {
	families, err := r.Gather()
	return len(families), err
}

// metric is the value of a counter, of the given outcome if it has any.
func metric(t *testing.T, r *prometheus.Registry, name, outcome string) float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && (outcome == "" || m.GetLabel()[0].GetValue() == outcome) {
				return m.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("no metric %s of %q", name, outcome)
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
