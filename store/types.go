package store

import (
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Position is the place of an advertisement in its publisher's chain. It
// strictly grows along the chain and may leave gaps; 0 means "none". Positions
// of different publishers are not comparable.
type Position uint64

// MaxPosition is the highest position an ad may have.
const MaxPosition Position = 1<<63 - 1

// Seq numbers the commits of one process run, from 1. It starts anew at every
// Open.
type Seq uint64

// AdRef names an advertisement and its place. Prev is undefined at the genesis
// of a chain.
type AdRef struct {
	Ad, Prev cid.Cid
	Pos      Position
}

// Ad is what the store must know of an advertisement to apply it. Provider,
// ContextID and Metadata may be anything for an ad committed with EffectNone
// and no ProviderUpdate, so that an undecodable ad can be recorded as rejected.
type Ad struct {
	AdRef
	Publisher, Provider peer.ID
	ContextID           []byte // at most MaxContextIDBytes
	Metadata            []byte // at most MaxMetadataBytes
}

// EffectKind says what an advertisement does to its record.
type EffectKind uint8

const (
	// EffectNone leaves the record alone: an address-only, superseded or
	// rejected ad.
	EffectNone EffectKind = iota
	// EffectContent adds what was Put, possibly nothing, and replaces the
	// metadata.
	EffectContent
	// EffectMetadata replaces the metadata of all multihashes of the record.
	EffectMetadata
	// EffectRemove removes the record: its metadata, all its multihashes and
	// the extended providers of its context.
	EffectRemove
)

// Verdict is what became of an advertisement.
type Verdict uint8

const (
	_ Verdict = iota
	// Pending: scanned, waiting to be applied.
	Pending
	// Applied: its effect is in the store.
	Applied
	// Superseded: a newer removal of its context was known, so it was passed over.
	Superseded
	// Rejected: permanently unusable; the reason is kept.
	Rejected
	// SkippedFrozen: met while frozen. Of a content ad only the metadata of a
	// record already held was replaced, its multihashes are not here; another
	// ad was about nothing that is held.
	SkippedFrozen
	// MarkedDone: counted as done by SetMark, not applied here; or its content is
	// held elsewhere (Takeover), and only the metadata of what is held here changed.
	MarkedDone
)

var verdictNames = [...]string{"unknown", "pending", "applied", "superseded", "rejected", "skipped-frozen", "marked-done"}

// String returns the verdict's name as logs and stories show it.
func (v Verdict) String() string {
	if int(v) >= len(verdictNames) {
		return verdictNames[0]
	}
	return verdictNames[v]
}

// Effect is what one advertisement does, decided by its caller.
type Effect struct {
	Kind    EffectKind
	Verdict Verdict // Applied, Superseded, Rejected or SkippedFrozen
	Reason  string  // why it was rejected or skipped; kept up to 1 KiB
	// Provider changes the registry entry of the ad's provider; nil leaves it
	// untouched.
	Provider *ProviderUpdate
	// HeldOnly, as on a frozen store, leaves alone what is not held: a record, a
	// provider or an extended set that is not there is not made. An ad whose
	// metadata or addresses were for such only is SkippedFrozen. It is implied by
	// that verdict.
	HeldOnly bool
}

// ProviderUpdate is the registry part of an advertisement.
type ProviderUpdate struct {
	Addrs          []string     // retrieval multiaddrs; empty: unchanged
	PublisherAddrs []string     // where the publisher was reached; empty: unchanged
	Time           time.Time    // when the ad was taken in; zero: now
	Extended       *ExtendedSet // nil: unchanged
}

// ExtendedSet is the set of extended providers of one context, or of the
// whole chain for the empty context ID. A set without providers and without
// Override removes the stored one. Publisher and Pos name the ad a stored set is
// from, as far as that is known; in what is to be stored they say nothing.
type ExtendedSet struct {
	Override  bool
	Providers []ExtendedProvider
	Publisher peer.ID
	Pos       Position
}

// ExtendedProvider also serves what the advertising provider serves. Empty
// Metadata means "as the matched record".
type ExtendedProvider struct {
	ID       peer.ID
	Addrs    []string
	Metadata []byte
}

// ContextualSet is the extended set of one context ID.
type ContextualSet struct {
	ContextID []byte
	ExtendedSet
}

// Progress tells how far a publisher's chain is applied.
//
//	every ad at or below Mark is done; Mark.Pos < Applied[i].Pos, Holes[i].Pos
type Progress struct {
	Mark     AdRef // newest ad of the contiguous prefix; Mark.Ad undefined: none
	MarkTime time.Time
	// Applied are ads above the mark that are done, ascending, at most
	// MaxListed of AppliedCount.
	Applied      []AdRef
	AppliedCount int
	// Holes are ads above the mark known but not done, ascending, at most
	// MaxListed of Pending.
	Holes   []AdRef
	Pending int
	// Scans are the walks that have not come to a known ad, newest first, at
	// most MaxListed.
	Scans []Scan
}

// MaxListed bounds the lists of a Progress: what is above is only counted.
const MaxListed = 1000

// AdState is what the ledger knows of one advertisement.
type AdState struct {
	Publisher peer.ID
	Pos       Position
	Verdict   Verdict
	Reason    string
	Time      time.Time // of the last change; zero for MarkedDone by a mark set above it
	Trouble   Trouble   // what keeps an ad that waits to be applied from it
	Durable   bool      // this state survives power loss
}

// Indexed tells whether the ad's content is served from this store.
func (a AdState) Indexed() bool { return a.Verdict == Applied }

// Value is one answer of Find: the record a multihash belongs to. Publisher
// and Pos name the ad that wrote the metadata.
type Value struct {
	Provider            peer.ID
	ContextID, Metadata []byte
	Publisher           peer.ID
	Pos                 Position
}

// Provider is a registry entry.
type Provider struct {
	ID         peer.ID
	Addrs      []string
	LastAd     cid.Cid
	LastAdTime time.Time
	// Publisher published LastAd; PublisherAddrs, FrozenAt and the last error
	// are that publisher's.
	Publisher      peer.ID
	PublisherAddrs []string
	Extended       *ExtendedSet    // of the whole chain; nil if none
	Contextual     []ContextualSet // at most MaxListed
	FrozenAt       cid.Cid         // publisher's durable contiguous mark at Freeze; undefined if not frozen or none
	FrozenAtTime   time.Time
	LastError      string
	LastErrorTime  time.Time
}
