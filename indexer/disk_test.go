package indexer

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/signpost-index/signpost/api/admin"
)

const gib = 1 << 30

// fakeLatch is a store that only freezes.
type fakeLatch struct {
	mu     sync.Mutex
	frozen time.Time
	why    string
	fails  int // this many Freezes fail
	stored int64
}

func (f *fakeLatch) Frozen() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.frozen.IsZero()
}

func (f *fakeLatch) FreezeFor(at time.Time, why string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fails > 0 {
		f.fails--
		return errors.New("disk failed")
	}
	f.frozen, f.why = at, why
	return nil
}

func (f *fakeLatch) Unfreeze() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.frozen, f.why = time.Time{}, ""
	return nil
}

func (f *fakeLatch) DiskUsage() int64 { return f.stored }

// testWatch is a watch over a disk of 100 GiB whose percentage is what used
// says.
func testWatch(limit float64, used func() float64, volumes ...*volume) (*diskWatch, *fakeLatch, *strings.Builder) {
	log := &strings.Builder{}
	l := &fakeLatch{}
	if len(volumes) == 0 {
		volumes = []*volume{{dirs: []string{"/data"}, minFree: gib}}
	}
	return &diskWatch{
		latch: l, limit: limit, volumes: volumes, log: slog.New(slog.NewTextHandler(log, nil)),
		stat: func(string) (diskUsage, error) {
			u := uint64(used() * gib)
			return diskUsage{used: u, free: 100*gib - u, total: 100 * gib}, nil
		},
		metrics: newDiskMetrics(prometheus.NewRegistry()),
	}, l, log
}

// watched runs the watch for d of virtual time.
func watched(t *testing.T, w *diskWatch, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if err := w.run(ctx); err != nil {
		t.Error(err)
	}
}

// TestDiskThatFillsFastFreezesTheNodeInTime goes from 60 % to 97 % in 20 s, with
// the growth beginning at every moment between two checks of a quiet disk; and
// faster than that.
func TestDiskThatFillsFastFreezesTheNodeInTime(t *testing.T) {
	for quiet := time.Minute; quiet < time.Minute+diskCheckMax; quiet += 700 * time.Millisecond {
		for _, fill := range []time.Duration{20 * time.Second, 200 * time.Second} {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now().Add(quiet)
				w, l, log := testWatch(95, func() float64 {
					grown := 37 * time.Since(begin).Seconds() / fill.Seconds()
					return 60 + max(grown, 0)
				})
				watched(t, w, quiet+fill)
				crossed := begin.Add(fill * 35 / 37)
				if !l.Frozen() || l.frozen.Before(crossed) || l.frozen.Sub(crossed) > time.Second {
					t.Errorf("frozen %v after crossing the limit, want within a second", l.frozen.Sub(crossed))
				}
				if !strings.HasPrefix(l.why, "percent: 95.") || !strings.Contains(l.why, "/data") {
					t.Errorf("why: %q", l.why)
				}
				for _, line := range []string{"disk comes close", "frozen: no new content"} {
					if n := strings.Count(log.String(), line); n != 1 {
						t.Errorf("%d lines %q in the log:\n%s", n, line, log)
					}
				}
				if strings.Index(log.String(), "disk comes close") > strings.Index(log.String(), "frozen: no new") {
					t.Errorf("no warning before the freeze:\n%s", log)
				}
			})
		}
	}
}

func TestQuietDiskIsLeftInPeace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		checks := 0
		w, l, log := testWatch(95, func() float64 { checks++; return 60 })
		watched(t, w, 10*time.Minute)
		if checks > 65 || l.Frozen() || log.Len() > 0 {
			t.Errorf("%d checks in ten minutes, frozen %v, log %q", checks, l.Frozen(), log)
		}
		if left := testutil.ToFloat64(w.metrics.left); !math.IsInf(left, 1) {
			t.Errorf("forecast of a disk that does not grow: %v seconds", left)
		}
	})
}

