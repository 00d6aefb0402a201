package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api"
)

// Paths of ours about who is known to an indexer.
const (
	PolicyPath     = "/signpost/v1/policy"
	PublishersPath = "/signpost/v1/publishers" // and, with a slash, a peer ID
)

// Registry is whom a node knows and takes content from, as its operator sees
// it: the node itself, and the Client. It is safe for concurrent use.
type Registry interface {
	// Policy says who may publish.
	Policy(ctx context.Context) (Policy, error)
	// SetPolicy replaces the policy, and has stored that when it returns. Syncs
	// of publishers that are blocked by it end. ErrBadRequest.
	SetPolicy(ctx context.Context, p Policy) error
	// Allow and Block change what the policy says of one peer. ErrBadRequest if
	// the policy has no room.
	Allow(ctx context.Context, id peer.ID) error
	Block(ctx context.Context, id peer.ID) error
	// Publishers lists all publishers the node knows, in the order of their IDs.
	Publishers(ctx context.Context) ([]Publisher, error)
	// Publisher returns one of them, or ErrNotFound.
	Publisher(ctx context.Context, id peer.ID) (Publisher, error)
	// SetPolling changes how one publisher is polled, and has stored that when
	// it returns. ErrNotFound, ErrBadRequest.
	SetPolling(ctx context.Context, id peer.ID, p Polling) error
	// MarkAdProcessed makes the ad and all before it count as done for the
	// publisher of provider. ErrNotFound if provider is not known.
	MarkAdProcessed(ctx context.Context, provider peer.ID, ad cid.Cid) error
	// ImportProviders registers the providers that the indexer with the find API
	// at baseURL knows and this one does not, and starts to sync them.
	// ErrBadRequest; ErrUnavailable if that indexer cannot be asked.
	ImportProviders(ctx context.Context, baseURL string) error
	// Telemetry says how fast content came lately, by provider.
	Telemetry(ctx context.Context) (map[peer.ID]Telemetry, error)
}

// Policy says who may publish for whom. Each half is a default and those for
// whom the opposite holds. A provider may publish for itself unless it is not
// allowed.
type Policy struct {
	// Allow says whether peers are taken at all, as publishers and as providers.
	Allow       bool
	AllowExcept []peer.ID `json:",omitempty"`
	// Publish says whether peers may publish for other providers.
	Publish       bool
	PublishExcept []peer.ID `json:",omitempty"`
	// Publishers lists who may publish for single providers, whatever Publish
	// says.
	Publishers []PublisherList `json:",omitempty"`
}

// PublisherList is who may publish for one provider besides itself.
type PublisherList struct {
	Provider   peer.ID
	Publishers []peer.ID
}

// MaxPolicyEntries bounds the peer IDs of a policy.
const MaxPolicyEntries = 10_000

// Publisher is what a node knows of one publisher.
type Publisher struct {
	ID peer.ID
	// State is active, polled (silent, so it is asked), inactive (silent for
	// long, so its providers are hidden), removed, or returning (it was removed
	// and is being indexed again).
	State string
	// Allowed says whether policy and assignments let the node follow it.
	Allowed bool
	// Addrs are where it was reached, those of a removed one included.
	Addrs []string `json:",omitempty"`
	// LastContact is when its signed head was fetched last, LastFailure when
	// that was tried in vain.
	LastContact time.Time `json:",omitzero"`
	LastFailure time.Time `json:",omitzero"`
	// Silent is how long it counts as silent.
	Silent Duration `json:",omitzero"`
	// NextPoll is when it is asked again, if nothing is heard before.
	NextPoll time.Time `json:",omitzero"`
	// Polling is what was set for this publisher alone.
	Polling Polling `json:",omitzero"`
	// LastAd is the newest ad known of its chain. Mark is the newest of those
	// below which all are applied and on disk, since MarkTime.
	LastAd   string    `json:",omitempty"`
	Mark     string    `json:",omitempty"`
	MarkTime time.Time `json:",omitzero"`
	// Pending is how many ads are known and not applied, and Lag how long the
	// mark has not moved while there are such.
	Pending int
	Lag     Duration `json:",omitzero"`
	// Removed is when what it published was removed last, Removals how often.
	Removed       time.Time `json:",omitzero"`
	Removals      uint64    `json:",omitzero"`
	LastError     string    `json:",omitempty"`
	LastErrorTime time.Time `json:",omitzero"`
}

// Polling is how a silent publisher is asked: after Interval of silence, then
// every Retry. 0 is what the node does with all, negative is never.
type Polling struct {
	Interval Duration `json:",omitzero"`
	Retry    Duration `json:",omitzero"`
}

// Duration is a time.Duration that is a text such as "5h0m0s" in JSON.
type Duration time.Duration

// MarshalText returns the text of time.Duration.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads what time.ParseDuration reads.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}

// String is the text of time.Duration.
func (d Duration) String() string { return time.Duration(d).String() }

// Telemetry is how fast content came: Count multihashes in Samples syncs that
// took Elapsed together.
type Telemetry struct {
	Count   int64
	Elapsed time.Duration // nanoseconds in JSON
	Samples int
}

