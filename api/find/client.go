package find

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"mime"
	"net/http"
	"net/url"
	"sync/atomic"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/api"
)

// Limits of what a server may send us. A result is at most about 2 KiB without
// addresses, a provider record some hundred bytes.
const (
	maxFindBytes      = 64 << 20 // a find, JSON or a whole stream
	maxLineRead       = 1 << 20  // a line of a stream, newline not included
	maxResults        = 1 << 16  // results of a find
	maxProvidersBytes = 256 << 20
	maxRecordBytes    = 16 << 20 // one provider, stats
)

// Client asks a server for what it knows. It is a Finder, safe for concurrent
// use. Its errors match ErrUnavailable if the server could not be reached, did
// not finish, or answered 5xx or 429, and ErrMalformed if the answer breaks
// the protocol; an answer with an unwanted status is an *api.StatusError, and a
// *DeniedError too if it is 410.
//
// A 404 is taken at its word: nothing is known.
type Client struct {
	base   *url.URL
	http   *http.Client
	single atomic.Bool // the server knows no batches
	line   *lineKeeper // nil: finds go by HTTP only
	// byHTTP says which finds do so in spite of it; nil: none.
	byHTTP func(context.Context) bool
}

var _ Finder = (*Client)(nil)

// NewClient returns a client of the server at baseURL, for example
// "http://127.0.0.1:3000". With hc nil it gets a connection pool of its own.
func NewClient(baseURL string, hc *http.Client) (*Client, error) {
	base, err := api.ParseBaseURL(baseURL)
	if err != nil {
		return nil, err
	}
	if hc == nil {
		hc = api.NewHTTPClient()
	}
	return &Client{base: base, http: hc}, nil
}

// Close lets go of idle connections and ends the line. The client can still be used.
func (c *Client) Close() error {
	if c.line != nil {
		c.line.close()
	}
	c.http.CloseIdleConnections()
	return nil
}

// LeaveLine has finds of which when is true go by HTTP, though there is a line: it
// has no headers. Call it before the client is used.
func (c *Client) LeaveLine(when func(context.Context) bool) { c.byHTTP = when }

// String is the base URL, without a password.
func (c *Client) String() string { return c.base.Redacted() }

// Find asks for NDJSON and takes JSON as well. Results of another multihash,
// without a provider or without its ID are dropped. A malformed line ends the
// sequence with ErrMalformed after the results before it.
func (c *Client) Find(ctx context.Context, mh multihash.Multihash) iter.Seq2[ProviderResult, error] {
	return func(yield func(ProviderResult, error) bool) {
		if err := c.find(ctx, mh, func(r ProviderResult) bool { return yield(r, nil) }); err != nil && !errors.Is(err, errStopped) {
			yield(ProviderResult{}, err)
		}
	}
}

// errStopped ends the reading of an answer whose consumer has left.
var errStopped = errors.New("consumer stopped")

// find calls emit with each result until it returns false.
func (c *Client) find(ctx context.Context, mh multihash.Multihash, emit func(ProviderResult) bool) error {
	if c.line != nil && (c.byHTTP == nil || !c.byHTTP(ctx)) {
		if l := c.line.get(); l != nil {
			results, err := l.find(ctx, mh)
			if err == nil {
				for _, r := range results {
					if !emit(r) {
						return errStopped
					}
				}
				return nil
			}
			if ctx.Err() != nil {
				return &requestError{kind: ErrUnavailable, err: context.Cause(ctx)}
			}
			// Whatever it was, HTTP tells it better.
		}
	}
	resp, err := c.get(ctx, api.MediaNDJSON+", "+api.MediaJSON, "multihash", mh.B58String())
	if err != nil {
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		return err
	}
	defer resp.Body.Close()
	sent := 0
	take := func(r ProviderResult) error {
		if r.Provider == nil {
			return nil
		}
		if sent++; sent > maxResults {
			return fmt.Errorf("%w: more than %d results", ErrMalformed, maxResults)
		}
		if !emit(r) {
			return errStopped
		}
		return nil
	}
	mediaType, err := mediaTypeOf(resp)
	switch {
	case err != nil:
	case mediaType == api.MediaJSON:
		err = readResponse(resp.Body, mh, take)
	default:
		err = readLines(resp.Body, take)
	}
	if err != nil {
		if errors.Is(err, errStopped) {
			return err
		}
		return fmt.Errorf("find at %s: %w", c, err)
	}
	return endOf(resp)
}

// endOf is the error that a stream, read to its end, announced.
func endOf(resp *http.Response) error {
	if denied := deniedBy(resp, ""); denied != nil {
		return denied
	}
	return partialOf(resp)
}

// mediaTypeOf is the type of a find's answer; without one it is what was asked
// for.
func mediaTypeOf(resp *http.Response) (string, error) {
	contentType := resp.Header.Get("Content-Type")
	if contentType == "" {
		return api.MediaNDJSON, nil
	}
	mediaType, _, err := mime.ParseMediaType(contentType)
	if err == nil && mediaType != api.MediaJSON && mediaType != api.MediaNDJSON {
		err = errors.New("neither JSON nor NDJSON")
	}
	if err != nil {
		return "", fmt.Errorf("%w: content type %q: %w", ErrMalformed, contentType, err)
	}
	return mediaType, nil
}

