package store

import (
	"fmt"
	"log/slog"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
)

// pebbleOptions fits Pebble to this data: random point writes and reads, no
// scans of postings.
func (s *Store) pebbleOptions() *pebble.Options {
	memory := memoryOf(s.cfg.MemoryBytes).rows
	opts := &pebble.Options{
		FS:                 s.disk,
		FormatMajorVersion: pebble.FormatNewest,
		DisableWAL:         true, // log.go
		Logger:             pebbleLogger{s.cfg.Logger},
		EventListener:      s.eventListener(),
		// Pebble takes its memtables out of the cache's size: up to four may
		// stand, one filling and the others being flushed.
		CacheSize:                   memory,
		MemTableSize:                uint64(min(max(memory/8, 256<<10), 64<<20)),
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       4,
		L0StopWritesThreshold:       24,
		LBaseMaxBytes:               256 << 20,
		MaxOpenFiles:                openFiles(s.cfg.MemoryBytes),
		CompactionConcurrencyRange:  func() (int, int) { return 1, 2 },
	}
	for i := range opts.TargetFileSizes {
		opts.TargetFileSizes[i] = min(int64(4<<20)<<i, 64<<20)
	}
	for i := range opts.Levels {
		l := &opts.Levels[i]
		l.BlockSize = 8 << 10
		l.IndexBlockSize = 64 << 10
		l.FilterPolicy = bloom.FilterPolicy(10)
	}
	// Snappy above, zstd in the bottom level, where nine tenths of the data is.
	opts.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionBalanced })
	return opts
}

func (s *Store) eventListener() *pebble.EventListener {
	log := s.cfg.Logger
	return &pebble.EventListener{
		BackgroundError: func(err error) {
			s.metrics.backgroundErrors.Inc()
			log.Warn("background work of the database failed, it is tried again", "err", err)
		},
		DataCorruption: func(info pebble.DataCorruptionInfo) {
			s.metrics.backgroundErrors.Inc()
			log.Error("database file is corrupt", "err", info)
		},
		WriteStallBegin: func(info pebble.WriteStallBeginInfo) {
			s.metrics.stalls.Inc()
			log.Debug("writes wait for the database to catch up", "reason", info.Reason)
		},
		WriteStallEnd: func() { log.Debug("writes go on") },
	}
}

// pebbleLogger passes Pebble's own messages on. Fatalf is for errors in
// Pebble itself: failed writes do not come here, see failStop.
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
	panic("store: " + text)
}
