package store

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// aliveSet knows the record IDs whose postings still mean something, for
// compactions to drop the others: one bit an ID, in pages, as IDs are dense.
//
// An ID is alive from before its first posting. It is dead only once its
// removal is durable: a removal that a power loss undoes must not have cost
// postings.
//
// Compactions ask for every entry they pass, so asking takes no lock: pages
// are found through a directory that is replaced as it grows.
type aliveSet struct {
	mu  sync.Mutex // one change at a time
	dir atomic.Pointer[[]atomic.Pointer[alivePage]]
}

const alivePageBits = 1 << 15

type alivePage struct {
	bits [alivePageBits / 64]atomic.Uint64
	n    int // of bits set; guarded by mu
}

func (a *aliveSet) has(id uint64) bool {
	p := a.page(id / alivePageBits)
	return p != nil && p.bits[id%alivePageBits/64].Load()&(1<<(id%64)) != 0
}

func (a *aliveSet) page(number uint64) *alivePage {
	dir := a.dir.Load()
	if dir == nil || number >= uint64(len(*dir)) {
		return nil
	}
	return (*dir)[number].Load()
}

func (a *aliveSet) add(id uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	number := id / alivePageBits
	p := a.page(number)
	if p == nil {
		p = &alivePage{}
		a.grow(number)
		(*a.dir.Load())[number].Store(p)
	}
	if p.bits[id%alivePageBits/64].Or(1<<(id%64))&(1<<(id%64)) == 0 {
		p.n++
	}
}

// grow makes the directory reach the page. Who looks at the old one meanwhile
// finds the same pages.
func (a *aliveSet) grow(number uint64) {
	var old []atomic.Pointer[alivePage]
	if dir := a.dir.Load(); dir != nil {
		old = *dir
	}
	if number < uint64(len(old)) {
		return
	}
	dir := make([]atomic.Pointer[alivePage], max(number+1, uint64(2*len(old))))
	for i := range old {
		dir[i].Store(old[i].Load())
	}
	a.dir.Store(&dir)
}

func (a *aliveSet) remove(ids []uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, id := range ids {
		p := a.page(id / alivePageBits)
		if p == nil {
			continue
		}
		if p.bits[id%alivePageBits/64].And(^(uint64(1)<<(id%64)))&(1<<(id%64)) != 0 {
			if p.n--; p.n == 0 {
				(*a.dir.Load())[id/alivePageBits].Store(nil)
			}
		}
	}
}

// load reads the owner rows.
func (a *aliveSet) load(r pebble.Reader) error {
	var ids idAllocator
	if err := ids.load(r); err != nil {
		return err
	}
	return scanPrefix(r, []byte{prefixOwner}, func(k, _ []byte) error {
		rd := keyReader(prefixOwner, k)
		id := rd.uint64()
		if err := rd.done("key"); err != nil {
			return err
		}
		if id >= ids.reserved {
			return fmt.Errorf("record ID %d was not handed out: %w", id, ErrCorrupt)
		}
		a.add(id)
		return nil
	})
}
