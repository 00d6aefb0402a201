package find

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
)

// byKey is a Finder with an answer for each key; of others it says nothing.
type byKey map[string]*static

func (f byKey) Find(ctx context.Context, mh multihash.Multihash) iter.Seq2[ProviderResult, error] {
	if s := f[string(mh)]; s != nil {
		return s.Find(ctx, mh)
	}
	return (&static{}).Find(ctx, mh)
}
func (byKey) Providers(context.Context) ([]ProviderInfo, error)        { return nil, nil }
func (byKey) Provider(context.Context, peer.ID) (*ProviderInfo, error) { return nil, ErrNotFound }
func (byKey) Stats(context.Context) (Stats, error)                     { return Stats{}, nil }
func testKey(n int) multihash.Multihash {
	mh, err := multihash.Sum(fmt.Append(nil, n), multihash.SHA2_256, -1)
	if err != nil {
		panic(err)
	}
	return mh
}

func batchServer(t *testing.T, f Finder, frontend bool) *httptest.Server {
	t.Helper()
	srv := httptest.NewServer(NewHandler(f, Config{Frontend: frontend}))
	t.Cleanup(srv.Close)
	return srv
}

func postBatch(t *testing.T, url, body string) (*http.Response, string) {
	t.Helper()
	resp, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

// cids makes the body of a batch of these keys, asked for by CID.
func cids(keys ...multihash.Multihash) string {
	var texts []string
	for _, mh := range keys {
		texts = append(texts, cid.NewCidV1(cid.Raw, mh).String())
	}
	b, _ := json.Marshal(struct{ Cids []string }{texts})
	return string(b)
}

func multihashes(keys ...multihash.Multihash) string {
	b, _ := json.Marshal(struct{ Multihashes []multihash.Multihash }{keys})
	return string(b)
}

// TestBatchSaysOfEachKeyWhetherItIsDecided is the table of found, not found and
// not known, for several keys at once.
func TestBatchSaysOfEachKeyWhetherItIsDecided(t *testing.T) {
	found, part, none, open := testKey(1), testKey(2), testKey(3), testKey(4)
	f := byKey{
		string(found): {results: extendedResults[:1]},
		string(part):  {results: extendedResults[:1], err: missingB},
		string(open):  {err: missingB},
	}
	srv := batchServer(t, f, true)
	for _, c := range []struct {
		name    string
		keys    []multihash.Multihash
		status  int
		results []multihash.Multihash
		unknown []multihash.Multihash
		partial string
	}{
		{"all found", []multihash.Multihash{found, found}, 200, []multihash.Multihash{found}, nil, ""},
		{"one not found", []multihash.Multihash{none, found}, 200, []multihash.Multihash{found}, nil, ""},
		{"one undecided", []multihash.Multihash{open, found, none}, 200, []multihash.Multihash{found}, []multihash.Multihash{open}, "b, c"},
		{"one in part", []multihash.Multihash{part}, 200, []multihash.Multihash{part}, nil, "b, c"},
		{"none found", []multihash.Multihash{none}, 404, nil, nil, ""},
		{"none found, one undecided", []multihash.Multihash{none, open}, 503, nil, nil, "b, c"},
	} {
		for path, body := range map[string]string{"/multihash": multihashes(c.keys...), "/cid": cids(c.keys...)} {
			t.Run(c.name+path, func(t *testing.T) {
				resp, text := postBatch(t, srv.URL+path, body)
				if resp.StatusCode != c.status || resp.Header.Get(HeaderPartial) != c.partial || resp.Header.Get("Cache-Control") != "no-store" {
					t.Fatalf("%d %v %s", resp.StatusCode, resp.Header, text)
				}
				if (resp.Header.Get("Retry-After") != "") != (c.status == 503) {
					t.Errorf("Retry-After %q", resp.Header.Get("Retry-After"))
				}
				if c.status != 200 {
					return
				}
				var got struct {
					MultihashResults []MultihashResult
					Unknown          []string
				}
				if err := json.Unmarshal([]byte(text), &got); err != nil {
					t.Fatal(err)
				}
				var results []multihash.Multihash
				for _, r := range got.MultihashResults {
					results = append(results, r.Multihash)
				}
				var unknown []string
				for _, mh := range c.unknown {
					if path == "/cid" {
						unknown = append(unknown, cid.NewCidV1(cid.Raw, mh).String())
					} else {
						unknown = append(unknown, base64.StdEncoding.EncodeToString(mh))
					}
				}
				if !cmp.Equal(results, c.results) || !cmp.Equal(got.Unknown, unknown) {
					t.Errorf("results %v, unknown %v", results, got.Unknown)
				}
			})
		}
	}
}

// TestBatchesAreBounded: in keys, in bytes and in form. Nothing is looked up of
// one that is refused.
func TestBatchesAreBounded(t *testing.T) {
	srv := batchServer(t, &static{between: func(int) { t.Error("something was looked up") }}, true)
	many := make([]multihash.Multihash, MaxBatch+1)
	for n := range many {
		many[n] = testKey(n)
	}
	for _, c := range []struct {
		name, path, body string
		status           int
		text             string
	}{
		{"no keys", "/multihash", `{}`, 400, "0 keys: want 1 to 1000"},
		{"too many", "/multihash", multihashes(many...), 400, "1001 keys: want 1 to 1000"},
		{"too many bytes", "/cid", `{"Cids":["` + strings.Repeat("x", maxBatchBody) + `"]}`, 413, "ask about at most 1000 keys"},
		{"no JSON", "/multihash", `hello`, 400, "want {"},
		{"no multihash", "/multihash", `{"Multihashes":["AAAA"]}`, 400, "key 0: "},
		{"no CID", "/cid", `{"Cids":["bafkqaaa","oops"]}`, 400, "key "},
		{"a CID without end", "/cid", `{"Cids":["` + strings.Repeat("z", 1000) + `"]}`, 400, "key 0: too long"},
		{"no digest", "/multihash", `{"Multihashes":["EgA="]}`, 400, "key 0: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			if resp, text := postBatch(t, srv.URL+c.path, c.body); resp.StatusCode != c.status || !strings.Contains(text, c.text) {
				t.Errorf("%d %s", resp.StatusCode, text)
			}
		})
	}
}

