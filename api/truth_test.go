package api_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/admin"
	"github.com/signpost-index/signpost/api/fanout"
	"github.com/signpost-index/signpost/api/find"
	"github.com/signpost-index/signpost/api/routing"
)

// truths are the ways a backend's part of an answer can end.
var truths = map[string]func(w http.ResponseWriter, r *http.Request){
	"answers":   func(w http.ResponseWriter, _ *http.Request) { api.Error(w, http.StatusNotFound, "") },
	"times out": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	"refuses":   nil, // nobody listens
	"5xx":       func(w http.ResponseWriter, _ *http.Request) { api.Error(w, http.StatusBadGateway, "") },
	"malformed": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", api.MediaNDJSON)
		_, _ = io.WriteString(w, "{oops\n")
	},
	"cut off": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", api.MediaNDJSON)
		_, _ = io.WriteString(w, " ")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	},
	"is not asked": func(w http.ResponseWriter, _ *http.Request) { api.Error(w, http.StatusBadGateway, "") },
}

// TestTruthTable: two backends, of which one knows the key or not, and the other,
// which does not, ends in any way. Only if all known holdings are on backends
// that answered is an answer whole, and a miss a miss. doc/wire.md has the table.
func TestTruthTable(t *testing.T) {
	found := routed(t)
	key := cid.NewCidV1(cid.Raw, sha(t, "truth"))
	forms := map[string][2]string{
		"JSON": {"/cid/" + key.String(), ""}, "NDJSON": {"/cid/" + key.String(), api.MediaNDJSON},
		"routing JSON": {"/routing/v1/providers/" + key.String(), ""}, "routing NDJSON": {"/routing/v1/providers/" + key.String(), api.MediaNDJSON},
	}
	for way, other := range truths {
		for _, knows := range []bool{true, false} {
			for _, held := range []bool{true, false} {
				t.Run(way+pick(knows, ", found", ", not found")+pick(held, ", held elsewhere", ""), func(t *testing.T) {
					a := find.Finder(&fixture{})
					if knows {
						a = found
					}
					front := frontend(t, a, other, held)
					if way == "is not asked" {
						for range 6 {
							get(t, front, forms["JSON"])
						}
					}
					for form, q := range forms {
						resp, body := get(t, front, q)
						want := truth(form, knows, held || way == "answers")
						if got := told(resp, body); got != want {
							t.Errorf("%s: %s, want %s; %s", form, got, want, body)
						}
					}
				})
			}
		}
	}
}

func pick(which bool, a, b string) string {
	if which {
		return a
	}
	return b
}

// truth is what an answer has to say: status, whether it is partial, and how
// long it may be kept.
func truth(form string, found, whole bool) string {
	stream := strings.HasSuffix(form, "NDJSON")
	switch {
	case found && whole && stream:
		return "200 whole no-store results"
	case found && whole:
		return "200 whole public, max-age=60 results"
	case found:
		return "200 partial no-store results"
	case whole && strings.HasPrefix(form, "routing"):
		return "200 whole public, max-age=5 nothing"
	case whole:
		return "404 whole public, max-age=5 nothing"
	}
	return "503 partial no-store nothing"
}

func told(resp *http.Response, body string) string {
	partial := resp.Header.Get(find.HeaderPartial)+resp.Trailer.Get(find.HeaderPartial) != ""
	results := strings.Contains(body, `"ID"`)
	if (resp.StatusCode == http.StatusServiceUnavailable) != (resp.Header.Get("Retry-After") != "") {
		return "Retry-After " + resp.Header.Get("Retry-After")
	}
	return strings.Join([]string{
		resp.Status[:3], pick(partial, "partial", "whole"), resp.Header.Get("Cache-Control"), pick(results, "results", "nothing"),
	}, " ")
}

// frontend is one over a backend that answers and another.
func frontend(t *testing.T, a find.Finder, other http.HandlerFunc, held bool) *httptest.Server {
	t.Helper()
	url := refusing(t)
	if other != nil {
		srv := httptest.NewServer(other)
		t.Cleanup(srv.Close)
		url = srv.URL
	}
	hc := api.NewHTTPClient()
	t.Cleanup(hc.CloseIdleConnections)
	b, err := find.NewClient(url, hc)
	if err != nil {
		t.Fatal(err)
	}
	f := fanout.New(fanout.Config{Backends: []fanout.Backend{{Name: "a", Finder: a}, {Name: "b", Finder: b}}, Timeout: 300 * time.Millisecond})
	if held {
		p := admin.CoveredPublisher{Publisher: "p", Role: admin.RoleOwner, Ranges: []admin.Range{{}}, Height: 5}
		var all []fanout.Holdings
		for _, name := range []string{"a", "b"} {
			all = append(all, fanout.Holdings{Backend: name, AsOf: time.Now(), Coverage: admin.Coverage{Frozen: true, Publishers: []admin.CoveredPublisher{p}}})
		}
		f.SetHoldings(all)
	}
	mux := http.NewServeMux()
	mux.Handle("/routing/", routing.NewHandler(f, routing.Config{}))
	mux.Handle("/", find.NewHandler(f, find.Config{Frontend: true}))
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	return srv
}

// refusing is a URL where nobody listens.
func refusing(t *testing.T) string {
	t.Helper()
	srv := httptest.NewServer(nil)
	srv.Close()
	return srv.URL
}

func get(t *testing.T, srv *httptest.Server, q [2]string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, srv.URL+q[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	if q[1] != "" {
		req.Header.Set("Accept", q[1])
	}
	resp, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func sha(t *testing.T, text string) multihash.Multihash {
	t.Helper()
	mh, err := multihash.Sum([]byte(text), multihash.SHA2_256, -1)
	if err != nil {
		t.Fatal(err)
	}
	return mh
}
