package fanout

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/api"
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
			synctest.Wait() // an answer does not wait until its failure is counted
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
					synctest.Wait()
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

// TestASlowPoolIsWaitedFor: what nobody answers at once, as all are held up
// together, is not given up like what one of them does not answer.
func TestASlowPoolIsWaitedFor(t *testing.T) {
	for name, c := range map[string]struct {
		steps []string // of two backends
		whole bool
	}{
		"both":     {[]string{"wait 700ms", "wait 800ms"}, true},
		"too long": {[]string{"wait 700ms", "wait 1500ms"}, false},
		"one":      {[]string{"wait 1ms", "wait 700ms"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := New(Config{})
				var quick, slow []Backend
				for n, step := range c.steps {
					quick = append(quick, Backend{Name: fmt.Sprint(n), Finder: &actor{steps: []string{"wait 1ms"}}})
					slow = append(slow, Backend{Name: fmt.Sprint(n), Finder: &actor{steps: []string{step}}})
				}
				f.SetBackends(quick)
				for range 5 {
					for range f.Find(t.Context(), mh) { // how long they take becomes known
					}
				}
				f.SetBackends(slow)
				whole := true
				for _, err := range f.Find(t.Context(), mh) {
					whole = whole && err == nil
				}
				if whole != c.whole {
					t.Errorf("whole: %v, want %v", whole, c.whole)
				}
				time.Sleep(2 * time.Second)
				synctest.Wait()
			})
		})
	}
}

// TestLateAnswersAmongOthersOpenNoBreaker: what takes a backend long does not keep
// it from who asks something else.
func TestLateAnswersAmongOthersOpenNoBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		heavy := &heavyKey{}
		f := New(Config{Backends: []Backend{{Name: "heavy", Finder: heavy}, {Name: "other", Finder: &actor{}}}})
		for range 20 {
			for range 20 {
				heavy.slow.Store(true)
				go findAll(t, f)
				synctest.Wait()
				heavy.slow.Store(false)
				if got := findAll(t, f); got != " a" {
					t.Fatalf("a quick one: %q", got)
				}
			}
			time.Sleep(300 * time.Millisecond)
		}
		time.Sleep(time.Second)
		synctest.Wait()
	})
}

// heavyKey answers at once or after three seconds.
type heavyKey struct {
	actor
	slow atomic.Bool
}

func (h *heavyKey) Find(ctx context.Context, mh multihash.Multihash) iter.Seq2[find.ProviderResult, error] {
	if h.slow.Load() {
		return (&actor{steps: []string{"wait 3s"}}).Find(ctx, mh)
	}
	return (&actor{steps: []string{"P/a/x"}}).Find(ctx, mh)
}

// TestABackendThatIsAskedAloneIsGivenUpToo: before its first result, and between two.
func TestABackendThatIsAskedAloneIsGivenUpToo(t *testing.T) {
	for name, lines := range map[string]int{"before": 0, "between": 1} {
		t.Run(name, func(t *testing.T) {
			ended := make(chan struct{})
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", api.MediaNDJSON)
				for range lines {
					fmt.Fprintln(w, `{"Provider":{"ID":"12D3KooWKRyzVWW6ChFjQjK4miCty85Niy48tpPV95XdKu1BcvMA","Addrs":[]}}`)
					_ = http.NewResponseController(w).Flush()
				}
				<-r.Context().Done()
				close(ended)
			}))
			defer srv.Close()
			client, err := find.NewClient(srv.URL, api.NewHTTPClient())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			f := New(Config{Backends: []Backend{{Name: "a", Finder: client}}, Timeout: 300 * time.Millisecond})
			results, missing := 0, ""
			for _, err := range f.Find(t.Context(), mh) {
				var partial *find.PartialError
				switch {
				case err == nil:
					results++
				case errors.As(err, &partial):
					missing = partial.Missing[0]
				default:
					t.Fatal(err)
				}
			}
			if results != lines || missing != "a" {
				t.Errorf("%d results, missing %q", results, missing)
			}
			<-ended
		})
	}
}
