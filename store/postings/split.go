package postings

import (
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

const (
	// bucketFill is the average number of entries from which a region's
	// buckets are split: 100 to 400 entries a bucket make about 9 µs a lookup
	// and 0.1 bytes of overhead an entry.
	bucketFill = 400
	splitBits  = 2
	// firstFlushEntries are wanted of the first flush in each bucket, or half of
	// it if a flush has manyEntries: such an index was given memory to grow, and
	// is not rewritten on its way to a billion (10 bytes written a posting less),
	// for half a byte a posting while it is small. A small one stays small.
	firstFlushEntries = 24
	manyEntries       = 32 << 20
	// minFlushEntries a new bucket are wanted of each flush, as smaller runs
	// cost more to write than to keep together; up to
	// bucketPatience times bucketFill.
	minFlushEntries = 2
	bucketPatience  = 4
)

// flushEntries is how many entries a flush has when the memtable was full.
func (x *Index) flushEntries() uint64 {
	return uint64(min(x.cfg.MemoryBytes/4, maxArenaBytes)) / 12
}

// firstWidth is the width of a region that has nothing yet.
func (x *Index) firstWidth() uint {
	width, wanted := uint(minWidth), uint64(firstFlushEntries)
	if x.flushEntries() >= manyEntries {
		wanted /= 2
	}
	for width+splitBits <= maxWidth && x.flushEntries() >= wanted<<(width+splitBits) {
		width += splitBits
	}
	return width
}

// isFull tells whether a region would be to be split if it had a width.
// Regions are staggered, as all fill at the same pace.
func (x *Index) isFull(m *meta, region int, width uint) bool {
	entries := m.regions[region].entries
	buckets := uint64(1) << (width - 8)
	limit := x.cfg.fill * buckets * uint64(regions+region/2) / regions
	if width+splitBits > maxWidth || entries <= limit {
		return false
	}
	return x.flushEntries()/regions >= minFlushEntries*buckets<<splitBits || entries > limit*x.cfg.patience
}

// splitFull splits regions that are full, as far as they have to be, in the
// time that a flush or two take: writers wait no longer. The caller holds
// ingesting.
func (x *Index) splitFull(ctx context.Context) error {
	rewritten := uint64(0)
	for region := 0; region < regions && rewritten < x.flushEntries() && ctx.Err() == nil; region++ {
		m := x.meta.Load()
		width := m.regions[region].width
		for x.isFull(m, region, width) {
			width += splitBits
		}
		if width == m.regions[region].width {
			continue
		}
		if err := x.rewrite(region, width); err != nil {
			// The flush itself is done; the next one tries again.
			x.metrics.flushErrors.Inc()
			x.cfg.Logger.Warn("buckets could not be split", "region", region, "err", err)
			return nil
		}
		rewritten += m.regions[region].entries
	}
	return nil
}

// rewrite gives a region wider bucket keys: one ingest removes the old keys
// and brings the new ones and the region's new width. The caller holds
// ingesting.
func (x *Index) rewrite(region int, width uint) error {
	next := *x.meta.Load()
	old := next.regions[region].width
	t := x.newTables()
	entries, err := x.widen(t, region, old, width)
	if err != nil {
		return errors.Join(fmt.Errorf("split region %d: %w", region, err), t.drop())
	}
	next.regions[region] = regionMeta{width: width, entries: entries}
	err = x.ingestOver(t, &next, []int{region}, func(paths []string) error { return x.db.Ingest(context.Background(), paths) })
	if err != nil {
		return fmt.Errorf("split region %d: %w", region, err)
	}
	x.metrics.splits.Inc()
	x.cfg.Logger.Debug("buckets split", "region", region, "width", width, "entries", entries)
	return nil
}

// widen writes the buckets of a region again at another width, and the
// removal of the old ones, and returns the number of entries.
func (x *Index) widen(t *tables, region int, old, width uint) (entries uint64, err error) {
	start, end := []byte{prefixBucket, byte(region), byte(old)}, []byte{prefixBucket, byte(region), byte(old + 1)}
	w, err := t.writer()
	if err != nil {
		return 0, err
	}
	if err := w.DeleteRange(start, end); err != nil {
		return 0, fmt.Errorf("write table: %w", err)
	}
	it, err := x.db.NewIter(&pebble.IterOptions{LowerBound: start, UpperBound: end})
	if err != nil {
		return 0, fmt.Errorf("read buckets: %w", err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	var ps, scratch []posting
	for ok := it.First(); ok; ok = it.Next() {
		h, _, err := parseBucketKey(it.Key())
		if err != nil {
			return 0, err
		}
		if ps, scratch, err = decode(ps[:0], it.Value(), HashBits-old, scratch); err != nil {
			return 0, fmt.Errorf("bucket %x: %w", it.Key(), err)
		}
		ps = x.living(ps)
		entries += uint64(len(ps))
		if err := t.addSplit(h, ps, old, width); err != nil {
			return 0, err
		}
	}
	if err := it.Error(); err != nil {
		return 0, fmt.Errorf("read buckets: %w", err)
	}
	return entries, nil
}

// addSplit writes the postings of one bucket as the narrower buckets they are
// in at another width.
func (t *tables) addSplit(h Hash, ps []posting, old, width uint) error {
	suffix := HashBits - width
	for len(ps) > 0 {
		part := ps[0].suffix >> suffix
		first := h.withSuffix(ps[0].suffix, HashBits-old)
		n := 0
		t.run = t.run[:0]
		for n < len(ps) && ps[n].suffix>>suffix == part {
			t.run = append(t.run, posting{ps[n].suffix & suffixMask(suffix), ps[n].id})
			n++
		}
		if err := t.addBucket(&first, width, t.run); err != nil {
			return err
		}
		ps = ps[n:]
	}
	return nil
}

// living removes the dead from ps in place.
func (x *Index) living(ps []posting) []posting {
	if x.cfg.Alive == nil {
		return ps
	}
	kept := ps[:0]
	for _, p := range ps {
		if x.cfg.Alive(p.id) {
			kept = append(kept, p)
		}
	}
	return kept
}
