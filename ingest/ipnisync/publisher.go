package ipnisync

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
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
	endpoints []*endpoint
	good      atomic.Pointer[endpoint] // the one that served last; nil before that
}

// Publisher returns the publisher info.ID, to be asked at those of info.Addrs
// that are HTTP addresses; the first 16 count. The error is [ErrNoAddress] if
// there is none. Nothing is dialled yet.
func (c *Client) Publisher(info peer.AddrInfo) (*Publisher, error) {
	if err := info.ID.Validate(); err != nil {
		return nil, fmt.Errorf("publisher: %w", err)
	}
	p := &Publisher{client: c, id: info.ID}
	seen := make(map[string]bool)
	for _, addr := range info.Addrs {
		e := newEndpoint(addr)
		if e == nil || seen[e.long.String()] {
			continue
		}
		seen[e.long.String()] = true
		if p.endpoints = append(p.endpoints, e); len(p.endpoints) == maxAddresses {
			break
		}
	}
	if len(p.endpoints) == 0 {
		return nil, fmt.Errorf("publisher %s at %v: %w", info.ID, info.Addrs, ErrNoAddress)
	}
	return p, nil
}

// ID is the publisher's peer ID.
func (p *Publisher) ID() peer.ID { return p.id }

// Addr is the address that answered last, or the first one while none has. It
// carries no /p2p part.
func (p *Publisher) Addr() multiaddr.Multiaddr {
	if e := p.good.Load(); e != nil {
		return e.addr
	}
	return p.endpoints[0].addr
}

// Head fetches the signed head. Its signature is verified and its signer is
// p.ID(). Errors: [ErrNoHead] for an empty chain, [ErrBadHead], or those of the
// package comment.
func (p *Publisher) Head(ctx context.Context) (*schema.SignedHead, error) {
	body, err := p.get(ctx, request{
		resource:   "head",
		limitBytes: schema.MaxHeadBytes,
		check: func(body []byte) error {
			_, err := p.verifyHead(body)
			return err
		},
	})
	switch {
	case hasStatus(err, http.StatusNoContent):
		return nil, fmt.Errorf("head of %s: %w", p.id, ErrNoHead)
	case err != nil:
		return nil, fmt.Errorf("head of %s: %w", p.id, err)
	}
	head, err := p.verifyHead(body)
	if err != nil {
		return nil, fmt.Errorf("head of %s: %w", p.id, err)
	}
	return head, nil
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
		return nil, fmt.Errorf("%w: signed by %s", ErrBadHead, signer)
	}
	return head, nil
}

// Block fetches the block c, at most schema.MaxBlockBytes of it. Its bytes are
// not verified yet: that comes with decoding. hint may be empty. The error
// matches [ErrNotFound] if the publisher does not have the block.
func (p *Publisher) Block(ctx context.Context, c cid.Cid, hint Hint) ([]byte, error) {
	if !c.Defined() {
		return nil, fmt.Errorf("block of %s: undefined CID", p.id)
	}
	body, err := p.get(ctx, request{
		resource:   c.String(),
		hint:       hint,
		limitBytes: schema.MaxBlockBytes,
		check:      func(body []byte) error { return schema.CheckBlock(c, body) },
	})
	if err != nil {
		return nil, fmt.Errorf("block of %s: %w", p.id, err)
	}
	return body, nil
}

// get asks the address that served last, and if there is none or it cannot be
// reached, the others in order.
func (p *Publisher) get(ctx context.Context, r request) ([]byte, error) {
	good := p.good.Load()
	if good == nil {
		return p.getFromOthers(ctx, nil, nil, r)
	}
	body, err := good.get(ctx, p.client, r)
	if err == nil || answered(err) || ctx.Err() != nil {
		return body, err
	}
	return p.getFromOthers(ctx, good, err, r)
}

// getFromOthers asks all addresses but good, which failed with goodErr. An
// address that serves becomes the good one.
func (p *Publisher) getFromOthers(ctx context.Context, good *endpoint, goodErr error, r request) ([]byte, error) {
	var errs []error
	for _, e := range p.endpoints {
		if e == good {
			continue
		}
		body, err := e.get(ctx, p.client, r)
		if served(err) {
			p.good.Store(e)
			return body, err
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
	if !errors.As(err, &status) {
		return false
	}
	for _, code := range codes {
		if status.Code == code {
			return true
		}
	}
	return false
}

// errImplausible marks an answer of 200 that is not the resource asked for.
var errImplausible = errors.New("not what was asked for")

// endpoint is one address of a publisher.
type endpoint struct {
	addr  multiaddr.Multiaddr
	long  *url.URL // base and Path
	short *url.URL // base alone, as very old publishers have it
	form  atomic.Int32
}

// Which of its URLs an endpoint serves from. It is found out once and kept.
const (
	formUnknown int32 = iota // nothing was served yet
	formLong
	formShort
)

// newEndpoint returns nil for an address that is not an HTTP one.
func newEndpoint(addr multiaddr.Multiaddr) *endpoint {
	isHTTP := false
	for i := range addr {
		switch addr[i].Code() {
		case multiaddr.P_HTTP, multiaddr.P_HTTPS:
			isHTTP = true
		case multiaddr.P_CIRCUIT:
			return nil
		}
	}
	if !isHTTP {
		return nil
	}
	base, err := ToURL(addr)
	if err != nil {
		return nil
	}
	transport, _ := peer.SplitAddr(addr)
	return &endpoint{addr: transport, long: base.JoinPath(Path), short: base}
}

// get asks with the form of URL that is known to work. Before one is known it
// asks with the long form, and if that is 404 or 403 (some object stores say so
// for what is missing) with the short one. Source: sync.md, section 5.
func (e *endpoint) get(ctx context.Context, c *Client, r request) ([]byte, error) {
	switch e.form.Load() {
	case formLong:
		return c.get(ctx, e.long, r)
	case formShort:
		return c.get(ctx, e.short, r)
	}
	body, err := e.probe(ctx, c, formLong, r)
	if served(err) || !hasStatus(err, http.StatusNotFound, http.StatusForbidden) {
		return body, err
	}
	body, shortErr := e.probe(ctx, c, formShort, r)
	switch {
	case served(shortErr):
		return body, shortErr
	case errors.Is(err, ErrNotFound) && mayPass(shortErr):
		return nil, shortErr // an old publisher in trouble has not said "not found"
	}
	return nil, err
}

// mayPass reports whether err is about a failed connection or an answer of a
// server that might say something else later. Servers of the long form alone
// answer the short one with 400 or 404, or with any page.
func mayPass(err error) bool {
	var status *StatusError
	if !errors.As(err, &status) {
		return !answered(err)
	}
	switch status.Code {
	case http.StatusForbidden, http.StatusRequestTimeout, http.StatusTooManyRequests:
		return true
	}
	return status.Code >= http.StatusInternalServerError
}

// probe asks with one form of URL and settles for it if the answer is right.
func (e *endpoint) probe(ctx context.Context, c *Client, form int32, r request) ([]byte, error) {
	base := e.long
	if form == formShort {
		base = e.short
	}
	body, err := c.get(ctx, base, r)
	if err == nil {
		if err = r.check(body); err != nil {
			return nil, fmt.Errorf("fetch %s: %w: %w", base.JoinPath(r.resource), errImplausible, err)
		}
	}
	if served(err) {
		e.form.Store(form)
	}
	return body, err
}
