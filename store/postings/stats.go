package postings

import (
	"errors"
	"math"
	"math/rand/v2"

	"github.com/cockroachdb/pebble/v2"
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
	// sample of buckets. Error is the relative standard error of the worse of
	// the two, as the differences between the sampled buckets tell: a few
	// buckets with very much in them can escape a sample.
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

// Stats reads sample buckets at random for its estimates, tens of microseconds
// each; 256 make them good to about half a per cent. None are read for 0, and
// Living, Hashes and Error are 0 then. A damaged bucket counts as not sampled.
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
	var living, hashes moments
	var look bucketLook
	for range sample {
		h := hashAt(rand.Uint64())
		l, n, width, err := look.at(x, &h)
		if isDamage(err) {
			continue
		}
		if err != nil {
			return err
		}
		living.add(math.Ldexp(float64(l), int(width)))
		hashes.add(math.Ldexp(float64(n), int(width)))
	}
	s.Living, s.Hashes = uint64(living.mean), uint64(hashes.mean)
	s.Error = max(living.relativeError(), hashes.relativeError())
	return nil
}

// bucketLook keeps the buffers of at.
type bucketLook struct {
	key         []byte
	ps, scratch []posting
}

// at counts the living entries of the bucket a hash is in, and their hashes.
func (b *bucketLook) at(x *Index, h *Hash) (living, hashes int, width uint, err error) {
	width = x.meta.Load().regions[h.region()].width
	b.key = bucketKey(b.key[:0], h, width)
	value, closer, err := x.db.Get(b.key)
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, 0, width, nil
	}
	if err != nil {
		return 0, 0, width, readError(h, err)
	}
	b.ps, b.scratch, err = decode(b.ps[:0], value, HashBits-width, b.scratch)
	if err := errors.Join(err, closer.Close()); err != nil {
		return 0, 0, width, err
	}
	b.ps = x.living(b.ps)
	return len(b.ps), distinct(b.ps), width, nil
}

// moments of a sample: Welford's method.
type moments struct {
	n       int
	mean    float64
	squares float64 // sum of squared differences from the mean
}

func (m *moments) add(v float64) {
	m.n++
	d := v - m.mean
	m.mean += d / float64(m.n)
	m.squares += d * (v - m.mean)
}

// standardError is that of the mean; without bound for less than two values.
func (m *moments) standardError() float64 {
	if m.n < 2 {
		return math.Inf(1)
	}
	return math.Sqrt(m.squares / float64(m.n-1) / float64(m.n))
}

// relativeError is the standard error of the mean as a part of it: 0 if nothing
// was sampled, 1 if nothing can be said.
func (m *moments) relativeError() float64 {
	if m.n == 0 || m.squares == 0 && m.n > 1 {
		return 0
	}
	return min(1, m.standardError()/m.mean)
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
