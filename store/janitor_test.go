package store

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestLogIsShortenedAndThenLeftAlone: however small the store's memory, what
// the databases have can be dropped from the log but for one segment, and a
// store that nobody writes to does not write.
func TestLogIsShortenedAndThenLeftAlone(t *testing.T) {
	cfg := testConfig(vfs.NewMem())
	cfg.logBytes = 1 << 20
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c := newChain("pub", "prov")
	for i := range uint64(30) {
		write(t, s, c.ad("a", "m"), content, testMHs(i*10_000, 10_000)...)
	}
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := s.tidyLog(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if size := s.log.Size(); size > s.logBytes/2 {
		t.Errorf("log has %d bytes after it was shortened, which begins again at %d", size, s.logBytes)
	}
	flushes := func() int64 { return s.db.Metrics().Flush.Count }
	before := flushes()
	for range 3 { // wakes that may come at any time
		s.tidy <- struct{}{}
	}
	s.tidy <- struct{}{} // the ones before were taken
	if after := flushes(); after != before {
		t.Errorf("%d flushes of an idle store", after-before)
	}
}
