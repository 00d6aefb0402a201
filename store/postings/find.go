package postings

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
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
	dst = x.keepAlive(dst, begin)
	dst, err := x.findBucket(dst, begin, &h, limit)
	if err != nil {
		return dst[:begin], err
	}
	return merge(dst, begin, limit), nil
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

// findBucket appends what the hash's bucket says to what the memtables said,
// which is dst from begin on.
func (x *Index) findBucket(dst []uint64, begin int, h *Hash, limit int) ([]uint64, error) {
	moving := &x.moving[h.region()]
	for known := len(dst); ; dst = dst[:known] {
		turn, move := x.ingests.turn.Load(), moving.Load()
		m := x.meta.Load()
		if move%2 == 0 {
			var err error
			dst, err = x.findAt(dst, h, m.regions[h.region()].width, limit)
			if x.ingests.clean(turn) && moving.Load() == move {
				if err == nil && len(dst) == begin {
					err = m.miss(h)
				}
				return dst, err
			}
			dst = dst[:known]
		}
		answers := [][]uint64{dst[begin:]}
		done, err := x.findBefore(answers, []Hash{*h}, []int{0}, limit)
		if done || err != nil {
			return append(dst[:begin], answers[0]...), err
		}
	}
}

// findAt appends what is in the bucket of a hash at a width.
func (x *Index) findAt(dst []uint64, h *Hash, width uint, limit int) ([]uint64, error) {
	r := x.borrow()
	defer x.give(r)
	r.key = bucketKey(r.key[:0], h, width)
	r.value = addSuffix(beginQuery(r.value[:0], limit), suffixOf(h, width))
	if err := r.batch.Merge(r.key, r.value, nil); err != nil {
		return dst, fmt.Errorf("ask for %x: %w", *h, err)
	}
	value, closer, err := r.batch.Get(r.key)
	if err != nil {
		return dst, readError(h, err)
	}
	dst, _ = nextAnswer(dst, value)
	return dst, closer.Close()
}

// readError says what was read, and ErrCorrupt of what Pebble calls so.
func readError(h *Hash, err error) error {
	return fmt.Errorf("read bucket of %x: %w", *h, damage(err))
}

// damage makes an error of Pebble about what is on disk an ErrCorrupt.
func damage(err error) error {
	if isDamage(err) && !errors.Is(err, ErrCorrupt) {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return err
}

// isDamage tells whether reading again would not help.
func isDamage(err error) bool {
	return errors.Is(err, ErrCorrupt) || pebble.IsCorruptionError(err) || errors.Is(err, io.ErrUnexpectedEOF)
}

// keepAlive leaves out the dead from begin on.
func (x *Index) keepAlive(dst []uint64, begin int) []uint64 {
	if x.cfg.Alive == nil {
		return dst
	}
	kept := dst[:begin]
	for _, id := range dst[begin:] {
		if x.cfg.Alive(id) {
			kept = append(kept, id)
		}
	}
	return kept
}

// merge sorts what was found from begin on and leaves out repetitions and what
// is above the limit.
func merge(dst []uint64, begin, limit int) []uint64 {
	found := dst[begin:]
	if len(found) > 1 {
		slices.Sort(found)
		found = slices.Compact(found)
	}
	if limit > 0 {
		found = found[:min(limit, len(found))]
	}
	return dst[:begin+len(found)]
}

// FindBatch is Find for many hashes: the i-th answer is that of hs[i], with at
// most limit IDs each if limit is above 0. Buckets are read in key order and
// as of one instant.
//
// If all that is wrong is that some of the buckets are damaged, the answers of
// the other hashes are right and come with the error, an ErrCorrupt. Those
// with IDs are right in any case.
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
	for i := range answers {
		answers[i] = x.keepAlive(answers[i], 0)
	}
	err := x.findSorted(answers, hs, order, limit)
	if err != nil && !errors.Is(err, ErrCorrupt) {
		return nil, err
	}
	for i := range answers {
		answers[i] = merge(answers[i], 0, limit)
	}
	return answers, err
}

// findSorted appends to the answers what the buckets say as of one instant.
// order are the indexes of hs by hash. An ErrCorrupt is about some of them and
// leaves the other answers right.
func (x *Index) findSorted(answers [][]uint64, hs []Hash, order []int, limit int) error {
	for {
		if done, err := x.findAsked(answers, hs, order, limit); done || err != nil {
			return err
		}
		if done, err := x.findBefore(answers, hs, order, limit); done || err != nil {
			return err
		}
	}
}

