package fanout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/signpost-index/signpost/api/find"
)

var compare = cmp.Options{
	cmp.Comparer(cid.Cid.Equals),
	cmp.Comparer(multiaddr.Multiaddr.Equal),
	cmpopts.EquateEmpty(),
}

// TestAnswerDependsOnNothingButWhatIsKnown spreads the same results over
// different numbers of backends, with repetitions, in different orders and
// with different delays.
func TestAnswerDependsOnNothingButWhatIsKnown(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range 200 {
		var known []string
		for range random.IntN(10) {
			known = append(known, fmt.Sprintf("%c/%c/%c%s", 'P'+random.IntN(3), 'a'+random.IntN(2), 'x'+random.IntN(2),
				[]string{"", " 1", " 2", " 1 2", " 2 1"}[random.IntN(5)]))
		}
		want := ""
		for try := range 5 {
			got := answerOf(t, random, known)
			if try == 0 {
				want = got
			}
			if got != want {
				t.Fatalf("known %q\n got %s\nwant %s", known, got, want)
			}
		}
	}
}

// answerOf spreads known and returns the canonical answer.
func answerOf(t *testing.T, random *rand.Rand, known []string) string {
	actors := make([]*actor, 1+random.IntN(5))
	var backends []Backend
	for i := range actors {
		actors[i] = &actor{}
		backends = append(backends, Backend{Name: fmt.Sprint(i), Finder: actors[i]})
	}
	for _, i := range random.Perm(len(known)) {
		for range 1 + random.IntN(3) {
			a := actors[random.IntN(len(actors))]
			if random.IntN(2) == 0 {
				a.steps = append(a.steps, fmt.Sprintf("wait %dms", random.IntN(100)))
			}
			a.steps = append(a.steps, known[i])
		}
	}
	var results []find.ProviderResult
	synctest.Test(t, func(t *testing.T) {
		for r, err := range New(Config{Backends: backends}).Find(t.Context(), mh) {
			if err != nil {
				t.Fatal(err)
			}
			results = append(results, r)
		}
	})
	var lines []string
	for _, r := range find.Merge(results) {
		lines = append(lines, formatResult(r))
	}
	return strings.Join(lines, "\n")
}

// TestASlowConsumerLosesNothing, however long the answer is, and nobody is taken
// for slow because of it.
func TestASlowConsumerLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &actor{}
		for i := range 10 * queueLen {
			a.steps = append(a.steps, fmt.Sprintf("P/%d/x", i), "wait 1ms")
		}
		f := New(Config{Backends: []Backend{{"a", a, nil}}})
		for range 2 * tripAfter {
			n := 0
			for _, err := range f.Find(t.Context(), mh) {
				if err != nil {
					t.Fatal(err)
				}
				n++
				time.Sleep(time.Minute)
			}
			if n != 10*queueLen {
				t.Errorf("got %d results, want %d", n, 10*queueLen)
			}
		}
		if w := wait(*f.links.Load(), time.Hour); w > firstPatience {
			t.Errorf("a backend is waited for %s", w)
		}
	})
}

// TestATricklingBackendIsCutOff: what comes slowly, but in time, is waited for
// until the timeout is over.
func TestATricklingBackendIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &actor{}
		for i := range 1000 {
			a.steps = append(a.steps, fmt.Sprintf("P/%d/x", i), "wait 150ms")
		}
		f := New(Config{Backends: []Backend{{"a", a, nil}}})
		start, n := time.Now(), 0
		for _, err := range f.Find(t.Context(), mh) {
			if err == nil {
				n++
			}
		}
		if took := time.Since(start); took != DefaultTimeout || n != 34 {
			t.Errorf("%d results in %s", n, took)
		}
	})
}

func TestACancelledFindSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second/2, cancel)
		start := time.Now()
		var got error
		for _, err := range New(Config{Backends: []Backend{{"a", &actor{steps: []string{"hang"}}, nil}}}).Find(ctx, mh) {
			got = err
		}
		if !errors.Is(got, context.Canceled) || time.Since(start) != time.Second/2 {
			t.Errorf("got %v after %v", got, time.Since(start))
		}
	})
}

