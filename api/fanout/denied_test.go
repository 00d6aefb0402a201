package fanout

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multiformats/go-multihash"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/find"
)

// TestWhatOneBackendDeniesIsDenied: a key for the whole pool, whatever the others know,
// whoever is missing and whoever is first, for the reason of the first by name; results
// only where they are denied.
func TestWhatOneBackendDeniesIsDenied(t *testing.T) {
	for _, c := range []struct {
		name     string
		backends []string // a, b, c: steps, separated by commas
		want     string   // results | how it ends
	}{
		{"key", []string{"P/a/x", "deny multihash one"}, "multihash one"},
		{"key, at once", []string{"wait 50ms,P/a/x", "deny multihash one"}, "multihash one"},
		{"key, last", []string{"P/a/x", "wait 50ms,deny double-hash one"}, "double-hash one"},
		{"key, nothing known", []string{"", "deny multihash one"}, "multihash one"},
		{"key, somebody missing", []string{"fail", "deny multihash one", "hang"}, "multihash one"},
		{"key, by several", []string{"wait 50ms,deny multihash one", "deny multihash two", "deny double-hash three"}, "multihash one"},
		{"key and results", []string{"deny provider one", "wait 50ms,deny multihash two", "P/a/x"}, "multihash two"},
		{"results, others known", []string{"deny provider one", "P/a/x"}, "P/a/x |"},
		{"results, nothing else known", []string{"deny provider one", ""}, "provider one"},
		{"results, by several", []string{"wait 50ms,deny provider one", "deny context two"}, "provider one"},
		{"results, others known, somebody missing", []string{"deny provider one", "P/a/x", "fail"}, "P/a/x | no answer from c"},
		{"results, nothing else known, somebody missing", []string{"deny provider one", "fail"}, "no answer from b"},
	} {
		for _, reversed := range []bool{false, true} {
			t.Run(fmt.Sprint(c.name, reversed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var backends []Backend
					for n, steps := range c.backends {
						a := &actor{}
						if steps != "" {
							a.steps = strings.Split(steps, ",")
						}
						backends = append(backends, Backend{Name: string(rune('a' + n)), Finder: a})
					}
					if reversed {
						slices.Reverse(backends)
					}
					f := New(Config{Backends: backends})
					got := deniedFind(t, f)
					if got != c.want && !(strings.HasSuffix(got, c.want) && !strings.Contains(c.want, "|")) {
						t.Errorf("got %q, want %q", got, c.want)
					}
					b, err := find.FindBatch(t.Context(), f, []multihash.Multihash{mh})
					if err != nil {
						t.Fatal(err)
					}
					if got := batchEnd(b); got != c.want {
						t.Errorf("batch: got %q, want %q", got, c.want)
					}
					synctest.Wait()
				})
			})
		}
	}
}

// deniedFind is the results of a find and how it ends.
func deniedFind(t *testing.T, f *Finder) string {
	var results []find.ProviderResult
	var last error
	for r, err := range f.Find(t.Context(), mh) {
		if last != nil {
			t.Error("something comes after an error")
		}
		if last = err; err == nil {
			results = append(results, r)
		}
	}
	return ending(results, last)
}

// batchEnd is deniedFind of a batch of one key.
func batchEnd(b find.Batch) string {
	switch {
	case len(b.Denied) > 0 && len(b.Results)+len(b.Unknown) > 0:
		return "denied, and answered"
	case len(b.Denied) > 0:
		return ending(nil, b.Denied[0].Err)
	}
	var results []find.ProviderResult
	for _, r := range b.Results {
		results = r.ProviderResults
	}
	if len(b.Missing) > 0 {
		return ending(results, &find.PartialError{Missing: b.Missing})
	}
	return ending(results, nil)
}

func ending(results []find.ProviderResult, err error) string {
	text := ""
	for _, r := range results {
		text += formatResult(r) + " "
	}
	if len(results) > 0 {
		text += "|"
	}
	if denied := (*find.DeniedError)(nil); errors.As(err, &denied) {
		return strings.TrimSpace(fmt.Sprintf("%s %s %s", text, denied.Kind, denied.Reason))
	}
	if err != nil {
		text += " " + err.Error()
	}
	return strings.TrimSpace(text)
}

// TestDenyingIsAnswering: a backend that denies everything is not partial, not counted as
// a failure, not logged, is ready, and its breaker stays closed, by find, batch and peer.
func TestDenyingIsAnswering(t *testing.T) {
	asked := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked++
		(&find.DeniedError{Kind: find.DenyMultihash, Reason: "no"}).Answer(w)
	}))
	defer srv.Close()
	client, err := find.NewClient(srv.URL, api.NewHTTPClient())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	reg := prometheus.NewRegistry()
	f := New(Config{Backends: []Backend{{"a", client, nil}}, Registerer: reg})
	(*f.links.Load())[0].took(time.Second) // so that it is waited for, however busy the machine
	for range 2 * tripLeast {
		if got := deniedFind(t, f); got != "multihash no" {
			t.Fatalf("got %q", got)
		}
		b, err := find.FindBatch(t.Context(), f, []multihash.Multihash{mh})
		if err != nil || batchEnd(b) != "multihash no" {
			t.Fatalf("batch: %+v, %v", b, err)
		}
		var denied *find.DeniedError
		if _, err := f.Provider(t.Context(), peerNamed("P")); !errors.As(err, &denied) {
			t.Fatalf("peer: %v", err)
		}
	}
	if asked < 3*2*tripLeast {
		t.Errorf("asked %d times", asked)
	}
	if ready, text := f.Ready(); !ready {
		t.Error(text)
	}
	if n, err := testutil.GatherAndCount(reg, "signpost_fanout_backend_failures_total"); err != nil || n != 0 {
		t.Errorf("%d series of failures, %v", n, err)
	}
	if open := testutil.ToFloat64(f.metrics.open.WithLabelValues("a")); open != 0 {
		t.Errorf("open: %v", open)
	}
}

// TestADenialIsWaitedForNoLongerThanAnAnswer: a backend that would deny and is silent is
// missing like any other.
func TestADenialIsWaitedForNoLongerThanAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(Config{Backends: []Backend{{"a", &actor{steps: []string{"P/a/x"}}, nil}, {"b", &actor{steps: []string{"wait 1m", "deny multihash late"}}, nil}}})
		start := time.Now()
		if got := deniedFind(t, f); got != "P/a/x | no answer from b" || time.Since(start) > firstPatience {
			t.Errorf("%q after %s", got, time.Since(start))
		}
		synctest.Wait()
	})
}
