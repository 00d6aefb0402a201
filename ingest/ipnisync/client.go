package ipnisync

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

const (
	// defaultTimeout is the reference's (sync.md, section 5).
	defaultTimeout = 10 * time.Second
	// connectTimeout leaves time for a second address within a caller's patience.
	connectTimeout   = 5 * time.Second
	idleTimeout      = 90 * time.Second
	maxRedirects     = 10 // Go's own default, said here because it is a promise
	maxHeaderBytes   = 64 << 10
	maxDrainBytes    = 16 << 10 // of an error's body, to keep the connection
	maxConnsPerHost  = 64       // requests beyond wait; one host may serve many publishers
	maxIdlePerHost   = 32
	maxIdleConns     = 512
	firstBufferBytes = 1 << 20 // most that is reserved on the word of Content-Length
)

// ClientConfig says how publishers are asked.
type ClientConfig struct {
	// AllowPrivate permits connections to private, loopback and other addresses
	// that are not on the public Internet. Without it they end in
	// [ErrPrivateAddress]: announces are unsigned, so anybody could otherwise make
	// this program send requests inside the operator's network.
	AllowPrivate bool
	// Timeout bounds each HTTP request from dialling to the last byte of the
	// body. Zero means 10 s.
	Timeout time.Duration
	// UserAgent is the header sent; empty means "signpost".
	UserAgent string
}

// Client fetches from any number of publishers over one pool of connections,
// which are kept alive between requests. No proxy is used, as behind one the
// address that is really dialled could not be judged. Safe for concurrent use.
type Client struct {
	hc        *http.Client
	timeout   time.Duration
	userAgent string
}

// NewClient returns a client. [Client.Close] it when done.
func NewClient(cfg ClientConfig) *Client {
	if cfg.Timeout <= 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.UserAgent == "" {
		cfg.UserAgent = "signpost"
	}
	return &Client{timeout: cfg.Timeout, userAgent: cfg.UserAgent, hc: NewHTTPClient(cfg.AllowPrivate)}
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
	return &http.Client{
		Transport: &http.Transport{
			DialContext:            dialer.DialContext,
			ForceAttemptHTTP2:      true,
			TLSHandshakeTimeout:    connectTimeout,
			IdleConnTimeout:        idleTimeout,
			MaxIdleConns:           maxIdleConns,
			MaxIdleConnsPerHost:    maxIdlePerHost,
			MaxConnsPerHost:        maxConnsPerHost,
			MaxResponseHeaderBytes: maxHeaderBytes,
		},
		CheckRedirect: func(_ *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects {
				return fmt.Errorf("more than %d redirects", maxRedirects)
			}
			return nil
		},
	}
}

// Close closes the connections that are not in use.
func (c *Client) Close() { c.hc.CloseIdleConnections() }

// request is what is wanted from a publisher, whichever address serves it.
type request struct {
	resource   string // last element of the path
	hint       Hint   // may be empty
	limitBytes int64
	// check reports whether a body is plausibly the resource. It is used to
	// find out which address and path work; what they then serve is the
	// caller's to judge.
	check func(body []byte) error
}

// get performs one GET below base and returns the body, decompressed. Any
// status but 200 is a *StatusError.
func (c *Client) get(ctx context.Context, base *url.URL, r request) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	u := base.JoinPath(r.resource).String()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", u, err)
	}
	req.Header.Set("User-Agent", c.userAgent)
	if r.hint != "" {
		req.Header.Set(HintHeader, string(r.hint))
	}
	resp, err := c.hc.Do(req)
	if err != nil {
		return nil, fmt.Errorf("fetch: %w", err) // names the URL itself
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		// Read so that the connection can be used again; the text is of no use.
		_, _ = io.CopyN(io.Discard, resp.Body, maxDrainBytes)
		return nil, &StatusError{URL: u, Code: resp.StatusCode}
	}
	body, err := readBody(resp, r.limitBytes)
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", u, err)
	}
	return body, nil
}

// readBody reads all of a body that has to be at most limit bytes long.
func readBody(resp *http.Response, limit int64) ([]byte, error) {
	if resp.ContentLength > limit {
		return nil, fmt.Errorf("%w: %d bytes, more than %d", ErrTooLarge, resp.ContentLength, limit)
	}
	var b bytes.Buffer
	if resp.ContentLength > 0 {
		b.Grow(int(min(resp.ContentLength, firstBufferBytes)) + bytes.MinRead)
	}
	n, err := b.ReadFrom(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, err
	}
	if n > limit {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, limit)
	}
	return b.Bytes(), nil
}
