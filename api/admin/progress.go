package admin

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api"
)

// Paths of what an operator asks of a node's ingest, all ours.
const (
	progressPath = "/signpost/v1/progress/" // and the publisher
	adsPath      = "/signpost/v1/ads/"      // {ad}/requeue, {ad}/skip

	// MaxTrouble is how many delayed ads a Progress lists.
	MaxTrouble = 100
	// maxReason bounds the reason an operator gives.
	maxReason = 500
	// maxCIDText bounds a CID in a path: base58 takes time in the square of its length.
	maxCIDText = 512
)

// IngestOperator is a node's ingest as its operator sees it: the node itself,
// and the Client. It is safe for concurrent use.
type IngestOperator interface {
	// Progress tells how far a publisher's chain is applied and what stands in
	// the way. ErrNotFound for a publisher never heard of.
	Progress(ctx context.Context, publisher peer.ID) (Progress, error)
	// Requeue has a rejected ad applied after all, in the background. ErrNotFound
	// if it is not rejected, ErrBusy if its publisher is being synced on request.
	Requeue(ctx context.Context, ad cid.Cid) error
	// Skip gives an ad up that waits, or a gap of the chain that begins at ad, for
	// a reason that is kept. ErrNotFound if nothing waits there.
	Skip(ctx context.Context, publisher peer.ID, ad cid.Cid, reason string) error
}

// Progress is the answer of GET /signpost/v1/progress/{publisher}. CIDs are
// text, empty for none.
type Progress struct {
	Publisher peer.ID
	Addrs     []string `json:",omitempty"` // where it was reached, the best first
	// Mark is the newest ad below which everything has its verdict, Durable the
	// same after a power loss now.
	Mark     string    `json:",omitempty"`
	MarkTime time.Time `json:",omitzero"`
	Durable  string    `json:",omitempty"`
	Above    int       // ads above the mark that have their verdict
	Pending  int       // ads that wait
	// Delayed are pending ads that have failed, at most MaxTrouble, the oldest
	// first; Gaps are places where the chain breaks off, the newest first.
	Delayed []Trouble `json:",omitempty"`
	Gaps    []Trouble `json:",omitempty"`
	// LastError is the last trouble with the publisher.
	LastError     string    `json:",omitempty"`
	LastErrorTime time.Time `json:",omitzero"`
	// Running is the session under way.
	Running *Session `json:",omitempty"`
}

// Trouble is an ad that could not be had, and when that is tried again.
type Trouble struct {
	Ad       string
	Attempts int       `json:",omitempty"`
	Since    time.Time `json:",omitzero"`
	Next     time.Time `json:",omitzero"`
	Reason   string    `json:",omitempty"`
}

// Session counts what a session with a publisher has done so far.
type Session struct {
	Since       time.Time
	Scanned     int   // ads passed walking back
	Done        int   // ads that got their verdict
	Failed      int   // tries that failed
	Bytes       int64 // of entries fetched
	Multihashes int
	CurrentAd   string `json:",omitempty"`
}

// routeIngest adds the endpoints of an IngestOperator.
func (h *handler) routeIngest(mux *http.ServeMux, op IngestOperator) {
	mux.HandleFunc(progressPath, func(w http.ResponseWriter, r *http.Request) {
		if !api.Method(w, r, http.MethodGet) {
			return
		}
		publisher, err := pathPeer(r)
		if err != nil {
			h.fail(w, r, err)
			return
		}
		p, err := op.Progress(r.Context(), publisher)
		if err != nil {
			h.fail(w, r, err)
			return
		}
		api.JSON(w, http.StatusOK, p)
	})
	mux.HandleFunc(adsPath, func(w http.ResponseWriter, r *http.Request) {
		if !api.Method(w, r, http.MethodPost) {
			return
		}
		if err := adAction(r, op); err != nil {
			h.fail(w, r, err)
			return
		}
		w.WriteHeader(http.StatusAccepted)
	})
}

func adAction(r *http.Request, op IngestOperator) error {
	text, action, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, adsPath), "/")
	if len(text) > maxCIDText {
		return kindError{ErrBadRequest, "Cannot decode advertisement cid"}
	}
	ad, err := cid.Decode(text)
	if err != nil {
		return kindError{ErrBadRequest, "Cannot decode advertisement cid"}
	}
	switch action {
	case "requeue":
		return op.Requeue(r.Context(), ad)
	case "skip":
		query := r.URL.Query()
		publisher, err := decodePeer(query.Get("publisher"))
		if err != nil {
			return kindError{ErrBadRequest, "give the publisher of the chain: ?publisher=<peer ID>"}
		}
		reason := query.Get("reason")
		if reason == "" || len(reason) > maxReason {
			return kindError{ErrBadRequest, "give a reason of at most 500 bytes: ?reason=<text>"}
		}
		return op.Skip(r.Context(), publisher, ad, reason)
	}
	return kindError{ErrNotFound, "an advertisement can be told requeue or skip"}
}

// Progress asks how far a publisher's chain is applied.
func (c *Client) Progress(ctx context.Context, publisher peer.ID) (p Progress, err error) {
	err = c.call(ctx, http.MethodGet, c.base.JoinPath(progressPath, publisher.String()), nil, &p)
	return p, err
}

// Requeue has a rejected ad applied after all.
func (c *Client) Requeue(ctx context.Context, ad cid.Cid) error {
	return c.call(ctx, http.MethodPost, c.base.JoinPath(adsPath, ad.String(), "requeue"), nil, nil)
}

// Skip gives an ad or a gap up.
func (c *Client) Skip(ctx context.Context, publisher peer.ID, ad cid.Cid, reason string) error {
	u := c.base.JoinPath(adsPath, ad.String(), "skip")
	query := u.Query()
	query.Set("publisher", publisher.String())
	query.Set("reason", reason)
	u.RawQuery = query.Encode()
	return c.call(ctx, http.MethodPost, u, nil, nil)
}

var _ IngestOperator = (*Client)(nil)
