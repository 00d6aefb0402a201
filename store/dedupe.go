package store

import (
	"encoding/binary"
	"sync"

	"github.com/signpost-index/signpost/store/postings"
)

// putBuffer is what a Put needs for a moment, used again by the next of any ad.
type putBuffer struct {
	hs    []postings.Hash
	table []uint32
}

var putBuffers = sync.Pool{New: func() any { return new(putBuffer) }}

// putBufferKeeps bounds the buffers kept, in hashes: several chunks' worth.
const putBufferKeeps = 1 << 17

func (b *putBuffer) release() {
	if cap(b.hs) <= putBufferKeeps {
		putBuffers.Put(b)
	}
}

// dedupe moves the distinct hashes of hs to its front, in their order, and
// returns them, so that counts of postings are true. table is an
// open-addressing table of indexes plus one.
func (b *putBuffer) dedupe() []postings.Hash {
	hs := b.hs
	size := 16
	for size < 2*len(hs) {
		size *= 2
	}
	if len(b.table) < size {
		b.table = make([]uint32, size)
	}
	t := b.table[:size]
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
	return hs[:n]
}
