package admin

import (
	"context"
	"encoding/json"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Role is what an indexer is to a publisher.
type Role string

const (
	// RoleOwner takes new ads. A frozen indexer keeps the role and takes nothing.
	RoleOwner Role = "owner"
	// RoleHolder keeps a part of the publisher's ads: it applies removals and
	// updates to what it holds, answers lookups, and takes nothing new.
	RoleHolder Role = "holder"
)

// MaxBatch is how many publishers one call of a RoleKeeper names at most, and
// MaxOfferedAds how many ads an Offer lists.
const (
	MaxBatch      = 256
	MaxOfferedAds = 1024
)

// Range is a part of a publisher's chain: the ads after From, up to and with
// To. Both are CIDs as text. From empty: from the genesis on. To empty: up to
// the newest, and growing.
type Range struct {
	From string `json:",omitempty"`
	To   string `json:",omitempty"`
}

// PublisherRole is what an indexer is to one publisher, and what it holds.
type PublisherRole struct {
	Publisher peer.ID
	Role      Role
	Since     time.Time // of the role
	// Continued is the indexer its last range was taken over from.
	Continued peer.ID `json:",omitempty"`
	// Ranges are what it holds, the oldest first. One may begin where the one
	// before ends: it was closed there. The last has no To as long as
	// the indexer owns the publisher and is not frozen.
	Ranges []Range
	// Mark is the newest ad with nothing undone at or below it, on disk. Height
	// counts the ads at or below, those of indexers it went on from included.
	Mark   string `json:",omitempty"`
	Height uint64
	// Of an owner that is frozen both are of when the latch fell. Top is the height
	// up to which another has to be to have all this one has, if that is above, and
	// Unsure says that it is not known yet.
	Top    uint64 `json:",omitzero"`
	Unsure bool   `json:",omitzero"`
	// Pending are ads that are known and not done: the lag. Gaps are places where
	// the chain breaks off.
	Pending int
	Gaps    int `json:",omitzero"`
	// LeansOn are indexers that have the content of ads within its ranges, which
	// it has not: they were applied there above the ad it went on from. A backfill
	// ends that.
	LeansOn []peer.ID `json:",omitempty"`
	// Filling says that it fetches what it lacks (Backfill).
	Filling bool `json:",omitzero"`
	// MultihashesPerSecond are those taken from entries while the publisher was
	// owned and followed as it publishes, a mean over the last twelve hours that
	// fades; RateWeight, 0 to 1, is how much of that time, faded alike, that was so.
	// Multihashes are those since the indexer was set up.
	MultihashesPerSecond float64
	RateWeight           float64
	Multihashes          uint64
	LastError            string `json:",omitempty"`
}

// Roles is the answer of GET /signpost/v1/roles.
type Roles struct {
	// Version changes whenever a role or a range does, not with progress.
	Version    string
	Publishers []PublisherRole // by publisher
}

// Offer is what the indexer that goes on with a publisher has to know.
type Offer struct {
	Publisher peer.ID
	Addrs     []string `json:",omitempty"` // where the publisher is reached
	// Mark is where to go on: everything up to it is here. Empty: nothing is, and
	// the whole chain is new. Height is that of PublisherRole.
	Mark   string `json:",omitempty"`
	Height uint64
	// Chain and ChainHeight are the place of Mark, as far as it is known: the same
	// on all indexers (find.Position).
	Chain       []byte `json:",omitempty"`
	ChainHeight uint64 `json:",omitzero"`
	// Applied are ads above Mark whose content is here, at most MaxOfferedAds:
	// they need not be stored twice.
	Applied []string `json:",omitempty"`
	// Providers are the publisher's, each as GET /providers shows it.
	Providers []json.RawMessage `json:",omitempty"`
	// Error says why this publisher cannot be offered; the rest is empty then.
	Error string `json:",omitempty"`
}

// TakeOver tells an indexer to go on with publishers where From stopped.
type TakeOver struct {
	From   peer.ID
	Offers []Offer // at most MaxBatch
}

// Outcome is what became of one publisher of a batch. Error is empty if it is
// done.
type Outcome struct {
	Publisher peer.ID
	Error     string `json:",omitempty"`
}

// PoolMap is what an assigner leaves at the indexers: who had which publisher
// when it looked last. It is a hint, by which a restarted assigner tells a new
// publisher from one that lives on an indexer that is down.
type PoolMap struct {
	Version  uint64 // grows
	Time     time.Time
	Assigner peer.ID `json:",omitempty"`
	Members  []MappedMember
}

// MappedMember is one indexer of a PoolMap.
type MappedMember struct {
	ID         peer.ID
	Admin      string // base URL of its admin API
	Frozen     bool   `json:",omitzero"`
	Draining   bool   `json:",omitzero"` // an operator wished it empty
	Publishers []MappedPublisher
}

// MappedPublisher is what an indexer was to a publisher.
type MappedPublisher struct {
	Publisher peer.ID
	Role      Role
	Continued peer.ID `json:",omitempty"`
	Ranges    []Range
	LeansOn   []peer.ID `json:",omitempty"`
}

// Coverage is the answer of GET /signpost/v1/coverage: what of which chain an
// indexer owns or holds, and when that was so.
type Coverage struct {
	ID      peer.ID
	Version string // as in Roles
	AsOf    time.Time
	Frozen  bool
	// HeldSeconds is for how long from AsOf it stays frozen, whatever anybody asks
	// and whether it runs or not (Node.Hold).
	HeldSeconds float64            `json:",omitzero"`
	Publishers  []CoveredPublisher // by publisher
}

// CoveredPublisher is what is held of one publisher's chain.
type CoveredPublisher struct {
	Publisher peer.ID
	Role      Role
	Ranges    []Range
	// Mark is the newest ad with nothing undone at or below it, in Ranges; Height
	// counts the ads of the whole chain up to it. Gaps are ads, or the tops of
	// missing stretches of the chain, that are not held, at most MaxOfferedAds;
	// More says that there are others.
	Mark   string `json:",omitempty"`
	Height uint64 `json:",omitzero"`
	// Top, of a frozen owner, is the height up to which another has to be to have
	// all this one has, if that is above Height.
	Top  uint64   `json:",omitzero"`
	Gaps []string `json:",omitempty"`
	More bool     `json:",omitzero"`
	// Lacks are ads within Ranges whose content only another indexer has; Also
	// are ads after Ranges whose content is here, as another indexer lacks them.
	Lacks []Lack   `json:",omitempty"`
	Also  []string `json:",omitempty"`
}

// Lack names ads whose content one other indexer has.
type Lack struct {
	Indexer peer.ID
	Ads     []string
}

// RoleKeeper is what an indexer of ours lets an assigner do besides Indexer: the
// indexer itself, and the Client. Batches name at most MaxBatch publishers; an
// error is about the whole batch, outcomes are in its order. All calls can be
// repeated. It is safe for concurrent use.
type RoleKeeper interface {
	// Roles returns nil if the version is still the given one.
	Roles(ctx context.Context, version string) (*Roles, error)
	// Close makes the indexer a holder of publishers it owns: from then on it
	// takes none of their new content. It returns, also for those it holds
	// already, what who goes on with them must know, on disk before.
	Close(ctx context.Context, publishers []peer.ID) ([]Offer, error)
	// TakeOver makes it the owner of publishers that another has closed.
	TakeOver(ctx context.Context, t TakeOver) ([]Outcome, error)
	// Open makes it the owner of publishers it holds, or of new ones: what it
	// left out meanwhile it fetches.
	Open(ctx context.Context, publishers []peer.ID) ([]Outcome, error)
	// Backfill has it fetch ads older than its ranges, down to the genesis, and
	// those it leans on others for, in the background.
	Backfill(ctx context.Context, publishers []peer.ID) ([]Outcome, error)
	// Release makes it neither owner nor holder, and removes what it holds.
	Release(ctx context.Context, publishers []peer.ID) ([]Outcome, error)
	// Coverage says what it owns and holds.
	Coverage(ctx context.Context) (Coverage, error)
	// PoolMap is what was last left here, or ErrNotFound; SetPoolMap replaces an
	// older version and leaves a newer one.
	PoolMap(ctx context.Context) (PoolMap, error)
	SetPoolMap(ctx context.Context, m PoolMap) error
}
