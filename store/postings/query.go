package postings

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// A query is a merge operand that is in no table: a lookup puts it over its
// bucket in a batch that is never committed, and reads the bucket through the
// batch. The merger then gets the query first and the operands of the bucket
// after it, from the newest to the oldest, and looks into each where it lies,
// instead of decoding all, uniting them and encoding the union for one hash.
//
//	+------+--------+--------+ - - - - - - - - - +
//	| 0x00 | token  | limit  | suffix, one after |
//	| (1B) |  (8B)  |  (8B)  | the other (8B)    |
//	+------+--------+--------+ - - - - - - - - - +
//
// No bucket begins with 0x00. The token is new with every process, so that a
// query that got on disk somehow is not taken for one.
//
// The answer is, for each suffix, the number of IDs (4B) and the IDs (8B),
// alive and at most limit, the lowest of each operand, unsorted. Numbers are
// little-endian.
const (
	queryMark   = 0x00
	queryHeader = 1 + 8 + 8
)

var queryToken = rand.Uint64()

// isQuery tells queries and buckets apart.
func isQuery(value []byte) bool { return len(value) > 0 && value[0] == queryMark }

func beginQuery(dst []byte, limit int) []byte {
	if limit <= 0 {
		limit = math.MaxInt
	}
	dst = append(dst, queryMark)
	dst = binary.LittleEndian.AppendUint64(dst, queryToken)
	return binary.LittleEndian.AppendUint64(dst, uint64(limit))
}

func addSuffix(dst []byte, suffix uint64) []byte {
	return binary.LittleEndian.AppendUint64(dst, suffix)
}

// nextAnswer takes the answer for one suffix from b and appends the IDs to dst.
func nextAnswer(dst []uint64, b []byte) (ids []uint64, rest []byte) {
	n := binary.LittleEndian.Uint32(b)
	for b = b[4:]; n > 0; n-- {
		dst = append(dst, binary.LittleEndian.Uint64(b))
		b = b[8:]
	}
	return dst, b
}

// finder answers a query while Pebble merges. It is its own io.Closer.
type finder struct {
	pool     *sync.Pool
	width    uint
	want     filter
	suffixes []uint64
	found    [][]uint64 // for each suffix
	out      []byte
}

// begin parses a query. query is not kept.
func (f *finder) begin(query []byte, width uint, alive func(uint64) bool) error {
	if len(query) < queryHeader || len(query)%8 != queryHeader%8 || binary.LittleEndian.Uint64(query[1:]) != queryToken {
		return fmt.Errorf("%w: a lookup among the buckets", ErrCorrupt)
	}
	f.width = width
	f.want = filter{alive: alive, limit: int(min(binary.LittleEndian.Uint64(query[9:]), math.MaxInt))}
	f.suffixes = f.suffixes[:0]
	for q := query[queryHeader:]; len(q) > 0; q = q[8:] {
		f.suffixes = append(f.suffixes, binary.LittleEndian.Uint64(q))
	}
	for len(f.found) < len(f.suffixes) {
		f.found = append(f.found, nil)
	}
	for i := range f.suffixes {
		f.found[i] = f.found[i][:0]
	}
	return nil
}

// MergeOlder implements pebble.ValueMerger.
func (f *finder) MergeOlder(value []byte) (err error) {
	for i, s := range f.suffixes {
		if f.found[i], err = find(f.found[i], value, f.width, s, &f.want); err != nil {
			return err
		}
	}
	return nil
}

// MergeNewer implements pebble.ValueMerger. Nothing is newer than a query but
// what should not be there.
func (f *finder) MergeNewer([]byte) error {
	return fmt.Errorf("%w: a lookup among the buckets", ErrCorrupt)
}

// Finish implements pebble.ValueMerger.
func (f *finder) Finish(bool) ([]byte, io.Closer, error) {
	f.out = f.out[:0]
	for i := range f.suffixes {
		f.out = binary.LittleEndian.AppendUint32(f.out, uint32(len(f.found[i])))
		for _, id := range f.found[i] {
			f.out = binary.LittleEndian.AppendUint64(f.out, id)
		}
	}
	return f.out, f, nil
}

// finderKeeps bounds the buffers a pooled finder keeps, in IDs or bytes.
const finderKeeps = 1 << 12

// Close implements io.Closer: the answer is no longer used.
func (f *finder) Close() error {
	if cap(f.out) > 8*finderKeeps || len(f.found) > finderKeeps {
		return nil
	}
	if slices.ContainsFunc(f.found, func(ids []uint64) bool { return cap(ids) > finderKeeps }) {
		return nil
	}
	f.pool.Put(f)
	return nil
}

// reader is what a lookup needs to ask, kept between lookups.
type reader struct {
	batch *pebble.Batch // indexed, never committed
	key   []byte
	value []byte
}

// borrow returns a reader whose batch is empty, for give to take back. There
// are as many as there are lookups at once; those not in use go with the
// garbage.
func (x *Index) borrow() *reader {
	if r, ok := x.readers.Get().(*reader); ok {
		return r
	}
	return &reader{batch: x.db.NewIndexedBatch()}
}

func (x *Index) give(r *reader) {
	r.batch.Reset()
	x.readers.Put(r)
}
