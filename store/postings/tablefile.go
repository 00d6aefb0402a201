package postings

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sort"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
)

// keyRange are the keys from start on and before end.
type keyRange struct{ start, end []byte }

// afterKey is the least key above k.
func afterKey(k []byte) []byte { return append(slices.Clone(k), 0) }

// overlap of two ranges; not valid if there is none.
func (r keyRange) overlap(s keyRange) keyRange {
	if bytes.Compare(s.start, r.start) > 0 {
		r.start = s.start
	}
	if bytes.Compare(s.end, r.end) < 0 {
		r.end = s.end
	}
	return r
}

func (r keyRange) valid() bool { return bytes.Compare(r.start, r.end) < 0 }

// liveTables lists the tables of the database in the order of their first
// keys.
func (x *Index) liveTables() (list []pebble.SSTableInfo, err error) {
	levels, err := x.db.SSTables()
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	for _, l := range levels {
		list = append(list, l...)
	}
	slices.SortFunc(list, func(a, b pebble.SSTableInfo) int {
		return cmp.Or(bytes.Compare(a.Smallest.UserKey, b.Smallest.UserKey), cmp.Compare(a.FileNum, b.FileNum))
	})
	return list, nil
}

// rangeOf are the keys a table may have.
func rangeOf(info *pebble.SSTableInfo) keyRange {
	r := keyRange{info.Smallest.UserKey, info.Largest.UserKey}
	if !info.Largest.IsExclusiveSentinel() {
		r.end = afterKey(r.end)
	}
	return r
}

// hole is a place in a table that cannot be read.
type hole struct {
	table string // file name
	// lost are the keys whose entries in the table cannot be known. It may be
	// empty.
	lost keyRange
	// cut is what has to go for Pebble to pass: lost, and the entry before,
	// since Pebble finds its way to the end of what stays through the block
	// that holds the key it cuts at.
	cut keyRange
	all keyRange // of the table
	err error
}

// tableReader reads a table's entries in key order from its file, not from any
// cache, and past what is damaged.
type tableReader struct {
	m       *meta
	name    string
	all     keyRange // what the table may have
	keys    keyRange // what is read of it
	r       *sstable.Reader
	it      sstable.Iterator
	begun   bool
	key     []byte // of the entry; nil after the last
	value   []byte
	holes   []hole // met so far
	ps      []posting
	scratch []posting
}

// errGone: a table is no longer part of the database.
var errGone = errors.New("table is gone")

