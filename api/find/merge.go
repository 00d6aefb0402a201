package find

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/multiformats/go-multiaddr"
)

// Merge makes one answer of results in any order and with any repetition:
// sorted by provider ID, context ID and metadata, each of these once, with the
// addresses of all its occurrences (see UnionAddrs), and without what is out of date:
// a result is left out if there is one of the same provider and context ID with a
// higher Position in the same chain. Those without a Position are all kept. The answer
// is the same whatever the order and the repetition, and whatever was united before:
// merge(a, unite(b, c)) = merge(c, b, a).
//
// results is reordered and reused; the providers it points to are not changed. What
// several chains say has no Position any more.
func Merge(results []ProviderResult) []ProviderResult {
	results = Unite(results)
	slices.SortStableFunc(results, func(a, b ProviderResult) int {
		return cmp.Or(
			cmp.Compare(a.Provider.ID, b.Provider.ID),
			bytes.Compare(a.ContextID, b.ContextID),
			bytes.Compare(a.Metadata, b.Metadata),
		)
	})
	merged := results[:0]
	for _, r := range results {
		if n := len(merged); n > 0 && sameIdentity(&merged[n-1], &r) {
			addAddrs(&merged[n-1], &r)
			merged[n-1].Position = Position{}
			continue
		}
		merged = append(merged, r)
	}
	clear(results[len(merged):])
	return merged
}

// UnionAddrs returns a, in its own order, if both lists are equal, and else
// all addresses of both, each once and sorted by their bytes. Neither list is
// changed. Folding it over lists gives the same result in every order.
func UnionAddrs(a, b []multiaddr.Multiaddr) []multiaddr.Multiaddr {
	if slices.EqualFunc(a, b, multiaddr.Multiaddr.Equal) {
		return a
	}
	union := slices.Concat(a, b)
	slices.SortFunc(union, func(x, y multiaddr.Multiaddr) int { return x.Compare(y) })
	return slices.CompactFunc(union, multiaddr.Multiaddr.Equal)
}

// identity is the record of r as a map key: provider, context ID and metadata,
// with the lengths that keep them apart.
func identity(r *ProviderResult) string {
	b := make([]byte, 0, 8+len(r.Provider.ID)+len(r.ContextID)+len(r.Metadata))
	b = binary.AppendUvarint(b, uint64(len(r.Provider.ID)))
	b = append(b, r.Provider.ID...)
	b = binary.AppendUvarint(b, uint64(len(r.ContextID)))
	b = append(b, r.ContextID...)
	return string(append(b, r.Metadata...))
}