// TestForecastIsShownBeforeTheFreeze: 1 GiB a minute leaves 35 minutes, and the
// warning comes with the last tenth of the disk.
func TestForecastIsShownBeforeTheFreeze(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		w, l, _ := testWatch(95, func() float64 { return 60 + time.Since(begin).Minutes() })
		watched(t, w, 5*time.Minute)
		r := w.last.Load()
		if !r.growing || (r.left-30*time.Minute).Abs() > time.Minute || r.near {
			t.Errorf("after 5 minutes: %v left (foreseen %v), near %v; want 30 minutes", r.left, r.growing, r.near)
		}
		if got := testutil.ToFloat64(w.metrics.left); got != r.left.Seconds() {
			t.Errorf("metric says %v seconds, the report %v", got, r.left)
		}
		if used := testutil.ToFloat64(w.metrics.used.WithLabelValues("/data")); math.Abs(used-65*gib) > gib {
			t.Errorf("used metric is %v", used)
		}
		watched(t, w, 22*time.Minute)
		if !w.last.Load().near || testutil.ToFloat64(w.metrics.near) != 1 || l.Frozen() {
			t.Errorf("at %v %%: near %v, frozen %v", w.percent(), w.last.Load().near, l.Frozen())
		}
		watched(t, w, 10*time.Minute)
		if !l.Frozen() {
			t.Errorf("not frozen at %v %%", w.percent())
		}
	})
}

// TestEachBoundFreezes is the table of what makes a node freeze.
func TestEachBoundFreezes(t *testing.T) {
	disk := func(minFree uint64) *volume { return &volume{dirs: []string{"/data", "/data/store"}, minFree: minFree} }
	quota := func(q uint64) *volume {
		return &volume{dirs: []string{"/data"}, quota: true, usage: diskUsage{total: q}}
	}
	for _, tc := range []struct {
		name    string
		limit   float64
		used    float64
		stored  int64
		volumes []*volume
		want    string // "" for not frozen
	}{
		{"below all", 95, 94.9, 9 * gib, []*volume{disk(gib), quota(10 * gib)}, ""},
		{"percent", 95, 95, 0, []*volume{disk(gib)}, "percent: 95.0 % of the file system of /data are in use, and the limit is 95 %"},
		{"free bytes", 95, 90, 0, []*volume{disk(11 * gib)}, "free: 10 GiB are free on the file system of /data, and 11 GiB must be"},
		{"quota", 95, 10, 96 * gib / 10, []*volume{disk(gib), quota(10 * gib)},
			"quota: 9.6 GiB are stored, 96.0 % of the quota of 10 GiB, and the limit is 95 %"},
		{"another file system", 50, 60, 0, []*volume{{dirs: []string{"/mirror"}}}, "percent: 60.0 % of the file system of /mirror are in use, and the limit is 50 %"},
		{"never by itself", -1, 100, 20 * gib, []*volume{disk(gib), quota(10 * gib)}, ""},
		{"at all of it", 100, 99.99, 0, []*volume{disk(0)}, ""},
		{"all of it", 100, 100, 0, []*volume{disk(0)}, "percent: 100.0 % of the file system of /data are in use, and the limit is 100 %"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w, l, _ := testWatch(tc.limit, func() float64 { return tc.used }, tc.volumes...)
			l.stored = tc.stored
			w.check()
			if diff := cmp.Diff(tc.want, l.why); diff != "" {
				t.Errorf("why (-want +got):\n%s", diff)
			}
			if l.Frozen() != (tc.want != "") {
				t.Errorf("frozen: %v", l.Frozen())
			}
		})
	}
}

// TestAnotherLimitHoldsWithinTenSeconds, and does not lift a freeze.
func TestAnotherLimitHoldsWithinTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, l, _ := testWatch(95, func() float64 { return 60 })
		w.setLimit(90)
		if w.last.Load() != nil {
			t.Error("something is reported before anything was measured")
		}
		watched(t, w, time.Minute)
		if got := w.last.Load().limit; got != 90 || l.Frozen() {
			t.Errorf("limit %v, frozen %v, at 60 %% of 90", got, l.Frozen())
		}
		w.setLimit(50)
		if got := w.last.Load().limit; got != 50 {
			t.Errorf("limit %v is reported, want 50", got)
		}
		watched(t, w, diskCheckMax+time.Second)
		if !l.Frozen() || !strings.Contains(l.why, "the limit is 50 %") {
			t.Errorf("frozen %v at 60 %% of 50: %q", l.Frozen(), l.why)
		}
		w.setLimit(-1)
		watched(t, w, time.Minute)
		if !l.Frozen() {
			t.Error("a freeze was lifted")
		}
	})
}

