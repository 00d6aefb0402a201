package find

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/api"
)

// FindBatch asks about several keys in one request, or, of a server that knows
// no batches, one by one.
func (c *Client) FindBatch(ctx context.Context, keys []multihash.Multihash) (Batch, error) {
	if c.single.Load() {
		return oneByOne(ctx, c, keys)
	}
	resp, err := c.post(ctx, keys)
	var partial *PartialError
	switch {
	case err == nil:
	case errors.Is(err, ErrNotFound):
		return Batch{}, nil
	case errors.As(err, &partial): // nothing is known and somebody missing
		return Batch{Unknown: keys, Missing: partial.Missing}, nil
	case errors.Is(err, errNoBatches):
		c.single.Store(true)
		return oneByOne(ctx, c, keys)
	default:
		return Batch{}, err
	}
	defer resp.Body.Close()
	var answer struct {
		MultihashResults []MultihashResult
		Unknown          [][]byte
		Denied           []struct {
			Key    []byte
			Kind   DenyKind
			Reason string
		}
	}
	if err := readJSON(resp.Body, maxFindBytes, &answer); err != nil {
		return Batch{}, fmt.Errorf("batch at %s: %w", c, err)
	}
	denied := make(map[string]*DeniedError)
	for _, d := range answer.Denied {
		denied[string(d.Key)] = &DeniedError{Kind: cmp.Or(d.Kind, DenyMultihash), Reason: api.PlainText(d.Reason, maxReason)}
	}
	return c.batchOf(resp, keys, answer.MultihashResults, answer.Unknown, denied)
}

// maxReason bounds the characters of a reason in a batch, as those in a body are.
const maxReason = 1 << 10

// batchOf puts an answer into the order of keys, and drops what was not asked
// for.
func (c *Client) batchOf(resp *http.Response, keys []multihash.Multihash, results []MultihashResult, unknown [][]byte, refused map[string]*DeniedError) (Batch, error) {
	place := make(map[string]int, len(keys))
	for n, mh := range keys {
		place[string(mh)] = n
	}
	found, open := make([][]ProviderResult, len(keys)), make([]bool, len(keys))
	total := 0
	for _, mr := range results {
		n, asked := place[string(mr.Multihash)]
		if !asked {
			continue
		}
		for _, r := range mr.ProviderResults {
			if r.Provider == nil {
				continue
			}
			if total++; total > maxResults {
				return Batch{}, fmt.Errorf("batch at %s: %w: more than %d results", c, ErrMalformed, maxResults)
			}
			found[n] = append(found[n], r)
		}
	}
	for _, mh := range unknown {
		if n, asked := place[string(mh)]; asked {
			open[n] = true
		}
	}
	denied := make([]*DeniedError, len(keys))
	for n, mh := range keys {
		denied[n] = refused[string(mh)]
	}
	var missing []string
	if partial := (*PartialError)(nil); errors.As(partialOf(resp), &partial) {
		missing = partial.Missing
	}
	return NewBatch(keys, found, open, denied, missing), nil
}

// errNoBatches: whoever answered does not know of batches, so a 404 says nothing.
var errNoBatches = errors.New("no answer to a batch")

// post sends a batch.
func (c *Client) post(ctx context.Context, keys []multihash.Multihash) (*http.Response, error) {
	body, err := json.Marshal(struct{ Multihashes []multihash.Multihash }{keys})
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base.JoinPath("multihash").String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", api.MediaJSON)
	req.Header.Set("Accept", api.MediaJSON)
	req.Header.Set("User-Agent", "signpost")
	req.Header.Set(HeaderPosition, "1")
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, &requestError{kind: ErrUnavailable, err: err}
	}
	ours := resp.Header.Get(headerBatch) != ""
	if ours && resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	if err := refusal(resp); ours || resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests {
		return nil, err
	}
	return nil, errNoBatches
}
