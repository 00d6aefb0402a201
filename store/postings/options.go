package postings

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// Bounds of a table that a flush writes.
const (
	minTableBytes = 2 << 20
	maxTableBytes = 8 << 20
)

// pebbleOptions fits Pebble to buckets: only ingested, read by key or in key
// order, incompressible. A bucket key is in every level, so filters cannot
// help.
//
// What is written for a posting is once at its flush and then, for each level
// it goes down, the part of the level below that is written with it. Three
// flushes are merged down at a time, more than which lookups would feel, as
// each is one more place to read. The first level is as large as that allows,
// two thirds of the memory to a flush's sixth (in bytes on disk), so that at
// 10^9 postings in 3 GiB there are two levels. Scaled down (BenchmarkIndex with
// POSTINGS_N=64000000 POSTINGS_MEMORY_MIB=192) the bytes written are 9.8 by
// flushes and splits, 15 in the first level and 10 in the last, and those
// settled 8.5 to 8.7 a posting; with a first level of a sixth of the memory and
// every flush merged down at once 10, 16 and 13.
func (x *Index) pebbleOptions() *pebble.Options {
	opts := &pebble.Options{
		FS:                         x.cfg.FS,
		FormatMajorVersion:         pebble.FormatNewest,
		Merger:                     newMerger(x.cfg.Alive),
		Logger:                     pebbleLogger{x.cfg.Logger},
		EventListener:              x.eventListener(),
		CacheSize:                  x.cfg.MemoryBytes / 4,
		DisableWAL:                 true,    // nothing is ever written but by Ingest
		MemTableSize:               1 << 20, // for the same reason
		L0CompactionThreshold:      6,       // Pebble counts each sublevel twice
		L0StopWritesThreshold:      1000,    // Ingest does not stop there; waitForCompaction does
		LBaseMaxBytes:              max(8<<20, x.cfg.MemoryBytes/3*2),
		MaxOpenFiles:               int(min(4096, max(128, x.cfg.MemoryBytes>>16))), // some 16 KiB each
		DisableConsistencyCheck:    true,                                            // a lost file is like a damaged one
		CompactionConcurrencyRange: func() (int, int) { return 1, 2 },
	}
	opts.Experimental.ReadSamplingMultiplier = -1
	// The meta row stays in a table of its own: damage among the buckets does
	// not keep the index from being opened.
	opts.Experimental.SpanPolicyFunc = func(start []byte) (pebble.SpanPolicy, []byte, error) {
		if len(start) > 0 && start[0] >= prefixBucket {
			return pebble.SpanPolicy{}, nil, nil
		}
		return pebble.SpanPolicy{}, []byte{prefixBucket}, nil
	}
	// A table is small against a flush, so that a compaction takes little more
	// than it has to.
	tableBytes := min(max(minTableBytes, x.cfg.MemoryBytes/384), maxTableBytes)
	for i := range opts.TargetFileSizes {
		opts.TargetFileSizes[i] = tableBytes << min(i, 3)
	}
	for i := range opts.Levels {
		l := &opts.Levels[i]
		l.BlockSize = 8 << 10
		l.IndexBlockSize = 256 << 10
		l.FilterPolicy = pebble.NoFilterPolicy
	}
	opts.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionNone })
	return opts
}

func (x *Index) eventListener() *pebble.EventListener {
	log := x.cfg.Logger
	return &pebble.EventListener{
		BackgroundError: func(err error) {
			x.metrics.backgroundErrors.Inc()
			if isDamage(err) {
				x.metDamage()
			}
			log.Warn("background work of the postings failed, it is tried again", "err", err)
		},
		DataCorruption: func(info pebble.DataCorruptionInfo) {
			x.metDamage()
			// Every lookup in a damaged bucket comes by.
			now := time.Now().Unix()
			if last := x.saidDamage.Load(); now-last >= 60 && x.saidDamage.CompareAndSwap(last, now) {
				log.Error("postings file is damaged", "path", info.Path, "err", info.Details)
			}
		},
		CompactionBegin: func(pebble.CompactionInfo) { x.ingests.begun.Add(1) },
		CompactionEnd: func(pebble.CompactionInfo) {
			x.ingests.ended.Add(1)
			x.compacted.wake()
		},
	}
}

var discard = slog.New(slog.DiscardHandler)

// pebbleLogger passes Pebble's own messages on. Fatalf is for failures Pebble
// cannot go on after, a manifest that cannot be written for one.
type pebbleLogger struct{ log *slog.Logger }

func (l pebbleLogger) Infof(format string, args ...any) {
	l.log.Debug("database", "text", fmt.Sprintf(format, args...))
}

func (l pebbleLogger) Errorf(format string, args ...any) {
	l.log.Warn("database", "err", fmt.Sprintf(format, args...))
}

func (l pebbleLogger) Fatalf(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	l.log.Error("database cannot go on", "err", text)
	panic("postings: " + text)
}