// findAsked is findSorted by queries. It is not done if an ingest came across.
func (x *Index) findAsked(answers [][]uint64, hs []Hash, order []int, limit int) (done bool, err error) {
	turn := x.ingests.turn.Load()
	moves := x.moves.Load()
	if moves%2 == 1 {
		return false, nil
	}
	m := x.meta.Load()
	r := x.borrow()
	defer x.give(r)
	if err := r.ask(m, hs, order, limit); err != nil {
		return false, err
	}
	it, err := r.batch.NewIter(&pebble.IterOptions{LowerBound: []byte{prefixBucket}, UpperBound: []byte{prefixBucket + 1}})
	if err != nil {
		return false, fmt.Errorf("read buckets: %w", damage(err))
	}
	// What is read is that of the moment the iterator was made.
	if !x.ingests.clean(turn) || x.moves.Load() != moves {
		return false, it.Close()
	}
	return true, x.readSorted(it, m, answers, hs, order, func(ids []uint64, i int, value []byte) ([]uint64, []byte, error) {
		ids, value = nextAnswer(ids, value)
		return ids, value, nil
	})
}

// findBefore is findSorted in the state from before the ingest that is under
// way. It is not done if there is none.
func (x *Index) findBefore(answers [][]uint64, hs []Hash, order []int, limit int) (done bool, err error) {
	it, m, err := x.ingests.reader()
	if it == nil || err != nil {
		return false, err
	}
	want := filter{alive: x.cfg.Alive, limit: cmp.Or(max(limit, 0), math.MaxInt)}
	return true, x.readSorted(it, m, answers, hs, order, func(ids []uint64, i int, value []byte) ([]uint64, []byte, error) {
		width := m.regions[hs[i].region()].width
		ids, err := find(ids, value, HashBits-width, suffixOf(&hs[i], width), &want)
		return ids, value, err
	})
}

// readSorted reads the buckets of hs, at the widths that m says, from an
// iterator, which it closes. take appends what a bucket's value says of the
// i-th hash and returns the value that is left for the next of the same bucket.
func (x *Index) readSorted(it *pebble.Iterator, m *meta, answers [][]uint64, hs []Hash, order []int,
	take func(ids []uint64, i int, value []byte) ([]uint64, []byte, error)) error {
	var damaged []error
	var key []byte
	for len(order) > 0 {
		h := &hs[order[0]]
		n := sameBucket(m, hs, order)
		key = bucketKey(key[:0], h, m.regions[h.region()].width)
		err := readBucket(it, key, answers, order[:n], take)
		switch {
		case err == nil:
			err = m.misses(answers, hs, order[:n])
		case !isDamage(err):
			return errors.Join(readError(h, err), it.Close())
		default:
			err = readError(h, err)
		}
		if err != nil {
			damaged = append(damaged, err)
		}
		order = order[n:]
	}
	err := it.Close()
	switch len(damaged) {
	case 0:
		return damage(err)
	case 1:
		return damaged[0]
	}
	return fmt.Errorf("%d of the buckets: %w", len(damaged), damaged[0])
}

func readBucket(it *pebble.Iterator, key []byte, answers [][]uint64, order []int,
	take func(ids []uint64, i int, value []byte) ([]uint64, []byte, error)) error {
	if !it.SeekGE(key) || !bytes.Equal(it.Key(), key) {
		return it.Error()
	}
	value, err := it.ValueAndErr()
	if err != nil {
		return err
	}
	for _, i := range order {
		if answers[i], value, err = take(answers[i], i, value); err != nil {
			return err
		}
	}
	return nil
}

// sameBucket returns how many hashes, from the first on, are in one bucket.
func sameBucket(m *meta, hs []Hash, order []int) int {
	first := &hs[order[0]]
	width := m.regions[first.region()].width
	n := 1
	for n < len(order) && samePrefix(first, &hs[order[n]], width) {
		n++
	}
	return n
}

// ask puts a query over each bucket.
func (r *reader) ask(m *meta, hs []Hash, order []int, limit int) error {
	for len(order) > 0 {
		n := sameBucket(m, hs, order)
		h := &hs[order[0]]
		width := m.regions[h.region()].width
		r.key = bucketKey(r.key[:0], h, width)
		r.value = beginQuery(r.value[:0], limit)
		for _, i := range order[:n] {
			r.value = addSuffix(r.value, suffixOf(&hs[i], width))
		}
		if err := r.batch.Merge(r.key, r.value, nil); err != nil {
			return fmt.Errorf("ask for %x: %w", *h, err)
		}
		order = order[n:]
	}
	return nil
}
