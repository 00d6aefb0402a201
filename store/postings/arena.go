package postings

import (
	"sync/atomic"
	"unsafe"
)

// slabEntries is the number of entries in a slab: small, as each partition
// leaves half a slab unused.
const slabEntries = 32

// heapArena is the size up to which an arena is on the Go heap. Larger ones
// are mapped, so that the collector neither scans them nor counts them as a
// reason to let the heap grow.
const heapArena = 4 << 20

// arena is the memory of one memtable, used again for the next one.
// An entry is 64 low bits of the hash in low, and in high the bits of the top
// 16 that the partition does not say, then the number of the ID.
type arena struct {
	low  []uint64
	high []uint32
	prev []uint32 // of each slab, the slab before it in its partition; 0 none
	ids  []atomic.Pointer[idChunk]
	free func()
}

const idChunkSize = 1 << 12

type idChunk [idChunkSize]uint64

// newArena makes room for entries in slabs. Slab 0 is not used.
func newArena(slabs int) (*arena, error) {
	entries := slabs * slabEntries
	size := entries*12 + slabs*4
	a := &arena{free: func() {}, ids: make([]atomic.Pointer[idChunk], entries/idChunkSize+1)}
	if size <= heapArena {
		a.low, a.high, a.prev = make([]uint64, entries), make([]uint32, entries), make([]uint32, slabs)
		return a, nil
	}
	mem, free, err := mapMemory(size)
	if err != nil {
		return nil, err
	}
	a.free = free
	a.low = unsafe.Slice((*uint64)(unsafe.Pointer(&mem[0])), entries)
	a.high = unsafe.Slice((*uint32)(unsafe.Pointer(&mem[entries*8])), entries)
	a.prev = unsafe.Slice((*uint32)(unsafe.Pointer(&mem[entries*12])), slabs)
	return a, nil
}
