package store

import (
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// deadSet knows the record IDs that were removed and whose postings may still
// be there, for lookups to pass over and compactions to drop: one bit an ID, in
// pages. Reading takes no lock.
//
// An ID is dead only once its removal is durable: a removal that a power loss
// undoes must not have cost postings. It is forgotten when a whole pass of
// reclaiming has found its last posting (reclaim.go); IDs are never used
// again.
type deadSet struct {
	mu    sync.Mutex // one change at a time
	pages atomic.Pointer[[]atomic.Pointer[deadPage]]
	epoch atomic.Uint64 // changes before IDs become dead

	// hold is held for reading by lookups that IDs must not become dead under.
	hold sync.RWMutex
}

const deadPageIDs = 1 << 15

type deadPage struct {
	bits [deadPageIDs / 64]atomic.Uint64
	n    int // guarded by mu
}

func (d *deadSet) page(i uint64) *deadPage {
	pages := d.pages.Load()
	if pages == nil || i >= uint64(len(*pages)) {
		return nil
	}
	return (*pages)[i].Load()
}

func (d *deadSet) has(id uint64) bool {
	p := d.page(id / deadPageIDs)
	return p != nil && p.bits[id%deadPageIDs/64].Load()&(1<<(id%64)) != 0
}

// alive is what the index asks (postings.Config.Alive).
func (d *deadSet) alive(id uint64) bool { return !d.has(id) }

// anyIn tells whether an ID from first to last is dead.
func (d *deadSet) anyIn(first, last uint64) bool {
	for i := first / deadPageIDs; i <= last/deadPageIDs; i++ {
		p := d.page(i)
		if p == nil {
			if pages := d.pages.Load(); pages == nil || i >= uint64(len(*pages)) {
				return false
			}
			continue
		}
		from, to := max(first, i*deadPageIDs), min(last, (i+1)*deadPageIDs-1)
		for at := from / 64; at <= to/64; at++ {
			w := p.bits[at%(deadPageIDs/64)].Load()
			if at == from/64 {
				w &= ^uint64(0) << (from % 64)
			}
			if at == to/64 {
				w &= ^uint64(0) >> (63 - to%64)
			}
			if w != 0 {
				return true
			}
		}
	}
	return false
}

func (d *deadSet) add(ids []uint64) {
	if len(ids) == 0 {
		return
	}
	d.hold.Lock()
	defer d.hold.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.epoch.Add(1)
	for _, id := range ids {
		p := d.makePage(id / deadPageIDs)
		w := &p.bits[id%deadPageIDs/64]
		if old := w.Or(1 << (id % 64)); old&(1<<(id%64)) == 0 {
			p.n++
		}
	}
}

// makePage returns a page, made if there is none. The caller holds mu.
func (d *deadSet) makePage(i uint64) *deadPage {
	if p := d.page(i); p != nil {
		return p
	}
	pages := d.pages.Load()
	if pages == nil || i >= uint64(len(*pages)) {
		grown := make([]atomic.Pointer[deadPage], (i+1)*5/4+8)
		if pages != nil {
			for j := range *pages {
				grown[j].Store((*pages)[j].Load())
			}
		}
		pages = &grown
		d.pages.Store(pages)
	}
	p := &deadPage{}
	(*pages)[i].Store(p)
	return p
}

func (d *deadSet) forget(ids []uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, id := range ids {
		p := d.page(id / deadPageIDs)
		if p == nil {
			continue
		}
		w := &p.bits[id%deadPageIDs/64]
		if old := w.And(^uint64(1 << (id % 64))); old&(1<<(id%64)) != 0 {
			if p.n--; p.n == 0 {
				(*d.pages.Load())[id/deadPageIDs].Store(nil)
			}
		}
	}
}

// load reads what was removed and not reclaimed.
func (d *deadSet) load(r pebble.Reader) error {
	const few = 1024
	var ids []uint64
	err := scanPrefix(r, []byte{prefixDead}, func(k, _ []byte) error {
		id, err := parseIDKey(prefixDead, k)
		if ids = append(ids, id); len(ids) == few {
			d.add(ids)
			ids = ids[:0]
		}
		return err
	})
	d.add(ids)
	return err
}
