package ingest

import (
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	historyLength  = 10     // admin.md section 5
	statusEntries  = 10_000 // publishers remembered, least recently used go first
	durationDigits = time.Millisecond
)

// SyncStatus is the JSON of GET /sync/status/{publisher}, admin.md section 5.
// Histories are newest first.
type SyncStatus struct {
	Provider          string          `json:",omitempty"`
	Scan              *ScanRun        `json:",omitempty"`
	ScanHistory       []ScanRun       `json:",omitempty"`
	Processing        *ProcessingRun  `json:",omitempty"`
	ProcessingHistory []ProcessingRun `json:",omitempty"`
	Download          *DownloadRun    `json:",omitempty"`
	DownloadHistory   []DownloadRun   `json:",omitempty"`
}

// Run is what all runs share.
type Run struct {
	StartTime time.Time  `json:",omitzero"`
	EndTime   *time.Time `json:",omitempty"`
	Ongoing   bool       `json:",omitempty"`
	Elapsed   string     `json:",omitempty"`
	Error     string     `json:",omitempty"`

	start time.Time // StartTime is rounded to the second
}

func startRun() Run {
	now := time.Now()
	return Run{StartTime: now.UTC().Truncate(time.Second), Ongoing: true, start: now}
}

func (r *Run) finish(now time.Time, err error) {
	r.Ongoing = false
	end := now.UTC().Truncate(time.Second)
	r.EndTime = &end
	r.Elapsed = now.Sub(r.start).Round(durationDigits).String()
	if err != nil {
		r.Error = err.Error()
	}
}

// ScanRun is one walk back along the chain.
type ScanRun struct {
	Run
	AdsScanned int    `json:",omitempty"`
	HeadAd     string `json:",omitempty"`
	CurrentAd  string `json:",omitempty"`
}

// ProcessingRun is one run of applying ads.
type ProcessingRun struct {
	Run
	AdsProcessed int    `json:",omitempty"`
	AdsTotal     int    `json:",omitempty"`
	AdsLeft      int    `json:",omitempty"`
	CurrentAd    string `json:",omitempty"`
	ErrorCount   int    `json:",omitempty"`
}

// DownloadRun counts the entries fetched during one run.
type DownloadRun struct {
	Run
	BytesDownloaded     int64 `json:",omitempty"`
	EntryChunkCount     int   `json:",omitempty"`
	ChunkMultihashCount int   `json:",omitempty"`
	HamtMultihashCount  int   `json:",omitempty"`
	MultihashCount      int   `json:",omitempty"`
}

// Status returns what is known of publisher's syncs since this node started.
func (i *Ingester) Status(publisher peer.ID) (SyncStatus, bool) {
	e, ok := i.status.entries.Get(publisher)
	if !ok {
		return SyncStatus{}, false
	}
	return e.snapshot(time.Now()), true
}

// Statuses returns the status of every publisher synced since this node started.
func (i *Ingester) Statuses() map[peer.ID]SyncStatus {
	out := make(map[peer.ID]SyncStatus)
	for _, id := range i.status.entries.Keys() {
		if st, ok := i.Status(id); ok {
			out[id] = st
		}
	}
	return out
}

type statusBook struct {
	mu      sync.Mutex // makes get-or-add one step
	entries *lru.Cache[peer.ID, *statusEntry]
}

func newStatusBook() *statusBook {
	cache, err := lru.New[peer.ID, *statusEntry](statusEntries)
	if err != nil {
		panic(err) // only for a size below 1
	}
	return &statusBook{entries: cache}
}

func (b *statusBook) entry(publisher peer.ID) *statusEntry {
	b.mu.Lock()
	defer b.mu.Unlock()
	e, ok := b.entries.Get(publisher)
	if !ok {
		e = &statusEntry{}
		e.s.Provider = publisher.String()
		b.entries.Add(publisher, e)
	}
	return e
}

// statusEntry is written by one sync and read by any number of requests.
type statusEntry struct {
	mu sync.Mutex
	s  SyncStatus
}

func (e *statusEntry) begin() {
	e.mu.Lock()
	defer e.mu.Unlock()
	run := startRun()
	e.s.Scan = &ScanRun{Run: run}
	e.s.Processing = &ProcessingRun{Run: run}
	e.s.Download = &DownloadRun{Run: run}
}

func (e *statusEntry) end(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	if err != nil {
		e.s.Processing.ErrorCount++
	}
	e.s.Scan.finish(now, err)
	e.s.Processing.finish(now, err)
	e.s.Download.finish(now, err)
	e.s.ScanHistory = pushRun(e.s.ScanHistory, *e.s.Scan)
	e.s.ProcessingHistory = pushRun(e.s.ProcessingHistory, *e.s.Processing)
	e.s.DownloadHistory = pushRun(e.s.DownloadHistory, *e.s.Download)
	e.s.Scan, e.s.Processing, e.s.Download = nil, nil, nil
}

func pushRun[T any](history []T, run T) []T {
	history = append([]T{run}, history...)
	return history[:min(len(history), historyLength)]
}

func (e *statusEntry) setHead(c cid.Cid) {
	e.with(func(s *SyncStatus) { s.Scan.HeadAd = c.String() })
}

func (e *statusEntry) scanned(c cid.Cid) {
	e.with(func(s *SyncStatus) { s.Scan.AdsScanned++; s.Scan.CurrentAd = c.String() })
}

func (e *statusEntry) setTotal(ads int) {
	e.with(func(s *SyncStatus) { s.Processing.AdsTotal, s.Processing.AdsLeft = ads, ads })
}

func (e *statusEntry) current(c cid.Cid) {
	e.with(func(s *SyncStatus) { s.Processing.CurrentAd = c.String() })
}

func (e *statusEntry) applied() {
	e.with(func(s *SyncStatus) {
		s.Processing.AdsProcessed++
		s.Processing.AdsLeft = max(s.Processing.AdsTotal-s.Processing.AdsProcessed, 0)
	})
}

func (e *statusEntry) failed() {
	e.with(func(s *SyncStatus) { s.Processing.ErrorCount++ })
}

func (e *statusEntry) chunk(bytes, mhs int) {
	e.with(func(s *SyncStatus) {
		s.Download.BytesDownloaded += int64(bytes)
		s.Download.EntryChunkCount++
		s.Download.ChunkMultihashCount += mhs
		s.Download.MultihashCount += mhs
	})
}

func (e *statusEntry) hamt(mhs int) {
	e.with(func(s *SyncStatus) {
		s.Download.HamtMultihashCount += mhs
		s.Download.MultihashCount += mhs
	})
}

func (e *statusEntry) with(f func(*SyncStatus)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f(&e.s)
}

func (e *statusEntry) snapshot(now time.Time) SyncStatus {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.s
	s.ScanHistory = slices.Clone(s.ScanHistory)
	s.ProcessingHistory = slices.Clone(s.ProcessingHistory)
	s.DownloadHistory = slices.Clone(s.DownloadHistory)
	if s.Scan != nil {
		scan, proc, down := *s.Scan, *s.Processing, *s.Download
		elapsed := now.Sub(scan.start).Round(durationDigits).String()
		scan.Elapsed, proc.Elapsed, down.Elapsed = elapsed, elapsed, elapsed
		s.Scan, s.Processing, s.Download = &scan, &proc, &down
	}
	return s
}
