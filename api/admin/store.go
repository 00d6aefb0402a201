package admin

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api"
)

// Paths of what an operator asks of a node's store. /removeprovider/ is the
// reference's, the others are ours.
const (
	StorePath      = "/signpost/v1/store"
	StoreJobPath   = "/signpost/v1/store/" // and the kind of job
	reindexPath    = "/signpost/v1/store/reindex"
	markWholePath  = "/signpost/v1/store/mark-whole"
	removeProvider = "/removeprovider/"
)

// Operator is a node's store as its operator sees it: the node itself, and the
// Client. It is safe for concurrent use.
type Operator interface {
	// Store says how large the store is, and what of it is garbage.
	Store(ctx context.Context) (StoreStatus, error)
	// StartJob starts work on the whole store and returns; Store tells how it
	// goes. ErrBusy if a job is running, ErrBadRequest for an unknown kind.
	StartJob(ctx context.Context, kind JobKind) error
	// Reindex starts a sync of every publisher that applies all ads again, for
	// what a repair has lost; NodeStatus.Reindexing tells when that is done. It is on
	// disk when Reindex returns nil. It can be repeated at any time: then what was
	// done of it is done once more. ErrFrozen.
	Reindex(ctx context.Context) (Reindexed, error)
	// MarkWhole ends that lookups answer with an error where postings were lost
	// and nothing is found. ErrBusy while a sync that was asked for is running,
	// unless force is set.
	MarkWhole(ctx context.Context, force bool) error
	// RemoveProvider removes a provider's entry and all its content. It is done
	// when it returns; space on disk comes back later. ErrNotFound.
	RemoveProvider(ctx context.Context, provider peer.ID) error
}

// JobKind names work on the whole store.
type JobKind string

const (
	// JobCompact gives back all space there is to be had and makes lookups read
	// one place.
	JobCompact JobKind = "compact"
	// JobCheck reads everything and names what is damaged.
	JobCheck JobKind = "check"
	// JobRepair takes damaged parts of the index away and names them.
	JobRepair JobKind = "repair"
)

// StoreStatus is the answer of GET /signpost/v1/store. Bytes are on disk.
type StoreStatus struct {
	Postings         uint64  // multihashes put and not removed
	Records          uint64  // (provider, context ID) pairs
	Garbage          uint64  // postings of removed records whose space is not back
	Multihashes      uint64  // distinct, estimated
	MultihashesError float64 // relative standard error of the estimate
	Bytes            StoreBytes
	RemovedProviders int       // whose records are not swept yet
	LostShare        float64   // part of all multihashes of which postings may be lost, 0 to 1
	Job              *StoreJob `json:",omitempty"` // running, or the last one
}

// StoreBytes are the bytes of a store by kind. Records and Ledger are estimated
// parts of Rows.
type StoreBytes struct {
	Total, Postings, Rows, Records, Ledger, Log, Obsolete int64
}

// StoreJob is a job that runs or has run.
type StoreJob struct {
	Kind    JobKind
	Started time.Time
	Ended   time.Time // zero while it runs
	Error   string    `json:",omitempty"` // why it failed
	Damages int       `json:",omitempty"` // found by a check, or repaired
	Damage  []string  `json:",omitempty"` // the first MaxDamage of them, one a line
}

// Reindexed says how many publishers are synced from their first ad, and how
// many were passed over: what was lost of these does not come back.
type Reindexed struct {
	Publishers int
	// PassedOver have ads here, and have no known address, are not assigned to this
	// node, or are closed here: they go on at others.
	PassedOver int
}

// MaxDamage is how many damages a StoreJob lists.
const MaxDamage = 100

// Running tells whether the job has not ended.
func (j *StoreJob) Running() bool { return j != nil && j.Ended.IsZero() }

