package store

import (
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestCheckpointUnderLoadIsConsistent takes copies while ads are written and
// opens each: it is one moment of the original, not before the call, and
// complete.
func TestCheckpointUnderLoadIsConsistent(t *testing.T) {
	fs := vfs.NewMem()
	cfg := testConfig(fs)
	cfg.MemoryBytes = 1 // flushes and splits all the time
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const ads, each = 60, 100
	taken := make(chan Position, ads)
	done := make(chan error)
	go func() {
		defer close(done)
		n := 0
		for pos := range taken {
			dir := fmt.Sprintf("copy-%d", n)
			if n++; n > 4 {
				continue
			}
			if err := s.Checkpoint(dir); err != nil {
				done <- err
				return
			}
			if err := checkCopy(cfg, dir, pos, each); err != nil {
				done <- fmt.Errorf("%s: %w", dir, err)
				return
			}
		}
	}()
	c := newChain("pub", "prov")
	for i := range uint64(ads) {
		write(t, s, c.ad(fmt.Sprint(i), "m"), content, testMHs(i*each, each)...)
		if i%5 == 0 {
			if err := s.tidyLog(t.Context(), true); err != nil {
				t.Fatal(err)
			}
		}
		if i%12 == 7 {
			taken <- c.prev.Pos
		}
	}
	close(taken)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := s.Checkpoint("copy-0"); err == nil {
		t.Error("a checkpoint went into a directory that exists")
	}
}

func checkCopy(cfg Config, dir string, atLeast Position, each uint64) error {
	cfg.Dir = dir
	s, err := Open(cfg)
	if err != nil {
		return err
	}
	defer s.Close()
	mark := s.Progress("pub").Mark.Pos
	if mark < atLeast {
		return fmt.Errorf("mark is %d, %d was committed before", mark, atLeast)
	}
	for i := range uint64(mark/10) * each {
		values, err := s.Find(testMH(i))
		if err != nil || len(values) != 1 {
			return fmt.Errorf("multihash %d of an ad at or below mark %d: %v %w", i, mark, values, err)
		}
	}
	return checkInvariants(s)
}
