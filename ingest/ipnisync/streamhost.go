package ipnisync

import (
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/p2p/transport/websocket"
	"github.com/multiformats/go-multiaddr"
)

const (
	// streamConnsLow and streamConnsHigh are where idle connections to publishers
	// are closed: above the upper mark, down to the lower one.
	streamConnsLow, streamConnsHigh = 64, 128
	streamConnGrace                 = time.Minute
	// muxWindowBytes is what may be in flight on one stream; libp2p's default of
	// 16 MiB would be memory outside any Budget.
	muxWindowBytes = 1 << 20
)

// Streams reaches publishers over libp2p streams: a host that listens nowhere,
// offers nothing and dials public addresses only. Safe for concurrent use.
//
// It is not the host of gossip, and has an identity of its own that lasts as
// long as the process. The gossip host has to dial what its operator configures,
// inside his network too, while every address here comes from unsigned announces;
// hostile publishers do not get at gossip's resources; and two hosts of one
// identity would be taken for one by peers that have to do with both.
type Streams struct {
	host  host.Host
	dials atomic.Uint64
}

// OpenStreams starts the host. allowPrivate permits addresses that are not on
// the public Internet, see [ClientConfig]. Close it after the Clients that use it.
func OpenStreams(allowPrivate bool) (*Streams, error) { return openStreams(allowPrivate) }

func openStreams(allowPrivate bool, more ...libp2p.Option) (*Streams, error) {
	conns, err := connmgr.NewConnManager(streamConnsLow, streamConnsHigh, connmgr.WithGracePeriod(streamConnGrace))
	if err != nil {
		return nil, fmt.Errorf("open libp2p streams: %w", err)
	}
	mux := *yamux.DefaultTransport
	mux.MaxStreamWindowSize = muxWindowBytes
	h, err := libp2p.New(append([]libp2p.Option{
		libp2p.RandomIdentity,
		libp2p.NoListenAddrs,
		libp2p.ForceReachabilityPrivate(),
		libp2p.Transport(tcp.NewTCPTransport),
		libp2p.Transport(libp2pquic.NewTransport),
		libp2p.Transport(websocket.New),
		libp2p.Muxer(yamux.ID, &mux),
		libp2p.ConnectionGater(outward{allowPrivate}),
		libp2p.ConnectionManager(conns),
		// Whoever announces dead addresses must not talk us out of trying others.
		libp2p.UDPBlackHoleSuccessCounter(nil),
		libp2p.IPv6BlackHoleSuccessCounter(nil),
		libp2p.UserAgent("signpost"),
		libp2p.DisableRelay(),
		libp2p.DisableIdentifyAddressDiscovery(),
		libp2p.DisableMetrics(), // they would go to the process-wide registerer
		libp2p.Ping(false),
	}, more...)...)
	if err != nil {
		return nil, fmt.Errorf("open libp2p streams: %w", err)
	}
	return &Streams{host: h}, nil
}

// Close ends all connections.
func (s *Streams) Close() error { return s.host.Close() }

// canDial reports whether a is an address that the host has a transport for, or
// a name that may stand for some: /ip4/../tcp/.., with WebSocket or without,
// /ip4/../udp/../quic-v1, the same with names, and /dnsaddr. A relay is none, as
// it would be asked to dial what we must not.
func canDial(a multiaddr.Multiaddr) bool {
	if len(a) > 0 && a[0].Code() == multiaddr.P_IP6ZONE {
		a = a[1:]
	}
	if len(a) == 0 {
		return false
	}
	switch a[0].Code() {
	case multiaddr.P_DNSADDR:
		return len(a) == 1 && validHost(a[0].Value())
	case multiaddr.P_DNS, multiaddr.P_DNS4, multiaddr.P_DNS6:
		if !validHost(a[0].Value()) {
			return false
		}
	case multiaddr.P_IP4, multiaddr.P_IP6:
	default:
		return false
	}
	if len(a) == 3 && a[1].Code() == multiaddr.P_UDP {
		return a[2].Code() == multiaddr.P_QUIC_V1
	}
	if len(a) < 2 || a[1].Code() != multiaddr.P_TCP {
		return false
	}
	for i := range a[2:] {
		switch a[2+i].Code() {
		case multiaddr.P_WS, multiaddr.P_WSS, multiaddr.P_TLS, multiaddr.P_SNI:
		default:
			return false
		}
	}
	return true
}

// outward is the connection gater: it sees every address just before it is
// dialled, after names, /dnsaddr included, were resolved, so a name that changes
// its meaning between check and use does not help an attacker; and addresses that
// a peer says it has as well.
type outward struct{ allowPrivate bool }

func (outward) InterceptPeerDial(peer.ID) bool { return true }

func (g outward) InterceptAddrDial(_ peer.ID, a multiaddr.Multiaddr) bool {
	if _, err := a.ValueForProtocol(multiaddr.P_CIRCUIT); err == nil {
		return false
	}
	return g.allowPrivate || isPublicAddr(a)
}

func (outward) InterceptAccept(network.ConnMultiaddrs) bool { return false }

func (outward) InterceptSecured(network.Direction, peer.ID, network.ConnMultiaddrs) bool {
	return true
}

func (outward) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }

// isPublicAddr reports whether a begins with a public IP address. A name is not
// one: by the time it matters it has been resolved.
func isPublicAddr(a multiaddr.Multiaddr) bool {
	if len(a) == 0 || a[0].Code() != multiaddr.P_IP4 && a[0].Code() != multiaddr.P_IP6 {
		return false
	}
	ip, ok := netip.AddrFromSlice(a[0].RawValue())
	return ok && isPublic(ip)
}
