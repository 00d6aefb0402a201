// Package announce carries announce messages: the small note "advertisement X
// of publisher P can be fetched at these addresses" that makes an indexer look
// at a chain. They come and go by gossip (libp2p gossipsub) and by HTTP
// (PUT /announce), as a CBOR array or, by HTTP only, as JSON.
//
//	publisher ──gossip──▶ Gossip.Run ──Message.Gossiped──┐
//	                                                     ├─▶ Announce ─▶ caller
//	publisher ──HTTP────▶ NewHandler ──Message.Direct────┘        │
//	                                                     Gossip.Republish
//
// The message in CBOR, one definite-length array of three or four elements:
//
//	83|84              array header: with OrigPeer four elements, else three
//	d8 2a 58 nn 00 …   Cid: tag 42, byte string of 00 and the binary CID
//	8n (4n …)*         Addrs: array of byte strings, binary multiaddrs
//	40 | 4n …          ExtraData: byte string, opaque
//	7n …               OrigPeer: text, peer ID of the publisher of a re-published message
//
// An announce is not signed and proves nothing: who published the
// advertisement is settled later by the signed head and the signatures in the
// chain. This package therefore promises only that what it hands on is well
// formed and bounded; policy, assignment, de-duplication (with the help of
// [Seen]) and the sync itself belong to the caller.
//
// Sentinels: [ErrMalformed] for any message that cannot be used,
// [ErrNotAllowed] and [ErrUnavailable] for a handler's function to return,
// [ErrClosed] after [Gossip.Close]. [StatusError] is what a [Sender] returns for a refusal.
package announce

import (
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

// DefaultTopic is the gossip topic of the public network. Topics have the form
// /indexer/ingest/<network>.
const DefaultTopic = "/indexer/ingest/mainnet"

// MaxMessageBytes bounds one encoded message, by gossip (pubsub's own limit)
// and by HTTP alike.
const MaxMessageBytes = 1 << 20

// ErrMalformed is in the chain of every error about a message that cannot be
// decoded or breaks the rules of its way of arrival.
var ErrMalformed = errors.New("malformed announce message")

// malformed is an ErrMalformed whose text is the whole error text. By HTTP the
// text is the body of the 400 answer, and publishers' logs and tests know the
// reference implementation's words, so those are kept where they exist.
type malformed struct {
	text string
	err  error // may be nil
}

func (e *malformed) Error() string        { return e.text }
func (e *malformed) Unwrap() error        { return e.err }
func (e *malformed) Is(target error) bool { return target == ErrMalformed }

func malformedf(format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &malformed{text: err.Error(), err: errors.Unwrap(err)}
}

// Message is one announce message as sent.
type Message struct {
	// Cid is the announced advertisement.
	Cid cid.Cid
	// Addrs say where the publisher serves its chain. By HTTP each ends in
	// /p2p/<publisher>; by gossip they carry no /p2p part.
	Addrs []multiaddr.Multiaddr
	// ExtraData is opaque, meant for gateways; indexers ignore it and do not
	// forward it. Empty and absent are the same.
	ExtraData []byte
	// OrigPeer is the publisher's peer ID as text, set only by an indexer or
	// assigner that re-publishes a direct announce on gossip.
	OrigPeer string
}

// Announce is what an announce message says, whichever way it came.
type Announce struct {
	// Head is the announced advertisement. It need not be the newest.
	Head cid.Cid
	// Publisher is who serves the chain and where. Its addresses carry no /p2p
	// part. They may be none: then the receiver has to know them already.
	Publisher peer.AddrInfo
	// Direct is true for an announce that came by HTTP. Only those may be
	// re-published.
	Direct bool
}

// Direct reads the message by the rules of PUT /announce: there is at least one
// address, each ends in /p2p/<publisher>, and all name the same publisher. An
// address of only that part names the publisher and no place. OrigPeer and
// ExtraData are ignored. Errors match [ErrMalformed].
// Source: announce.md, sections 1 and 3.
func (m *Message) Direct() (Announce, error) {
	if len(m.Addrs) == 0 {
		// Spelled as the reference does.
		return Announce{}, malformedf("must specify location to fetch on direct announcments")
	}
	a := Announce{Head: m.Cid, Direct: true}
	for _, addr := range m.Addrs {
		transport, id := peer.SplitAddr(addr)
		if id == "" {
			return Announce{}, malformedf("%w", peer.ErrInvalidAddr)
		}
		if a.Publisher.ID == "" {
			a.Publisher.ID = id
		}
		if id != a.Publisher.ID {
			return Announce{}, malformedf("peer id must be the same for all addresses")
		}
		if len(transport) > 0 {
			a.Publisher.Addrs = append(a.Publisher.Addrs, transport)
		}
	}
	return a, nil
}

// Gossiped reads the message by the rules of gossip: the publisher is OrigPeer
// if that is set, else from, the signer of the pubsub message. There may be no
// address. A /p2p part naming the publisher is cut off; an address that names
// another peer is not the publisher's and is left out. Errors match
// [ErrMalformed].
func (m *Message) Gossiped(from peer.ID) (Announce, error) {
	publisher := from
	if m.OrigPeer != "" {
		id, err := peer.Decode(m.OrigPeer)
		if err != nil {
			return Announce{}, malformedf("bad OrigPeer in announce message: %w", err)
		}
		publisher = id
	}
	if publisher == "" {
		return Announce{}, malformedf("announce message names no publisher")
	}
	a := Announce{Head: m.Cid, Publisher: peer.AddrInfo{ID: publisher}}
	for _, addr := range m.Addrs {
		transport, id := peer.SplitAddr(addr)
		if id != "" && id != publisher || len(transport) == 0 {
			continue
		}
		a.Publisher.Addrs = append(a.Publisher.Addrs, transport)
	}
	return a, nil
}

// directMessage is the message that tells a by HTTP: every address ends in
// /p2p/<publisher>, and if none is known that part stands alone.
func directMessage(a Announce) (*Message, error) {
	if err := a.Publisher.ID.Validate(); err != nil {
		return nil, fmt.Errorf("announce %s: publisher: %w", a.Head, err)
	}
	p2p, err := multiaddr.NewComponent("p2p", a.Publisher.ID.String())
	if err != nil {
		return nil, fmt.Errorf("announce %s: publisher: %w", a.Head, err)
	}
	m := &Message{Cid: a.Head}
	for _, addr := range a.Publisher.Addrs {
		transport, id := peer.SplitAddr(addr)
		if id != "" && id != a.Publisher.ID {
			return nil, fmt.Errorf("announce %s: address %s is not of publisher %s", a.Head, addr, a.Publisher.ID)
		}
		m.Addrs = append(m.Addrs, multiaddr.Join(transport, p2p))
	}
	if len(m.Addrs) == 0 {
		m.Addrs = []multiaddr.Multiaddr{p2p.Multiaddr()}
	}
	return m, nil
}

// republished is the message that passes a direct announce on to gossip:
// OrigPeer names the publisher, ExtraData is dropped.
func republished(a Announce) *Message {
	return &Message{Cid: a.Head, Addrs: a.Publisher.Addrs, OrigPeer: a.Publisher.ID.String()}
}
