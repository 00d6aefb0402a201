package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api"
)

// maxAnswer bounds an answer: an assigned list takes about 150 bytes for each
// publisher.
const maxAnswer = 64 << 20

// Client drives an indexer over HTTP, ours or the reference's. It is an
// Indexer, safe for concurrent use. Its errors match the sentinels of this
// package; an answer that is no success is an *api.StatusError as well.
type Client struct {
	base  *url.URL
	http  *http.Client
	token string
}

var _ Indexer = (*Client)(nil)

// NewClient returns a client of the admin API at baseURL, for example
// "http://127.0.0.1:3002". With hc nil it gets a connection pool of its own.
// token is sent if it is not empty.
func NewClient(baseURL string, hc *http.Client, token string) (*Client, error) {
	base, err := api.ParseBaseURL(baseURL)
	if err != nil {
		return nil, err
	}
	if hc == nil {
		hc = api.NewHTTPClient()
	}
	return &Client{base: base, http: hc, token: token}, nil
}

// CloseIdleConnections lets go of idle connections. The client can still be used.
func (c *Client) CloseIdleConnections() {
	c.http.CloseIdleConnections()
}

// String is the base URL, without a password.
func (c *Client) String() string { return c.base.Redacted() }

// Status asks for the indexer's state.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var status Status
	err := c.call(ctx, http.MethodGet, c.base.JoinPath("status"), nil, &status)
	return status, err
}

// Assigned asks for the publishers assigned.
func (c *Client) Assigned(ctx context.Context) ([]Assignment, error) {
	var assignments []Assignment
	err := c.call(ctx, http.MethodGet, c.base.JoinPath("ingest", "assigned"), nil, &assignments)
	return assignments, err
}

// Preferred asks for the publishers the indexer has data of.
func (c *Client) Preferred(ctx context.Context) ([]peer.ID, error) {
	var ids []peer.ID
	err := c.call(ctx, http.MethodGet, c.base.JoinPath("ingest", "preferred"), nil, &ids)
	return ids, err
}

// Assign assigns publisher to the indexer.
func (c *Client) Assign(ctx context.Context, publisher peer.ID) error {
	return c.call(ctx, http.MethodPost, c.base.JoinPath("ingest", "assign", publisher.String()), nil, nil)
}

// Unassign takes publisher from the indexer.
func (c *Client) Unassign(ctx context.Context, publisher peer.ID) error {
	return c.call(ctx, http.MethodPut, c.base.JoinPath("ingest", "unassign", publisher.String()), nil, nil)
}

// Handoff makes the indexer go on with publisher where h stopped.
func (c *Client) Handoff(ctx context.Context, publisher peer.ID, h Handoff) error {
	return c.call(ctx, http.MethodPost, c.base.JoinPath("ingest", "handoff", publisher.String()), h, nil)
}

// Freeze freezes the indexer.
func (c *Client) Freeze(ctx context.Context) error {
	return c.call(ctx, http.MethodPut, c.base.JoinPath("freeze"), nil, nil)
}

// Sync starts a sync of publisher.
func (c *Client) Sync(ctx context.Context, publisher peer.ID, o SyncOptions) error {
	u := c.base.JoinPath("ingest", "sync", publisher.String())
	query := url.Values{}
	if o.Depth != 0 {
		query.Set("depth", strconv.Itoa(o.Depth))
	}
	if o.Resync {
		query.Set("resync", "true")
	}
	u.RawQuery = query.Encode()
	var body any
	if len(o.Addr) > 0 {
		body = o.Addr.String()
	}
	return c.call(ctx, http.MethodPost, u, body, nil)
}

// Syncs asks for the publishers with a manual sync running.
func (c *Client) Syncs(ctx context.Context) ([]peer.ID, error) {
	var ids []peer.ID
	err := c.call(ctx, http.MethodGet, c.base.JoinPath("ingest", "sync/"), nil, &ids)
	return ids, err
}

// call sends body, if not nil, as JSON, and reads the answer into answer, if
// not nil. 204 leaves answer as it is.
func (c *Client) call(ctx context.Context, method string, u *url.URL, body, answer any) error {
	req, err := c.request(ctx, method, u, body)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	defer resp.Body.Close()
	if !slices.Contains([]int{http.StatusOK, http.StatusAccepted, http.StatusNoContent}, resp.StatusCode) {
		return readError(resp)
	}
	b, err := api.ReadBody(resp.Body, maxAnswer)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrUnavailable, u.Redacted(), err)
	}
	if answer == nil || resp.StatusCode == http.StatusNoContent {
		return nil
	}
	if err := json.Unmarshal(b, answer); err != nil {
		return fmt.Errorf("answer of %s: %w", u.Redacted(), err)
	}
	return nil
}

func (c *Client) request(ctx context.Context, method string, u *url.URL, body any) (*http.Request, error) {
	var content io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), content)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", api.MediaJSON)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	req.Header.Set("User-Agent", "signpost")
	return req, nil
}