// TestFailingFreezeIsTriedAgain has the latch fail three times, and the disk
// not say how full it is meanwhile.
func TestFailingFreezeIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, l, log := testWatch(95, func() float64 { return 96 })
		l.fails = 3
		watched(t, w, time.Second/2)
		if l.Frozen() || testutil.ToFloat64(w.metrics.failed) != 1 {
			t.Errorf("frozen %v by a latch that fails, metric %v", l.Frozen(), testutil.ToFloat64(w.metrics.failed))
		}
		good := w.stat
		w.stat = func(string) (diskUsage, error) { return diskUsage{}, errors.New("gone") }
		watched(t, w, time.Second/2) // what was seen before holds
		w.stat = good
		watched(t, w, 5*time.Second)
		if !l.Frozen() || testutil.ToFloat64(w.metrics.failed) != 0 {
			t.Errorf("frozen %v once the latch works, metric %v", l.Frozen(), testutil.ToFloat64(w.metrics.failed))
		}
		if n := strings.Count(log.String(), "level=ERROR"); n != 1 {
			t.Errorf("%d errors in the log for one trouble:\n%s", n, log)
		}
		l.fails = 1
		if err := errors.Join(w.latch.Unfreeze()); err != nil {
			t.Fatal(err)
		}
		if err := w.freezeOnRequest(); err == nil || l.Frozen() {
			t.Errorf("freeze on request by a latch that fails: %v", err)
		}
		if err := w.freezeOnRequest(); err != nil || !l.Frozen() || !strings.HasPrefix(l.why, "request: ") {
			t.Errorf("freeze on request again: %v, why %q", err, l.why)
		}
	})
}

// TestUnfreezeIsRefusedWhileTheDiskIsFull: the answer says how full, what the
// limit is and what to do.
func TestUnfreezeIsRefusedWhileTheDiskIsFull(t *testing.T) {
	used := 96.0
	w, l, log := testWatch(95, func() float64 { return used })
	w.check()
	err := w.unfreeze()
	if !errors.Is(err, admin.ErrDiskFull) || !l.Frozen() {
		t.Fatalf("unfreeze at 96 %%: %v, frozen %v", err, l.Frozen())
	}
	for _, part := range []string{"96.0 %", "the limit is 95 %", "freeze again", "make room"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
	good := w.stat
	w.stat = func(string) (diskUsage, error) { return diskUsage{}, errors.New("gone") }
	if err := w.unfreeze(); !errors.Is(err, admin.ErrUnavailable) || !l.Frozen() {
		t.Errorf("unfreeze of a disk that cannot be measured: %v", err)
	}
	w.stat, used = good, 90
	if err := errors.Join(w.unfreeze(), w.unfreeze()); err != nil || l.Frozen() {
		t.Errorf("unfreeze at 90 %%: %v, frozen %v", err, l.Frozen())
	}
	w.check()
	if l.Frozen() {
		t.Error("frozen again below the limit")
	}
	used = 95
	w.check()
	if !l.Frozen() {
		t.Errorf("not frozen again at the limit:\n%s", log)
	}
}

func TestDirectoriesAreGroupedByFileSystem(t *testing.T) {
	device := func(dir string) (string, error) {
		if dir == "/gone" {
			return "", errors.New("gone")
		}
		return dir[:2], nil // the first letter
	}
	got, err := volumesOf([]string{"/data", "/data/store"}, []string{"/mirror", "/dmirror"}, 5*gib, device)
	want := []*volume{
		{dirs: []string{"/data", "/data/store", "/dmirror"}, minFree: 5 * gib},
		{dirs: []string{"/mirror"}, minFree: mirrorMinFree},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(volume{}, diskUsage{}, forecast{})); diff != "" || err != nil {
		t.Error(err, diff)
	}
	if _, err := volumesOf([]string{"/gone"}, nil, 0, device); err == nil {
		t.Error("a directory that is not there is on a file system")
	}
	dir := t.TempDir()
	if a, err := deviceOf(dir); err != nil || a == "" {
		t.Errorf("device %q, %v", a, err)
	}
}
