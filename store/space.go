package store

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
)

// How often free space is looked at: when so much of the reserve was put as
// hashes, and after so long. A hash put is 10 bytes in the log, 10 in a table
// and at most some 30 while it is compacted, so between two looks Puts cost
// less than a tenth of the reserve.
const (
	spaceParts = 64
	spaceEvery = 250 * time.Millisecond
	// spaceSlack is the part of the reserve that must be free above it before
	// content is taken again, so that the two states do not alternate with
	// every table that comes and goes.
	spaceSlack = 16
)

// defaultReserve is what a store with so much memory may still have to write
// when it takes no content any more. With M for the memory:
//
//	3/8 M   postings in two memtables, each a quarter of three quarters
//	1/8 M   rows in four memtables
//	1/2 M   log up to where it is shortened by force; and one segment
//	2 M     a compaction of all of level 0, eight flushes, with the level below
//	1/8 M   the same of rows; and 256 MiB at most of the level below
//
// which is 25/8 M and some 320 MiB; rounded to 4 M and 256 MiB. Compactions
// further down are kept small by Pebble when little is free.
func defaultReserve(memoryBytes int64) int64 { return 4*memoryBytes + 256<<20 }

// space watches the free space of the file system the store is on, and says
// whether content may be put. It is safe for concurrent use.
type space struct {
	fs      vfs.FS
	dir     string
	reserve uint64 // 0: no watch
	log     *slog.Logger
	gauge   prometheus.Gauge

	budget atomic.Int64 // bytes that may be put before the next look
	due    atomic.Int64 // time of the next look, Unix nanoseconds
	state  atomic.Pointer[spaceState]

	mu     sync.Mutex // one look at a time
	failed bool       // the last look
}

// spaceState is what the last look saw.
type spaceState struct {
	free uint64 // bytes
	low  bool
}

func newSpace(cfg Config, gauge prometheus.Gauge) *space {
	w := &space{fs: cfg.FS, dir: cfg.Dir, reserve: uint64(max(cfg.ReserveBytes, 0)), log: cfg.Logger, gauge: gauge}
	w.state.Store(&spaceState{})
	return w
}

// admit decides whether n more bytes of content may be put: nil, or an error
// that wraps ErrNoSpace.
func (w *space) admit(n int) error {
	if w.reserve == 0 {
		return nil
	}
	if w.budget.Add(-int64(n)) < 0 {
		w.look()
	} else {
		w.refresh()
	}
	return w.err()
}

// err is what the last look means for content.
func (w *space) err() error {
	s := w.state.Load()
	if !s.low {
		return nil
	}
	return fmt.Errorf("%w: %d MiB free where %s is, %d MiB wanted: make room there, or give the store a larger disk; "+
		"content is taken again by itself", ErrNoSpace, s.free>>20, w.dir, w.enough()>>20)
}

// enough is the free space from which content is taken again.
func (w *space) enough() uint64 { return w.reserve + w.reserve/spaceSlack }

// refresh looks if the last look was long ago.
func (w *space) refresh() {
	if w.reserve > 0 && time.Now().UnixNano() >= w.due.Load() {
		w.look()
	}
}

// now is err after a fresh look.
func (w *space) now() error {
	if w.reserve == 0 {
		return nil
	}
	w.due.Store(0)
	w.look()
	return w.err()
}

// look measures free space. A file system that cannot say has enough; after
// another error what was seen before holds.
func (w *space) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.budget.Load() >= 0 && time.Now().UnixNano() < w.due.Load() {
		return // somebody else just did
	}
	usage, err := w.fs.GetDiskUsage(w.dir)
	w.budget.Store(int64(w.reserve / spaceParts))
	w.due.Store(time.Now().Add(spaceEvery).UnixNano())
	if errors.Is(err, vfs.ErrUnsupported) {
		return
	}
	if err != nil {
		if !w.failed {
			w.log.Warn("free space cannot be measured", "dir", w.dir, "err", err)
		}
		w.failed = true
		return
	}
	w.failed = false
	w.saw(usage.AvailBytes)
}

func (w *space) saw(free uint64) {
	was := w.state.Load().low
	low := free < w.reserve || (was && free < w.enough())
	w.state.Store(&spaceState{free: free, low: low})
	switch {
	case low && !was:
		w.gauge.Set(1)
		w.log.Warn("disk nearly full: no content is taken, everything else goes on", "dir", w.dir, "free", free, "reserve", w.reserve)
	case was && !low:
		w.gauge.Set(0)
		w.log.Info("disk has room again: content is taken", "dir", w.dir, "free", free, "reserve", w.reserve)
	}
}

// MinFree is how much must be free where the store is, in bytes, for content to
// be taken for good: somewhat more than the reserve. 0 without a reserve.
func (s *Store) MinFree() int64 { return int64(s.space.enough()) }
