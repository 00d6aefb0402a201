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
type arena struct {
	slabs []slab
	prev  []uint32 // of each slab, the slab before it in its partition; 0 none
	ids   []atomic.Pointer[idChunk]
	free  func()
}

// slab holds entries of one partition, in the order they came. An entry is 64
// low bits of the hash in low, and in high the bits of the top 16 that the
// partition does not say, then the number of the ID.
type slab struct {
	low  [slabEntries]uint64
	high [slabEntries]uint32
}

const idChunkSize = 1 << 12

type idChunk [idChunkSize]uint64

// newArena makes room for entries in slabs. Slab 0 is not used.
func newArena(slabs int) (*arena, error) {
	const slabBytes = int(unsafe.Sizeof(slab{}))
	size := slabs * (slabBytes + 4)
	a := &arena{free: func() {}, ids: make([]atomic.Pointer[idChunk], slabs*slabEntries/idChunkSize+1)}
	if size <= heapArena {
		a.slabs, a.prev = make([]slab, slabs), make([]uint32, slabs)
		return a, nil
	}
	mem, free, err := mapMemory(size)
	if err != nil {
		return nil, err
	}
	a.free = free
	a.slabs = unsafe.Slice((*slab)(unsafe.Pointer(&mem[0])), slabs)
	a.prev = unsafe.Slice((*uint32)(unsafe.Pointer(&mem[slabs*slabBytes])), slabs)
	return a, nil
}
