package keyset

import (
	"sync"
	"sync/atomic"
)

// Set is a set that grows. Any number of goroutines may ask it while it is
// changed.
//
// New values go into a table; a full one is united with the parts of mid, and a
// part of mid that is an eighth of its part of base with that. A value is where
// it goes to before it is gone where it was, and Has looks in that order.
type Set struct {
	space Space
	table atomic.Pointer[table]
	mid   [Regions]atomic.Pointer[Part]
	base  [Regions]atomic.Pointer[Part]

	mu sync.Mutex // of what changes it
}

// Sizes of tables, in values: a 128th of the set.
const (
	leastTable = 1 << 12
	mostTable  = 1 << 22
)

// New is an empty set.
func New(space Space) *Set {
	s := &Set{space: space}
	s.table.Store(newTable(leastTable))
	return s
}

// Space is that of the set.
func (s *Set) Space() Space { return s.space }

// Has tells whether a key may be in the set; false: it was not added.
func (s *Set) Has(key uint64) bool {
	v := s.space.Value(key)
	if s.table.Load().has(v) {
		return true
	}
	region, at := s.space.Split(v)
	return s.mid[region].Load().Has(at) || s.base[region].Load().Has(at)
}

// Add puts keys in.
func (s *Set) Add(keys []uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.table.Load()
	for _, key := range keys {
		if t.full() {
			s.spill(t)
			t = newTable(int(min(max(s.Len()/128, leastTable), mostTable)))
			s.table.Store(t)
		}
		t.add(s.space.Value(key))
	}
}

// AddPart puts in all that a part of a region has.
func (s *Set) AddPart(region int, p *Part) {
	s.mu.Lock()
	defer s.mu.Unlock()
	base := s.base[region].Load()
	if base == nil {
		s.base[region].Store(p)
	} else {
		s.base[region].Store(Merge(base, p.AppendValues(nil), s.space.Width()))
	}
}

// spill moves what a table has to mid, and on to base. The caller holds mu.
func (s *Set) spill(t *table) {
	values := t.values()
	width := s.space.Width()
	var offsets []uint64
	for len(values) > 0 {
		region, _ := s.space.Split(values[0])
		first := uint64(region) * width
		n := 0
		offsets = offsets[:0]
		for n < len(values) && values[n]-first < width {
			offsets = append(offsets, values[n]-first)
			n++
		}
		values = values[n:]
		mid := Merge(s.mid[region].Load(), offsets, width)
		s.mid[region].Store(mid)
		if base := s.base[region].Load(); mid.Len() > base.Len()/8 {
			s.base[region].Store(Merge(base, mid.AppendValues(nil), width))
			s.mid[region].Store(nil)
		}
	}
}

// Len is the number of values, some counted twice.
func (s *Set) Len() (n uint64) {
	for r := range Regions {
		n += s.mid[r].Load().Len() + s.base[r].Load().Len()
	}
	return n + uint64(s.table.Load().n.Load())
}

// Bytes is the memory the set takes.
func (s *Set) Bytes() (n uint64) {
	for r := range Regions {
		n += s.mid[r].Load().Bytes() + s.base[r].Load().Bytes()
	}
	return n + 8*uint64(len(s.table.Load().slots))
}