// readResponse takes the results of mh out of a JSON answer.
func readResponse(body io.Reader, mh multihash.Multihash, take func(ProviderResult) error) error {
	var response struct {
		MultihashResults []struct {
			Multihash       []byte
			ProviderResults []ProviderResult
		}
	}
	if err := readJSON(body, maxFindBytes, &response); err != nil {
		return err
	}
	for _, mr := range response.MultihashResults {
		if !bytes.Equal(mr.Multihash, mh) {
			continue
		}
		for _, r := range mr.ProviderResults {
			if err := take(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// readLines takes the results out of an NDJSON answer, one by one.
func readLines(body io.Reader, take func(ProviderResult) error) error {
	limited := &io.LimitedReader{R: body, N: maxFindBytes}
	lines := bufio.NewScanner(limited)
	lines.Buffer(make([]byte, 0, 4<<10), maxLineRead+1)
	for lines.Scan() {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		var r ProviderResult
		if err := r.UnmarshalJSON(line); err != nil {
			return cutOff(lines.Err(), fmt.Errorf("%w: %w", ErrMalformed, err))
		}
		if err := take(r); err != nil {
			return err
		}
	}
	if limited.N == 0 {
		return fmt.Errorf("%w: over %d bytes", ErrMalformed, maxFindBytes)
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return fmt.Errorf("%w: %w", ErrMalformed, lines.Err())
	}
	return cutOff(lines.Err(), nil)
}

// cutOff prefers the error of a connection to what was made of its last bytes.
func cutOff(readErr, otherwise error) error {
	if readErr != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, readErr)
	}
	return otherwise
}

// Providers lists the providers the server knows.
func (c *Client) Providers(ctx context.Context) ([]ProviderInfo, error) {
	var infos []ProviderInfo
	err := c.getJSON(ctx, maxProvidersBytes, &infos, "providers")
	if errors.Is(err, ErrNotFound) {
		err = fmt.Errorf("providers of %s: %w", c, err)
	}
	return infos, err
}

// Provider returns what the server knows of a provider, ErrNotFound if it
// knows nothing.
func (c *Client) Provider(ctx context.Context, id peer.ID) (*ProviderInfo, error) {
	var info ProviderInfo
	err := c.getJSON(ctx, maxRecordBytes, &info, "providers", id.String())
	if info.AddrInfo.ID == "" {
		return nil, err
	}
	return &info, err
}

// Stats returns the size of the server's index.
func (c *Client) Stats(ctx context.Context) (Stats, error) {
	var stats Stats
	err := c.getJSON(ctx, maxRecordBytes, &stats, "stats")
	return stats, err
}

// getJSON reads the answer of a GET into v. A *PartialError comes with v set.
func (c *Client) getJSON(ctx context.Context, limit int64, v any, path ...string) error {
	resp, err := c.get(ctx, api.MediaJSON, path...)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := readJSON(resp.Body, limit, v); err != nil {
		return fmt.Errorf("%s: %w", resp.Request.URL.Redacted(), err)
	}
	return partialOf(resp)
}

// readJSON reads a whole body, which is one JSON value.
func readJSON(body io.Reader, limit int64, v any) error {
	b, err := api.ReadBody(body, limit)
	if errors.Is(err, api.ErrTooLarge) {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if err != nil {
		return cutOff(err, nil)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return nil
}

// get sends a request and returns an answer of status 200, whose body the
// caller closes. A 404 is an ErrNotFound.
func (c *Client) get(ctx context.Context, accept string, path ...string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base.JoinPath(path...).String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", accept)
	req.Header.Set("User-Agent", "signpost")
	req.Header.Set(HeaderPosition, "1")
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, &requestError{kind: ErrUnavailable, err: err}
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, refusal(resp)
}

// refusal is the error for an answer that is not a 200.
func refusal(resp *http.Response) error {
	status := api.ReadStatusError(resp)
	// The rest of a short body lets the connection be used again.
	_, _ = io.CopyN(io.Discard, resp.Body, 4<<10)
	switch {
	case status.Status == http.StatusNotFound:
		return &requestError{kind: ErrNotFound, err: status}
	case status.Status == http.StatusGone:
		return &requestError{kind: deniedBy(resp, status.Body), err: status}
	case status.Status < 500 && status.Status != http.StatusTooManyRequests:
		return status
	}
	if names := namesOf(resp.Header.Get(HeaderPartial)); len(names) > 0 {
		return &requestError{kind: &PartialError{Missing: names}, err: status}
	}
	return &requestError{kind: ErrUnavailable, err: status}
}

// partialOf is the *PartialError that an answer, read to its end, announced.
func partialOf(resp *http.Response) error {
	names := namesOf(resp.Header.Get(HeaderPartial))
	names = append(names, namesOf(resp.Trailer.Get(HeaderPartial))...)
	if len(names) == 0 {
		return nil
	}
	return &PartialError{Missing: names}
}

// requestError is err, and matches kind too.
type requestError struct{ kind, err error }

func (e *requestError) Error() string   { return e.err.Error() }
func (e *requestError) Unwrap() []error { return []error{e.kind, e.err} }
