package api

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// Limits of the clients made by [NewHTTPClient].
const (
	dialTimeout    = 10 * time.Second
	headerTimeout  = 30 * time.Second // the reference's server gives up after as long
	requestTimeout = time.Minute      // the whole exchange, if the context sets no earlier end
	idlePerHost    = 256              // a frontend asks few hosts, each very often
)

// ErrTooLarge is returned by [ReadBody] for a body over its limit.
var ErrTooLarge = errors.New("answer too large")

// NewHTTPClient returns a client with a connection pool of its own, made for
// many requests to few hosts, over HTTP/1.1; see UseTLS. Its CloseIdleConnections lets go of the pool.
func NewHTTPClient() *http.Client {
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}
	secure := clientTLS.Load()
	return &http.Client{
		Timeout: requestTimeout,
		Transport: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           dialer.DialContext,
			DialTLSContext:        secure.dialer(dialer.DialContext),
			TLSClientConfig:       secure.client(), // through a proxy
			MaxIdleConns:          4 * idlePerHost,
			MaxIdleConnsPerHost:   idlePerHost,
			IdleConnTimeout:       90 * time.Second,
			TLSHandshakeTimeout:   dialTimeout,
			ResponseHeaderTimeout: headerTimeout,
		},
	}
}

// ParseBaseURL checks the address of a server as a user writes it: an http or
// https URL with a host, perhaps with a path under which the server lives, and
// without query or fragment.
func ParseBaseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, fmt.Errorf("base URL %q: %w", s, errors.Unwrap(err))
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("base URL %q: want http:// or https://", s)
	case u.Host == "":
		return nil, fmt.Errorf("base URL %q: no host", s)
	case u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("base URL %q: query and fragment are not allowed", s)
	}
	return u, nil
}

// ReadBody reads a body that may hold at most limit bytes; a longer one is
// ErrTooLarge.
func ReadBody(r io.Reader, limit int64) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(body)) > limit {
		return nil, fmt.Errorf("%w: over %d bytes", ErrTooLarge, limit)
	}
	return body, nil
}
