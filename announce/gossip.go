package announce

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/libp2p/go-libp2p"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/p2p/transport/websocket"
	"github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/crypto/blake2b"
)

// ErrClosed is returned by the methods of a [Gossip] that has been closed.
var ErrClosed = errors.New("gossip is closed")

// Parameters that all peers of the topic share (announce.md, section 2). The
// rest are the library's defaults: StrictSign, messages up to 1 MiB.
const directConnectTicks = 30

// subscriptionBuffer is how many announces wait for a busy receiver; what comes
// while it is full is dropped. A lost announce is made up for by the next one,
// or by polling.
const subscriptionBuffer = 128

// GossipConfig says who we are on gossip and whom we know.
type GossipConfig struct {
	// Key is this node's identity; its peer ID is the From of what we publish.
	Key crypto.PrivKey
	// Listen holds the multiaddrs to listen on, for example
	// /ip4/0.0.0.0/tcp/3003 or /ip4/0.0.0.0/udp/3003/quic-v1. Empty: dial only.
	Listen []string
	// Topic is the gossip topic; empty means [DefaultTopic].
	Topic string
	// Peers are dialled at start and again, with growing pauses, whenever the
	// connection to them is lost.
	Peers []peer.AddrInfo
	// Logger gets the connects and losses of Peers; nil logs nothing.
	Logger *slog.Logger
	// Registerer gets the metrics; nil registers none.
	Registerer prometheus.Registerer
}

// Validate reports the first setting that cannot work.
func (c *GossipConfig) Validate() error {
	if c.Key == nil {
		return errors.New("gossip: no key")
	}
	for _, addr := range c.Listen {
		if _, err := multiaddr.NewMultiaddr(addr); err != nil {
			return fmt.Errorf("gossip listen address %q: %w", addr, err)
		}
	}
	for _, p := range c.Peers {
		if err := p.ID.Validate(); err != nil {
			return fmt.Errorf("gossip peer %s: %w", p, err)
		}
		if len(p.Addrs) == 0 {
			return fmt.Errorf("gossip peer %s: no address", p.ID)
		}
	}
	return nil
}

// Gossip is this node's place in the announce topic. It checks what it relays:
// a message that does not decode, or names no publisher, goes no further. Safe
// for concurrent use.
type Gossip struct {
	host    host.Host
	topic   *pubsub.Topic
	log     *slog.Logger
	metrics *gossipMetrics
	tracer  *tracer

	ctx       context.Context // ends with Close; bounds pubsub, which takes no other stop
	cancel    context.CancelFunc
	dialers   sync.WaitGroup
	closeOnce sync.Once
	closeErr  error
}

// OpenGossip starts a libp2p host, joins the topic and begins to dial the
// configured peers; it does not wait for them. The host offers no NAT, relay or
// discovery service. Close it with [Gossip.Close].
func OpenGossip(cfg GossipConfig) (*Gossip, error) {
	return openGossip(cfg, defaultPauses)
}

