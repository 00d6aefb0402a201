package find

import (
	"bufio"
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/signpost-index/signpost/api"
)

// static is a Finder with given answers. err ends every one of them.
type static struct {
	results []ProviderResult
	infos   []ProviderInfo
	stats   Stats
	err     error
	between func(sent int) // called before each result and before the end
}

func (s *static) Find(context.Context, multihash.Multihash) iter.Seq2[ProviderResult, error] {
	return func(yield func(ProviderResult, error) bool) {
		for i, r := range s.results {
			if s.between != nil {
				s.between(i)
			}
			if !yield(r, nil) {
				return
			}
		}
		if s.between != nil {
			s.between(len(s.results))
		}
		if s.err != nil {
			yield(ProviderResult{}, s.err)
		}
	}
}

func (s *static) Providers(context.Context) ([]ProviderInfo, error) { return s.infos, s.err }

func (s *static) Provider(_ context.Context, id peer.ID) (*ProviderInfo, error) {
	for _, info := range s.infos {
		if info.AddrInfo.ID == id {
			return &info, s.err
		}
	}
	if s.err != nil {
		return nil, s.err
	}
	return nil, ErrNotFound
}

func (s *static) Stats(context.Context) (Stats, error) { return s.stats, s.err }

var (
	missingB  = &PartialError{Missing: []string{"b", "c"}}
	errBroken = errors.New("the disk is on fire")
)

// TestAnswersSayWhetherTheyAreWhole is the table of found, not found, and not
// known.
func TestAnswersSayWhetherTheyAreWhole(t *testing.T) {
	found, info := extendedResults[:1], []ProviderInfo{{AddrInfo: provider}}
	const (
		find      = "/cid/bafkreick5v2e7bfmkaau7vqpxq2wknsj3vmgaiz5sit22heoekeguth7qa"
		providers = "/providers"
	)
	one := "/providers/" + provider.ID.String()
	tests := []struct {
		name     string
		frontend bool
		path     string
		accept   string
		finder   static
		status   int
		partial  string
		cache    string
		trailer  string
		body     string // its start
	}{
		{"found at indexer", false, find, "", static{results: found}, 200, "", "", "", `{"MultihashResults"`},
		{"found", true, find, "", static{results: found}, 200, "", cacheFound, "", `{"MultihashResults"`},
		{"found in part", true, find, "", static{results: found, err: missingB}, 200, "b, c", "no-store", "", `{"MultihashResults"`},
		{"nowhere at indexer", false, find, "", static{}, 404, "", "", "", "no results for query\n"},
		{"nowhere", true, find, "", static{}, 404, "", cacheMissed, "", "no results for query\n"},
		{"undecided", true, find, "", static{err: missingB}, 503, "b, c", "no-store", "", "undecided: no answer from b, c\n"},
		{"one backend without a name", true, find, "", static{err: ErrUnavailable}, 503, "", "no-store", "", "undecided\n"},
		{"broken", true, find, "", static{err: errBroken}, 500, "", "no-store", "", "\n"},
		{"broken after results", true, find, "", static{results: found, err: errBroken}, 500, "", "no-store", "", "\n"},

		{"stream", true, find, "application/x-ndjson", static{results: found}, 200, "", "no-store", "", `{"ContextID"`},
		{"stream in part", true, find, "application/x-ndjson", static{results: found, err: missingB}, 200, "", "no-store", "b, c", `{"ContextID"`},
		{"stream of nothing", true, find, "application/x-ndjson", static{}, 404, "", cacheMissed, "", "no results for query\n"},
		{"stream undecided", true, find, "application/x-ndjson", static{err: missingB}, 503, "b, c", "no-store", "", "undecided"},
		{"stream broken at once", true, find, "application/x-ndjson", static{err: errBroken}, 500, "", "no-store", "", "\n"},

		{"providers", true, providers, "", static{infos: info}, 200, "", "", "", `[{"AddrInfo"`},
		{"no providers", true, providers, "", static{}, 200, "", "", "", "[]"},
		{"providers in part", true, providers, "", static{infos: info, err: missingB}, 200, "b, c", "no-store", "", `[{"AddrInfo"`},
		{"providers undecided", true, providers, "", static{err: missingB}, 503, "b, c", "no-store", "", "undecided"},
		{"providers broken", true, providers, "", static{infos: info, err: errBroken}, 500, "", "no-store", "", "\n"},

		{"provider", true, one, "", static{infos: info}, 200, "", "", "", `{"AddrInfo"`},
		{"provider unknown", true, one, "", static{}, 404, "", "", "", "provider not found\n"},
		{"provider in part", true, one, "", static{infos: info, err: missingB}, 200, "b, c", "no-store", "", `{"AddrInfo"`},
		{"provider undecided", true, one, "", static{err: missingB}, 503, "b, c", "no-store", "", "undecided"},

		{"stats", true, "/stats", "", static{stats: Stats{1, 2}}, 200, "", "", "", `{"EntriesEstimate":1,"EntriesCount":2}`},
		{"stats in part", true, "/stats", "", static{stats: Stats{1, 2}, err: missingB}, 200, "b, c", "no-store", "", `{"EntriesEstimate":1`},
		{"stats undecided", true, "/stats", "", static{err: missingB}, 503, "b, c", "no-store", "", "undecided"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			srv := httptest.NewServer(NewHandler(&test.finder, Config{Frontend: test.frontend}))
			defer srv.Close()
			resp, body := get(t, srv, test.path, test.accept)
			if resp.StatusCode != test.status || !strings.HasPrefix(body, test.body) {
				t.Errorf("got %d %q", resp.StatusCode, body)
			}
			for header, want := range map[string]string{
				HeaderPartial:                 test.partial,
				"Cache-Control":               test.cache,
				"Access-Control-Allow-Origin": "*",
			} {
				if got := resp.Header.Get(header); got != want {
					t.Errorf("%s: got %q, want %q", header, got, want)
				}
			}
			if got := resp.Trailer.Get(HeaderPartial); got != test.trailer {
				t.Errorf("trailer: got %q, want %q", got, test.trailer)
			}
			if retry := resp.Header.Get("Retry-After"); (retry != "") != (test.status == 503) {
				t.Errorf("Retry-After %q", retry)
			}
		})
	}
}

