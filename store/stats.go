package store

import (
	"fmt"
	"sync"
	"time"

	"github.com/signpost-index/signpost/store/postings"
)

// Counts are exact and cost one read.
type Counts struct {
	// Postings are multihashes put per committed ad and not removed since: one
	// named by two ads of a record counts twice.
	Postings uint64
	// Records are (provider, context ID) pairs with metadata. Those of a
	// provider being removed count until they are swept.
	Records uint64
	// Garbage are postings of removed records whose space is not given back.
	Garbage uint64
}

// Stats are sizes of the store.
type Stats struct {
	Counts
	// Multihashes is the number of distinct ones that lead to a record,
	// estimated from a sample of the index with the relative standard error
	// MultihashesError; 0 if nothing was sampled. What was put in the last
	// moments and is only in memory counts as new.
	Multihashes      uint64
	MultihashesError float64

	// Bytes on disk: all, and of each kind. Obsolete is the part of files that
	// were replaced and will be removed in a moment.
	Bytes         int64
	PostingsBytes int64
	RowsBytes     int64
	LogBytes      int64
	ObsoleteBytes int64
	// Parts of RowsBytes, estimated from blocks of tables; what is only in
	// memory and in the log is left out.
	RecordsBytes, LedgerBytes int64

	// Sublevels of the index's level 0: what waits for compaction.
	Sublevels int
	// RemovedProviders wait to be swept.
	RemovedProviders int
	// LostShare is the part of all multihashes, 0 to 1, of which postings may
	// have been lost to damage: see Repair.
	LostShare float64
}

const (
	// statsSample buckets make estimates good to about 1 %, in some
	// milliseconds.
	statsSample = 256
	// statsAge is how long a sample serves.
	statsAge = 10 * time.Second
)

// statsCache keeps the last sample of the index.
type statsCache struct {
	mu     sync.Mutex
	at     time.Time
	counts Counts
	sample postings.Stats
}

// Counts returns the exact counts.
func (s *Store) Counts() (Counts, error) {
	if err := s.enter(); err != nil {
		return Counts{}, err
	}
	defer s.exit()
	return s.counts(), nil
}

func (s *Store) sizes() (publishers int, t totals) {
	s.view.RLock()
	defer s.view.RUnlock()
	return len(s.publishers), s.shown
}

func (s *Store) counts() Counts {
	s.view.RLock()
	defer s.view.RUnlock()
	return Counts{Postings: s.shown.postings, Records: s.shown.records, Garbage: s.shown.dead}
}

// Stats returns the sizes of the store. It reads some hundred blocks at most
// every ten seconds.
func (s *Store) Stats() (Stats, error) {
	if err := s.enter(); err != nil {
		return Stats{}, err
	}
	defer s.exit()
	st := Stats{Counts: s.counts(), RemovedProviders: len(*s.peers.removed.Load())}
	sample, err := s.stats.get(s.index, st.Counts)
	if err != nil {
		return Stats{}, fmt.Errorf("sample postings: %w", err)
	}
	m := s.db.Metrics()
	st.Multihashes, st.MultihashesError = sample.Hashes+sample.InMemory, sample.Error
	st.Sublevels, st.LostShare = sample.Sublevels, sample.LostShare
	st.PostingsBytes = int64(s.index.DiskBytes())
	st.RowsBytes = int64(m.DiskSpaceUsage())
	st.LogBytes = s.log.Size()
	st.Bytes = st.PostingsBytes + st.RowsBytes + st.LogBytes
	st.ObsoleteBytes = int64(sample.ObsoleteBytes + m.Table.ObsoleteSize + m.Table.ZombieSize)
	for prefix, bytes := range map[byte]*int64{
		prefixRecord: &st.RecordsBytes, prefixContext: &st.RecordsBytes, prefixGeneration: &st.RecordsBytes,
		prefixLedger: &st.LedgerBytes,
	} {
		n, err := s.db.EstimateDiskUsage([]byte{prefix}, []byte{prefix + 1})
		if err != nil {
			return Stats{}, fmt.Errorf("estimate size of rows: %w", err)
		}
		*bytes += int64(n)
	}
	return st, nil
}

// get returns sizes of now, with estimates that are not older than statsAge
// and not of a store that was much different.
func (c *statsCache) get(x *postings.Index, now Counts) (postings.Stats, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	changed := max(now.Postings, c.counts.Postings)-min(now.Postings, c.counts.Postings) > c.counts.Postings/16
	if !c.at.IsZero() && time.Since(c.at) < statsAge && !changed {
		fresh, err := x.Stats(0)
		fresh.Living, fresh.Hashes, fresh.Error = c.sample.Living, c.sample.Hashes, c.sample.Error
		return fresh, err
	}
	sample, err := x.Stats(statsSample)
	if err != nil {
		return postings.Stats{}, err
	}
	c.at, c.counts, c.sample = time.Now(), now, sample
	return sample, nil
}
