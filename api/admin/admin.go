// Package admin is the admin API of an indexer: how an assigner, or a person,
// asks what an indexer is doing and tells it what to do.
//
// [Indexer] is the seam: an indexer implements it, and so does the HTTP
// [Client], so that whoever drives indexers need not know whether they are in
// the same process. [NewHandler] serves one. Paths, codes and texts are those
// of storetheindex, so that its assigner can drive our indexers and ours can
// drive its; our answers add the header X-Signpost-Error with the kind of an
// error, by which errors.Is works the same on both sides of the wire.
//
// [Operator] is what a person asks of one node's store: its size and garbage,
// compaction, checks, removing a provider. [Registry] is whom a node knows and
// takes content from: its policy, its publishers and how they are polled.
// [Node] is the node as a whole: how loaded and how full it is, and thawing it.
// [RoleKeeper] is what our assigner needs beyond the reference: which part of
// which chain an indexer owns or holds, and moving that. [Snapshotter] lends out
// checkpoints of a node's store.
//
// Who may ask is decided where the API is served: a bearer token, or a
// loopback listener that web pages cannot reach ([HandlerConfig],
// [CheckListen]).
//
// The pool file, one indexer a line, which assigner and frontend both read,
// is read here too ([ReadPoolLines]).
//
// Sentinels a caller may test for: ErrNotAssigner, ErrAlreadyAssigned,
// ErrNotAssigned, ErrNotAllowed, ErrFrozen, ErrFreezeDisabled, ErrDiskFull,
// ErrSyncRunning, ErrBusy, ErrNotFound, ErrBadRequest, ErrUnavailable,
// ErrNotSupported, ErrRefused, ErrUnauthorized.
package admin

import (
	"context"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

// Indexer is an indexer as an assigner sees it. It is safe for concurrent use.
// Errors match the sentinels of this package.
type Indexer interface {
	// Status says who the indexer is and how full.
	Status(ctx context.Context) (Status, error)
	// Assigned lists the publishers this indexer follows. ErrNotAssigner if
	// it follows whom it likes.
	Assigned(ctx context.Context) ([]Assignment, error)
	// Preferred lists the publishers it has data of without being assigned to
	// them. ErrNotAssigner as above.
	Preferred(ctx context.Context) ([]peer.ID, error)
	// Assign makes it follow publisher, and has stored that when it returns.
	// It starts no sync: an announce does. ErrAlreadyAssigned, ErrNotAllowed,
	// ErrFrozen, ErrNotAssigner.
	Assign(ctx context.Context, publisher peer.ID) error
	// Unassign makes it no longer follow publisher; its data stay.
	// ErrNotAssigned, ErrNotAssigner.
	Unassign(ctx context.Context, publisher peer.ID) error
	// Handoff makes it follow publisher from where a frozen indexer stopped.
	// ErrAlreadyAssigned, ErrNotAllowed, ErrNotAssigner, ErrNotFound if the
	// frozen indexer does not know publisher, ErrUnavailable if it cannot be
	// asked. After an error it can be repeated.
	Handoff(ctx context.Context, publisher peer.ID, h Handoff) error
	// Freeze makes it store no more multihashes, until it is unfrozen. Freezing a frozen
	// indexer is no error. ErrFreezeDisabled.
	Freeze(ctx context.Context) error
	// Sync starts a sync of publisher's chain and returns. ErrSyncRunning if
	// one asked for in this way is running.
	Sync(ctx context.Context, publisher peer.ID, o SyncOptions) error
	// Syncs lists the publishers with a running sync that was asked for by
	// Sync.
	Syncs(ctx context.Context) ([]peer.ID, error)
}

// Status is the state of an indexer.
type Status struct {
	// Frozen indexers store no new multihashes and take no assignments.
	Frozen bool
	// ID is the indexer's own peer ID.
	ID peer.ID
	// Usage is the part of the file system in use, percent from 0 to 100, and
	// -1 if unknown.
	Usage float64
	// Capabilities names what this indexer can do beyond the reference.
	Capabilities []string `json:",omitempty"`
}

// Assignment is a publisher an indexer follows. Continued is the frozen
// indexer it was taken over from, if it was.
type Assignment struct {
	Publisher peer.ID
	Continued peer.ID `json:",omitempty"`
}

// Handoff names the indexer to take over from: its peer ID and the base URL of
// its find API.
type Handoff struct {
	FrozenID  peer.ID
	FrozenURL string
}

// SyncOptions is how far a sync goes and where.
type SyncOptions struct {
	// Addr is where the publisher is to be found; nil is where it was last.
	Addr multiaddr.Multiaddr
	// Depth is the number of advertisements to go back at most: 0 for the
	// indexer's own limit, -1 for none.
	Depth int
	// Resync works through advertisements that were applied before, too.
	Resync bool
}
