package store

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/multiformats/go-multihash"
)

// benchPlain is the base line as a benchDB: the layout of plain_test.go, one
// Merge key a multihash, in a Pebble database of its own with a log that is
// never synced. It has no records: finding reads record IDs only. Both are in
// its favour.
type benchPlain struct {
	db  *pebble.DB
	ids atomic.Uint64
}

// openBenchPlain gives all of memoryBytes to the block cache; memtables come
// on top.
func openBenchPlain(dir string, fs *countingFS, memoryBytes int64) (*benchPlain, error) {
	opts := &pebble.Options{
		FS:                          fs,
		FormatMajorVersion:          pebble.FormatNewest,
		Merger:                      postingMerger,
		Logger:                      plainLogger{},
		CacheSize:                   memoryBytes,
		MemTableSize:                64 << 20,
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       4,
		L0StopWritesThreshold:       24,
		LBaseMaxBytes:               256 << 20,
		MaxOpenFiles:                4096,
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
	opts.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionBalanced })
	db, err := pebble.Open(filepath.Join(dir, "plain"), opts)
	return &benchPlain{db: db}, err
}

func (b *benchPlain) writer(int) benchWriter      { return &plainWriter{b: b} }
func (b *benchPlain) flush(context.Context) error { return b.db.Flush() }
func (b *benchPlain) close() error                { return b.db.Close() }

func (b *benchPlain) busy() (bool, error) {
	m := b.db.Metrics()
	return m.Compact.NumInProgress > 0 || m.Table.ObsoleteSize > 0, nil
}

func (b *benchPlain) compact(ctx context.Context) error {
	return b.db.Compact(ctx, []byte{0}, []byte{0xff}, true)
}

func (b *benchPlain) find(mh multihash.Multihash) (bool, error) {
	ids, err := lookupPostings(b.db, mh)
	return len(ids) > 0, err
}

type plainWriter struct {
	b   *benchPlain
	id  uint64
	mhs []multihash.Multihash // scratch: they are sorted
}

func (w *plainWriter) begin(uint64) error {
	w.id = w.b.ids.Add(1)
	return nil
}

func (w *plainWriter) put(mhs []multihash.Multihash) error {
	w.mhs = append(w.mhs[:0], mhs...)
	_, err := putPostings(w.b.db, w.id, w.mhs, func(batch *pebble.Batch) error {
		return errors.Join(w.b.db.Apply(batch, pebble.NoSync), batch.Close())
	})
	return err
}

func (w *plainWriter) commit() error { return nil }

// plainLogger passes over what Pebble says, unless it cannot go on.
type plainLogger struct{}

func (plainLogger) Infof(string, ...any)              {}
func (plainLogger) Errorf(string, ...any)             {}
func (plainLogger) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
