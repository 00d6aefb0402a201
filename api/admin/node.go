package admin

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api"
)

// Paths about a node as a whole, ours. Freezing has the reference's path,
// /freeze.
const (
	NodePath     = "/signpost/v1/node"
	unfreezePath = "/signpost/v1/unfreeze"
	holdPath     = "/signpost/v1/hold"
)

// Node is a node as a whole, as its operator and its assigner see it: the node
// itself, and the Client. It is safe for concurrent use.
type Node interface {
	// Node says how loaded the node is, how full, and whether and why it is
	// frozen.
	Node(ctx context.Context) (NodeStatus, error)
	// Unfreeze makes it take content again. What was skipped meanwhile it fetches,
	// but of publishers that were closed. Unfreezing a node that is not frozen is no error. ErrDiskFull if it
	// would freeze again at once.
	// ErrHeld as long as it is held.
	Unfreeze(ctx context.Context) error
	// Hold freezes the node, if it is not frozen, and has it stay so for a time from
	// now, at most MaxHold, whatever anybody asks and across restarts. A hold can be
	// made longer and not shorter: frontends do without a node that is held, as they
	// know that nothing comes to it. It is on disk when Hold returns nil.
	Hold(ctx context.Context, d time.Duration, reason string) error
}

// MaxHold is how long a node can be held by one request.
const MaxHold = time.Hour

// FrozenBy is what made a node freeze.
type FrozenBy string

const (
	// FrozenByPercent: a file system was used to FreezePercent.
	FrozenByPercent FrozenBy = "percent"
	// FrozenByFree: less was free than has to stay free.
	FrozenByFree FrozenBy = "free"
	// FrozenByQuota: the store had FreezePercent of its quota.
	FrozenByQuota FrozenBy = "quota"
	// FrozenByRequest: somebody asked for it.
	FrozenByRequest FrozenBy = "request"
	// FrozenByMaintenance: it is held, or was.
	FrozenByMaintenance FrozenBy = "maintenance"
)

// NodeStatus is the answer of GET /signpost/v1/node. Usage and disks are those
// of the last check, at most ten seconds ago.
type NodeStatus struct {
	ID      peer.ID
	Version string `json:",omitempty"` // of the program
	// Started is when this process of it began: another time, another process.
	Started time.Time `json:",omitzero"`
	Frozen  bool
	// HeldSeconds is for how long it cannot be unfrozen.
	HeldSeconds float64 `json:",omitzero"`
	// FrozenSince is when it was frozen, FrozenBy what made it so and FrozenWhy
	// the same in words; empty if it is not known.
	FrozenSince time.Time `json:",omitzero"`
	FrozenBy    FrozenBy  `json:",omitempty"`
	FrozenWhy   string    `json:",omitempty"`
	// FreezePercent is the usage at which it freezes; negative: never by itself.
	FreezePercent float64
	// Usage is the largest of the disks and the quota, percent; -1 if unknown.
	Usage float64
	// NearFreeze says that a tenth of the disk or ten minutes are left.
	NearFreeze bool
	// FreezeSeconds is the time until it freezes if it goes on growing as in the
	// last minute; absent if it does not grow.
	FreezeSeconds *float64 `json:",omitempty"`
	// Disks are the file systems it writes to, that of the data directory first.
	Disks []Disk
	// StoredBytes is what the store has on disk, QuotaBytes what it may; 0: no
	// quota.
	StoredBytes int64
	QuotaBytes  int64 `json:",omitzero"`
	// MultihashesPerSecond are those taken from entries, over the last minute.
	MultihashesPerSecond float64
	// Publishers are those with progress here, PendingAds the advertisements of
	// all of them that are known and not done.
	Publishers int
	PendingAds int
	// LostShare is the part of all multihashes of which postings may be lost to
	// damage, 0 to 1. Reindexing are the publishers whose ads are yet to be applied
	// again (Operator.Reindex); absent if the node does not know.
	LostShare  float64 `json:",omitzero"`
	Reindexing *int    `json:",omitempty"`
}

// Disk is a file system a node writes to, in bytes.
type Disk struct {
	Dirs       []string // the node's directories on it
	UsedBytes  uint64
	TotalBytes uint64
	FreeBytes  uint64 // what the node may still write
	// MinFreeBytes have to stay free, or the node freezes.
	MinFreeBytes uint64
	Usage        float64 // percent
	// GrowthBytesPerSecond is over the last minute; negative: it shrinks.
	GrowthBytesPerSecond float64
}

// routeNode adds the endpoints of a Node.
func (h *handler) routeNode(mux *http.ServeMux, n Node) {
	mux.HandleFunc(NodePath, h.get(func(ctx context.Context) (any, error) { return n.Node(ctx) }))
	mux.HandleFunc(unfreezePath, h.do(http.MethodPut, func(r *http.Request) error { return n.Unfreeze(r.Context()) }))
	mux.HandleFunc(holdPath, h.do(http.MethodPut, func(r *http.Request) error { return hold(n, r) }))
}

func hold(n Node, r *http.Request) error {
	text := r.URL.Query().Get("seconds")
	seconds, err := strconv.ParseFloat(text, 64)
	if err != nil || !(seconds > 0 && seconds <= MaxHold.Seconds()) {
		return fmt.Errorf("%w: seconds=%q: want a number above 0, at most %v", ErrBadRequest, text, MaxHold.Seconds())
	}
	reason := r.URL.Query().Get("reason")
	if len(reason) > maxHoldReason {
		return fmt.Errorf("%w: a reason of %d bytes, at most %d", ErrBadRequest, len(reason), maxHoldReason)
	}
	return n.Hold(r.Context(), time.Duration(seconds*float64(time.Second)), api.PlainText(reason, 0))
}

const maxHoldReason = 512

// Node asks for the state of the node.
func (c *Client) Node(ctx context.Context) (NodeStatus, error) {
	var status NodeStatus
	err := c.call(ctx, http.MethodGet, c.base.JoinPath(NodePath), nil, &status)
	return status, err
}

// Unfreeze makes the node take content again.
func (c *Client) Unfreeze(ctx context.Context) error {
	return c.call(ctx, http.MethodPut, c.base.JoinPath(unfreezePath), nil, nil)
}

// Hold has the node stay frozen for a time.
func (c *Client) Hold(ctx context.Context, d time.Duration, reason string) error {
	u := c.base.JoinPath(holdPath)
	u.RawQuery = url.Values{"seconds": {strconv.FormatFloat(d.Seconds(), 'f', -1, 64)}, "reason": {reason}}.Encode()
	return c.call(ctx, http.MethodPut, u, nil, nil)
}

var _ Node = (*Client)(nil)
