package postings

import (
	"math/bits"
	"runtime"
	"slices"
	"sync/atomic"
)

// memtable takes postings in until they are flushed. One writer at a time;
// readers take no lock: an entry is published by the atomic store of its
// partition's head.
type memtable struct {
	*arena
	partBits uint
	parts    []atomic.Uint64 // slab of the newest entries << 32 | number of entries
	slabs    uint32          // in use
	entries  int
	nIDs     uint32
	lastID   uint64
	readers  atomic.Int64
}

// shapeOf finds the number of partitions for an arena of so many bytes: up to
// 2^14, with some hundred entries each when full.
func shapeOf(bytes int64) (partBits uint, slabs int) {
	entries := max(bytes/12, 2048)
	partBits = min(14, max(4, uint(bits.Len64(uint64(entries/256)))))
	return partBits, int(entries/slabEntries) + 1<<partBits + 1
}

func newMemtable(a *arena, partBits uint) *memtable {
	return &memtable{arena: a, partBits: partBits, parts: make([]atomic.Uint64, 1<<partBits), slabs: 1}
}

// put adds postings until there is no room and returns how many it took.
func (m *memtable) put(id uint64, hs []Hash) int {
	if len(hs) == 0 {
		return 0
	}
	number, ok := m.number(id)
	if !ok {
		return 0
	}
	shift := 16 - m.partBits
	idBits := 32 - shift
	for i := range hs {
		top := uint32(hs[i].top())
		part := &m.parts[top>>shift]
		head := part.Load()
		slab, n := uint32(head>>32), uint32(head)
		at := n % slabEntries
		if at == 0 {
			if int(m.slabs) == len(m.prev) {
				m.entries += i
				return i
			}
			m.prev[m.slabs] = slab
			slab = m.slabs
			m.slabs++
		}
		e := slab*slabEntries + at
		m.low[e] = hs[i].low()
		m.high[e] = (top&(1<<shift-1))<<idBits | number
		part.Store(uint64(slab)<<32 | uint64(n+1))
	}
	m.entries += len(hs)
	return len(hs)
}

// number returns the small number that stands for the ID in this memtable.
func (m *memtable) number(id uint64) (uint32, bool) {
	if m.nIDs > 0 && m.lastID == id {
		return m.nIDs - 1, true
	}
	n := m.nIDs
	if int(n/idChunkSize) >= len(m.ids) || n == 1<<(16+m.partBits) {
		return 0, false
	}
	chunk := m.ids[n/idChunkSize].Load()
	if chunk == nil {
		chunk = new(idChunk)
		m.ids[n/idChunkSize].Store(chunk)
	}
	chunk[n%idChunkSize] = id
	m.nIDs, m.lastID = n+1, id
	return n, true
}

func (m *memtable) id(number uint32) uint64 {
	return m.ids[number/idChunkSize].Load()[number%idChunkSize]
}

// find appends the IDs of h to dst, in no order, repetitions included.
func (m *memtable) find(dst []uint64, h *Hash) []uint64 {
	shift := 16 - m.partBits
	idBits := 32 - shift
	top, low := uint32(h.top()), h.low()
	rest := top & (1<<shift - 1)
	head := m.parts[top>>shift].Load()
	slab, n := uint32(head>>32), uint32(head)
	for n > 0 {
		in := (n-1)%slabEntries + 1
		first := slab * slabEntries
		for i, l := range m.low[first : first+in] {
			if l != low {
				continue
			}
			if high := m.high[first+uint32(i)]; high>>idBits == rest {
				dst = append(dst, m.id(high&(1<<idBits-1)))
			}
		}
		n -= in
		slab = m.prev[slab]
	}
	return dst
}

// entry is a posting out of a memtable.
type entry struct {
	at  uint64 // the 64 bits of the hash after the partition's
	low uint64
	id  uint64
}

func (e entry) compare(f entry) int {
	switch {
	case e.at != f.at:
		if e.at < f.at {
			return -1
		}
		return 1
	case e.low != f.low:
		if e.low < f.low {
			return -1
		}
		return 1
	case e.id < f.id:
		return -1
	case e.id > f.id:
		return 1
	}
	return 0
}

// sorter keeps the buffers of sorted.
type sorter struct{ in, out []entry }

// sorted returns the entries of a partition in the order of hash and ID,
// without repetitions. They are valid until the next call.
func (s *sorter) sorted(m *memtable, part int) []entry {
	shift := 16 - m.partBits
	idBits := 32 - shift
	head := m.parts[part].Load()
	slab, n := uint32(head>>32), uint32(head)
	s.in = slices.Grow(s.in[:0], int(n))
	var counts [257]uint32
	for n > 0 {
		count := (n-1)%slabEntries + 1
		first := slab * slabEntries
		for i := first; i < first+count; i++ {
			high, low := m.high[i], m.low[i]
			at := low
			if shift > 0 {
				at = uint64(high>>idBits)<<(64-shift) | low>>shift
			}
			s.in = append(s.in, entry{at, low, m.id(high & (1<<idBits - 1))})
			counts[at>>56+1]++
		}
		n -= count
		slab = m.prev[slab]
	}
	return s.order(&counts)
}

// order is a pass of counting sort by the first byte, then insertion, or a
// general sort where one hash comes so often that insertion would be slow.
func (s *sorter) order(counts *[257]uint32) []entry {
	crowded := false
	for i := 1; i < len(counts); i++ {
		crowded = crowded || counts[i] > 64
		counts[i] += counts[i-1]
	}
	s.out = slices.Grow(s.out[:0], len(s.in))[:len(s.in)]
	for _, e := range s.in {
		b := e.at >> 56
		s.out[counts[b]] = e
		counts[b]++
	}
	if crowded {
		slices.SortFunc(s.out, entry.compare)
	} else {
		insertionSort(s.out)
	}
	return slices.Compact(s.out)
}

func insertionSort(es []entry) {
	for i := 1; i < len(es); i++ {
		e := es[i]
		j := i
		for ; j > 0 && e.compare(es[j-1]) < 0; j-- {
			es[j] = es[j-1]
		}
		es[j] = e
	}
}

// hash gives back the hash of an entry of a partition.
func (m *memtable) hash(part int, e entry) (h Hash) {
	shift := 16 - m.partBits
	top := uint16(part) << shift
	if shift > 0 {
		top |= uint16(e.at >> (64 - shift))
	}
	h[0], h[1] = byte(top>>8), byte(top)
	for i := range 8 {
		h[2+i] = byte(e.low >> (56 - 8*i))
	}
	return h
}

// drain waits for the readers that still look at a retired memtable. They
// hold it for microseconds and new ones do not come.
func (m *memtable) drain() {
	for m.readers.Load() > 0 {
		runtime.Gosched()
	}
}
