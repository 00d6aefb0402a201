package postings

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// Regions is how many parts the hash space has; a hash is in that of its first byte.
const Regions = regions

// Entries is about how many postings the buckets and memtables have, some twice.
func (x *Index) Entries() (n uint64) {
	m := x.meta.Load()
	for i := range m.regions {
		n += m.regions[i].entries
	}
	return n
}

// Scan calls fn with the first 64 bits of the hash of each posting of a region
// that is alive and in the buckets, ascending, with repetitions: of all that was put before
// the last Flush began, and maybe of more. ErrLost: postings may be missing there.
func (x *Index) Scan(region int, fn func(prefix uint64)) (err error) {
	if err := x.enter(); err != nil {
		return err
	}
	defer x.leave()
	it, width, err := x.regionIter(region)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	var ps, scratch []posting
	for ok := it.First(); ok; ok = it.Next() {
		h, _, err := parseBucketKey(it.Key())
		if err != nil {
			return err
		}
		if ps, scratch, err = decode(ps[:0], it.Value(), HashBits-width, scratch); err != nil {
			return fmt.Errorf("bucket %x: %w", it.Key(), err)
		}
		for _, p := range x.living(ps) {
			h := h.withSuffix(p.suffix, HashBits-width)
			fn(h.prefix())
		}
	}
	if err := it.Error(); err != nil {
		return fmt.Errorf("scan region %d: %w", region, damage(err))
	}
	return x.lostIn(region)
}

// regionIter is over the buckets of a region at one moment. No change of buckets
// is under way when it is made, so it sees them all at one width.
func (x *Index) regionIter(region int) (*pebble.Iterator, uint, error) {
	x.ingesting.Lock()
	defer x.ingesting.Unlock()
	if err := x.lostIn(region); err != nil {
		return nil, 0, err
	}
	width := x.meta.Load().regions[region].width
	start, end := []byte{prefixBucket, byte(region), byte(width)}, []byte{prefixBucket, byte(region), byte(width + 1)}
	it, err := x.db.NewIter(&pebble.IterOptions{LowerBound: start, UpperBound: end})
	if err != nil {
		return nil, 0, fmt.Errorf("read buckets: %w", damage(err))
	}
	return it, width, nil
}

// lostIn tells whether postings of a region may be lost.
func (x *Index) lostIn(region int) error {
	first, last := uint64(region)<<56, uint64(region)<<56|(1<<56-1)
	for _, s := range x.meta.Load().lost {
		if s.first <= last && s.last >= first {
			return fmt.Errorf("scan region %d: %w", region, ErrLost)
		}
	}
	return nil
}
