package postings

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// Damage is a part of a table that cannot be read, and the hashes that have
// postings there.
type Damage struct {
	Table string // name of the file in the directory of the buckets
	// First to Last, both included, are the hashes of the damaged buckets: a
	// lookup of another finds all. None if there is no bucket but something
	// else that cannot be read, so that compactions cannot pass.
	First, Last Hash
	None        bool
	Err         error // an ErrCorrupt
}

func damageOf(h *hole, m *meta) (ds []Damage) {
	for _, s := range m.hashes(h.lost) {
		d := Damage{Table: h.table, First: hashAt(s.first), Last: hashAt(s.last), Err: h.err}
		d.Last[8], d.Last[9] = 0xff, 0xff
		ds = append(ds, d)
	}
	if len(ds) == 0 {
		ds = []Damage{{Table: h.table, None: true, Err: h.err}}
	}
	return ds
}

// Check reads every table from disk and calls fn for each place that is
// damaged, in the order of hashes within a table; fn's error ends it. Finds go
// on meanwhile; flushes, splits and Salvage wait for the table being read.
// It changes nothing.
func (x *Index) Check(ctx context.Context, fn func(Damage) error) error {
	if err := x.enter(); err != nil {
		return err
	}
	defer x.leave()
	seen := make(map[uint64]bool)
	for {
		list, err := x.liveTables()
		if err != nil {
			return err
		}
		// What went away is in tables that have come since.
		gone := false
		for i := range list {
			if seen[uint64(list[i].FileNum)] {
				continue
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			holes, m, err := x.checkTable(&list[i])
			if errors.Is(err, errGone) {
				gone = true
				continue
			}
			if err != nil {
				return err
			}
			seen[uint64(list[i].FileNum)] = true
			for h := range holes {
				for _, d := range damageOf(&holes[h], m) {
					if err := fn(d); err != nil {
						return err
					}
				}
			}
		}
		if !gone {
			return nil
		}
	}
}

func (x *Index) checkTable(info *pebble.SSTableInfo) (_ []hole, m *meta, err error) {
	x.ingesting.Lock()
	defer x.ingesting.Unlock()
	m = x.meta.Load()
	holes, err := x.holesOf(m, info)
	return holes, m, err
}

// everything is wider than all keys.
var everything = keyRange{[]byte{}, []byte{0xff}}

// holesOf reads a whole table.
func (x *Index) holesOf(m *meta, info *pebble.SSTableInfo) (_ []hole, err error) {
	t, err := x.openTable(m, info, everything)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	for {
		if err := t.next(); err != nil {
			return nil, fmt.Errorf("read table %s: %w", t.name, err)
		}
		if t.key == nil {
			return t.holes, nil
		}
		t.postings()
	}
}

// rawBucket returns a copy of the value at a bucket key, nil if there is none.
func (x *Index) rawBucket(key []byte) ([]byte, error) {
	value, closer, err := x.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read bucket %x: %w", key, damage(err))
	}
	return bytes.Clone(value), closer.Close()
}
