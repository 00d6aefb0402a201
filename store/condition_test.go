package store

import (
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// TestConditionSaysThatThereIsNoRoom: as soon as the disk is seen to be full, and
// no longer than it is.
func TestConditionSaysThatThereIsNoRoom(t *testing.T) {
	fs := vfs.NewMem()
	cfg := testConfig(fs)
	cfg.ReserveBytes = 64 << 10
	setFree(fs, 1<<20)
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	want := func(no error) {
		t.Helper()
		_ = s.space.now()
		if c := s.Condition(); !errors.Is(c.NoSpace, no) || c.Failed != nil {
			t.Errorf("condition %+v, want %v", c, no)
		}
	}
	want(nil)
	setFree(fs, 1<<10)
	want(ErrNoSpace)
	setFree(fs, 1<<20)
	want(nil)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if c := s.Condition(); c.Failed != nil || c.DurableLag != 0 {
		t.Errorf("condition of a closed store: %+v", c)
	}
}

// TestEachSyncSaysHowOldItsCommitsWere: by a metric, of syncs that had some.
func TestEachSyncSaysHowOldItsCommitsWere(t *testing.T) {
	cfg := testConfig(vfs.NewMem())
	reg := prometheus.NewRegistry()
	cfg.Registerer = reg
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c := newChain("pub", "prov")
	write(t, s, c.ad("a", "m"), content, testMH(1))
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	n, err := testutil.GatherAndCount(reg, "signpost_store_durable_seconds", "signpost_store_follow_seconds", "signpost_store_followers")
	if err != nil || n != 3 {
		t.Fatalf("%d metrics, %v", n, err)
	}
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.GetName() == "signpost_store_durable_seconds" && f.Metric[0].Histogram.GetSampleCount() == 0 {
			t.Error("a commit became durable, and no age of it is told")
		}
	}
}
