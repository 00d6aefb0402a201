// Package filter has frontends know what nodes do not have, so that a lookup asks
// those only that may have the key.
//
// A frontend that has the pool's index secret opens the keys of a node, reads them
// once, region by region, as a [keyset.Set], and follows what is put from then on:
//
//	frontend ── POST /signpost/v1/keys/open ─────────► node   epoch, from
//	         ── GET  /signpost/v1/keys/region ×256 ──►        a part of the set
//	         ── GET  /signpost/v1/keys/tail ─────────►        keys, and a lease
//	         ── GET  /signpost/v1/keys/tail … ───────►        (waits for keys)
//
// What it promises:
//
//   - [Filter.Lacks] is true only of a key that the node has not reported as
//     indexed: the node reports nothing before everybody with a lease has the keys
//     of it, and a frontend goes by a set only while its lease lasts, counted
//     from when it asked for it. One that cannot be heard is asked itself.
//   - A node that does not offer its keys, or has another secret, or whose set
//     finds no room, is asked itself always.
//   - Nothing of a multihash can be learnt from keys without the secret, and keys
//     are given to those only who have it.
package filter

import (
	"context"
	"errors"
	"time"

	"github.com/signpost-index/signpost/store/keyset"
)

// Paths, all on the find listener of a node.
const (
	openPath   = "/signpost/v1/keys/open"
	regionPath = "/signpost/v1/keys/region"
	tailPath   = "/signpost/v1/keys/tail"
)

// Prefix is what all paths begin with.
const Prefix = "/signpost/v1/keys/"

// mediaKeys is what regions and tails are sent as.
const mediaKeys = "application/octet-stream"

// Headers of a tail: for how long, in milliseconds, its reader may go by what it
// has, and where the next begins.
const (
	headerLease = "X-Signpost-Lease-Ms"
	headerNext  = "X-Signpost-Next"
)

// ErrGone: the node has not kept keys that are wanted. They have to be opened anew.
var ErrGone = errors.New("keys are gone")

// Opened is the answer of opening keys.
type Opened struct {
	Epoch   string // of this life of the node
	From    uint64 // where the tail begins
	Entries uint64 // about how many keys there are
}

// Source gives the keys of a node: store.Store.
type Source interface {
	// OpenKeys begins to keep what is put from now on for a follower.
	OpenKeys(ctx context.Context, follower string) (Opened, error)
	// ScanKeys calls fn with the keys of a region, ascending.
	ScanKeys(region int, fn func(key uint64)) error
	// FollowKeys waits a while for keys from a number on. ErrGone.
	FollowKeys(ctx context.Context, epoch, follower string, from uint64) (keys []uint64, lease time.Duration, err error)
}

// Ratio is how many values a set's space has for each key when it is made, and
// worstRatio how many there are when it is made anew: 1 in so many other keys
// is taken to be in it.
const (
	Ratio      = 128
	worstRatio = 50
)

// part is a region of a source as a part of a set.
func part(src Source, space keyset.Space, region int) (*keyset.Part, error) {
	var values []uint64
	err := src.ScanKeys(region, func(key uint64) {
		_, at := space.Split(space.Value(key))
		values = append(values, at)
	})
	return keyset.NewPart(values, space.Width()), err
}