// TestClientAsksInOneRequest, and reads what was answered back into a Batch.
func TestClientAsksInOneRequest(t *testing.T) {
	found, none, open := testKey(1), testKey(3), testKey(4)
	f := byKey{string(found): {results: extendedResults}, string(open): {err: missingB}}
	inner := NewHandler(f, Config{Frontend: true})
	var requests atomic.Int64
	c := answers(t, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		inner.ServeHTTP(w, r)
	})
	for _, tc := range []struct {
		keys []multihash.Multihash
		want Batch
	}{
		{[]multihash.Multihash{none, found, open}, Batch{
			Results: []MultihashResult{{found, Merge(append([]ProviderResult(nil), extendedResults...))}},
			Unknown: []multihash.Multihash{open}, Missing: []string{"b", "c"},
		}},
		{[]multihash.Multihash{none}, Batch{}},
		{[]multihash.Multihash{none, open}, Batch{Unknown: []multihash.Multihash{none, open}, Missing: []string{"b", "c"}}},
	} {
		requests.Store(0)
		got, err := FindBatch(t.Context(), c, tc.keys)
		if err != nil || requests.Load() != 1 {
			t.Fatalf("%v, %d requests", err, requests.Load())
		}
		a, _ := json.Marshal(got)
		b, _ := json.Marshal(tc.want)
		if !bytes.Equal(a, b) {
			t.Errorf("got  %s\nwant %s", a, b)
		}
	}
}

// TestServerWithoutBatchesIsAskedOneByOne: of it a 404 to a batch says nothing.
// It is not asked for one again.
func TestServerWithoutBatchesIsAskedOneByOne(t *testing.T) {
	found, none := testKey(1), testKey(2)
	inner := NewHandler(byKey{string(found): {results: extendedResults[:1]}}, Config{})
	for name, refuse := range map[string]func(w http.ResponseWriter, r *http.Request){
		"not found": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "", http.StatusNotFound) },
		"method":    func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "", http.StatusMethodNotAllowed) },
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/multihash/", http.StatusMovedPermanently)
		},
		"welcome": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") },
	} {
		t.Run(name, func(t *testing.T) {
			var posts atomic.Int64
			c := answers(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPost {
					posts.Add(1)
					refuse(w, r)
					return
				}
				inner.ServeHTTP(w, r)
			})
			for range 2 {
				b, err := FindBatch(t.Context(), c, []multihash.Multihash{found, none})
				if err != nil || len(b.Results) != 1 || len(b.Unknown) > 0 {
					t.Errorf("%+v, %v", b, err)
				}
			}
			if posts.Load() != 1 {
				t.Errorf("%d batches were sent, want 1", posts.Load())
			}
		})
	}
}

// TestBatchThatFailedLeavesAllOpen: errors of a server are errors.
func TestBatchThatFailedLeavesAllOpen(t *testing.T) {
	c := answers(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "", http.StatusBadGateway) })
	if b, err := FindBatch(t.Context(), c, []multihash.Multihash{testKey(1)}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("%+v, %v", b, err)
	}
	c = answers(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(headerBatch, "1")
		_, _ = io.WriteString(w, `{"MultihashResults":[{`)
	})
	if b, err := FindBatch(t.Context(), c, []multihash.Multihash{testKey(1)}); !errors.Is(err, ErrMalformed) {
		t.Errorf("%+v, %v", b, err)
	}
}

// TestWebPagesMayAskInBatches: the preflight lets them send JSON, and the answer is for
// them.
func TestWebPagesMayAskInBatches(t *testing.T) {
	for _, frontend := range []bool{true, false} {
		h := NewHandler(&static{}, Config{Frontend: frontend})
		for _, path := range []string{"/multihash", "/cid"} {
			w := httptest.NewRecorder()
			r := httptest.NewRequest(http.MethodOptions, path, nil)
			r.Header.Set("Origin", "https://example.com")
			r.Header.Set("Access-Control-Request-Method", "POST")
			h.ServeHTTP(w, r)
			got := w.Header()
			if w.Code != http.StatusNoContent || got.Get("Access-Control-Allow-Origin") != "*" ||
				!strings.Contains(got.Get("Access-Control-Allow-Methods"), "POST") || !strings.Contains(got.Get("Access-Control-Allow-Headers"), "Content-Type") {
				t.Errorf("%s: %d %v", path, w.Code, got)
			}
			w = httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, strings.NewReader(`{}`)))
			if w.Header().Get("Access-Control-Allow-Origin") != "*" {
				t.Errorf("%s: the answer is %v", path, w.Header())
			}
		}
	}
}
