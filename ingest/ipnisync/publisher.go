package ipnisync

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/signpost-index/signpost/ingest/schema"
)

// maxAddresses bounds how many addresses of a publisher are tried, as each may
// cost a time-out. An announce can carry thousands.
const maxAddresses = 16

// Publisher is one publisher, asked at its addresses. Safe for concurrent use.
//
// It begins with the first address and goes on to the next until one has served
// something that was asked for. From then on that one is believed: its answers
// are final, and the others are tried only when it cannot be reached.
type Publisher struct {
	client    *Client
	id        peer.ID
	peer      *peerState
	once      bool // nothing is asked again
	endpoints []*endpoint
	good      atomic.Pointer[endpoint] // the one that served last; nil before that
}

// Publisher returns the publisher info.ID, to be asked at those of info.Addrs
// that are HTTP addresses, or if there are none at its libp2p stream addresses;
// the first 16 count. The error is [ErrNoAddress] if there is none that can be
// used. Nothing is dialled yet.
func (c *Client) Publisher(info peer.AddrInfo) (*Publisher, error) {
	if err := info.ID.Validate(); err != nil {
		return nil, fmt.Errorf("publisher: %w", err)
	}
	p := &Publisher{client: c, id: info.ID, peer: c.peerOf(info.ID)}
	seen := make(map[string]bool)
	for _, addr := range info.Addrs {
		e := c.httpEndpoint(info.ID, addr)
		if e == nil {
			continue
		}
		base := e.bases.Load().short.String()
		if seen[base] {
			continue
		}
		seen[base] = true
		if p.endpoints = append(p.endpoints, e); len(p.endpoints) == maxAddresses {
			break
		}
	}
	if len(p.endpoints) > 0 {
		return p, nil
	}
	e, err := c.streamEndpoint(info)
	if err != nil {
		return nil, fmt.Errorf("publisher %s at %v: %w", info.ID, info.Addrs, err)
	}
	p.endpoints = []*endpoint{e}
	return p, nil
}

// ID is the publisher's peer ID.
func (p *Publisher) ID() peer.ID { return p.id }

// Addr is the address that answered last, or the first one while none has. It
// carries no /p2p part.
func (p *Publisher) Addr() multiaddr.Multiaddr { return p.current().address() }

// current is the endpoint that served last, or the first one while none has.
func (p *Publisher) current() *endpoint {
	if e := p.good.Load(); e != nil {
		return e
	}
	return p.endpoints[0]
}

// Stats is a snapshot of what was seen of this publisher, whichever Publisher
// object of the same Client saw it. It costs next to nothing.
func (p *Publisher) Stats() Stats {
	e := p.current()
	return Stats{
		RTT: e.pace.rtt(), AnswerTimeout: e.pace.timeout(),
		Requests: p.peer.requests.Load(), Retries: p.peer.retries.Load(),
		Timeouts: p.peer.timeouts.Load(), Stalls: p.peer.stalls.Load(),
		Bytes: p.peer.bytes.Load(), InFlight: len(p.peer.slots),
	}
}

// Head fetches the signed head. Its signature is verified and its signer is
// p.ID(). Errors: [ErrNoHead] for an empty chain, [ErrBadHead], or those of the
// package comment.
func (p *Publisher) Head(ctx context.Context) (*schema.SignedHead, error) {
	head, _, err := p.head(ctx)
	if err != nil {
		return nil, fmt.Errorf("head of %s: %w", p.id, err)
	}
	return head, nil
}

func (p *Publisher) head(ctx context.Context) (*schema.SignedHead, *answer, error) {
	a, err := p.get(ctx, request{
		resource:   "head",
		limitBytes: schema.MaxHeadBytes,
		check: func(body []byte) error {
			_, err := p.verifyHead(body)
			return err
		},
	})
	if hasStatus(err, http.StatusNoContent) {
		return nil, nil, ErrNoHead
	}
	if err != nil {
		return nil, nil, err
	}
	head, err := p.verifyHead(a.body)
	return head, a, err
}

func (p *Publisher) verifyHead(body []byte) (*schema.SignedHead, error) {
	head, err := schema.DecodeSignedHead(body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadHead, err)
	}
	signer, err := head.Verify()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadHead, err)
	}
	if signer != p.id {
		return nil, fmt.Errorf("%w: %w", ErrBadHead, &signerError{signer})
	}
	return head, nil
}

