package postings

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// pebbleOptions fits Pebble to buckets: only ingested, read by key or in key
// order, incompressible. A bucket key is in every level, so filters cannot
// help.
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
		L0CompactionThreshold:      2,
		L0StopWritesThreshold:      1000, // Ingest does not stop there; waitForCompaction does
		LBaseMaxBytes:              min(512<<20, max(8<<20, x.cfg.MemoryBytes)),
		MaxOpenFiles:               4096,
		DisableConsistencyCheck:    true, // a lost file is like a damaged one
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
	for i := range opts.TargetFileSizes {
		opts.TargetFileSizes[i] = min(int64(8<<20)<<i, 64<<20)
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
