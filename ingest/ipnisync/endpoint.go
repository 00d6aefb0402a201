package ipnisync

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync/atomic"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

// endpoint is one HTTP address of a publisher, or all of its stream addresses
// together: libp2p finds out itself which of them works.
type endpoint struct {
	route
	addr  multiaddr.Multiaddr
	to    *streamTarget // nil for HTTP
	bases atomic.Pointer[bases]
	form  atomic.Int32
}

// bases are the URLs below which an endpoint may serve.
type bases struct {
	long  *url.URL // with Path, as the protocol says
	short *url.URL // the address alone, as very old publishers have it; nil: not tried
}

// Which of its URLs an endpoint serves from. It is found out once and kept.
const (
	formUnknown int32 = iota // nothing was served yet
	formLong
	formShort
)

// httpEndpoint returns nil for an address that is not an HTTP one.
func (c *Client) httpEndpoint(id peer.ID, addr multiaddr.Multiaddr) *endpoint {
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
	e := &endpoint{addr: transport, route: c.route(c.http, id, base.String())}
	e.bases.Store(&bases{long: base.JoinPath(Path), short: base})
	return e
}

func (c *Client) route(hc *http.Client, id peer.ID, address string) route {
	return route{hc: hc, userAgent: c.userAgent, pace: c.paceOf(id, address), peer: c.peerOf(id)}
}

// address is where the publisher was reached.
func (e *endpoint) address() multiaddr.Multiaddr {
	if e.to != nil {
		return e.to.address()
	}
	return e.addr
}

// ask fetches with the form of URL that is known to work. Before one is known
// it asks with the long form, and if that is 404 or 403 (some object stores say
// so for what is missing) with the short one. Source: sync.md, section 5.
func (e *endpoint) ask(ctx context.Context, r request) (*answer, error) {
	if e.to != nil {
		ctx = context.WithValue(ctx, targetKey{}, e.to)
	}
	b := e.bases.Load()
	if b == nil {
		var err error
		if b, err = e.discover(ctx); err != nil {
			return nil, err
		}
		e.bases.Store(b)
	}
	switch e.form.Load() {
	case formLong:
		return e.get(ctx, b.long, r)
	case formShort:
		return e.get(ctx, b.short, r)
	}
	a, err := e.try(ctx, b.long, formLong, r)
	if b.short == nil || served(err) || !hasStatus(err, e.wrongPath()...) {
		return a, err
	}
	a, shortErr := e.try(ctx, b.short, formShort, r)
	switch {
	case served(shortErr):
		return a, shortErr
	case errors.Is(err, ErrNotFound) && mayPass(shortErr):
		return nil, shortErr // an old publisher in trouble has not said "not found"
	}
	return nil, err
}

// wrongPath are the statuses that may mean that the path is the other one. Over
// streams the reference's publisher says 400.
func (e *endpoint) wrongPath() []int {
	if e.to != nil {
		return []int{http.StatusNotFound, http.StatusForbidden, http.StatusBadRequest}
	}
	return []int{http.StatusNotFound, http.StatusForbidden}
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

// try asks with one form of URL and settles for it if the answer is right.
func (e *endpoint) try(ctx context.Context, base *url.URL, form int32, r request) (*answer, error) {
	a, err := e.get(ctx, base, r)
	if err == nil {
		if err = r.check(a.body); err != nil {
			a.release()
			return nil, fmt.Errorf("fetch %s: %w: %w", base.JoinPath(r.resource), errImplausible, err)
		}
	}
	if served(err) {
		e.form.Store(form)
	}
	return a, err
}
