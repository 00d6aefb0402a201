package fanout

import (
	"context"
	"errors"
	"iter"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/api/find"
)

// oneFind is how one find ended, and how long it took.
func oneFind(t *testing.T, f *Finder) (took time.Duration, missing []string) {
	t.Helper()
	start := time.Now()
	for _, err := range f.Find(t.Context(), mh) {
		var partial *find.PartialError
		if err != nil && !errors.As(err, &partial) {
			t.Fatal(err)
		}
		if partial != nil {
			missing = partial.Missing
		}
	}
	return time.Since(start), missing
}

// dial is a backend whose ways can be changed, and that counts its questions.
type dial struct {
	actor
	asked atomic.Int64
	acts  atomic.Pointer[actor]
}

func (d *dial) set(steps ...string) { d.acts.Store(&actor{steps: steps}) }

func (d *dial) Find(ctx context.Context, mh multihash.Multihash) iter.Seq2[find.ProviderResult, error] {
	d.asked.Add(1)
	return d.acts.Load().Find(ctx, mh)
}

func dials(names ...string) (backends []Backend, ds []*dial) {
	for _, name := range names {
		d := &dial{}
		d.set("wait 1ms")
		ds = append(ds, d)
		backends = append(backends, Backend{Name: name, Finder: d})
	}
	return backends, ds
}

// TestSlowBackendHoldsUpNobody: it is waited for no longer than 200 ms, as the
// others take one; and once it has failed so a few times, not at all.
func TestSlowBackendHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		backends, ds := dials("a", "b", "c")
		f := New(Config{Backends: backends})
		for range 20 {
			if took, missing := oneFind(t, f); took != time.Millisecond || len(missing) > 0 {
				t.Fatalf("%s, %v", took, missing)
			}
		}
		ds[2].set("wait 2s")
		for n := range 20 {
			took, missing := oneFind(t, f)
			if len(missing) != 1 || missing[0] != "c" {
				t.Errorf("missing %v, want c", missing)
			}
			if want := 200 * time.Millisecond; n < tripAfter && took != want {
				t.Errorf("find %d took %s, want %s", n, took, want)
			} else if n > tripAfter && took > 2*time.Millisecond {
				t.Errorf("find %d took %s", n, took)
			}
		}
		synctest.Wait()
	})
}

// TestPoolThatIsSlowIsWaitedFor: nobody is cut off for being like the others.
func TestPoolThatIsSlowIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		backends, ds := dials("a", "b", "c")
		f := New(Config{Backends: backends})
		for _, d := range ds {
			d.set("wait 150ms")
		}
		for range 50 {
			oneFind(t, f)
		}
		for _, d := range ds {
			d.set("wait 1s")
		}
		if took, missing := oneFind(t, f); took != time.Second || len(missing) > 0 {
			t.Errorf("%s, %v", took, missing)
		}
	})
}

// TestFailingBackendIsTriedOnceASecond, and is asked again as soon as one try
// succeeds.
func TestFailingBackendIsTriedOnceASecond(t *testing.T) {
	for _, how := range []string{"fail", "hang", "panic"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				backends, ds := dials("a", "b")
				f := New(Config{Backends: backends})
				oneFind(t, f)
				ds[1].set(how)
				for range tripAfter {
					oneFind(t, f)
				}
				before := ds[1].asked.Load()
				for start := time.Now(); time.Since(start) < 10*time.Second; {
					if _, missing := oneFind(t, f); len(missing) != 1 {
						t.Fatalf("missing %v", missing)
					}
				}
				if n := ds[1].asked.Load() - before; n < 5 || n > 10 {
					t.Errorf("asked %d times in 10 s, want once a second at most", n)
				}
				ds[1].set("wait 1ms")
				healthy := time.Now()
				for _, missing := oneFind(t, f); len(missing) > 0; _, missing = oneFind(t, f) {
				}
				if d := time.Since(healthy); d > 2*time.Second {
					t.Errorf("asked again %s after it was healthy", d)
				}
				synctest.Wait()
			})
		})
	}
}

// TestQuestionThatIsRefusedTripsNoBreaker: answers lack the backend, but others'
// questions still go to it.
func TestQuestionThatIsRefusedTripsNoBreaker(t *testing.T) {
	refuses := true
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no", map[bool]int{true: http.StatusBadRequest, false: http.StatusNotFound}[refuses])
	}))
	defer srv.Close()
	client, err := find.NewClient(srv.URL, srv.Client())
	if err != nil {
		t.Fatal(err)
	}
	f := New(Config{Backends: []Backend{{"a", client, nil}}})
	for range 2 * tripLeast {
		if _, missing := oneFind(t, f); len(missing) != 1 {
			t.Fatalf("missing %v, want the one that refused", missing)
		}
	}
	refuses = false
	if _, missing := oneFind(t, f); len(missing) != 0 {
		t.Errorf("missing %v", missing)
	}
}

// TestFanOutThatMissesOthersHasAnswered: its own gaps are no reason not to ask it.
func TestFanOutThatMissesOthersHasAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		backends, ds := dials("a")
		ds[0].set("partial x")
		f := New(Config{Backends: backends})
		for range 20 {
			if _, missing := oneFind(t, f); len(missing) != 1 || missing[0] != "a/x" {
				t.Fatalf("missing %v, want a/x", missing)
			}
		}
	})
}
