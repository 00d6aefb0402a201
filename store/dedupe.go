package store

import (
	"encoding/binary"

	"github.com/signpost-index/signpost/store/postings"
)

// dedupe moves the distinct hashes of hs to its front, in their order, and
// returns them, so that counts of postings are true. table is scratch,
// returned for the next call: an open-addressing table of indexes plus one.
func dedupe(hs []postings.Hash, table []uint32) ([]postings.Hash, []uint32) {
	size := 16
	for size < 2*len(hs) {
		size *= 2
	}
	if len(table) < size {
		table = make([]uint32, size)
	}
	t := table[:size]
	clear(t)
	mask := uint64(size - 1)
	n := 0
next:
	for i := range hs {
		for at := binary.LittleEndian.Uint64(hs[i][2:]) & mask; ; at = (at + 1) & mask {
			k := t[at]
			if k == 0 {
				hs[n] = hs[i]
				n++
				t[at] = uint32(n)
				continue next
			}
			if hs[k-1] == hs[i] {
				continue next
			}
		}
	}
	return hs[:n], table
}
