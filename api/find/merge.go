package find

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

// Merge makes one answer of results in any order and with any repetition:
// sorted by provider ID, context ID and metadata, each of these once, with the
// addresses of all its occurrences (see UnionAddrs). The answer is the same
// whatever the order, the repetition and the grouping of what was merged
// before: merge(a, merge(b, c)) = merge(merge(a, b), c) = merge(c, b, a).
//
// results is reordered and reused; the providers it points to are not changed.
func Merge(results []ProviderResult) []ProviderResult {
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
			last := &merged[n-1]
			if !slices.EqualFunc(last.Provider.Addrs, r.Provider.Addrs, multiaddr.Multiaddr.Equal) {
				last.Provider = &peer.AddrInfo{
					ID:    r.Provider.ID,
					Addrs: UnionAddrs(last.Provider.Addrs, r.Provider.Addrs),
				}
			}
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