// get asks without following redirects and reads the whole answer.
func get(t *testing.T, srv *httptest.Server, path, accept string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, srv.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	resp, err := srv.Client().Transport.RoundTrip(req)
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

// TestAStreamThatBreaksIsCutOff shows that no client can take what was sent
// before this node failed for all there is.
func TestAStreamThatBreaksIsCutOff(t *testing.T) {
	srv := httptest.NewUnstartedServer(NewHandler(&static{results: extendedResults, err: errBroken}, Config{}))
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	srv.Start()
	defer srv.Close()
	client, err := NewClient(srv.URL, srv.Client())
	if err != nil {
		t.Fatal(err)
	}
	results, err := collect(t, client)
	if len(results) != 3 || !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %d results and %v", len(results), err)
	}
}

// collect finds mhA.
func collect(t *testing.T, f Finder) (results []ProviderResult, err error) {
	t.Helper()
	for r, err := range f.Find(t.Context(), mhA) {
		if err != nil {
			return results, err
		}
		results = append(results, r)
	}
	return results, nil
}

// TestStreamSendsEachResultAsItComes reads each line before the finder is let
// go on to the next.
func TestStreamSendsEachResultAsItComes(t *testing.T) {
	read := make(chan struct{})
	f := &static{results: extendedResults, between: func(sent int) {
		if sent > 0 {
			<-read
		}
	}}
	srv := httptest.NewServer(NewHandler(f, Config{Frontend: true}))
	defer srv.Close()
	req, _ := http.NewRequest(http.MethodGet, srv.URL+"/multihash/"+mhA.B58String(), nil)
	req.Header.Set("Accept", "application/x-ndjson")
	resp, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	n := 0
	for lines.Scan() {
		n++
		read <- struct{}{}
	}
	if n != len(extendedResults) || lines.Err() != nil {
		t.Errorf("got %d lines, %v", n, lines.Err())
	}
}