func openGossip(cfg GossipConfig, pauses pauses) (*Gossip, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Topic == "" {
		cfg.Topic = DefaultTopic
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	h, err := newHost(cfg)
	if err != nil {
		return nil, fmt.Errorf("open gossip: %w", err)
	}
	g := &Gossip{host: h, log: cfg.Logger}
	g.metrics = newGossipMetrics(func() int { return len(g.topic.ListPeers()) })
	g.tracer = newTracer(g.metrics.dropped)
	g.ctx, g.cancel = context.WithCancel(context.Background())
	if err := g.join(cfg.Topic); err != nil {
		return nil, errors.Join(fmt.Errorf("join gossip topic %s: %w", cfg.Topic, err), g.Close())
	}
	if err := g.keepPeers(cfg.Peers, pauses); err != nil {
		return nil, errors.Join(fmt.Errorf("open gossip: %w", err), g.Close())
	}
	if err := g.metrics.register(cfg.Registerer); err != nil {
		return nil, errors.Join(fmt.Errorf("register gossip metrics: %w", err), g.Close())
	}
	return g, nil
}

func newHost(cfg GossipConfig) (host.Host, error) {
	listen := libp2p.ListenAddrStrings(cfg.Listen...)
	reachability := libp2p.ForceReachabilityPublic()
	if len(cfg.Listen) == 0 {
		listen = libp2p.NoListenAddrs
		reachability = libp2p.ForceReachabilityPrivate()
	}
	return libp2p.New(
		libp2p.Identity(cfg.Key),
		listen,
		reachability, // known from the configuration: no peer is asked to dial us back
		libp2p.Transport(tcp.NewTCPTransport),
		libp2p.Transport(libp2pquic.NewTransport),
		libp2p.Transport(websocket.New),
		libp2p.UserAgent(userAgent),
		libp2p.DisableRelay(),
		libp2p.DisableIdentifyAddressDiscovery(),
		libp2p.DisableMetrics(), // they would go to the process-wide registerer
		libp2p.Ping(false),
	)
}

func (g *Gossip) join(topic string) error {
	ps, err := pubsub.NewGossipSub(g.ctx, g.host,
		pubsub.WithMessageIdFn(messageID),
		pubsub.WithPeerExchange(true),
		pubsub.WithFloodPublish(true),
		pubsub.WithDirectConnectTicks(directConnectTicks),
		pubsub.WithMessageSignaturePolicy(pubsub.StrictSign),
		pubsub.WithMaxMessageSize(MaxMessageBytes),
		pubsub.WithRawTracer(g.tracer),
	)
	if err != nil {
		return err
	}
	// Inline: decoding is cheaper than a goroutine.
	if err := ps.RegisterTopicValidator(topic, g.validate, pubsub.WithValidatorInline(true)); err != nil {
		return err
	}
	g.topic, err = ps.Join(topic)
	return err
}

// messageID makes equal announces one message, whoever relays them: BLAKE2b-256
// over the data alone. All peers of the topic must agree on it.
func messageID(m *pb.Message) string {
	sum := blake2b.Sum256(m.GetData())
	return string(sum[:])
}

// received is a decoded pubsub message, handed from validate to Run.
type received struct {
	announce    Announce
	republished bool // it has an OrigPeer
}

// validate decodes a message once, before it is relayed or delivered.
func (g *Gossip) validate(_ context.Context, _ peer.ID, msg *pubsub.Message) pubsub.ValidationResult {
	m, err := DecodeCBOR(msg.GetData())
	if err != nil {
		g.metrics.count(outcomeMalformed)
		return pubsub.ValidationReject
	}
	a, err := m.Gossiped(msg.GetFrom())
	if err != nil {
		g.metrics.count(outcomeMalformed)
		return pubsub.ValidationReject
	}
	msg.ValidatorData = received{announce: a, republished: m.OrigPeer != ""}
	return pubsub.ValidationAccept
}

// Run subscribes to the topic and calls fn with every announce, one at a time,
// until ctx ends (then it returns nil) or the Gossip is closed ([ErrClosed]).
// Our own re-publications are not announced to ourselves. An error of fn says
// the announce was refused; it is logged at debug level and has no other effect.
// While fn is busy a bounded number of announces wait, and more are dropped.
func (g *Gossip) Run(ctx context.Context, fn func(ctx context.Context, a Announce) error) error {
	if g.ctx.Err() != nil {
		return ErrClosed
	}
	sub, err := g.topic.Subscribe(pubsub.WithBufferSize(subscriptionBuffer))
	if err != nil {
		return g.stopped(ctx, fmt.Errorf("subscribe to gossip topic: %w", err))
	}
	defer sub.Cancel()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(g.ctx, cancel)()
	for {
		msg, err := sub.Next(ctx)
		if err != nil {
			return g.stopped(ctx, fmt.Errorf("read gossip topic: %w", err))
		}
		g.deliver(ctx, msg, fn)
	}
}

// stopped is what Run returns on err: an ended context or a closed Gossip
// explains it, otherwise it is returned as it is.
func (g *Gossip) stopped(ctx context.Context, err error) error {
	switch {
	case g.ctx.Err() != nil:
		return ErrClosed
	case ctx.Err() != nil:
		return nil
	}
	return err
}

func (g *Gossip) deliver(ctx context.Context, msg *pubsub.Message, fn func(ctx context.Context, a Announce) error) {
	r, ok := msg.ValidatorData.(received)
	if !ok {
		return // validate has seen every message
	}
	if r.republished && msg.GetFrom() == g.host.ID() {
		g.metrics.count(outcomeOwn)
		return
	}
	if err := fn(ctx, r.announce); err != nil {
		g.metrics.count(outcomeRefused)
		g.log.Debug("gossiped announce refused", "publisher", r.announce.Publisher.ID, "head", r.announce.Head, "err", err)
		return
	}
	g.metrics.count(outcomeTaken)
}

// Publish sends m to the topic's peers. Success means it was handed to those
// known now, which may be none: see [Gossip.WaitForPeer]. m's addresses should
// carry no /p2p part.
func (g *Gossip) Publish(ctx context.Context, m *Message) error {
	data, err := m.EncodeCBOR()
	if err != nil {
		return err
	}
	if err := g.topic.Publish(ctx, data); err != nil {
		if g.ctx.Err() != nil {
			err = ErrClosed
		}
		return fmt.Errorf("publish announce of %s: %w", m.Cid, err)
	}
	return nil
}

// Republish passes a direct announce on to the topic, naming its publisher as
// OrigPeer. An announce that came by gossip is refused: it is there already.
// Source: announce.md, section 4.
func (g *Gossip) Republish(ctx context.Context, a Announce) error {
	if !a.Direct {
		return fmt.Errorf("republish announce of %s: it came by gossip", a.Head)
	}
	return g.Publish(ctx, republished(a))
}

// WaitForPeer returns once a peer takes part in the topic and can be sent to,
// so that a publication reaches somebody.
func (g *Gossip) WaitForPeer(ctx context.Context) error {
	for {
		changed := g.tracer.peersChanged()
		if len(g.topic.ListPeers()) > 0 {
			return nil
		}
		select {
		case <-changed:
		case <-g.ctx.Done():
			return fmt.Errorf("wait for gossip peers: %w", ErrClosed)
		case <-ctx.Done():
			return fmt.Errorf("wait for gossip peers: %w", ctx.Err())
		}
	}
}

// ID is this node's peer ID.
func (g *Gossip) ID() peer.ID { return g.host.ID() }

// Host is the libp2p host that gossip runs on, for other protocols to be served
// on it. It is closed with the Gossip.
func (g *Gossip) Host() host.Host { return g.host }

// Addrs returns the addresses this node listens on, each with /p2p/<ID>, ready
// to be another node's gossip peer. Empty if it does not listen.
func (g *Gossip) Addrs() []multiaddr.Multiaddr {
	addrs := g.host.Addrs()
	if len(addrs) == 0 {
		return nil
	}
	full, err := peer.AddrInfoToP2pAddrs(&peer.AddrInfo{ID: g.host.ID(), Addrs: addrs})
	if err != nil {
		return nil // only for an ID that is not one
	}
	return full
}

// Close leaves the topic, closes all connections and waits for what OpenGossip
// started. It is safe to call twice.
func (g *Gossip) Close() error {
	g.closeOnce.Do(func() {
		g.cancel()
		g.dialers.Wait()
		g.closeErr = g.host.Close()
		g.metrics.unregister()
	})
	return g.closeErr
}
