package postings

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// Salvage reads every table from disk and takes away what is damaged, so that
// compactions can pass again. It keeps all that can be read: what is lost is
// what stood in the damaged blocks, or in a table whose index or footer is
// damaged, but not what other tables say of the same hashes. It returns what
// was damaged, nothing if all is well.
//
// Which hashes may have lost postings is remembered durably. A lookup of one
// of them that finds nothing answers ErrLost, until MarkWhole; what is put
// from then on is found as usual.
//
// Flushes and splits wait while it runs, for as long as reading all takes and
// rewriting the buckets around the damage. Where a whole table cannot be read
// those are all between its first and last key, with as much more disk in use
// meanwhile. It may be stopped through ctx and begun again.
//
// The index does this by itself when a compaction or a flush meets damage, as
// it could not go on for long otherwise.
func (x *Index) Salvage(ctx context.Context) ([]Damage, error) {
	if err := x.enter(); err != nil {
		return nil, err
	}
	defer x.leave()
	return x.salvage(ctx)
}

func (x *Index) salvage(ctx context.Context) (found []Damage, err error) {
	x.ingesting.Lock()
	defer x.ingesting.Unlock()
	if found, err = x.salvageAll(ctx); err != nil {
		return found, fmt.Errorf("salvage postings: %w", err)
	}
	return found, nil
}

// compactSalvaged compacts what overlaps the tables that were damaged, as long
// as Pebble (v2.1.7, problemSpans) keeps off by itself: five minutes from when
// it met the damage. For flushes that wait for it.
func (x *Index) compactSalvaged(ctx context.Context) {
	if x.db.Metrics().Compact.NumProblemSpans == 0 {
		return
	}
	for _, c := range *x.salvaged.Load() {
		if err := x.db.Compact(ctx, c.start, c.end, false); err != nil {
			if ctx.Err() == nil {
				x.cfg.Logger.Warn("salvaged postings could not be compacted", "err", err)
			}
			return
		}
	}
}

// salvageAll returns the damage. The caller holds ingesting.
func (x *Index) salvageAll(ctx context.Context) (found []Damage, err error) {
	m := x.meta.Load()
	holes, err := x.allHoles(ctx, m)
	if err != nil || len(holes) == 0 {
		return nil, err
	}
	for i := range holes {
		found = append(found, damageOf(&holes[i], m)...)
	}
	for _, c := range joinRanges(holes, func(h hole) keyRange { return h.cut }) {
		for {
			// A compaction may take away a table before it is opened.
			if err = x.salvageCut(ctx, c, holes); !errors.Is(err, errGone) {
				break
			}
		}
		if err != nil {
			return found, err
		}
	}
	tables := joinRanges(holes, func(h hole) keyRange { return h.all })
	x.salvaged.Store(&tables)
	lost := x.meta.Load().lost
	x.metrics.salvages.Inc()
	x.cfg.Logger.Error("damaged postings were taken away", "places", len(holes), "first", holes[0].table, "err", holes[0].err,
		"lostSpans", len(lost), "lostShare", lost.share())
	return found, nil
}

// allHoles reads all tables.
func (x *Index) allHoles(ctx context.Context, m *meta) (holes []hole, err error) {
	seen := make(map[uint64]bool)
	for again := true; again; {
		again = false
		list, err := x.liveTables()
		if err != nil {
			return nil, err
		}
		for i := range list {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			if seen[uint64(list[i].FileNum)] {
				continue
			}
			more, err := x.holesOf(m, &list[i])
			if errors.Is(err, errGone) {
				again = true
				continue
			}
			if err != nil {
				return nil, err
			}
			seen[uint64(list[i].FileNum)] = true
			holes = append(holes, more...)
		}
	}
	return holes, nil
}

// joinRanges joins those of the ranges of each hole that overlap or touch, in
// key order. The ends of a cut must be where every table can be read.
func joinRanges(holes []hole, of func(hole) keyRange) (cuts []keyRange) {
	for _, h := range holes {
		cuts = append(cuts, of(h))
	}
	slices.SortFunc(cuts, func(a, b keyRange) int { return bytes.Compare(a.start, b.start) })
	joined := cuts[:1]
	for _, c := range cuts[1:] {
		top := &joined[len(joined)-1]
		switch {
		case bytes.Compare(c.start, top.end) > 0:
			joined = append(joined, c)
		case bytes.Compare(c.end, top.end) > 0:
			top.end = c.end
		}
	}
	return joined
}

