package store

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/multiformats/go-multihash"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func setFree(fs *vfs.MemFS, free uint64) {
	fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: free, TotalBytes: 1 << 40})
}

// TestNoContentBelowTheReserve lets an outsider fill the disk: content is
// refused before anything is added, everything else goes on, and so does
// content when the outsider leaves.
func TestNoContentBelowTheReserve(t *testing.T) {
	fs := vfs.NewMem()
	cfg := testConfig(fs)
	cfg.ReserveBytes = 64 << 10 // a look every 102 multihashes
	setFree(fs, 1<<20)
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	c := newChain("pub", "prov")
	write(t, s, c.ad("a", "m"), content, testMH(1))

	setFree(fs, 64<<10-1)
	refused := c.ad("b", "m")
	until := func(want error) {
		t.Helper()
		for range 2 { // one may pass on what was seen before
			if _, err = tryWrite(s, refused, content, testMHs(1000, 103)...); errors.Is(err, want) {
				return
			}
		}
		t.Fatalf("put: %v, want %v", err, want)
	}
	until(ErrNoSpace)
	for _, part := range []string{"data", "0 MiB free", "make room"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not say %q", err, part)
		}
	}
	if n := testutil.ToFloat64(s.metrics.noSpace); n != 1 {
		t.Errorf("no_space metric is %v", n)
	}
	write(t, s, c.ad("a", "m2"), metadata)
	if got := found(t, s, testMH(1)); got["a"] != "m2" {
		t.Errorf("found %v", got)
	}
	write(t, s, c.ad("a", ""), removal)
	if got := found(t, s, testMH(1)); len(got) != 0 {
		t.Errorf("found %v after removal", got)
	}
	if err := errors.Join(s.SetPublisherAddrs("pub", []string{"a"}), s.Sync()); err != nil {
		t.Error(err)
	}

	setFree(fs, 64<<10) // not enough yet: the two states do not alternate
	until(ErrNoSpace)
	setFree(fs, 68<<10)
	until(nil)
	if got := found(t, s, testMHs(1000, 1)[0]); got["b"] != "m" {
		t.Errorf("found %v after room came back", got)
	}
	if n := testutil.ToFloat64(s.metrics.noSpace); n != 0 {
		t.Errorf("no_space metric is %v", n)
	}
	setFree(fs, 1)
	until(ErrNoSpace)
	if err := s.Freeze(testTime); err != nil {
		t.Fatal(err)
	}
	until(ErrFrozen)
}

// TestRoomThatComesBackIsNoticed has nobody put anything meanwhile.
func TestRoomThatComesBackIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewMem()
		var log strings.Builder
		cfg := Config{FS: fs, Dir: "data", ReserveBytes: 1 << 20, Logger: slog.New(slog.NewTextHandler(&log, nil))}
		w := newSpace(cfg, prometheus.NewGauge(prometheus.GaugeOpts{}))
		if err := w.admit(1); err != nil {
			t.Errorf("a file system that does not say how much is free: %v", err)
		}
		setFree(fs, 1<<19)
		if err := w.admit(1); err != nil {
			t.Errorf("looked again at once: %v", err)
		}
		for range 3 {
			time.Sleep(spaceEvery)
			w.refresh()
			if err := w.err(); !errors.Is(err, ErrNoSpace) {
				t.Errorf("half of the reserve is free: %v", err)
			}
		}
		setFree(fs, 1<<21)
		time.Sleep(spaceEvery)
		w.refresh()
		if err := w.err(); err != nil {
			t.Errorf("twice the reserve is free: %v", err)
		}
		if n := strings.Count(log.String(), "\n"); n != 2 {
			t.Errorf("%d lines of log for two changes:\n%s", n, log.String())
		}
	})
}

// TestPutsBetweenTwoLooksAreFew has time stand still.
func TestPutsBetweenTwoLooksAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewMem()
		cfg := Config{FS: fs, Dir: "data", ReserveBytes: 1 << 20, Logger: slog.New(slog.DiscardHandler)}
		w := newSpace(cfg, prometheus.NewGauge(prometheus.GaugeOpts{}))
		setFree(fs, 1<<21)
		if err := w.admit(1); err != nil {
			t.Fatal(err)
		}
		setFree(fs, 0)
		put := 0
		for ; w.admit(100) == nil; put += 100 {
		}
		if put > 1<<20/spaceParts {
			t.Errorf("%d bytes were put before the disk was looked at, with a reserve of 1 MiB", put)
		}
	})
}

func TestReserveFollowsMemory(t *testing.T) {
	for _, c := range []struct{ reserve, memory, want int64 }{
		{0, 0, 4*DefaultMemoryBytes + 256<<20},
		{0, 1 << 30, 4<<30 + 256<<20},
		{1000, 1 << 30, 1000},
		{-1, 1 << 30, -1},
	} {
		if got := (Config{ReserveBytes: c.reserve, MemoryBytes: c.memory}).withDefaults().ReserveBytes; got != c.want {
			t.Errorf("reserve %d with memory %d: %d, want %d", c.reserve, c.memory, got, c.want)
		}
	}
	fs := vfs.NewMem()
	setFree(fs, 0)
	cfg := testConfig(fs)
	cfg.ReserveBytes = -1
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w, err := s.Begin(newChain("pub", "prov").ad("a", "m"))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Put([]multihash.Multihash{testMH(1)}); err != nil {
		t.Errorf("put without a reserve: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
