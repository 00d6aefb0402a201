package postings

import (
	"math"
	"math/rand/v2"
)

// Stats is what an index can say of itself cheaply.
type Stats struct {
	Flushed uint64 // see Index.Flushed
	// Entries put into buckets, as far as no compaction was seen to drop them:
	// Living, the dead and repetitions.
	Entries uint64
	// InMemory are entries not yet in buckets.
	InMemory uint64
	// Living entries and distinct Hashes that have some, estimated from a
	// sample of buckets with the relative standard error Error.
	Living, Hashes uint64
	Error          float64
	Bytes          uint64 // of files
	ObsoleteBytes  uint64 // part of Bytes: files that will be removed
	Sublevels      int    // of level 0: what waits for compaction
	MinWidth       uint   // least and largest number of hash bits in bucket keys
	MaxWidth       uint
	// LostSpans and the part of the hash space, 0 to 1, that they cover: where
	// postings were lost to damage. See Index.Salvage.
	LostSpans int
	LostShare float64
}

// Garbage is the estimated number of entries that Reclaim would drop.
func (s Stats) Garbage() uint64 { return s.Entries - min(s.Entries, s.Living) }

// Stats reads sample buckets at random for its estimates; 256 make them good
// to about 1 %.
func (x *Index) Stats(sample int) (Stats, error) {
	if err := x.enter(); err != nil {
		return Stats{}, err
	}
	defer x.leave()
	m, db := x.meta.Load(), x.db.Metrics()
	s := Stats{
		Flushed:       m.flushed,
		Bytes:         db.DiskSpaceUsage(),
		ObsoleteBytes: db.Table.ObsoleteSize + db.Table.ZombieSize,
		Sublevels:     int(db.Levels[0].Sublevels),
		MinWidth:      maxWidth,
		LostSpans:     len(m.lost),
		LostShare:     m.lost.share(),
	}
	for _, r := range m.regions {
		s.Entries += r.entries
		s.MinWidth, s.MaxWidth = min(s.MinWidth, r.width), max(s.MaxWidth, r.width)
	}
	x.putting.Lock()
	s.InMemory = uint64(x.view.Load().active.entries)
	if f := x.view.Load().flushing; f != nil {
		s.InMemory += uint64(f.entries)
	}
	x.putting.Unlock()
	return s, x.estimate(&s, sample)
}

// estimate looks at the buckets of random hashes. A bucket of width w is met
// with probability 2^-w, so it stands for 2^w.
func (x *Index) estimate(s *Stats, sample int) error {
	var living, hashes float64
	seen := 0
	var ps, scratch []posting
	for range sample {
		var h Hash
		for i := range h {
			h[i] = byte(rand.Uint32())
		}
		width := x.meta.Load().regions[h.region()].width
		value, err := x.rawBucket(bucketKey(nil, &h, width))
		if err != nil {
			return err
		}
		if ps, scratch, err = decode(ps[:0], value, HashBits-width, scratch); err != nil {
			return err
		}
		ps = x.living(ps)
		seen += len(ps)
		living += math.Ldexp(float64(len(ps)), int(width))
		hashes += math.Ldexp(float64(distinct(ps)), int(width))
	}
	if sample > 0 {
		s.Living, s.Hashes = uint64(living/float64(sample)), uint64(hashes/float64(sample))
		s.Error = 1 / math.Sqrt(float64(max(seen, 1)))
	}
	return nil
}

// distinct counts the hashes of sorted postings.
func distinct(ps []posting) (n int) {
	for i := range ps {
		if i == 0 || ps[i].suffix != ps[i-1].suffix {
			n++
		}
	}
	return n
}
