package filter

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/store/keyset"
)

const (
	openWithin   = time.Minute // the node flushes
	regionWithin = time.Minute
	tailWithin   = 2 * time.Second // later it would be of no use
	maxTailBytes = 4 << 20
	maxOpenBytes = 4 << 10
)

// client asks a node for its keys.
type client struct {
	base  *url.URL
	http  *http.Client
	token string
}

// do returns an answer with status 200; the caller closes its body.
func (c *client) do(ctx context.Context, method, path string, query url.Values) (*http.Response, error) {
	u := c.base.JoinPath(path)
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	err = api.ReadStatusError(resp)
	if resp.StatusCode == http.StatusGone {
		err = fmt.Errorf("%w: %w", ErrGone, err)
	}
	return nil, err
}

func (c *client) body(ctx context.Context, method, path string, query url.Values, limit int64) ([]byte, http.Header, error) {
	resp, err := c.do(ctx, method, path, query)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	b, err := api.ReadBody(resp.Body, limit)
	return b, resp.Header, err
}

func (c *client) open(ctx context.Context, follower string) (o Opened, err error) {
	ctx, cancel := context.WithTimeout(ctx, openWithin)
	defer cancel()
	b, _, err := c.body(ctx, http.MethodPost, openPath, url.Values{"follower": {follower}}, maxOpenBytes)
	if err != nil {
		return o, err
	}
	if err := json.Unmarshal(b, &o); err != nil || o.Epoch == "" {
		return o, fmt.Errorf("open keys at %s: unreadable answer", c.base.Redacted())
	}
	return o, nil
}

// region reads a part of at most limit bytes.
func (c *client) region(ctx context.Context, space keyset.Space, region int, limit int64) (*keyset.Part, error) {
	ctx, cancel := context.WithTimeout(ctx, regionWithin)
	defer cancel()
	q := url.Values{"region": {strconv.Itoa(region)}, "values": {strconv.FormatUint(uint64(space), 10)}}
	b, _, err := c.body(ctx, http.MethodGet, regionPath, q, limit)
	if err != nil {
		return nil, err
	}
	return keyset.ParsePart(b, space.Width())
}

// tail returns keys, and how long from the beginning of the call on the node
// reports nothing that is not among what was given.
func (c *client) tail(ctx context.Context, o Opened, follower string, from uint64) (keys []uint64, lease time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, tailWithin)
	defer cancel()
	q := url.Values{"epoch": {o.Epoch}, "follower": {follower}, "from": {strconv.FormatUint(from, 10)}}
	b, h, err := c.body(ctx, http.MethodGet, tailPath, q, maxTailBytes)
	if err != nil {
		return nil, 0, err
	}
	ms, err := strconv.ParseUint(h.Get(headerLease), 10, 32)
	next, err2 := strconv.ParseUint(h.Get(headerNext), 10, 64)
	if err != nil || err2 != nil || len(b)%8 != 0 || next != from+uint64(len(b)/8) {
		return nil, 0, fmt.Errorf("keys of %s: unreadable answer", c.base.Redacted())
	}
	for ; len(b) > 0; b = b[8:] {
		keys = append(keys, binary.LittleEndian.Uint64(b))
	}
	return keys, time.Duration(ms) * time.Millisecond, nil
}
