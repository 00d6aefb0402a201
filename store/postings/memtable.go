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
	heads    []uint64        // the same, as the writer has it
	used     uint32          // slabs in use
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
	return &memtable{arena: a, partBits: partBits, parts: make([]atomic.Uint64, 1<<partBits), heads: make([]uint64, 1<<partBits), used: 1}
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
	taken := 0
	for taken < len(hs) {
		batch := hs[taken:min(taken+putBatch, len(hs))]
		n := m.write(number, batch)
		m.publish(batch[:n])
		taken += n
		if n < len(batch) {
			break
		}
	}
	m.entries += taken
	return taken
}

// putBatch is the number of entries written before they are published. An
// atomic store waits for all stores before it, which mostly miss the caches,
// so one after each entry would have them wait for one another.
const putBatch = 1024

// write writes entries where no reader looks yet.
func (m *memtable) write(number uint32, hs []Hash) int {
	shift := 16 - m.partBits
	idBits := 32 - shift
	for i := range hs {
		top := uint32(hs[i].top())
		head := m.heads[top>>shift]
		at, n := uint32(head>>32), uint32(head)
		if n%slabEntries == 0 {
			if int(m.used) == len(m.prev) {
				return i
			}
			m.prev[m.used] = at
			at = m.used
			m.used++
		}
		s := &m.slabs[at]
		s.low[n%slabEntries] = hs[i].low()
		s.high[n%slabEntries] = (top&(1<<shift-1))<<idBits | number
		m.heads[top>>shift] = uint64(at)<<32 | uint64(n+1)
	}
	return len(hs)
}

// publish shows what was written of hs to readers.
func (m *memtable) publish(hs []Hash) {
	shift := 16 - m.partBits
	for i := range hs {
		part := uint32(hs[i].top()) >> shift
		m.parts[part].Store(m.heads[part])
	}
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
	at, n := uint32(head>>32), uint32(head)
	for n > 0 {
		in := (n-1)%slabEntries + 1
		s := &m.slabs[at]
		for i, l := range s.low[:in] {
			if l != low {
				continue
			}
			if high := s.high[i]; high>>idBits == rest {
				dst = append(dst, m.id(high&(1<<idBits-1)))
			}
		}
		n -= in
		at = m.prev[at]
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
type sorter struct {
	chain  []uint32 // slabs of the partition, the newest first
	places [1 << placeBits]uint32
	out    []entry
	sum    uint64
}

// placeBits is the number of bits entries are sorted by at once: about as many
// places as a full partition has entries.
const placeBits = 10

// sorted returns the entries of a partition in the order of hash and ID,
// without repetitions. They are valid until the next call. It is a pass of
// counting sort by the first bits, then insertion, or a general sort where one
// hash comes so often that insertion would be slow.
func (s *sorter) sorted(m *memtable, part int) []entry {
	s.gather(m, part)
	crowded := s.count(m, part)
	idMask := uint32(1)<<(16+m.partBits) - 1
	n := uint32(m.parts[part].Load())
	s.out = slices.Grow(s.out[:0], int(n))[:n]
	for _, at := range s.chain {
		in := (n-1)%slabEntries + 1
		from := &m.slabs[at]
		for i, low := range from.low[:in] {
			high := from.high[i]
			e := entry{m.place(low, high), low, m.id(high & idMask)}
			to := &s.places[e.at>>(64-placeBits)]
			s.out[*to] = e
			*to++
		}
		n -= in
	}
	if crowded {
		slices.SortFunc(s.out, entry.compare)
		return slices.Compact(s.out)
	}
	return insertionSort(s.out)
}

// gather finds the slabs of a partition and reads a word of each of their
// cache lines, as many misses at a time as the processor can have under way:
// the loops after it would wait for one after the other.
func (s *sorter) gather(m *memtable, part int) {
	const line = 64 / 8
	head := m.parts[part].Load()
	s.chain = s.chain[:0]
	for at, n := uint32(head>>32), uint32(head); n > 0; at = m.prev[at] {
		s.chain = append(s.chain, at)
		n -= (n-1)%slabEntries + 1
	}
	for _, at := range s.chain {
		b := &m.slabs[at]
		s.sum += b.low[0] + b.low[line] + b.low[2*line] + b.low[3*line] + uint64(b.high[0]+b.high[2*line])
	}
}

// place gives the 64 bits of an entry's hash after the partition's.
func (m *memtable) place(low uint64, high uint32) uint64 {
	shift := 16 - m.partBits // 2 to 12
	return uint64(high)>>((32-shift)&63)<<((64-shift)&63) | low>>(shift&63)
}

// count finds where the entries of a partition begin for each place, and
// whether there is one that many have.
func (s *sorter) count(m *memtable, part int) (crowded bool) {
	clear(s.places[:])
	n := uint32(m.parts[part].Load())
	for _, at := range s.chain {
		in := (n-1)%slabEntries + 1
		from := &m.slabs[at]
		for i, low := range from.low[:in] {
			s.places[m.place(low, from.high[i])>>(64-placeBits)]++
		}
		n -= in
	}
	sum, most := uint32(0), uint32(0)
	for i, n := range s.places {
		most = max(most, n)
		s.places[i] = sum
		sum += n
	}
	return most > 64
}

// insertionSort sorts entries that are nearly in order and leaves out
// repetitions.
func insertionSort(es []entry) []entry {
	repeated := false
	for i := 1; i < len(es); i++ {
		if es[i-1].at < es[i].at {
			continue
		}
		e := es[i]
		j := i
		for ; j > 0; j-- {
			c := e.compare(es[j-1])
			repeated = repeated || c == 0
			if c >= 0 {
				break
			}
			es[j] = es[j-1]
		}
		es[j] = e
	}
	if repeated {
		return slices.Compact(es)
	}
	return es
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
