package ipnisync

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multistream"
)

const (
	// streamProtocol is HTTP/1.1 on a libp2p stream (sync.md, section 3).
	streamProtocol protocol.ID = "/http/1.1"
	// streamConnectTimeout is for connection, security, multiplexer and stream.
	streamConnectTimeout = 10 * time.Second
	// maxProtocolsBytes bounds the discovery answer (sync.md, section 3).
	maxProtocolsBytes = 8 << 10
)

// errNoStreamHTTP: the peer is there and does not serve this protocol.
var errNoStreamHTTP = errors.New("publisher serves no " + Path + " over libp2p streams (data-transfer, the older protocol, is not supported)")

// streamTarget is a publisher as it is reached over streams.
type streamTarget struct {
	id    peer.ID
	addrs []multiaddr.Multiaddr // without /p2p
	used  atomic.Pointer[multiaddr.Multiaddr]
}

// address is the one that a connection went to, or the first.
func (t *streamTarget) address() multiaddr.Multiaddr {
	if a := t.used.Load(); a != nil {
		return *a
	}
	return t.addrs[0]
}

// connectedTo remembers which address works. Names are resolved on the way, so
// a connection to none of the addresses as they stand went to a name.
func (t *streamTarget) connectedTo(remote multiaddr.Multiaddr) {
	for i, a := range t.addrs {
		if a.Equal(remote) || !startsWithIP(a) {
			t.used.Store(&t.addrs[i])
			return
		}
	}
}

func startsWithIP(a multiaddr.Multiaddr) bool {
	switch a[0].Code() {
	case multiaddr.P_IP4, multiaddr.P_IP6, multiaddr.P_IP6ZONE:
		return true
	}
	return false
}

// streamEndpoint returns the publisher's stream addresses as one endpoint, or
// ErrNoAddress.
func (c *Client) streamEndpoint(info peer.AddrInfo) (*endpoint, error) {
	if c.streams == nil {
		return nil, fmt.Errorf("%w (libp2p streams are not open here)", ErrNoAddress)
	}
	t := &streamTarget{id: info.ID}
	for _, addr := range info.Addrs {
		a, named := peer.SplitAddr(addr)
		if named != "" && named != info.ID || !canDial(a) {
			continue
		}
		if multiaddr.Contains(t.addrs, a) {
			continue
		}
		if t.addrs = append(t.addrs, a); len(t.addrs) == maxAddresses {
			break
		}
	}
	if len(t.addrs) == 0 {
		return nil, ErrNoAddress
	}
	return &endpoint{to: t, route: c.route(c.overlay, info.ID, streamProtocolName)}, nil
}

const streamProtocolName = string(streamProtocol)

// targetKey carries the *streamTarget of a request to the dialler.
type targetKey struct{}

// newTransport speaks HTTP/1.1 on streams. Each request has its own, as other
// implementations expect; opening one costs no round trip.
func (s *Streams) newTransport() *http.Transport {
	return &http.Transport{
		DialContext:            s.dial,
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: maxHeaderBytes,
	}
}

// refuseLeavingTheStream lets a publisher redirect within its own stream host.
func refuseLeavingTheStream(req *http.Request, via []*http.Request) error {
	if req.URL.Scheme != "http" || req.URL.Host != via[0].URL.Host {
		return fmt.Errorf("%w: from a libp2p stream to %s", errRedirects, req.URL)
	}
	return boundRedirects(req, via)
}

// dial opens a stream to the target in ctx. The connection below it is shared
// by all requests to that peer.
func (s *Streams) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	t, ok := ctx.Value(targetKey{}).(*streamTarget)
	if !ok {
		return nil, errors.New("dial stream: no target")
	}
	ctx, cancel := context.WithTimeout(ctx, streamConnectTimeout)
	defer cancel()
	tag := "fetch-" + strconv.FormatUint(s.dials.Add(1), 36)
	// So that the connection is not closed for being one too many.
	s.host.ConnManager().Protect(t.id, tag)
	st, err := s.open(ctx, t)
	if err != nil {
		s.host.ConnManager().Unprotect(t.id, tag)
		return nil, err
	}
	t.connectedTo(st.Conn().RemoteMultiaddr())
	return &streamConn{Stream: st, closed: func() { s.host.ConnManager().Unprotect(t.id, tag) }}, nil
}

