// Package ipnisync is the publisher protocol, ipni-sync over HTTP: how an
// advertisement chain is fetched from its publisher, and how it is served.
//
//	GET {base}/ipni/v1/ad/head    the signed head, dag-json
//	GET {base}/ipni/v1/ad/{cid}   a block: advertisement, entry chunk or HAMT node
//
// On the fetching side a [Client] holds the connections, and a [Publisher] made
// by it is one publisher at its addresses:
//
//	Client.Publisher(AddrInfo) ──▶ Publisher ──Head, Block──▶ address 1 ✗
//	                                                     └──▶ address 2 ✓ remembered
//
// It promises that what comes back is bounded in size and time, that a head is
// signed by the publisher's own key, and that no connection goes to an address
// inside the operator's network (unless [ClientConfig] allows it), whatever a
// multiaddr, a DNS answer or a redirect says. It does not promise that a block
// is what its CID says: package schema checks that while decoding.
//
// Time follows the publisher: an answer is waited for as long as its earlier
// ones suggest, 2 s to 60 s, and a body has to keep coming, 16 KiB every 10 s.
// Memory follows the caller: [Publisher.Fetch] takes it from a [Budget] that all
// publishers share. What passes in a second is tried again, at most twice.
//
// [Client.Probe] tells a provider what is wrong with its addresses and its chain.
//
// A publisher with HTTP addresses is asked there; one that has none is asked
// over libp2p streams, if the Client was given [Streams].
//
// On the serving side [NewHandler] answers for any [Source], of which [Memory]
// is the simplest; [ServeStreams] serves it over libp2p.
//
// Sentinels: [ErrNotFound], [ErrNoHead], [ErrBadHead], [ErrTooLarge],
// [ErrTimeout], [ErrStalled], [ErrPrivateAddress], [ErrNoAddress]; an HTTP answer
// that is not success is a [StatusError]. Every other error is about the network
// and may pass.
//
// Source: sync.md, which states IPNI_HTTP_PROVIDER.md and the practice of
// go-libipni v0.8.2; departures are listed in doc/wire.md.
package ipnisync

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Path is where every publisher serves its chain, below its base URL. It is
// the protocol's name as well.
const Path = "/ipni/v1/ad"

// HintHeader is the request header that tells a publisher what kind of block
// is asked for.
const HintHeader = "Ipni-Cid-Schema-Type"

// Hint is a value of [HintHeader]. Publishers may ignore it.
type Hint string

// The hints the protocol knows. Entry chunks and HAMT nodes share one.
const (
	HintAdvertisement Hint = "Advertisement"
	HintEntryChunk    Hint = "EntryChunk"
)

var (
	// ErrNotFound: the publisher answers and does not have the block.
	ErrNotFound = errors.New("not found")
	// ErrNoHead: the publisher answers and its chain is empty.
	ErrNoHead = errors.New("publisher has no head")
	// ErrBadHead: the head is not a signed head, its signature is wrong, or
	// another key than the publisher's made it.
	ErrBadHead = errors.New("bad signed head")
	// ErrTooLarge: the answer exceeds its limit, after decompression.
	ErrTooLarge = errors.New("answer too large")
	// ErrTimeout: the answer did not begin in time.
	ErrTimeout = errors.New("no answer in time")
	// ErrStalled: the body came too slowly.
	ErrStalled = errors.New("answer stalled")
	// ErrPrivateAddress: the connection would have gone to an IP address that is
	// not on the public Internet.
	ErrPrivateAddress = errors.New("address is not on the public internet")
	// ErrNoAddress: none of a publisher's addresses can be used.
	ErrNoAddress = errors.New("no usable publisher address: it takes an HTTP address such as" +
		" /ip4/192.0.2.1/tcp/3104/http or /dns/example.com/tcp/443/https," +
		" or one of libp2p such as /ip4/192.0.2.1/tcp/4001; relays and /unix are not supported")
)

// StatusError is an HTTP answer other than success. With code 404 it matches
// [ErrNotFound].
type StatusError struct {
	URL  string // what was asked for, before redirects
	Code int
	// RetryAfter is what the server asked for; zero if it did not.
	RetryAfter time.Duration
}

func (e *StatusError) Error() string {
	text := fmt.Sprintf("fetch %s: status %d %s", e.URL, e.Code, http.StatusText(e.Code))
	if e.RetryAfter > 0 {
		text += fmt.Sprintf(", to be asked again in %v", e.RetryAfter.Round(time.Second))
	}
	return text
}

// Is reports whether target is ErrNotFound and this is the answer 404.
func (e *StatusError) Is(target error) bool {
	return target == ErrNotFound && e.Code == http.StatusNotFound
}
