package keyset

import (
	"math/bits"
	"slices"
	"sync/atomic"
)

// table is a hash table of values. One writer at a time; readers take no lock.
type table struct {
	slots []atomic.Uint64 // value + 1, 0: free
	n     atomic.Int64
}

func newTable(values int) *table {
	return &table{slots: make([]atomic.Uint64, 1<<bits.Len(uint(2*values-1)))}
}

// slot is where a value's search begins. Values of keyed hashes are even at
// random, but only in all of the space.
func (t *table) slot(v uint64) uint64 {
	return (v * 0x9e3779b97f4a7c15) >> (65 - bits.Len(uint(len(t.slots))))
}

func (t *table) has(v uint64) bool {
	for i := t.slot(v); ; i = (i + 1) & uint64(len(t.slots)-1) {
		switch t.slots[i].Load() {
		case v + 1:
			return true
		case 0:
			return false
		}
	}
}

// add puts a value in; there is room as long as half of the slots are free.
func (t *table) add(v uint64) {
	for i := t.slot(v); ; i = (i + 1) & uint64(len(t.slots)-1) {
		switch t.slots[i].Load() {
		case v + 1:
			return
		case 0:
			t.slots[i].Store(v + 1)
			t.n.Add(1)
			return
		}
	}
}

func (t *table) full() bool { return 2*t.n.Load() >= int64(len(t.slots)) }

// values are all, ascending.
func (t *table) values() []uint64 {
	vs := make([]uint64, 0, t.n.Load())
	for i := range t.slots {
		if v := t.slots[i].Load(); v != 0 {
			vs = append(vs, v-1)
		}
	}
	slices.Sort(vs)
	return vs
}