// Block fetches the block c, at most schema.MaxBlockBytes of it. Its bytes are
// not verified yet: that comes with decoding. hint may be empty. The error
// matches [ErrNotFound] if the publisher does not have the block.
func (p *Publisher) Block(ctx context.Context, c cid.Cid, hint Hint) ([]byte, error) {
	b, err := p.Fetch(ctx, c, hint, nil)
	return b.Bytes, err
}

// Block is a fetched block and the memory reserved for it.
type Block struct {
	Bytes []byte
	held  *reservation
}

// Release gives the memory back to the budget. Bytes may not be used after it.
// It may be called more than once, and on the zero Block.
func (b Block) Release() { b.held.release() }

// Fetch is Block within a budget, which may be nil: memory is taken from it in
// steps while the body comes, and kept until the Block is released. After an
// error nothing is kept. While the budget is full the fetch waits, for as long
// as ctx lasts; that time is not held against the publisher.
func (p *Publisher) Fetch(ctx context.Context, c cid.Cid, hint Hint, budget *Budget) (Block, error) {
	if !c.Defined() {
		return Block{}, fmt.Errorf("block of %s: undefined CID", p.id)
	}
	a, err := p.get(ctx, request{
		resource:   c.String(),
		hint:       hint,
		limitBytes: schema.MaxBlockBytes,
		budget:     budget,
		check:      func(body []byte) error { return schema.CheckBlock(c, body) },
	})
	if err != nil {
		return Block{}, fmt.Errorf("block of %s: %w", p.id, err)
	}
	return Block{Bytes: a.body, held: a.held}, nil
}

// get goes round the addresses, again after what passes soon.
func (p *Publisher) get(ctx context.Context, r request) (*answer, error) {
	if p.once {
		return p.round(ctx, r)
	}
	again := func() { p.peer.retries.Add(1) }
	return retried(ctx, p.client.pauses, again, func() (*answer, error) { return p.round(ctx, r) })
}

// round asks the address that served last, and if there is none or it cannot be
// reached, the others in order.
func (p *Publisher) round(ctx context.Context, r request) (*answer, error) {
	good := p.good.Load()
	if good == nil {
		return p.roundOthers(ctx, nil, nil, r)
	}
	a, err := good.ask(ctx, r)
	if err == nil || answered(err) || ctx.Err() != nil {
		return a, err
	}
	return p.roundOthers(ctx, good, err, r)
}

// roundOthers asks all addresses but good, which failed with goodErr. An
// address that serves becomes the good one.
func (p *Publisher) roundOthers(ctx context.Context, good *endpoint, goodErr error, r request) (*answer, error) {
	var errs []error
	for _, e := range p.endpoints {
		if e == good {
			continue
		}
		a, err := e.ask(ctx, r)
		if served(err) {
			p.good.Store(e)
			return a, err
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	if goodErr != nil {
		// What strange addresses say about a block does not outweigh that the
		// one that is known to have the chain is away for the moment.
		return nil, goodErr
	}
	return nil, telling(errs)
}

// telling picks what to report when no address has ever served: an answer
// rather than a failed connection, and of the answers one that may pass rather
// than "not found", which may be taken for final.
func telling(errs []error) error {
	var notFound error
	for _, err := range errs {
		switch {
		case !answered(err):
		case !errors.Is(err, ErrNotFound):
			return err
		case notFound == nil:
			notFound = err
		}
	}
	if notFound != nil {
		return notFound
	}
	return errors.Join(errs...)
}

// served reports whether err stands for an answer that only a publisher of a
// chain gives: success, or 204 for an empty chain.
func served(err error) bool {
	return err == nil || hasStatus(err, http.StatusNoContent)
}

// answered reports whether err is about an answer, not about the way to it.
func answered(err error) bool {
	var status *StatusError
	return errors.As(err, &status) || errors.Is(err, ErrTooLarge) || errors.Is(err, errImplausible)
}

func hasStatus(err error, codes ...int) bool {
	var status *StatusError
	return errors.As(err, &status) && slices.Contains(codes, status.Code)
}

// errImplausible marks an answer of 200 that is not the resource asked for.
var errImplausible = errors.New("not what was asked for")
