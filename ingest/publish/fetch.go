package publish

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/ingest/ipnisync"
	"github.com/signpost-index/signpost/ingest/metadata"
)

const (
	// maxFetchBytes bounds a fetched block in bytes: as much as we publish.
	maxFetchBytes = maxSection
	// fetchTimeout bounds one attempt, so that one silent provider does not
	// use up the caller's time.
	fetchTimeout = 30 * time.Second
	// maxAttempts bounds the addresses tried: a find result may name very many.
	maxAttempts = 64
)

// FetchProvider is who may have a block, as a find result says it.
type FetchProvider struct {
	ID       peer.ID // for messages only; may be empty
	Addrs    []multiaddr.Multiaddr
	Metadata []byte
}

// An Attempt is one provider's or address's answer that was not the block.
type Attempt struct {
	From string // URL, address or peer ID
	Err  error
}

// FetchError says what each provider answered. It unwraps to their errors.
type FetchError struct {
	Cid      cid.Cid
	Attempts []Attempt
}

func (e *FetchError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "fetch %s: no provider served it", e.Cid)
	for _, a := range e.Attempts {
		fmt.Fprintf(&b, "; %s: %v", a.From, a.Err)
	}
	if len(e.Attempts) == 0 {
		b.WriteString("; none is known")
	}
	return b.String()
}

// Unwrap returns the errors of the attempts.
func (e *FetchError) Unwrap() []error {
	errs := make([]error, len(e.Attempts))
	for i, a := range e.Attempts {
		errs[i] = a.Err
	}
	return errs
}

// Fetch gets block c from the first provider that has it: providers in order,
// the HTTP addresses of each in order, only those whose metadata says
// transport-ipfs-gateway-http. What they send is taken only if it matches c,
// whose hash function must be one that proves something. It returns the block
// and the URL it came from; the block of an identity CID comes from "the CID".
// The error is a *FetchError, or the context's. hc may be nil.
func Fetch(ctx context.Context, hc *http.Client, c cid.Cid, providers []FetchProvider) (block []byte, from string, err error) {
	if isIdentity(c) {
		dec, err := multihash.Decode(c.Hash())
		if err != nil {
			return nil, "", fmt.Errorf("fetch %s: %w", c, err)
		}
		return dec.Digest, "the CID", nil
	}
	if hc == nil {
		hc = http.DefaultClient
	}
	failed := &FetchError{Cid: c}
	for _, p := range providers {
		for url, err := range p.urls(c) {
			if len(failed.Attempts) == maxAttempts {
				return nil, "", failed
			}
			if err == nil {
				if block, err = fetchBlock(ctx, hc, c, url); err == nil {
					return block, url, nil
				}
			}
			if ctx.Err() != nil {
				return nil, "", fmt.Errorf("fetch %s: %w", c, ctx.Err())
			}
			failed.Attempts = append(failed.Attempts, Attempt{url, err})
		}
	}
	return nil, "", failed
}

var (
	errNoGateway = errors.New("does not speak " + metadata.IPFSGatewayHTTP.String())
	errNotHTTP   = errors.New("not an HTTP address")
)

// urls yields where the provider would have the block, or what is in the way
// with the name of who it concerns.
func (p FetchProvider) urls(c cid.Cid) func(yield func(string, error) bool) {
	return func(yield func(string, error) bool) {
		name := "provider"
		if p.ID != "" {
			name = p.ID.String()
		}
		if !p.isGateway() {
			yield(name, errNoGateway)
			return
		}
		if len(p.Addrs) == 0 {
			yield(name, errors.New("has no address"))
			return
		}
		for _, a := range p.Addrs {
			url, err := blockURL(a, c)
			if err != nil {
				url = a.String()
			}
			if !yield(url, err) {
				return
			}
		}
	}
}

func (p FetchProvider) isGateway() bool {
	records, _ := metadata.Parse(p.Metadata)
	for _, r := range records {
		if r.Code == metadata.IPFSGatewayHTTP {
			return true
		}
	}
	return false
}

func blockURL(a multiaddr.Multiaddr, c cid.Cid) (string, error) {
	_, errHTTP := a.ValueForProtocol(multiaddr.P_HTTP)
	_, errHTTPS := a.ValueForProtocol(multiaddr.P_HTTPS)
	if errHTTP != nil && errHTTPS != nil {
		return "", errNotHTTP
	}
	u, err := ipnisync.ToURL(a)
	if err != nil {
		return "", err
	}
	u = u.JoinPath("ipfs", c.String())
	u.RawQuery = "format=raw"
	return u.String(), nil
}

// fetchBlock asks one gateway and checks what it sends.
func fetchBlock(ctx context.Context, hc *http.Client, c cid.Cid, url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/vnd.ipld.raw")
	resp, err := hc.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %s", resp.Status)
	}
	block, err := io.ReadAll(io.LimitReader(resp.Body, maxFetchBytes+1))
	if err != nil {
		return nil, err
	}
	if len(block) > maxFetchBytes {
		return nil, fmt.Errorf("more than %d bytes", maxFetchBytes)
	}
	return block, checkBlock(c, block)
}