// routeRegistry adds the endpoints of a Registry that are ours.
func (h *handler) routeRegistry(mux *http.ServeMux, reg Registry) {
	mux.HandleFunc(PolicyPath, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			h.get(func(ctx context.Context) (any, error) { return reg.Policy(ctx) })(w, r)
			return
		}
		if !api.Method(w, r, http.MethodGet, http.MethodPut) {
			return
		}
		var p Policy
		err := readJSON(r, &p)
		if err == nil {
			err = reg.SetPolicy(r.Context(), p)
		}
		if err != nil {
			h.fail(w, r, err)
		}
	})
	mux.HandleFunc(PublishersPath, h.get(func(ctx context.Context) (any, error) {
		all, err := reg.Publishers(ctx)
		if all == nil {
			all = []Publisher{}
		}
		return all, err
	}))
	mux.HandleFunc(PublishersPath+"/", func(w http.ResponseWriter, r *http.Request) {
		if !api.Method(w, r, http.MethodGet, http.MethodPut, http.MethodPatch) {
			return
		}
		p, err := servePublisher(r, reg)
		if err != nil {
			h.fail(w, r, err)
			return
		}
		api.JSON(w, http.StatusOK, p)
	})
}

// servePublisher shows one publisher, after its polling was changed if the
// request says so: PUT replaces both times, PATCH those it names.
func servePublisher(r *http.Request, reg Registry) (Publisher, error) {
	id, err := pathPeer(r)
	if err != nil {
		return Publisher{}, err
	}
	p, err := reg.Publisher(r.Context(), id)
	if err != nil || r.Method == http.MethodGet {
		return p, err
	}
	polling := p.Polling
	if r.Method == http.MethodPut {
		polling = Polling{}
	}
	if err := readJSON(r, &polling); err != nil {
		return p, err
	}
	if err := reg.SetPolling(r.Context(), id, polling); err != nil {
		return p, err
	}
	return reg.Publisher(r.Context(), id)
}

// readJSON reads a request's body, which is bounded, and nothing may follow.
func readJSON(r *http.Request, v any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return badRequest(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return badRequest(errors.New("something follows the JSON value"))
	}
	return nil
}

// Policy asks who may publish.
func (c *Client) Policy(ctx context.Context) (p Policy, err error) {
	err = c.call(ctx, http.MethodGet, c.base.JoinPath(PolicyPath), nil, &p)
	return p, err
}

// SetPolicy replaces the policy.
func (c *Client) SetPolicy(ctx context.Context, p Policy) error {
	return c.call(ctx, http.MethodPut, c.base.JoinPath(PolicyPath), p, nil)
}

// Allow allows a peer.
func (c *Client) Allow(ctx context.Context, id peer.ID) error {
	return c.call(ctx, http.MethodPut, c.base.JoinPath("ingest", "allow", id.String()), nil, nil)
}

// Block blocks a peer.
func (c *Client) Block(ctx context.Context, id peer.ID) error {
	return c.call(ctx, http.MethodPut, c.base.JoinPath("ingest", "block", id.String()), nil, nil)
}

// Publishers asks for all publishers.
func (c *Client) Publishers(ctx context.Context) (all []Publisher, err error) {
	err = c.call(ctx, http.MethodGet, c.base.JoinPath(PublishersPath), nil, &all)
	return all, err
}

// Publisher asks for one publisher.
func (c *Client) Publisher(ctx context.Context, id peer.ID) (p Publisher, err error) {
	err = c.call(ctx, http.MethodGet, c.base.JoinPath(PublishersPath, id.String()), nil, &p)
	return p, err
}

// SetPolling changes how a publisher is polled.
func (c *Client) SetPolling(ctx context.Context, id peer.ID, p Polling) error {
	return c.call(ctx, http.MethodPut, c.base.JoinPath(PublishersPath, id.String()), p, nil)
}

// MarkAdProcessed makes ads up to ad count as done.
func (c *Client) MarkAdProcessed(ctx context.Context, provider peer.ID, ad cid.Cid) error {
	u := c.base.JoinPath("markadprocessed", provider.String())
	u.RawQuery = "cid=" + ad.String()
	return c.call(ctx, http.MethodPut, u, nil, nil)
}

// ImportProviders makes the indexer take over the providers of another.
func (c *Client) ImportProviders(ctx context.Context, baseURL string) error {
	return c.call(ctx, http.MethodPost, c.base.JoinPath("importproviders"), importRequest{[]byte(baseURL)}, nil)
}

// Telemetry asks how fast content came.
func (c *Client) Telemetry(ctx context.Context) (map[peer.ID]Telemetry, error) {
	var wire map[string]Telemetry
	if err := c.call(ctx, http.MethodGet, c.base.JoinPath("telemetry", "providers"), nil, &wire); err != nil {
		return nil, err
	}
	out := make(map[peer.ID]Telemetry, len(wire))
	for text, t := range wire {
		id, err := decodePeer(text)
		if err != nil {
			return nil, fmt.Errorf("telemetry of %q: %w", text, err)
		}
		out[id] = t
	}
	return out, nil
}

var _ Registry = (*Client)(nil)
