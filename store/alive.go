package store

import (
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// aliveSet knows the record IDs whose postings still mean something, for
// compactions to drop the others: one bit an ID, in pages, as IDs are dense.
//
// An ID is alive from before its first posting. It is dead only once its
// removal is durable: a removal that a power loss undoes must not have cost
// postings.
type aliveSet struct {
	mu    sync.RWMutex
	pages map[uint64]*alivePage
}

const alivePageBits = 1 << 15

type alivePage struct {
	bits [alivePageBits / 64]uint64
	n    int
}

func (a *aliveSet) has(id uint64) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	p := a.pages[id/alivePageBits]
	return p != nil && p.bits[id%alivePageBits/64]&(1<<(id%64)) != 0
}

func (a *aliveSet) add(id uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.pages[id/alivePageBits]
	if p == nil {
		p = &alivePage{}
		if a.pages == nil {
			a.pages = make(map[uint64]*alivePage)
		}
		a.pages[id/alivePageBits] = p
	}
	if w := &p.bits[id%alivePageBits/64]; *w&(1<<(id%64)) == 0 {
		*w |= 1 << (id % 64)
		p.n++
	}
}

func (a *aliveSet) remove(ids []uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, id := range ids {
		p := a.pages[id/alivePageBits]
		if p == nil {
			continue
		}
		if w := &p.bits[id%alivePageBits/64]; *w&(1<<(id%64)) != 0 {
			*w &^= 1 << (id % 64)
			if p.n--; p.n == 0 {
				delete(a.pages, id/alivePageBits)
			}
		}
	}
}

// load reads the owner rows; what was known before is forgotten.
func (a *aliveSet) load(r pebble.Reader) error {
	a.mu.Lock()
	a.pages = nil
	a.mu.Unlock()
	return scanPrefix(r, []byte{prefixOwner}, func(k, _ []byte) error {
		rd := keyReader(prefixOwner, k)
		id := rd.uint64()
		if err := rd.done("key"); err != nil {
			return err
		}
		a.add(id)
		return nil
	})
}