// TestStreamLeavesOutWhatFitsNoLine counts and logs it, and sends the rest.
func TestStreamLeavesOutWhatFitsNoLine(t *testing.T) {
	registry := prometheus.NewRegistry()
	huge := result("huge", make([]byte, 60<<10), provider)
	f := &static{results: []ProviderResult{huge, extendedResults[1]}}
	srv := httptest.NewServer(NewHandler(f, Config{Registerer: registry}))
	defer srv.Close()
	_, body := get(t, srv, "/multihash/"+mhA.B58String(), "application/x-ndjson")
	want, _ := appendLine(nil, &extendedResults[1], maxLine)
	if body != string(want) {
		t.Errorf("got %q", body)
	}
	if err := testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP signpost_find_oversized_total Results left out of a stream: longer than a line may be.
# TYPE signpost_find_oversized_total counter
signpost_find_oversized_total 1
`), "signpost_find_oversized_total"); err != nil {
		t.Error(err)
	}
}

// TestFrontendMergesAndSorts gives one answer for the same results in any
// order, where an indexer keeps its own.
func TestFrontendMergesAndSorts(t *testing.T) {
	e := extendedResults
	orders := [][]ProviderResult{{e[0], e[1], e[2]}, {e[2], e[0], e[1], e[0]}, {e[1], e[1], e[2], e[0]}}
	var first string
	for _, results := range orders {
		srv := httptest.NewServer(NewHandler(&static{results: results}, Config{Frontend: true}))
		_, body := get(t, srv, "/multihash/"+mhA.B58String(), "")
		_, lines := get(t, srv, "/multihash/"+mhA.B58String(), "application/x-ndjson")
		srv.Close()
		if first == "" {
			first = body
		}
		if diff := cmp.Diff(first, body); diff != "" {
			t.Errorf("-first +this\n%s", diff)
		}
		if n := strings.Count(lines, "\n"); n != 3 {
			t.Errorf("%d lines, want 3", n)
		}
	}
	srv := httptest.NewServer(NewHandler(&static{results: orders[1]}, Config{}))
	defer srv.Close()
	_, body := get(t, srv, "/multihash/"+mhA.B58String(), "")
	want, _ := Response{[]MultihashResult{{mhA, orders[1]}}}.MarshalJSON()
	if diff := cmp.Diff(string(want), body); diff != "" {
		t.Errorf("indexer: -want +got\n%s", diff)
	}
}

func TestRequestsThatMakeNoSense(t *testing.T) {
	tests := []struct {
		name         string
		path, accept string
		indexer      int
		indexerText  string
		frontend     int
		frontendText string
	}{
		{name: "CID without path", path: "/cid/", indexer: 400, indexerText: "invalid cid: ", frontend: 400, frontendText: "invalid cid: invalid cid: "},
		{name: "CID too long", path: "/cid/b" + strings.Repeat("a", maxText), indexer: 400, indexerText: "invalid cid: too long", frontend: 400, frontendText: "invalid cid: "},
		{name: "multihash too long", path: "/multihash/" + strings.Repeat("1", maxText+1), indexer: 400, indexerText: "find: input is not", frontend: 400, frontendText: "invalid multihash: input"},
		{name: "zero-length digest", path: "/cid/bafkqaaa", indexer: 200, indexerText: "{", frontend: 400, frontendText: "bad multihash: zero-length digest"},
		{name: "peer ID too long", path: "/providers/" + strings.Repeat("1", maxText+1), indexer: 400, indexerText: "cannot decode provider id: ", frontend: 400, frontendText: "cannot decode provider id: "},
		{name: "no peer ID", path: "/providers/", indexer: 400, indexerText: "cannot decode provider id: ", frontend: 400, frontendText: "cannot decode provider id: "},
		{name: "providers as NDJSON", path: "/providers", accept: "application/x-ndjson", indexer: 406, indexerText: "accept: application/json, */*", frontend: 200, frontendText: "[]"},
		{name: "stats as nonsense", path: "/stats", accept: "a b", indexer: 406, indexerText: "invalid accept header: mime: ", frontend: 200, frontendText: "{"},
		{name: "encrypted", path: "/encrypted/cid/bafkqaaa", indexer: 404, indexerText: "reader privacy", frontend: 404, frontendText: "reader privacy"},
		{name: "any path above the last element", path: "/multihash/a/b/" + mhA.B58String(), indexer: 200, indexerText: "{", frontend: 200, frontendText: "{"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for _, frontend := range []bool{false, true} {
				status, text := test.indexer, test.indexerText
				if frontend {
					status, text = test.frontend, test.frontendText
				}
				srv := httptest.NewServer(NewHandler(&static{results: extendedResults}, Config{Frontend: frontend}))
				resp, body := get(t, srv, test.path, test.accept)
				srv.Close()
				if resp.StatusCode != status || !strings.HasPrefix(body, text) {
					t.Errorf("frontend %v: got %d %q, want %d %q", frontend, resp.StatusCode, body, status, text)
				}
			}
		})
	}
}

func TestHealthSaysWhyNot(t *testing.T) {
	tests := []struct {
		name   string
		cfg    Config
		status int
		body   string
	}{
		{"indexer", Config{}, 200, "ready\n"},
		{"with version", Config{Version: "v1.2.3"}, 200, "ready v1.2.3\n"},
		{"indexer in trouble", Config{Version: "v1", Health: func() (bool, string) { return false, "opening the store" }}, 503, "not ready: opening the store\n"},
		{"frontend", Config{Frontend: true, Version: "v1", Health: func() (bool, string) { return true, "" }}, 200, `{"status":"ready"}`},
		{"frontend in trouble", Config{Frontend: true, Health: func() (bool, string) { return false, "no backend" }}, 503, `{"reason":"no backend","status":"not ready"}`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			srv := httptest.NewServer(NewHandler(&static{}, test.cfg))
			defer srv.Close()
			resp, body := get(t, srv, "/health", "")
			if resp.StatusCode != test.status || body != test.body || resp.Header.Get("Cache-Control") != "no-cache" {
				t.Errorf("got %d %q %v", resp.StatusCode, body, resp.Header)
			}
		})
	}
}

// TestFrontPageAnswersPeople: without scripts, nothing of strangers is taken for
// markup, and nothing is said to be nowhere that is not decided.
func TestFrontPageAnswersPeople(t *testing.T) {
	found := []ProviderResult{result("a", bitswap, provider), result("b", bitswap, provider)}
	const key = "bafkreick5v2e7bfmkaau7vqpxq2wknsj3vmgaiz5sit22heoekeguth7qa"
	info := []ProviderInfo{{AddrInfo: provider, LastAdvertisementTime: time.Now().Add(-time.Hour)}}
	for _, c := range []struct {
		name, query string
		finder      static
		status      int
		want        []string
	}{
		{"found", key, static{results: found, infos: info, stats: Stats{EntriesEstimate: 12345}}, 200,
			[]string{"2 results from 1 provider", provider.ID.String(), provider.Addrs[0].String(), "transport-bitswap", "12,345 entries of 1 provider", "1 hour ago"}},
		{"by multihash", exampleMultihash, static{results: found}, 200, []string{"2 results"}},
		{"nowhere", key, static{}, 404, []string{"Nobody provides it"}},
		{"in part", key, static{results: found, err: missingB}, 200, []string{"This may not be all: no answer from b, c"}},
		{"undecided", key, static{err: missingB}, 503, []string{"not decided: no answer from b, c"}},
		{"broken", key, static{err: errBroken}, 500, []string{"This node failed"}},
		{"nonsense", `"><script>alert(1)</script>`, static{}, 400, []string{"neither a CID", "&#34;&gt;&lt;script&gt;"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := httptest.NewServer(NewHandler(&c.finder, Config{Frontend: true}))
			defer srv.Close()
			resp, body := get(t, srv, "/?q="+url.QueryEscape(c.query), "text/html")
			if resp.StatusCode != c.status || resp.Header.Get("Cache-Control") != "no-store" || !strings.Contains(resp.Header.Get("Content-Security-Policy"), "default-src 'none'") {
				t.Errorf("%d %v", resp.StatusCode, resp.Header)
			}
			for _, want := range c.want {
				if !strings.Contains(body, want) {
					t.Errorf("no %q in %s", want, body)
				}
			}
			if strings.Contains(body, "<script") {
				t.Error("it has a script")
			}
		})
	}
}

