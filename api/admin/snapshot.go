package admin

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api"
)

// SnapshotPath is where checkpoints are begun; with / and an ID behind it, one of
// them is renewed and ended. It is ours.
const SnapshotPath = "/signpost/v1/snapshot"

// Snapshotter lends out checkpoints of a node's store: the node itself, and the
// Client. It is safe for concurrent use.
type Snapshotter interface {
	// BeginSnapshot makes a checkpoint and lends it to the caller, who renews the
	// loan before LeaseSeconds are over and ends it. ErrBusy while another is lent.
	BeginSnapshot(ctx context.Context) (Checkpoint, error)
	// RenewSnapshot begins the lease anew. ErrNotFound if it was over: the files are
	// gone then.
	RenewSnapshot(ctx context.Context, id string) error
	// EndSnapshot removes the checkpoint. ErrNotFound if that is done.
	EndSnapshot(ctx context.Context, id string) error
}

// Checkpoint is a copy of a node's store at one moment, for a program on the
// same machine. Files do not change; most are links to those of the store.
type Checkpoint struct {
	ID           string
	Dir          string // of the copy
	DataDir      string // of the node
	LeaseSeconds float64
	Time         time.Time // all that was committed before is in the copy
	Node         peer.ID
	Format       int    // number of the store's format
	Secret       string // tells index secrets apart, and nothing of them
	Postings     uint64
	Records      uint64
	Marks        []CheckpointMark `json:",omitempty"`
}

// CheckpointMark is an ad of a publisher of which, and of all older ones,
// nothing is to be done in the copy.
type CheckpointMark struct {
	Publisher peer.ID
	Ad        string
}

// routeSnapshot adds the endpoints of a Snapshotter.
func (h *handler) routeSnapshot(mux *http.ServeMux, s Snapshotter) {
	mux.HandleFunc(SnapshotPath, func(w http.ResponseWriter, r *http.Request) {
		if !api.Method(w, r, http.MethodPost) {
			return
		}
		c, err := s.BeginSnapshot(r.Context())
		if err != nil {
			h.fail(w, r, err)
			return
		}
		api.JSON(w, http.StatusOK, c)
	})
	mux.HandleFunc(SnapshotPath+"/", func(w http.ResponseWriter, r *http.Request) {
		if !api.Method(w, r, http.MethodPut, http.MethodDelete) {
			return
		}
		do := s.RenewSnapshot
		if r.Method == http.MethodDelete {
			do = s.EndSnapshot
		}
		if err := do(r.Context(), strings.TrimPrefix(r.URL.Path, SnapshotPath+"/")); err != nil {
			h.fail(w, r, err)
		}
	})
}

// BeginSnapshot makes the indexer lend a checkpoint.
func (c *Client) BeginSnapshot(ctx context.Context) (point Checkpoint, err error) {
	err = c.call(ctx, http.MethodPost, c.base.JoinPath(SnapshotPath), nil, &point)
	return point, err
}

// RenewSnapshot keeps a checkpoint for another while.
func (c *Client) RenewSnapshot(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodPut, c.base.JoinPath(SnapshotPath, id), nil, nil)
}

// EndSnapshot gives a checkpoint back.
func (c *Client) EndSnapshot(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodDelete, c.base.JoinPath(SnapshotPath, id), nil, nil)
}

var _ Snapshotter = (*Client)(nil)
