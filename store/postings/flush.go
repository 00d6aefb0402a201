package postings

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// maxSublevels is the depth of level 0 at which flushes wait for compaction:
// each sublevel is one more place a lookup reads.
const maxSublevels = 8

// flushLoop flushes memtables as they are turned over, until ctx ends.
func (x *Index) flushLoop(ctx context.Context) {
	x.mu.Lock()
	defer x.mu.Unlock()
	defer context.AfterFunc(ctx, func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.cond.Broadcast()
	})()
	for {
		for ctx.Err() == nil && (x.view.Load().flushing == nil || x.flushErr != nil) {
			x.cond.Wait()
		}
		if ctx.Err() != nil {
			x.ended = true
			x.cond.Broadcast()
			return
		}
		m, j := x.view.Load().flushing, x.job
		x.mu.Unlock()
		err := x.flush(ctx, m, j)
		if isDamage(err) && !x.cfg.LeaveDamage {
			if found, _ := x.salvage(ctx); len(found) > 0 {
				err = x.flush(ctx, m, j)
			}
		}
		x.mu.Lock()
		if err != nil {
			x.flushErr = err
			x.cond.Broadcast()
			continue
		}
		x.view.Store(&view{active: x.view.Load().active})
		x.mu.Unlock()
		m.drain()
		x.mu.Lock()
		x.spare = m.arena
		x.cond.Broadcast()
	}
}

// flush writes a memtable as tables of buckets and ingests them, together with
// the mark that says so.
func (x *Index) flush(ctx context.Context, m *memtable, j job) error {
	start := time.Now()
	if err := x.waitForCompaction(ctx); err != nil {
		return err
	}
	x.ingesting.Lock()
	defer x.ingesting.Unlock()
	next := *x.meta.Load()
	t := x.newTables()
	if err := t.addMemtable(m, &next); err != nil {
		x.metrics.flushErrors.Inc()
		return errors.Join(fmt.Errorf("flush postings up to %d: %w", j.max, err), t.drop())
	}
	if x.cfg.BeforeIngest != nil {
		if err := x.cfg.BeforeIngest(j.max); err != nil {
			return errors.Join(fmt.Errorf("flush postings up to %d: log: %w", j.max, err), t.drop())
		}
	}
	next.flushed = max(next.flushed, j.mark)
	if err := x.ingest(t, &next); err != nil {
		x.metrics.flushErrors.Inc()
		return fmt.Errorf("flush postings up to %d: %w", j.max, err)
	}
	x.meta.Store(&next)
	x.metrics.flushed.Add(float64(m.entries))
	x.cfg.Logger.Debug("postings flushed", "entries", m.entries, "pos", next.flushed, "elapsed", time.Since(start))
	return x.splitFull(ctx)
}

// waitForCompaction waits while level 0 is deep. It does not hold ingesting: if
// a compaction cannot pass damage, Salvage makes way; what Pebble keeps off
// otherwise is compacted from here.
func (x *Index) waitForCompaction(ctx context.Context) error {
	start := time.Now()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	ticks := 0
	for waited := false; ; waited = true {
		woken := x.compacted.next()
		if x.db.Metrics().Levels[0].Sublevels < maxSublevels {
			if waited {
				x.metrics.throttled.Add(time.Since(start).Seconds())
			}
			return nil
		}
		select {
		case <-woken:
		case <-tick.C: // in case compactions fail
			x.compactSalvaged(ctx)
			if ticks++; ticks > 1 {
				x.compactKeptOff(ctx)
			}
		case <-ctx.Done():
			return ErrClosed
		}
	}
}

// compactKeptOff compacts the deepest parts of level 0 one after the other while
// it is deep because Pebble (v2.1.7, problemSpans) keeps off what a compaction
// could not read, for half a minute or five: it may have been only once that it
// could not. These compactions go down to the last level, so they are not the
// first means.
func (x *Index) compactKeptOff(ctx context.Context) {
	for range regions + 1 { // one each
		m := x.db.Metrics()
		if m.Compact.NumProblemSpans == 0 || m.Levels[0].Sublevels < maxSublevels {
			return
		}
		deepest, err := x.deepest()
		if err == nil {
			err = x.db.Compact(ctx, deepest.start, deepest.end, false)
		}
		if err != nil {
			if ctx.Err() == nil {
				x.cfg.Logger.Warn("postings that Pebble keeps off could not be compacted, it is tried again", "err", err)
			}
			return
		}
	}
}

// deepest returns the keys of the region, or of the meta row, that most tables
// of level 0 overlap.
func (x *Index) deepest() (keyRange, error) {
	levels, err := x.db.SSTables()
	if err != nil {
		return keyRange{}, fmt.Errorf("list tables: %w", err)
	}
	deepest, most := keyRange{metaKey, afterKey(metaKey)}, 0
	for region := -1; region < regions; region++ {
		r := keyRange{metaKey, afterKey(metaKey)}
		if region >= 0 {
			r.start, r.end = regionSpan(region)
		}
		n := 0
		for i := range levels[0] {
			if rangeOf(&levels[0][i]).overlap(r).valid() {
				n++
			}
		}
		if n > most {
			deepest, most = r, n
		}
	}
	return deepest, nil
}

// addMemtable writes the buckets of a memtable at the widths of its regions
// and counts the entries there.
func (t *tables) addMemtable(m *memtable, next *meta) error {
	var s sorter
	for part := range m.parts {
		es := s.sorted(m, part)
		for len(es) > 0 {
			first := m.hash(part, es[0])
			r := &next.regions[first.region()]
			n := t.takeBucket(m, part, es, &first, r.width)
			if err := t.addBucket(&first, r.width, t.run); err != nil {
				return err
			}
			r.entries += uint64(n)
			es = es[n:]
		}
	}
	return nil
}

// takeBucket collects in t.run the entries that are in the same bucket as the
// first and returns their number.
func (t *tables) takeBucket(m *memtable, part int, es []entry, first *Hash, width uint) int {
	// Entries of a partition differ in the bits after it only, of which the
	// bucket has so many. A bucket is never larger than a partition.
	shift := 64 - (width - m.partBits)
	mask := suffixMask(HashBits - width)
	bucket := es[0].at >> shift
	t.run = t.run[:0]
	for _, e := range es {
		if e.at>>shift != bucket {
			break
		}
		t.run = append(t.run, posting{e.low & mask, e.id})
	}
	return len(t.run)
}

// readMeta returns the meta row, nil if there is none yet.
func readMeta(r pebble.Reader) (*meta, error) {
	b, closer, err := r.Get(metaKey)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read meta row: %w", err)
	}
	m, err := decodeMeta(b)
	return m, errors.Join(err, closer.Close())
}
