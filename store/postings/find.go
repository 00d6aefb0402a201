package postings

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// Find returns the record IDs of a hash that are alive, ascending. It sees
// every Put that had returned when it began, and never writes or waits for a
// writer.
func (x *Index) Find(h Hash) ([]uint64, error) { return x.AppendFind(nil, h, 0) }

// AppendFind is Find that appends to dst, at most limit IDs, the lowest, if
// limit is above 0.
func (x *Index) AppendFind(dst []uint64, h Hash, limit int) ([]uint64, error) {
	if err := x.enter(); err != nil {
		return dst, err
	}
	defer x.leave()
	x.pace.lookup()
	begin := len(dst)
	v := x.acquire()
	dst = v.find(dst, &h)
	v.release()
	dst, err := x.findBucket(dst, &h)
	if err != nil {
		return dst[:begin], err
	}
	return x.answer(dst, begin, limit), nil
}

// acquire returns the view of now, whose memtables stay what they are until
// release.
func (x *Index) acquire() *view {
	for {
		v := x.view.Load()
		v.active.readers.Add(1)
		if v.flushing != nil {
			v.flushing.readers.Add(1)
		}
		if x.view.Load() == v {
			return v
		}
		v.release() // it may be in reuse
	}
}

func (v *view) release() {
	v.active.readers.Add(-1)
	if v.flushing != nil {
		v.flushing.readers.Add(-1)
	}
}

func (v *view) find(dst []uint64, h *Hash) []uint64 {
	dst = v.active.find(dst, h)
	if v.flushing != nil {
		dst = v.flushing.find(dst, h)
	}
	return dst
}

// findBucket appends what the hash's bucket says. While a region changes its
// width, which of the two is right is read from a snapshot.
func (x *Index) findBucket(dst []uint64, h *Hash) ([]uint64, error) {
	moving := &x.moving[h.region()]
	for begin := len(dst); ; dst = dst[:begin] {
		turn := moving.Load()
		if turn%2 == 1 {
			return x.findInSnapshot(dst, h)
		}
		dst, err := findAt(x.db, dst, h, x.meta.Load().regions[h.region()].width)
		if err != nil || moving.Load() == turn {
			return dst, err
		}
	}
}

func (x *Index) findInSnapshot(dst []uint64, h *Hash) ([]uint64, error) {
	snap := x.db.NewSnapshot()
	m, err := readMeta(snap)
	if err == nil && m == nil {
		err = corrupt("no meta row")
	}
	if err == nil {
		dst, err = findAt(snap, dst, h, m.regions[h.region()].width)
	}
	return dst, errors.Join(err, snap.Close())
}

func findAt(r pebble.Reader, dst []uint64, h *Hash, width uint) ([]uint64, error) {
	var buf [16]byte
	value, closer, err := r.Get(bucketKey(buf[:0], h, width))
	if errors.Is(err, pebble.ErrNotFound) {
		return dst, nil
	}
	if err != nil {
		return dst, fmt.Errorf("read bucket of %x: %w", *h, err)
	}
	dst, err = find(dst, value, HashBits-width, suffixOf(h, width))
	return dst, errors.Join(err, closer.Close())
}

// answer sorts what was found from begin on and leaves out repetitions, the
// dead and what is above the limit.
func (x *Index) answer(dst []uint64, begin, limit int) []uint64 {
	found := dst[begin:]
	slices.Sort(found)
	found = slices.Compact(found)
	n := 0
	for _, id := range found {
		if limit > 0 && n == limit {
			break
		}
		if x.cfg.Alive == nil || x.cfg.Alive(id) {
			found[n] = id
			n++
		}
	}
	return dst[:begin+n]
}

// FindBatch is Find for many hashes: the i-th answer is that of hs[i], with at
// most limit IDs each if limit is above 0. Buckets are read in key order and
// as of one instant.
func (x *Index) FindBatch(hs []Hash, limit int) ([][]uint64, error) {
	if err := x.enter(); err != nil {
		return nil, err
	}
	defer x.leave()
	x.pace.lookup()
	order := make([]int, len(hs))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return bytes.Compare(hs[a][:], hs[b][:]) })

	answers := make([][]uint64, len(hs))
	v := x.acquire()
	for _, i := range order {
		answers[i] = v.find(nil, &hs[i])
	}
	v.release()
	if err := x.findSorted(answers, hs, order); err != nil {
		return nil, err
	}
	for i := range answers {
		answers[i] = x.answer(answers[i], 0, limit)
	}
	return answers, nil
}

func (x *Index) findSorted(answers [][]uint64, hs []Hash, order []int) (err error) {
	it, err := x.db.NewIter(nil)
	if err != nil {
		return fmt.Errorf("read buckets: %w", err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	m, err := metaAt(it)
	if err != nil {
		return err
	}
	var key []byte
	for _, i := range order {
		h := &hs[i]
		width := m.regions[h.region()].width
		key = bucketKey(key[:0], h, width)
		if !it.SeekGE(key) || !bytes.Equal(it.Key(), key) {
			if err := it.Error(); err != nil {
				return fmt.Errorf("read bucket of %x: %w", *h, err)
			}
			continue
		}
		if answers[i], err = find(answers[i], it.Value(), HashBits-width, suffixOf(h, width)); err != nil {
			return err
		}
	}
	return nil
}

// metaAt reads the meta row as the iterator sees it.
func metaAt(it *pebble.Iterator) (*meta, error) {
	if !it.SeekGE(metaKey) || !bytes.Equal(it.Key(), metaKey) {
		return nil, errors.Join(corrupt("no meta row"), it.Error())
	}
	return decodeMeta(it.Value())
}