func TestBackendsCanBeReplaced(t *testing.T) {
	registry := prometheus.NewRegistry()
	f := New(Config{Backends: []Backend{{"old", &actor{steps: []string{"P/a/x"}}, nil}}, Registerer: registry})
	ask := func() (names []string) {
		for r, err := range f.Find(t.Context(), mh) {
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, nameOf(r.Provider.ID))
		}
		return names
	}
	if got := ask(); !slices.Equal(got, []string{"P"}) {
		t.Errorf("got %v", got)
	}
	backends := []Backend{{"new", &actor{steps: []string{"Q/a/x"}}, nil}}
	f.SetBackends(backends)
	backends[0].Finder = nil // the caller's slice is the caller's
	if got := ask(); !slices.Equal(got, []string{"Q"}) {
		t.Errorf("got %v", got)
	}
	if n := testutil.CollectAndCount(f.metrics.seconds); n != 1 {
		t.Errorf("%d backends have series, want the new one", n)
	}
}

func info(name string, at int, lastError string) find.ProviderInfo {
	i := find.ProviderInfo{AddrInfo: peer.AddrInfo{ID: peerNamed(name)}, LastError: lastError}
	if at > 0 {
		i.LastAdvertisementTime = time.Unix(int64(at), 0).UTC()
	}
	return i
}

// TestProvidersAreTheNewestOfEach asks the same backends in every order.
func TestProvidersAreTheNewestOfEach(t *testing.T) {
	backends := []Backend{
		{"a", &actor{infos: []find.ProviderInfo{info("P", 10, ""), info("Q", 30, "z")}}, nil},
		{"b", &actor{infos: []find.ProviderInfo{info("Q", 30, "a"), info("P", 20, ""), info("R", 0, "")}}, nil},
		{"c", &actor{infos: []find.ProviderInfo{info("Q", 0, "zzz")}}, nil},
	}
	want := []find.ProviderInfo{info("P", 20, ""), info("Q", 30, "z"), info("R", 0, "")}
	for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}, {1, 2, 0}} {
		f := New(Config{Backends: []Backend{backends[order[0]], backends[order[1]], backends[order[2]]}})
		got, err := f.Providers(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, compare); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
		one, err := f.Provider(t.Context(), peerNamed("Q"))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(&want[1], one, compare); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
	}
}

// TestWhatIsKnownOfProviders is the table of complete, partial and unknown for
// the questions that are no finds.
func TestWhatIsKnownOfProviders(t *testing.T) {
	knows := &actor{infos: []find.ProviderInfo{info("P", 1, "")}, stats: find.Stats{EntriesEstimate: 5, EntriesCount: 3}}
	partly := &actor{infos: knows.infos, stats: knows.stats, steps: []string{"partial x"}}
	step := func(s string) *actor { return &actor{infos: knows.infos, stats: knows.stats, steps: []string{s}} }
	empty := &actor{}
	tests := []struct {
		name     string
		backends []Backend
		found    bool
		missing  []string
		entries  int64
	}{
		{"all answer", []Backend{{"a", knows, nil}, {"b", empty, nil}, {"c", knows, nil}}, true, nil, 10},
		{"no one knows", []Backend{{"a", empty, nil}, {"b", empty, nil}}, false, nil, 0},
		{"one fails", []Backend{{"a", knows, nil}, {"b", step("fail"), nil}}, true, []string{"b"}, 5},
		{"one fails, no one knows", []Backend{{"a", empty, nil}, {"b", step("fail"), nil}}, false, []string{"b"}, 0},
		{"one hangs", []Backend{{"a", step("hang"), nil}, {"b", knows, nil}}, true, []string{"a"}, 5},
		{"one is stuck", []Backend{{"a", step("stuck"), nil}, {"b", knows, nil}}, true, []string{"a"}, 5},
		{"one panics", []Backend{{"a", knows, nil}, {"b", step("panic"), nil}}, true, []string{"b"}, 5},
		{"one is partial itself", []Backend{{"a", partly, nil}}, true, []string{"a/x"}, 5},
		{"no backend", nil, false, []string{noBackends}, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := New(Config{Backends: test.backends})
				check := func(what string, err error) {
					t.Helper()
					var partial *find.PartialError
					errors.As(err, &partial)
					switch {
					case test.missing == nil && err != nil:
						t.Errorf("%s: %v", what, err)
					case test.missing != nil && (partial == nil || !slices.Equal(partial.Missing, test.missing)):
						t.Errorf("%s: got %v, want %v missing", what, err, test.missing)
					}
				}
				infos, err := f.Providers(t.Context())
				check("providers", err)
				if (len(infos) == 1) != test.found {
					t.Errorf("providers: %v", infos)
				}
				one, err := f.Provider(t.Context(), peerNamed("P"))
				if one == nil && test.missing == nil {
					if !errors.Is(err, find.ErrNotFound) {
						t.Errorf("provider: %v, want ErrNotFound", err)
					}
				} else {
					check("provider", err)
				}
				if (one != nil) != test.found {
					t.Errorf("provider: %v", one)
				}
				stats, err := f.Stats(t.Context())
				check("stats", err)
				if stats.EntriesEstimate != test.entries {
					t.Errorf("stats: %v", stats)
				}
				time.Sleep(2 * time.Minute) // for who is stuck
			})
		})
	}
}