// MarshalJSON leaves out the end of a job that runs.
func (j StoreJob) MarshalJSON() ([]byte, error) {
	type plain StoreJob
	return json.Marshal(struct {
		plain
		Ended *time.Time `json:",omitempty"`
	}{plain(j), nonZero(j.Ended)})
}

func nonZero(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// routeStore adds the endpoints of an Operator.
func (h *handler) routeStore(mux *http.ServeMux, op Operator) {
	mux.HandleFunc(StorePath, h.get(func(ctx context.Context) (any, error) { return op.Store(ctx) }))
	mux.HandleFunc(StoreJobPath, func(w http.ResponseWriter, r *http.Request) {
		if !api.Method(w, r, http.MethodPost) {
			return
		}
		if err := op.StartJob(r.Context(), JobKind(r.URL.Path[len(StoreJobPath):])); err != nil {
			h.fail(w, r, err)
			return
		}
		w.WriteHeader(http.StatusAccepted)
	})
	mux.HandleFunc(reindexPath, func(w http.ResponseWriter, r *http.Request) {
		if !api.Method(w, r, http.MethodPost) {
			return
		}
		done, err := op.Reindex(r.Context())
		if err != nil {
			h.fail(w, r, err)
			return
		}
		api.JSON(w, http.StatusAccepted, done)
	})
	mux.HandleFunc(markWholePath, h.do(http.MethodPost, func(r *http.Request) error {
		force, err := strconv.ParseBool(cmp.Or(r.URL.Query().Get("force"), "false"))
		if err != nil {
			return kindError{ErrBadRequest, "bad value for force: " + r.URL.Query().Get("force")}
		}
		return op.MarkWhole(r.Context(), force)
	}))
	mux.HandleFunc(removeProvider, h.do(http.MethodDelete, func(r *http.Request) error { return h.removeProvider(r, op) }))
}

// removeProvider removes a provider, and blocks it first if asked to, so that
// nothing of it comes back in between.
func (h *handler) removeProvider(r *http.Request, op Operator) error {
	provider, err := pathPeer(r)
	if err != nil {
		return err
	}
	block := false
	if text := r.URL.Query().Get("block"); text != "" {
		if block, err = strconv.ParseBool(text); err != nil {
			return kindError{ErrBadRequest, "bad value for block: " + text}
		}
	}
	if block {
		if h.cfg.Registry == nil {
			return kindError{ErrNotSupported, "this node cannot block a provider: remove it without block"}
		}
		if err := h.cfg.Registry.Block(r.Context(), provider); err != nil {
			return err
		}
	}
	return op.RemoveProvider(r.Context(), provider)
}

// Store asks for the size of the indexer's store.
func (c *Client) Store(ctx context.Context) (StoreStatus, error) {
	var status StoreStatus
	err := c.call(ctx, http.MethodGet, c.base.JoinPath(StorePath), nil, &status)
	return status, err
}

// StartJob starts work on the indexer's store.
func (c *Client) StartJob(ctx context.Context, kind JobKind) error {
	return c.call(ctx, http.MethodPost, c.base.JoinPath(StoreJobPath, string(kind)), nil, nil)
}

// Reindex makes the indexer apply all ads again.
func (c *Client) Reindex(ctx context.Context) (done Reindexed, err error) {
	err = c.call(ctx, http.MethodPost, c.base.JoinPath(reindexPath), nil, &done)
	return done, err
}

// MarkWhole makes the indexer forget that postings were lost.
func (c *Client) MarkWhole(ctx context.Context, force bool) error {
	u := c.base.JoinPath(markWholePath)
	if force {
		u.RawQuery = "force=true"
	}
	return c.call(ctx, http.MethodPost, u, nil, nil)
}

// RemoveProvider removes a provider from the indexer.
func (c *Client) RemoveProvider(ctx context.Context, provider peer.ID) error {
	return c.call(ctx, http.MethodDelete, c.base.JoinPath(removeProvider, provider.String()), nil, nil)
}

var _ Operator = (*Client)(nil)
