package ipnisync

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// connectTimeout leaves time for a second address within a caller's
	// patience. It holds for name and connection together, and for TLS again.
	connectTimeout = 5 * time.Second
	idleTimeout    = 90 * time.Second
	maxRedirects   = 10 // Go's own default, said here because it is a promise
	maxHeaderBytes = 64 << 10
	maxDrainBytes  = 16 << 10 // of an error's body, to keep the connection

	// maxInFlight bounds the requests to one publisher at a time, over all of
	// its addresses; more wait. 32 hide 25 ms of round trip at 1,000 blocks/s.
	maxInFlight = 32
	// maxConnsPerHost bounds the HTTP/1.1 connections to one host and port, which
	// may serve many publishers: eight of them have their 32 requests at once, and
	// none that hangs can take all of it.
	maxConnsPerHost = 8 * maxInFlight
	maxIdlePerHost  = maxInFlight
	maxIdleConns    = 512
	// streamWindowBytes is what the library may buffer of one HTTP/2 answer that
	// nobody reads. The default is 4 MiB, which would be outside any Budget.
	streamWindowBytes = 256 << 10
	// pingAfter is the silence after which an HTTP/2 connection is tested, so
	// that a dead one does not swallow request after request.
	pingAfter, pingTimeout = 15 * time.Second, 10 * time.Second

	// maxPeers bounds the publishers, and the addresses, whose pace and budgets
	// are remembered; the ones unused for longest are forgotten.
	maxPeers = 4096
)

// ClientConfig says how publishers are asked.
type ClientConfig struct {
	// AllowPrivate permits connections to private, loopback and other addresses
	// that are not on the public Internet. Without it they end in
	// [ErrPrivateAddress]: announces are unsigned, so anybody could otherwise make
	// this program send requests inside the operator's network. For streams it is
	// [OpenStreams] that is told.
	AllowPrivate bool
	// RateBytes bounds what is read of one publisher's bodies, bytes a second
	// after decompression, whatever its addresses and however many Publisher
	// objects stand for it. Zero means no bound.
	RateBytes int64
	// Streams reaches publishers over libp2p streams. It belongs to the caller,
	// who closes it after the Client. Nil: only HTTP addresses can be used.
	Streams *Streams
	// UserAgent is the header sent; empty means "signpost".
	UserAgent string
}

// Client fetches from any number of publishers over one pool of connections,
// which are kept alive between requests. No proxy is used, as behind one the
// address that is really dialled could not be judged. Safe for concurrent use.
type Client struct {
	http      *http.Client // over TCP
	overlay   *http.Client // over libp2p streams; nil without Streams
	streams   *Streams
	userAgent string
	rateBytes int64
	pauses    pauses

	peers *lru.Cache[peer.ID, *peerState]
	paces *lru.Cache[string, *pace] // by publisher and address
}

// NewClient returns a client. [Client.Close] it when done.
func NewClient(cfg ClientConfig) *Client {
	if cfg.UserAgent == "" {
		cfg.UserAgent = "signpost"
	}
	dialer := &net.Dialer{Timeout: connectTimeout}
	if !cfg.AllowPrivate {
		dialer.ControlContext = refusePrivate
	}
	c := &Client{
		streams:   cfg.Streams,
		userAgent: cfg.UserAgent,
		rateBytes: cfg.RateBytes,
		pauses:    defaultPauses,
		peers:     newLRU[peer.ID, *peerState](maxPeers),
		paces:     newLRU[string, *pace](maxPeers),
		http:      &http.Client{Transport: newTransport(dialer), CheckRedirect: boundRedirects},
	}
	if cfg.Streams != nil {
		c.overlay = &http.Client{Transport: cfg.Streams.newTransport(), CheckRedirect: refuseLeavingTheStream}
	}
	return c
}

// newLRU is lru.New, whose only error is a size that is not positive.
func newLRU[K comparable, V any](size int) *lru.Cache[K, V] {
	c, err := lru.New[K, V](size)
	if err != nil {
		panic(fmt.Sprintf("ipnisync: cache of %d: %v", size, err))
	}
	return c
}

func newTransport(dialer *net.Dialer) *http.Transport {
	return &http.Transport{
		DialContext:            dialer.DialContext,
		ForceAttemptHTTP2:      true,
		TLSHandshakeTimeout:    connectTimeout,
		IdleConnTimeout:        idleTimeout,
		MaxIdleConns:           maxIdleConns,
		MaxIdleConnsPerHost:    maxIdlePerHost,
		MaxConnsPerHost:        maxConnsPerHost,
		MaxResponseHeaderBytes: maxHeaderBytes,
		HTTP2: &http.HTTP2Config{
			MaxReceiveBufferPerStream: streamWindowBytes,
			SendPingTimeout:           pingAfter,
			PingTimeout:               pingTimeout,
		},
	}
}

// errRedirects marks an answer that leads nowhere; it does not pass by itself.
var errRedirects = errors.New("redirected too often or elsewhere")

func boundRedirects(_ *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return fmt.Errorf("%w: more than %d redirects", errRedirects, maxRedirects)
	}
	return nil
}

// Close closes the connections that are not in use.
func (c *Client) Close() {
	c.http.CloseIdleConnections()
	if c.overlay != nil {
		c.overlay.CloseIdleConnections()
	}
}

// NewHTTPClient returns a client for asking servers that strangers name:
// without allowPrivate it connects to addresses of the public Internet only,
// after DNS and for each redirect, and ends in [ErrPrivateAddress] otherwise.
// It uses no proxy. Bodies and time are the caller's to bound.
func NewHTTPClient(allowPrivate bool) *http.Client {
	dialer := &net.Dialer{Timeout: connectTimeout}
	if !allowPrivate {
		dialer.ControlContext = refusePrivate
	}
	return &http.Client{Transport: newTransport(dialer), CheckRedirect: boundRedirects}
}