func TestFailuresAreCountedByBackend(t *testing.T) {
	registry := prometheus.NewRegistry()
	f := New(Config{
		Backends:   []Backend{{"a", &actor{steps: []string{"P/a/x"}}, nil}, {"b", &actor{steps: []string{"fail"}}, nil}},
		Registerer: registry,
	})
	for range f.Find(t.Context(), mh) {
	}
	if err := testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP signpost_fanout_backend_failures_total Answers a backend did not give or not in time.
# TYPE signpost_fanout_backend_failures_total counter
signpost_fanout_backend_failures_total{backend="b"} 1
# HELP signpost_fanout_backends Backends asked for every question.
# TYPE signpost_fanout_backends gauge
signpost_fanout_backends 2
`), "signpost_fanout_backend_failures_total", "signpost_fanout_backends"); err != nil {
		t.Error(err)
	}
}

// TestLogSaysOnceThatABackendWentAndCame asks often and shows that the log
// does not.
func TestLogSaysOnceThatABackendWentAndCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		f := New(Config{Logger: slog.New(slog.NewTextHandler(&out, nil))})
		finds := func(step string, n int) {
			f.SetBackends([]Backend{{"b", &actor{steps: []string{step}}, nil}})
			for range n {
				for range f.Find(t.Context(), mh) {
				}
				synctest.Wait()
			}
		}
		finds("wait 1ms", 5)
		finds("fail", 5)
		finds("wait 1ms", 5)
		time.Sleep(quietFor)
		finds("wait 1ms", 5)
		var got []string
		for line := range strings.Lines(out.String()) {
			_, text, _ := strings.Cut(strings.TrimSpace(line), " level=")
			got = append(got, text)
		}
		want := []string{
			`WARN msg="backend does not answer" backend=b err=down`,
			`INFO msg="backend answers again" backend=b`,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
	})
}

// TestFrontendOverHTTP puts it all together: a frontend over clients over
// indexers, of which one goes down.
func TestFrontendOverHTTP(t *testing.T) {
	serve := func(f find.Finder, frontend bool) *httptest.Server {
		srv := httptest.NewServer(find.NewHandler(f, find.Config{Frontend: frontend}))
		t.Cleanup(srv.Close)
		return srv
	}
	indexers := []*httptest.Server{
		serve(&actor{steps: []string{"P/one/bitswap 1", "P/one/bitswap 2"}}, false),
		serve(&actor{steps: []string{"Q/one/bitswap 3"}}, false),
	}
	empty := serve(&actor{}, false)
	backend := func(name string, srv *httptest.Server) Backend {
		client, err := find.NewClient(srv.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = client.Close() })
		return Backend{name, client, nil}
	}
	f := New(Config{Backends: []Backend{backend("a", indexers[0]), backend("b", indexers[1])}})
	frontend := serve(f, true)

	ask := func(accept string) (status int, partial string, results int) {
		t.Helper()
		req, _ := http.NewRequest(http.MethodGet, frontend.URL+"/multihash/"+mh.B58String(), nil)
		req.Header.Set("Accept", accept)
		resp, err := frontend.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, resp.Header.Get(find.HeaderPartial) + resp.Trailer.Get(find.HeaderPartial), strings.Count(string(body), `"Provider":`)
	}
	check := func(what string, wantStatus int, wantPartial string, wantResults int) {
		t.Helper()
		for _, accept := range []string{"application/json", "application/x-ndjson"} {
			if status, partial, results := ask(accept); status != wantStatus || partial != wantPartial || results != wantResults {
				t.Errorf("%s, %s: got %d %q and %d results, want %d %q and %d", what, accept,
					status, partial, results, wantStatus, wantPartial, wantResults)
			}
		}
	}
	check("both up", 200, "", 2)
	indexers[1].Close()
	check("one down", 200, "b", 1)
	f.SetBackends([]Backend{backend("a", indexers[0]), backend("c", empty)})
	check("one knows nothing", 200, "", 1)
	f.SetBackends([]Backend{backend("c", empty)})
	check("no one knows", 404, "", 0)
	f.SetBackends([]Backend{backend("c", empty), backend("b", indexers[1])})
	check("no one knows, one down", 503, "b", 0)
}
