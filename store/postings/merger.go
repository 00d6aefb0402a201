package postings

import (
	"io"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// mergerName is kept by Pebble in the database; it changes with the codec.
const mergerName = "signpost.postings.1"

// newMerger makes the merge operator of buckets: union, less what alive says
// is dead. Union takes operands in any order and any number of times. An ID
// that is dead stays dead, so its entries may be dropped at any level, and
// buckets need no tombstones. A lookup gets its answer through it too: query.
func newMerger(alive func(id uint64) bool) *pebble.Merger {
	pool := &sync.Pool{New: func() any { return new(union) }}
	finders := &sync.Pool{New: func() any { return new(finder) }}
	return &pebble.Merger{
		Name: mergerName,
		Merge: func(key, value []byte) (pebble.ValueMerger, error) {
			width, err := keySuffixWidth(key)
			if err != nil {
				return nil, err
			}
			if isQuery(value) {
				f := finders.Get().(*finder)
				f.pool = finders
				return f, f.begin(value, width, alive)
			}
			u := pool.Get().(*union)
			u.pool, u.alive, u.n, u.decoded, u.width = pool, alive, 0, false, width
			u.raw = append(u.raw[:0], value...)
			return u, nil
		},
	}
}

// union is one merge of operands under way. It is its own io.Closer.
type union struct {
	pool    *sync.Pool
	alive   func(id uint64) bool
	width   uint
	raw     []byte // the first operand, and later the result
	decoded bool   // the first operand is in runs
	runs    [][]posting
	n       int // runs in use
	spare   []posting
	scratch []posting
	enc     encoder
}

// MergeNewer implements pebble.ValueMerger.
func (u *union) MergeNewer(value []byte) error { return u.add(value) }

// MergeOlder implements pebble.ValueMerger.
func (u *union) MergeOlder(value []byte) error { return u.add(value) }

func (u *union) add(value []byte) error {
	if err := u.decodeFirst(); err != nil {
		return err
	}
	return u.decode(value)
}

func (u *union) decodeFirst() error {
	if u.decoded {
		return nil
	}
	u.decoded = true
	return u.decode(u.raw)
}

func (u *union) decode(value []byte) (err error) {
	if u.n == len(u.runs) {
		u.runs = append(u.runs, nil)
	}
	u.runs[u.n], u.scratch, err = decode(u.runs[u.n][:0], value, u.width, u.scratch)
	u.n++
	return err
}

// Finish implements pebble.ValueMerger. A bucket whose entries are all dead
// becomes an empty value. It is not deleted, which pebble.DeletableValueMerger
// would allow: in Pebble v2.1.7 (internal/compact/iterator.go, no issue yet)
// a compaction panics when that happens to a key with several operands in the
// middle of a table ("skip=true, but iterator is at iterPosNext").
func (u *union) Finish(bool) ([]byte, io.Closer, error) {
	if !u.decoded && u.alive == nil {
		return u.raw, u, nil
	}
	if err := u.decodeFirst(); err != nil {
		return nil, nil, err
	}
	merged := u.mergeAll()
	kept := merged
	if u.alive != nil {
		kept = merged[:0]
		for _, p := range merged {
			if u.alive(p.id) {
				kept = append(kept, p)
			}
		}
	}
	if u.n > 1 || len(kept) < len(merged) {
		u.raw = u.enc.encode(u.raw[:0], kept, u.width)
	}
	return u.raw, u, nil
}

// mergeAll merges neighbouring runs until one is left, so each entry is moved
// log2(runs) times.
func (u *union) mergeAll() []posting {
	for n := u.n; n > 1; {
		half := 0
		for i := 0; i < n; i += 2 {
			if i+1 == n {
				u.runs[half], u.runs[i] = u.runs[i], u.runs[half]
			} else {
				merged := mergeRuns(u.spare[:0], u.runs[i], u.runs[i+1])
				u.spare = u.runs[i]
				u.runs[i] = merged
				u.runs[half], u.runs[i] = u.runs[i], u.runs[half]
			}
			half++
		}
		n = half
	}
	return u.runs[0]
}

// unionKeeps bounds the buffers a pooled union keeps, in postings.
const unionKeeps = 1 << 14

// Close implements io.Closer: the result is no longer used.
func (u *union) Close() error {
	for _, r := range u.runs {
		if cap(r) > unionKeeps {
			return nil
		}
	}
	if cap(u.spare) <= unionKeeps && cap(u.scratch) <= unionKeeps && len(u.runs) <= 64 {
		u.pool.Put(u)
	}
	return nil
}