// salvageCut replaces all in a range of keys by what can be read of it, and
// remembers what cannot, in one ingest.
func (x *Index) salvageCut(ctx context.Context, cut keyRange, holes []hole) error {
	next := *x.meta.Load()
	for _, h := range holes {
		if bytes.Compare(h.cut.start, cut.start) >= 0 && bytes.Compare(h.cut.end, cut.end) <= 0 {
			for _, s := range next.hashes(h.lost) {
				next.lost = next.lost.with(s)
			}
		}
	}
	t := x.newTables()
	if err := x.copyReadable(ctx, t, &next, cut); err != nil {
		return errors.Join(err, t.drop())
	}
	var over []int
	for region := range regions {
		start, end := regionSpan(region)
		if cut.overlap(keyRange{start, end}).valid() {
			over = append(over, region)
		}
	}
	return x.ingestOver(t, &next, over, func(paths []string) error {
		_, err := x.db.IngestAndExcise(context.Background(), paths, nil, nil, pebble.KeyRange{Start: cut.start, End: cut.end})
		return err
	})
}

// copyReadable writes the buckets of a range of keys as far as tables can be
// read. All there is at the present width of a region counts, in any table: it
// is only ever added to. What is left at other widths was removed by a split.
func (x *Index) copyReadable(ctx context.Context, t *tables, m *meta, cut keyRange) (err error) {
	list, err := x.liveTables()
	if err != nil {
		return err
	}
	var open []*tableReader
	defer func() {
		for _, r := range open {
			err = errors.Join(err, r.close())
		}
	}()
	var ps, spare []posting
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		least := leastKey(open)
		for len(list) > 0 && (least == nil || bytes.Compare(list[0].Smallest.UserKey, least) <= 0) {
			info := &list[0]
			list = list[1:]
			if !cut.overlap(rangeOf(info)).valid() {
				continue
			}
			r, err := x.openTable(m, info, cut)
			if err != nil {
				return err
			}
			open = append(open, r)
			if err := r.next(); err != nil {
				return err
			}
			least = leastKey(open)
		}
		if least == nil {
			return nil
		}
		key := slices.Clone(least)
		ps = ps[:0]
		for _, r := range open {
			if r.key == nil || !bytes.Equal(r.key, key) {
				continue
			}
			spare = mergeRuns(spare[:0], ps, r.postings())
			ps, spare = spare, ps
			if err := r.next(); err != nil {
				return err
			}
		}
		if open, err = closeEnded(open); err != nil {
			return err
		}
		h, width, err := parseBucketKey(key)
		if err != nil || width != m.regions[h.region()].width {
			continue
		}
		if err := t.addBucket(&h, width, x.living(ps)); err != nil {
			return err
		}
	}
}

func leastKey(open []*tableReader) (least []byte) {
	for _, r := range open {
		if r.key != nil && (least == nil || bytes.Compare(r.key, least) < 0) {
			least = r.key
		}
	}
	return least
}

func closeEnded(open []*tableReader) (left []*tableReader, err error) {
	left = open[:0]
	for _, r := range open {
		if r.key != nil {
			left = append(left, r)
		} else {
			err = errors.Join(err, r.close())
		}
	}
	return left, err
}

// MarkWhole forgets what was lost. The caller has put everything again, or
// lives with misses.
func (x *Index) MarkWhole() error {
	if err := x.enter(); err != nil {
		return err
	}
	defer x.leave()
	x.ingesting.Lock()
	defer x.ingesting.Unlock()
	next := *x.meta.Load()
	if len(next.lost) == 0 {
		return nil
	}
	next.lost = nil
	if err := x.ingest(x.newTables(), &next); err != nil {
		return fmt.Errorf("forget what was lost: %w", err)
	}
	return nil
}

// salvageEvery is how often the index salvages by itself without finding
// anything, when Pebble goes on meeting damage.
const salvageEvery = time.Minute

// metDamage is called when something was met that cannot be read.
func (x *Index) metDamage() {
	select {
	case x.damaged <- struct{}{}:
	default:
	}
}

// salvageLoop salvages when damage is met, until ctx ends.
func (x *Index) salvageLoop(ctx context.Context) {
	for {
		select {
		case <-x.damaged:
		case <-ctx.Done():
			return
		}
		found, err := x.salvage(ctx)
		if err != nil && ctx.Err() == nil {
			x.cfg.Logger.Error("damaged postings could not be taken away", "err", err)
		}
		if len(found) > 0 && err == nil {
			continue
		}
		select {
		case <-time.After(salvageEvery):
		case <-ctx.Done():
			return
		}
	}
}