// TestFrontPageIsBounded: a thousand providers do not make a page that no phone
// can show.
func TestFrontPageIsBounded(t *testing.T) {
	var results []ProviderResult
	for n := range 1000 {
		results = append(results, result("a", bitswap, peer.AddrInfo{ID: peer.ID(testKey(n)), Addrs: provider.Addrs}))
	}
	rows, leftOut := pageRows(Merge(results))
	if len(rows) != maxPageResults || leftOut != 900 {
		t.Errorf("%d rows, %d left out", len(rows), leftOut)
	}
}

func TestFrontPageSaysWhatThisIs(t *testing.T) {
	for _, frontend := range []bool{false, true} {
		srv := httptest.NewServer(NewHandler(&static{}, Config{Frontend: frontend, Version: "<v1>"}))
		for _, path := range []string{"/", "/index.html"} {
			resp, body := get(t, srv, path, "")
			if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/html; charset=utf-8" {
				t.Errorf("%s: %d %v", path, resp.StatusCode, resp.Header)
			}
			for _, want := range []string{"/cid/", "/multihash/", "/providers", "/stats", "/health", "&lt;v1&gt;", srv.Listener.Addr().String()} {
				if !strings.Contains(body, want) {
					t.Errorf("%s: no %q", path, want)
				}
			}
			if strings.Contains(body, "query frontend") != frontend {
				t.Errorf("frontend %v: %s", frontend, body)
			}
		}
		srv.Close()
	}
}

// TestABatchIsChargedByItsKeys to a client whose rate is limited.
func TestABatchIsChargedByItsKeys(t *testing.T) {
	h := api.LimitClients(NewHandler(&static{}, Config{Frontend: true}), api.LimitConfig{Rate: 0.001})
	for _, want := range []int{http.StatusNotFound, http.StatusTooManyRequests} {
		r := httptest.NewRequest(http.MethodPost, "/cid", strings.NewReader(`{"Cids":["`+exampleCID+`","`+exampleCID+`","`+exampleCID+`","`+exampleCID+`","`+exampleCID+`","`+exampleCID+`"]}`))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("six keys of ten: %d %s, want %d", w.Code, w.Body, want)
		}
	}
}
