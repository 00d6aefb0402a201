package postings

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/cockroachdb/pebble/v2"
)

// Compact merges all buckets into one level, where a lookup reads one place,
// and drops the dead where something is merged. It writes the whole index
// once.
func (x *Index) Compact(ctx context.Context) error {
	if err := x.enter(); err != nil {
		return err
	}
	defer x.leave()
	if err := x.db.Compact(ctx, []byte{prefixBucket}, []byte{prefixBucket + 1}, true); err != nil {
		return fmt.Errorf("compact postings: %w", err)
	}
	return nil
}

// reclaimEntries is how many entries are compacted at a time by Reclaim: many
// tables' worth, as those at the ends are rewritten with the neighbours too.
const reclaimEntries = 32 << 20

// Reclaim rewrites the regions that have at least the part minGarbage of dead
// entries or repetitions, some at a time, and returns how many entries it
// dropped. Regions that have clearly less, by a sample, are not read. With
// minGarbage 0 all are rewritten, whatever the counts say, as a pass that was
// stopped may have counted what it did not drop; and after it has returned no
// error nothing is left of IDs that were dead, and flushed, when it began. It
// may be stopped through ctx at any time and begun again; what it did stays.
// What it cannot read it passes over and reports at the end as ErrCorrupt.
func (x *Index) Reclaim(ctx context.Context, minGarbage float64) (dropped uint64, err error) {
	if err := x.enter(); err != nil {
		return 0, err
	}
	defer x.leave()
	var damaged []error
	first, touched, garbage := 0, uint64(0), uint64(0)
	for region := range regions {
		if err := ctx.Err(); err != nil {
			return dropped, err
		}
		n, err := x.touch(region, minGarbage)
		if isDamage(err) {
			damaged = append(damaged, fmt.Errorf("reclaim region %d: %w", region, damage(err)))
		} else if err != nil {
			return dropped, fmt.Errorf("reclaim region %d: %w", region, err)
		}
		garbage += n
		touched += x.meta.Load().regions[region].entries
		if touched < reclaimEntries && region < regions-1 {
			continue
		}
		if garbage > 0 || minGarbage <= 0 {
			start, _ := regionSpan(first)
			_, end := regionSpan(region)
			err := x.db.Compact(ctx, start, end, false)
			if isDamage(err) {
				damaged = append(damaged, fmt.Errorf("reclaim regions %d to %d: %w", first, region, damage(err)))
			} else if err != nil {
				return dropped, fmt.Errorf("reclaim regions %d to %d: %w", first, region, err)
			}
		}
		dropped += garbage
		first, touched, garbage = region+1, 0, 0
	}
	return dropped, errors.Join(damaged...)
}

// touch ingests a merge operand of nothing for each bucket of a region that has
// garbage enough, since a compaction passes on a bucket that has nothing to be
// merged as it is. Which buckets have the garbage cannot be told from reading
// them: what is not final yet is read without the dead. It returns the number
// of entries that compaction will then drop.
func (x *Index) touch(region int, minGarbage float64) (garbage uint64, err error) {
	if minGarbage > 0 {
		if clean, err := x.isClean(region, minGarbage); clean || err != nil {
			return 0, err
		}
	}
	x.ingesting.Lock()
	defer x.ingesting.Unlock()
	next := *x.meta.Load()
	r := &next.regions[region]
	living := uint64(0)
	var buckets []uint64 // prefixes
	err = x.scan(region, func(h Hash, _ uint, ps []posting) error {
		living += uint64(len(x.living(ps)))
		buckets = append(buckets, h.prefix())
		return nil
	})
	if err != nil {
		return 0, err
	}
	if len(buckets) == 0 {
		return 0, nil
	}
	garbage = r.entries - min(r.entries, living)
	if minGarbage > 0 && (garbage == 0 || float64(garbage) < minGarbage*float64(r.entries)) {
		return 0, nil
	}
	t := x.newTables()
	for _, prefix := range buckets {
		h := hashAt(prefix)
		if err := t.addBucket(&h, r.width, nil); err != nil {
			return 0, errors.Join(err, t.drop())
		}
	}
	r.entries = living
	if err := x.ingest(t, &next); err != nil {
		return 0, err
	}
	return garbage, nil
}

// cleanSample is how many buckets of a region tell whether it may have garbage.
const cleanSample = 64

// isClean tells whether a region has less garbage than asked for, as far as a
// sample can exclude that with three standard errors.
func (x *Index) isClean(region int, minGarbage float64) (bool, error) {
	entries := float64(x.meta.Load().regions[region].entries)
	if entries == 0 {
		return true, nil
	}
	var living moments
	var look bucketLook
	for range cleanSample {
		h := hashAt(rand.Uint64())
		h[0] = byte(region)
		n, _, width, err := look.at(x, &h)
		if err != nil {
			return false, err
		}
		living.add(math.Ldexp(float64(n), int(width-8)))
	}
	return entries-(living.mean-3*living.standardError()) < minGarbage*entries, nil
}

// scan calls fn with every bucket of a region, in order. ps is valid during
// the call.
func (x *Index) scan(region int, fn func(h Hash, width uint, ps []posting) error) (err error) {
	start, end := regionSpan(region)
	it, err := x.db.NewIter(&pebble.IterOptions{LowerBound: start, UpperBound: end})
	if err != nil {
		return fmt.Errorf("read buckets: %w", err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	var ps, scratch []posting
	for ok := it.First(); ok; ok = it.Next() {
		h, width, err := parseBucketKey(it.Key())
		if err != nil {
			return err
		}
		if ps, scratch, err = decode(ps[:0], it.Value(), HashBits-width, scratch); err != nil {
			return fmt.Errorf("bucket %x: %w", it.Key(), err)
		}
		if err := fn(h, width, ps); err != nil {
			return err
		}
	}
	if err := it.Error(); err != nil {
		return fmt.Errorf("read buckets: %w", err)
	}
	return nil
}

// Checkpoint writes a consistent copy of the durable buckets to dir, which
// must not exist; its parent must. Open opens the copy, whose Flushed says
// what is in it. Files are linked where the file system can.
func (x *Index) Checkpoint(dir string) error {
	if err := x.enter(); err != nil {
		return err
	}
	defer x.leave()
	if err := x.cfg.FS.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make %s: %w", dir, err)
	}
	if err := x.db.Checkpoint(x.cfg.FS.PathJoin(dir, "buckets")); err != nil {
		return fmt.Errorf("checkpoint postings to %s: %w", dir, err)
	}
	return errors.Join(syncDir(x.cfg.FS, dir), syncDir(x.cfg.FS, x.cfg.FS.PathDir(dir)))
}
