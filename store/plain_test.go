package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/multiformats/go-multihash"
)

// The posting of a multihash is one key, whose value is the set of record IDs
// it belongs to: 8-byte big-endian numbers, ascending, without repetition.
// Putting is a blind Merge of one ID, so that a put never reads.
//
// A record ID is never reused, so a removed record's IDs may stay in postings:
// they lead to no owner row and are passed over. This layout does not reclaim
// them.

const (
	prefixPosting = 'p'
	recordIDBytes = 8
	// maxPostingIDs bounds the records of one multihash, and with it the work
	// of a merge and of a find: a block everyone has (an empty directory) is
	// named by millions of contexts. The newest records are kept.
	maxPostingIDs = 16384
	// postingBatchBytes is the size of a write batch: large enough that its
	// sorted keys land near each other, small against a memtable.
	postingBatchBytes = 1 << 20
)

// mergerName is stored by Pebble: it must not change while FormatNumber is 1.
const mergerName = "signpost.record-ids.1"

// postingMerger unites sets of record IDs. The operation is associative,
// commutative and idempotent also with its bound, as the largest maxPostingIDs
// of a union do not depend on how it was grouped.
var postingMerger = &pebble.Merger{
	Name: mergerName,
	Merge: func(_, value []byte) (pebble.ValueMerger, error) {
		m := idSets.Get().(*idSet)
		m.ids, m.united = m.ids[:0], false
		return m, m.add(value)
	},
}

// idSet collects operands and unites them when it is finished or has grown to
// twice the bound. Compactions make one for every key, so they are recycled.
type idSet struct {
	ids    []uint64
	united bool
	value  []byte // what Finish returned
}

var idSets = sync.Pool{New: func() any { return new(idSet) }}

func (m *idSet) MergeNewer(value []byte) error { return m.add(value) }
func (m *idSet) MergeOlder(value []byte) error { return m.add(value) }

func (m *idSet) add(value []byte) error {
	if len(value)%recordIDBytes != 0 || len(value) == 0 || len(value) > maxPostingIDs*recordIDBytes {
		return fmt.Errorf("posting of %d bytes: %w", len(value), ErrCorrupt)
	}
	for ; len(value) > 0; value = value[recordIDBytes:] {
		m.ids = append(m.ids, binary.BigEndian.Uint64(value))
	}
	m.united = false
	if len(m.ids) >= 2*maxPostingIDs {
		m.unite()
	}
	return nil
}

func (m *idSet) unite() {
	if m.united {
		return
	}
	slices.Sort(m.ids)
	m.ids = slices.Compact(m.ids)
	if over := len(m.ids) - maxPostingIDs; over > 0 {
		m.ids = slices.Delete(m.ids, 0, over)
	}
	m.united = true
}

// Finish returns the united set, which is the caller's until it closes m.
func (m *idSet) Finish(bool) ([]byte, io.Closer, error) {
	m.unite()
	m.value = m.value[:0]
	for _, id := range m.ids {
		m.value = binary.BigEndian.AppendUint64(m.value, id)
	}
	return m.value, m, nil
}

// Close gives m back, unless it has grown large.
func (m *idSet) Close() error {
	if cap(m.ids) <= 256 {
		idSets.Put(m)
	}
	return nil
}

// putPostings adds id to the postings of mhs, which it sorts, in batches of
// about postingBatchBytes handed to apply. It returns how many distinct
// multihashes there were.
func putPostings(db *pebble.DB, id uint64, mhs []multihash.Multihash, apply func(*pebble.Batch) error) (int, error) {
	slices.SortFunc(mhs, func(a, b multihash.Multihash) int { return bytes.Compare(a, b) })
	distinct := 0
	var prev multihash.Multihash
	for len(mhs) > 0 {
		batch := db.NewBatchWithSize(min(postingBatchBytes+4096, 64+len(mhs)*64))
		for len(mhs) > 0 && batch.Len() < postingBatchBytes {
			mh := mhs[0]
			mhs = mhs[1:]
			if prev != nil && bytes.Equal(prev, mh) {
				continue
			}
			prev = mh
			op := batch.MergeDeferred(1+len(mh), recordIDBytes)
			op.Key[0] = prefixPosting
			copy(op.Key[1:], mh)
			binary.BigEndian.PutUint64(op.Value, id)
			if err := op.Finish(); err != nil {
				return distinct, errors.Join(err, batch.Close())
			}
			distinct++
		}
		if err := apply(batch); err != nil {
			return distinct, err
		}
	}
	return distinct, nil
}

// lookupPostings returns the record IDs of mh, ascending; nil if there are
// none.
func lookupPostings(r pebble.Reader, mh multihash.Multihash) ([]uint64, error) {
	var buf [1 + 64]byte
	key := append(append(buf[:0], prefixPosting), mh...)
	value, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	var set idSet
	if err := set.add(value); err != nil {
		return nil, err
	}
	set.unite()
	return set.ids, nil
}
