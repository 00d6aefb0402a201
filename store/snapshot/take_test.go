package snapshot

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestWhatIsRestoredIsWhatWasTaken(t *testing.T) {
	eachPlace(t, func(t *testing.T, url string) {
		c := checkpoint("a", "b", "c")
		taken := take(t, url, c)
		wantRestored(t, url, "", c)
		list, err := List(t.Context(), url)
		if err != nil || len(list) != 1 || list[0].ID != taken.Manifest.ID || list[0].Private() {
			t.Errorf("list: %+v, %v", list, err)
		}
	})
}

// TestNextSnapshotCopiesWhatIsNew: tables that were copied are not again, and
// each snapshot is whole.
func TestNextSnapshotCopiesWhatIsNew(t *testing.T) {
	eachPlace(t, func(t *testing.T, url string) {
		first, second := checkpoint("a", "b", "c"), checkpoint("b", "c", "d")
		one := take(t, url, first)
		two := take(t, url, second)
		// Of the second: MANIFEST and d.
		if one.CopiedFiles != 5 || two.CopiedFiles != 2 {
			t.Errorf("%d and %d files copied, want 5 and 2", one.CopiedFiles, two.CopiedFiles)
		}
		if same := take(t, url, second); same.CopiedFiles != 0 {
			t.Errorf("%d files copied of what was there", same.CopiedFiles)
		}
		wantRestored(t, url, one.Manifest.ID, first)
		wantRestored(t, url, two.Manifest.ID, second)
	})
}

// TestATableOfAnotherLifeIsRead: after a restore numbers of tables are given out
// anew. One of the same name and size, but changed at another time, is another.
func TestATableOfAnotherLifeIsRead(t *testing.T) {
	url := filepath.Join(t.TempDir(), "place")
	c := checkpoint("a")
	take(t, url, c)
	c["rows/a.sst"] = strings.Repeat("x", len(c["rows/a.sst"]))
	c2 := tree{}
	for name, text := range c {
		c2[strings.Replace(name, "a.sst", "b.sst", 1)] = text // written with another time
	}
	dir := c2.write(t)
	rename(t, filepath.Join(dir, "rows", "b.sst"), filepath.Join(dir, "rows", "a.sst"))
	if _, err := Take(t.Context(), TakeConfig{URL: url, Checkpoint: dir, Head: head()}); err != nil {
		t.Fatal(err)
	}
	wantRestored(t, url, "", c)
}

func TestOldSnapshotsGoAndWhatOthersNameStays(t *testing.T) {
	eachPlace(t, func(t *testing.T, url string) {
		keep := func(c *TakeConfig) { c.Keep = 2 }
		take(t, url, checkpoint("a", "b"), keep)
		second, third := checkpoint("b", "c"), checkpoint("c", "d")
		two := take(t, url, second, keep)
		three := take(t, url, third, keep)
		if three.Removed != 1 || three.RemovedFile != 2 { // a, and its MANIFEST
			t.Errorf("%+v", three)
		}
		wantRestored(t, url, two.Manifest.ID, second)
		wantRestored(t, url, three.Manifest.ID, third)
		list, err := List(t.Context(), url)
		if err != nil || len(list) != 2 {
			t.Errorf("%d left, %v", len(list), err)
		}
	})
}