func (s *Streams) open(ctx context.Context, t *streamTarget) (network.Stream, error) {
	if s.host.Network().Connectedness(t.id) != network.Connected {
		if sw, ok := s.host.Network().(*swarm.Swarm); ok {
			sw.Backoff().Clear(t.id) // how often to try again is decided here, and by the caller
		}
		if err := s.host.Connect(ctx, peer.AddrInfo{ID: t.id, Addrs: t.addrs}); err != nil {
			if errors.Is(err, swarm.ErrGaterDisallowedConnection) {
				return nil, fmt.Errorf("%w: %w", ErrPrivateAddress, err)
			}
			return nil, fmt.Errorf("connect: %w", err)
		}
	}
	st, err := s.host.NewStream(ctx, t.id, streamProtocol)
	if err != nil {
		if errors.Is(err, multistream.ErrNotSupported[protocol.ID]{}) {
			return nil, fmt.Errorf("%w: %w", errNoStreamHTTP, err)
		}
		return nil, fmt.Errorf("open stream: %w", err)
	}
	return st, nil
}

// discover asks over the stream below which path the protocol is served, first
// at the present place and then at the one older servers have.
func (e *endpoint) discover(ctx context.Context) (*bases, error) {
	root := &url.URL{Scheme: "http", Host: e.to.id.String(), Path: "/"}
	r := request{accept: "application/json", limitBytes: maxProtocolsBytes}
	var first error // what the present place says counts
	for _, r.resource = range []string{".well-known/libp2p/protocols", ".well-known/libp2p"} {
		a, err := e.get(ctx, root, r)
		if err == nil {
			var b *bases
			if b, err = streamBases(root, a.body); err == nil {
				return b, nil
			}
		}
		if first == nil {
			first = err
		}
		if !answered(err) {
			break
		}
	}
	if answered(first) && !passesSoon(first) {
		// The answer was not about the resource, so its status must not be taken
		// for one that is: 404 would mean that a block is not there.
		return nil, fmt.Errorf("%w: %v", errNoStreamHTTP, first)
	}
	return nil, fmt.Errorf("discover: %w", first)
}

// streamBases reads a discovery answer. The path it gives is that of the
// protocol. Some mean the path below which the protocol's own begins; if it does
// not end in it, that is tried first, as the reference's client does.
func streamBases(root *url.URL, body []byte) (*bases, error) {
	var protocols map[string]struct {
		Path string `json:"path"`
	}
	if err := json.Unmarshal(body, &protocols); err != nil {
		return nil, fmt.Errorf("%w: %w", errImplausible, err)
	}
	p, ok := protocols[Path]
	if !ok {
		return nil, fmt.Errorf("%w: it names no %s", errImplausible, Path)
	}
	base := root.JoinPath(p.Path)
	if strings.HasSuffix(strings.TrimSuffix(base.Path, "/"), Path) {
		return &bases{long: base}, nil
	}
	return &bases{long: base.JoinPath(Path), short: base}, nil
}

// streamConn is a stream as a net.Conn.
type streamConn struct {
	network.Stream
	ended  atomic.Bool // the other side has said everything
	once   atomic.Bool
	closed func()
}

func (c *streamConn) Read(b []byte) (int, error) {
	n, err := c.Stream.Read(b)
	if err == io.EOF {
		c.ended.Store(true)
	}
	return n, err
}

// Close tells the other side to stop, unless it has come to its end.
func (c *streamConn) Close() error {
	if c.once.Swap(true) {
		return nil
	}
	defer c.closed()
	if c.ended.Load() {
		return c.Stream.Close()
	}
	return c.Reset()
}

func (c *streamConn) LocalAddr() net.Addr  { return streamAddr(c.Conn().LocalPeer()) }
func (c *streamConn) RemoteAddr() net.Addr { return streamAddr(c.Conn().RemotePeer()) }

type streamAddr peer.ID

func (streamAddr) Network() string  { return "libp2p" }
func (a streamAddr) String() string { return peer.ID(a).String() }