// openTable opens a table to read some keys of it. A table that cannot be
// opened has no entries and one hole.
func (x *Index) openTable(m *meta, info *pebble.SSTableInfo, keys keyRange) (*tableReader, error) {
	t := &tableReader{m: m, name: info.BackingSSTNum.String() + ".sst", all: rangeOf(info)}
	t.keys = t.all.overlap(keys)
	err := t.open(x)
	if errors.Is(err, fs.ErrNotExist) {
		list, listErr := x.liveTables()
		if listErr != nil {
			return nil, listErr
		}
		if !slices.ContainsFunc(list, func(l pebble.SSTableInfo) bool { return l.FileNum == info.FileNum }) {
			return nil, errGone
		}
		err = fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if isDamage(err) {
		t.holes = append(t.holes, hole{table: t.name, lost: t.all, cut: t.all, all: t.all, err: damage(err)})
		err = nil
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read table %s: %w", t.name, err), t.close())
	}
	return t, nil
}

func (t *tableReader) open(x *Index) error {
	f, err := x.cfg.FS.Open(x.cfg.FS.PathJoin(x.dbDir(), t.name))
	if err != nil {
		return err
	}
	file, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	r, err := sstable.NewReader(context.Background(), file, x.opts.MakeReaderOptions())
	if err != nil {
		return errors.Join(err, file.Close())
	}
	t.r = r
	deleted, err := r.NewRawRangeDelIter(context.Background(), sstable.NoFragmentTransforms, sstable.NoReadEnv)
	if err != nil {
		if !isDamage(err) {
			return err
		}
		// Its entries can be read, but not by Pebble.
		t.holes = append(t.holes, hole{table: t.name, cut: t.all, all: t.all, err: damage(err)})
	} else if deleted != nil {
		deleted.Close()
	}
	it, err := r.NewIter(sstable.NoTransforms, t.keys.start, t.keys.end, sstable.AssertNoBlobHandles)
	if err != nil {
		return err
	}
	t.it = it
	return nil
}

func (t *tableReader) close() (err error) {
	if t.it != nil {
		// What was wrong is in the holes.
		_ = t.it.Close()
	}
	if t.r != nil {
		err = t.r.Close()
	}
	t.it, t.r, t.key = nil, nil, nil
	return err
}

// next goes to the next entry that can be read; key is nil if there is none.
func (t *tableReader) next() error {
	if t.it == nil {
		t.key = nil
		return nil
	}
	last, err := slices.Clone(t.key), error(nil)
	if t.begun {
		err = t.step(nil)
	} else {
		t.begun = true
		err = t.step(t.keys.start)
	}
	if err == nil || !isDamage(err) {
		return err
	}
	return t.pass(last, err)
}

// step takes the next entry of the iterator, or the first from a key on.
func (t *tableReader) step(from []byte) error {
	if from == nil {
		if kv := t.it.Next(); kv != nil {
			value, _, err := kv.Value(nil)
			return t.set(kv.K.UserKey, value, err)
		}
	} else if kv := t.it.SeekGE(from, 0); kv != nil {
		value, _, err := kv.Value(nil)
		return t.set(kv.K.UserKey, value, err)
	}
	t.key = nil
	return t.it.Error()
}

func (t *tableReader) set(key, value []byte, err error) error {
	if err != nil {
		t.key = nil
		return err
	}
	t.key, t.value = append(t.key[:0], key...), append(t.value[:0], value...)
	return nil
}

// maxStride is how many buckets are passed at once at most.
const maxStride = 1024

// pass looks for the next entry after one that could not be read. last is the key of
// the one before, nil if there is none. Where it is damaged all buckets of a block are,
// and there may be millions that are empty: so it tries one bucket, then the second
// after that, the fourth, and when one can be read, where that begins. Of several
// damaged blocks near to each other it may pass what is between; that is in the hole.
func (t *tableReader) pass(last []byte, cause error) error {
	h := hole{table: t.name, all: t.all, err: damage(cause)}
	h.cut.start, h.lost.start = t.keys.start, t.keys.start
	at := t.keys.start
	if last != nil {
		h.cut.start, h.lost.start, at = last, afterKey(last), last
	}
	t.key = nil
	for stride := 1; ; stride = min(2*stride, maxStride) {
		var buckets [][]byte
		for len(buckets) < stride {
			if at = t.m.bucketAfter(at); at == nil || bytes.Compare(at, t.keys.end) >= 0 {
				break
			}
			buckets = append(buckets, at)
		}
		if len(buckets) == 0 {
			break
		}
		found, err := t.firstReadable(buckets)
		if err != nil {
			return err
		}
		if found {
			break
		}
	}
	h.cut.end = t.keys.end
	if t.key != nil {
		h.cut.end = slices.Clone(t.key)
	}
	h.lost.end = h.cut.end
	t.holes = append(t.holes, h)
	return nil
}

// firstReadable goes to the first entry at or after one of the buckets, ascending, from
// which on entries can be read, if that is so of the last.
func (t *tableReader) firstReadable(buckets [][]byte) (found bool, err error) {
	readable := func(n int) bool {
		stepped := t.step(buckets[n])
		if stepped != nil && !isDamage(stepped) {
			err = stepped
		}
		return stepped == nil
	}
	last := len(buckets) - 1
	if !readable(last) || err != nil {
		t.key = nil
		return false, err
	}
	first := sort.Search(last, readable)
	if err == nil {
		err = t.step(buckets[first])
	}
	return err == nil, err
}

// postings decodes the entry. They are valid until the next call. What is not
// a bucket has none, and what cannot be decoded is a hole.
func (t *tableReader) postings() []posting {
	_, width, err := parseBucketKey(t.key)
	if err != nil {
		return nil
	}
	if t.ps, t.scratch, err = decode(t.ps[:0], t.value, HashBits-width, t.scratch); err != nil {
		r := keyRange{slices.Clone(t.key), afterKey(t.key)}
		t.holes = append(t.holes, hole{table: t.name, lost: r, cut: r, all: t.all, err: err})
		return nil
	}
	return t.ps
}

// bucketAfter is the next key above another that a bucket may have or have had,
// nil if there is none.
func (m *meta) bucketAfter(key []byte) []byte {
	var buf [16]byte
	first := 0
	if len(key) > 1 && key[0] == prefixBucket {
		first = int(key[1])
	}
	for region := first; region < regions; region++ {
		for width := uint(minWidth); width <= m.regions[region].width; width += splitBits {
			n := firstBucket(region, width, afterKey(key))
			if n < 1<<(width-8) {
				return slices.Clone(numberedBucket(buf[:0], region, n, width))
			}
		}
	}
	return nil
}

// numberedBucket is the key of the n-th bucket of a region.
func numberedBucket(dst []byte, region int, n uint64, width uint) []byte {
	h := hashAt(uint64(region)<<56 | n<<(64-width))
	return bucketKey(dst, &h, width)
}

// firstBucket is the number of the first bucket of a region and width whose
// key is not below another key.
func firstBucket(region int, width uint, key []byte) uint64 {
	var buf [16]byte
	return uint64(sort.Search(1<<(width-8), func(n int) bool {
		return bytes.Compare(numberedBucket(buf[:0], region, uint64(n), width), key) >= 0
	}))
}

// hashes are the hashes whose buckets are in a range of keys.
func (m *meta) hashes(keys keyRange) (ss []span) {
	if !keys.valid() {
		return nil
	}
	for region := range regions {
		width := m.regions[region].width
		from, to := firstBucket(region, width, keys.start), firstBucket(region, width, keys.end)
		if from < to {
			base := uint64(region) << 56
			ss = append(ss, span{base | from<<(64-width), base | (to<<(64-width) - 1)})
		}
	}
	return ss
}