// TestABrokenSnapshotIsNone: whatever ends a Take, there is the snapshot before,
// and the next Take goes on with what is there.
func TestABrokenSnapshotIsNone(t *testing.T) {
	eachPlace(t, func(t *testing.T, url string) {
		first := checkpoint("a")
		take(t, url, first)
		gone := errors.New("gone")
		for name, held := range map[string]func(n int) error{
			"before the manifest": func(int) error { return gone },
			"after it":            func(n int) error { return map[bool]error{true: gone}[n > 1] },
		} {
			n := 0
			_, err := Take(t.Context(), TakeConfig{URL: url, Checkpoint: checkpoint("b").write(t), Head: head(),
				Held: func(context.Context) error { n++; return held(n) }})
			if !errors.Is(err, gone) {
				t.Errorf("%s: %v", name, err)
			}
			wantRestored(t, url, "", first)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := Take(ctx, TakeConfig{URL: url, Checkpoint: checkpoint("c").write(t), Head: head()}); err == nil {
			t.Error("a Take that was cancelled was done")
		}
		wantRestored(t, url, "", first)
		second := checkpoint("b")
		if again := take(t, url, second); again.CopiedFiles != 0 {
			t.Errorf("%d files copied that were there", again.CopiedFiles)
		}
		wantRestored(t, url, "", second)
	})
}

func TestAPlaceBelongsToOneNode(t *testing.T) {
	eachPlace(t, func(t *testing.T, url string) {
		take(t, url, checkpoint("a"))
		cfg := TakeConfig{URL: url, Checkpoint: checkpoint("b").write(t), Head: head(), Keep: 1}
		cfg.Head.Node = otherNode
		if _, err := Take(t.Context(), cfg); !errors.Is(err, ErrOtherNode) {
			t.Errorf("%v, want ErrOtherNode", err)
		}
		wantRestored(t, url, "", checkpoint("a"))
	})
}

// TestSnapshotsSortByTimeWhenTheClockGoesBack: the newest is the last taken.
func TestSnapshotsSortByTimeWhenTheClockGoesBack(t *testing.T) {
	url := filepath.Join(t.TempDir(), "place")
	take(t, url, checkpoint("a"))
	c := checkpoint("b")
	take(t, url, c, func(c *TakeConfig) { c.Head.Time = c.Head.Time.Add(-time.Hour); c.Keep = 1 })
	wantRestored(t, url, "", c)
}

// TestAFaultyServerIsAskedAgain: answers that fail, and ones that break off.
func TestAFaultyServerIsAskedAgain(t *testing.T) {
	var n atomic.Int64
	srv := s3Server(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch n.Add(1) % 4 {
			case 1:
				_, _ = io.Copy(io.Discard, r.Body)
				w.WriteHeader(http.StatusServiceUnavailable)
			case 2:
				if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/files/") {
					h.ServeHTTP(w, r)
					return
				}
				rec := httptest.NewRecorder()
				h.ServeHTTP(rec, r)
				for k, v := range rec.Header() {
					w.Header()[k] = v
				}
				w.WriteHeader(rec.Code)
				_, _ = w.Write(rec.Body.Bytes()[:rec.Body.Len()/2]) // the connection is cut
			default:
				h.ServeHTTP(w, r)
			}
		})
	})
	url := "s3://backup/p?endpoint=" + srv.URL
	c := checkpoint("a", "b")
	take(t, url, c)
	wantRestored(t, url, "", c)
}

func TestTheRateIsKept(t *testing.T) {
	eachPlace(t, func(t *testing.T, url string) {
		const rate = 16 << 20
		taken := take(t, url, checkpoint("a", "b"), func(c *TakeConfig) { c.RateBytes = rate })
		least := time.Duration(float64(taken.CopiedBytes-copyBytes) / rate * float64(time.Second))
		if taken.Elapsed < least {
			t.Errorf("%d bytes in %v, at this rate it takes %v", taken.CopiedBytes, taken.Elapsed, least)
		}
	})
}

func TestKeysAreInASnapshotWhenAskedFor(t *testing.T) {
	url := filepath.Join(t.TempDir(), "place")
	keys := tree{IdentityFile: "key", SecretFile: string(testSecret)}.write(t)
	taken := take(t, url, checkpoint("a"), func(c *TakeConfig) {
		c.Private = map[string]string{IdentityFile: filepath.Join(keys, IdentityFile), SecretFile: filepath.Join(keys, SecretFile)}
	})
	if !taken.Manifest.Private() {
		t.Error("the manifest does not say so")
	}
	dir := filepath.Join(t.TempDir(), "data")
	if _, err := Restore(t.Context(), RestoreConfig{URL: url, Dir: dir}); err != nil {
		t.Fatal(err)
	}
	got := readTree(t, dir)
	if got[IdentityFile] != "key" || got[SecretFile] != string(testSecret) {
		t.Error("the keys are not restored")
	}
	if !slices.ContainsFunc(taken.Manifest.Files, func(f File) bool { return f.Path == IdentityFile }) {
		t.Error("the key is not listed")
	}
}
