package find

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/multiformats/go-multihash"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/signpost-index/signpost/api"
)

var (
	goneKey  = &DeniedError{Kind: DenyMultihash, Reason: "court order 7"}
	goneSome = &DeniedError{Kind: DenyProvider, Reason: "spam"}
	goneMute = &DeniedError{Kind: DenyContext}
)

// TestDeniedIsGoneWithTheReason: on every path and in every form, at indexers and
// frontends; results that came before count for nothing where nothing was sent yet.
func TestDeniedIsGoneWithTheReason(t *testing.T) {
	const key = "bafkreick5v2e7bfmkaau7vqpxq2wknsj3vmgaiz5sit22heoekeguth7qa"
	for _, frontend := range []bool{false, true} {
		for _, path := range []string{"/cid/" + key, "/multihash/" + exampleMultihash, "/providers/" + provider.ID.String()} {
			for _, accept := range []string{"", api.MediaNDJSON} {
				if accept != "" && strings.HasPrefix(path, "/providers") {
					continue
				}
				for denied, body := range map[*DeniedError]string{goneKey: "court order 7\n", goneSome: "spam\n", goneMute: "denied\n"} {
					t.Run(fmt.Sprint(frontend, strings.ReplaceAll(path, "/", ":"), accept, denied.Kind), func(t *testing.T) {
						reg := prometheus.NewRegistry()
						f := &static{err: denied}
						if accept == "" {
							f.results = extendedResults
						}
						srv := httptest.NewServer(NewHandler(f, Config{Frontend: frontend, Registerer: reg}))
						defer srv.Close()
						resp, got := get(t, srv, path, accept)
						h := resp.Header
						if resp.StatusCode != http.StatusGone || got != body || h.Get(HeaderDenied) != string(denied.Kind) || h.Get("Cache-Control") != "public, max-age=60" ||
							h.Get("Retry-After") != "" || h.Get(HeaderPartial) != "" || h.Get("Access-Control-Allow-Origin") != "*" || !strings.HasPrefix(h.Get("Content-Type"), "text/plain") {
							t.Errorf("%d %q %v", resp.StatusCode, got, h)
						}
						if err := testutil.GatherAndCompare(reg, strings.NewReader("# HELP signpost_find_denied_total Keys answered 410, or cut off in a stream: a denylist, here or at a backend, forbids the answer.\n# TYPE signpost_find_denied_total counter\nsignpost_find_denied_total 1\n"),
							"signpost_find_denied_total"); err != nil {
							t.Error(err)
						}
					})
				}
			}
		}
	}
}

// TestAStreamThatIsDeniedLateSaysSo in its trailer, and our client takes none of it for
// an answer.
func TestAStreamThatIsDeniedLateSaysSo(t *testing.T) {
	f := &static{results: extendedResults, err: &DeniedError{Kind: DenyDoubleHash, Reason: "für\r\nalle"}}
	srv := httptest.NewServer(NewHandler(f, Config{Frontend: true}))
	defer srv.Close()
	resp, body := get(t, srv, "/multihash/"+exampleMultihash, api.MediaNDJSON)
	if got := resp.Trailer.Get(HeaderDenied); resp.StatusCode != 200 || got != "double-hash f?r??alle" || strings.Count(body, "\n") != len(extendedResults) {
		t.Errorf("%d %q, %d lines", resp.StatusCode, got, strings.Count(body, "\n"))
	}
	client, err := NewClient(srv.URL, srv.Client())
	if err != nil {
		t.Fatal(err)
	}
	results, err := collect(t, client)
	var denied *DeniedError
	if !errors.As(err, &denied) || denied.Kind != DenyDoubleHash || denied.Reason != "f?r??alle" || !denied.Whole() {
		t.Errorf("%d results, %#v", len(results), err)
	}
}

// TestDenialsCrossTheWire: what a server of ours denies the client denies, for the same
// reason; and it is neither not found nor unavailable.
func TestDenialsCrossTheWire(t *testing.T) {
	for _, want := range []*DeniedError{goneKey, goneSome, goneMute, {Kind: DenyDoubleHash, Reason: strings.Repeat("x", 1000)}} {
		srv := httptest.NewServer(NewHandler(&static{err: want}, Config{}))
		defer srv.Close()
		client, err := NewClient(srv.URL, srv.Client())
		if err != nil {
			t.Fatal(err)
		}
		_, findErr := collect(t, client)
		_, peerErr := client.Provider(t.Context(), provider.ID)
		for _, err := range []error{findErr, peerErr} {
			var denied *DeniedError
			if !errors.As(err, &denied) || *denied != *want || errors.Is(err, ErrNotFound) || errors.Is(err, ErrUnavailable) {
				t.Errorf("%+v: got %v", want, err)
			}
		}
		b, err := client.FindBatch(t.Context(), []multihash.Multihash{testKey(1), testKey(2)})
		if err != nil || len(b.Denied) != 2 || *b.Denied[0].Err != *want || len(b.Results)+len(b.Unknown)+len(b.Missing) != 0 {
			t.Errorf("%+v: batch %+v, %v", want, b, err)
		}
	}
}

// TestStrangersDenialIsOfTheKey: a 410 of a server that says no more, whatever its
// body is.
func TestStrangersDenialIsOfTheKey(t *testing.T) {
	client := answers(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusGone)
		_, _ = w.Write([]byte("<h1>\x1b[31mgone" + strings.Repeat("x", 1<<20)))
	})
	_, err := collect(t, client)
	var denied *DeniedError
	if !errors.As(err, &denied) || !denied.Whole() || !strings.HasPrefix(denied.Reason, "<h1> [31mgonex") || len(denied.Reason) > 1<<10 {
		t.Errorf("%.100v", err)
	}
	b, err := client.FindBatch(t.Context(), []multihash.Multihash{testKey(1)})
	if err != nil || len(b.Denied) != 1 {
		t.Errorf("%+v, %v", b, err)
	}
}

// TestBatchesListDeniedKeys as they were asked for, apart from those found and those
// unknown.
func TestBatchesListDeniedKeys(t *testing.T) {
	found, part, none, open, key, some := testKey(1), testKey(2), testKey(3), testKey(4), testKey(5), testKey(6)
	f := byKey{
		string(found): {results: extendedResults[:1]},
		string(part):  {results: extendedResults[:1], err: goneKey}, // of the key, late
		string(open):  {err: missingB},
		string(key):   {err: goneKey},
		string(some):  {err: goneSome},
	}
	for _, frontend := range []bool{false, true} {
		srv := batchServer(t, f, frontend)
		for _, c := range []struct {
			name, partial          string
			keys                   []multihash.Multihash
			results, unknown, gone []multihash.Multihash
		}{
			{"all denied", "", []multihash.Multihash{some, key, key}, nil, nil, []multihash.Multihash{some, key, key}},
			{"others found and not", "", []multihash.Multihash{key, found, none, some}, []multihash.Multihash{found}, nil, []multihash.Multihash{key, some}},
			{"none found, one undecided", "b, c", []multihash.Multihash{open, key}, nil, []multihash.Multihash{open}, []multihash.Multihash{key}},
			{"denied late", "", []multihash.Multihash{part, found}, []multihash.Multihash{found}, nil, []multihash.Multihash{part}},
		} {
			t.Run(fmt.Sprint(c.name, frontend), func(t *testing.T) {
				resp, text := postBatch(t, srv.URL+"/multihash", multihashes(c.keys...))
				if resp.StatusCode != 200 || resp.Header.Get(HeaderPartial) != c.partial || resp.Header.Get("Cache-Control") != "no-store" {
					t.Fatalf("%d %v %s", resp.StatusCode, resp.Header, text)
				}
				var got struct {
					MultihashResults []MultihashResult
					Unknown          []multihash.Multihash
					Denied           []struct{ Key, Kind, Reason string }
				}
				if err := json.Unmarshal([]byte(text), &got); err != nil || !strings.Contains(text, `"MultihashResults":[`) {
					t.Fatalf("%v: %s", err, text)
				}
				var results, gone []multihash.Multihash
				for _, r := range got.MultihashResults {
					results = append(results, r.Multihash)
				}
				for _, d := range got.Denied {
					mh, err := base64.StdEncoding.DecodeString(d.Key)
					if err != nil {
						t.Fatal(err)
					}
					gone = append(gone, mh)
					want := goneKey
					if string(mh) == string(some) {
						want = goneSome
					}
					if d.Kind != string(want.Kind) || d.Reason != want.Reason {
						t.Errorf("%+v", d)
					}
				}
				if diff := cmp.Diff([][]multihash.Multihash{c.results, c.unknown, c.gone}, [][]multihash.Multihash{results, got.Unknown, gone}); diff != "" {
					t.Errorf("-want +got\n%s", diff)
				}
			})
		}
	}
	resp, text := postBatch(t, batchServer(t, f, true).URL+"/cid", cids(key))
	if want := `{"MultihashResults":[],"Denied":[{"Key":"` + strings.Split(cids(key), `"`)[3] + `","Kind":"multihash","Reason":"court order 7"}]}`; resp.StatusCode != 200 || text != want {
		t.Errorf("by CID: %d %s, want %s", resp.StatusCode, text, want)
	}
}

// TestHostileBatchesDenyOnlyWhatWasAsked, in words of a bounded length.
func TestHostileBatchesDenyOnlyWhatWasAsked(t *testing.T) {
	asked, other := testKey(1), testKey(2)
	client := answers(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(headerBatch, "1")
		b, _ := json.Marshal(map[string]any{"Denied": []map[string]any{
			{"Key": []byte(other), "Reason": "other"}, {"Key": []byte{}, "Reason": "empty"}, {"Key": nil},
			{"Key": []byte(asked), "Reason": "a\x1b[2J\n" + strings.Repeat("x", 1<<20)},
		}})
		api.JSONBytes(w, 200, b)
	})
	b, err := client.FindBatch(context.Background(), []multihash.Multihash{asked})
	if err != nil || len(b.Denied) != 1 || string(b.Denied[0].Multihash) != string(asked) || !b.Denied[0].Err.Whole() ||
		strings.ContainsAny(b.Denied[0].Err.Reason, "\x1b\n") || len(b.Denied[0].Err.Reason) > 1100 {
		t.Errorf("%.300v, %v", b, err)
	}
}

// TestFrontPageTellsTheReason, as text and not as markup.
func TestFrontPageTellsTheReason(t *testing.T) {
	for denied, want := range map[*DeniedError]string{
		{Kind: DenyMultihash, Reason: `<script>alert(1)</script> & 7`}: "taken down, and is not answered here: &lt;script&gt;alert(1)&lt;/script&gt; &amp; 7",
		{Kind: DenyProvider}: "taken down, and is not answered here: no reason is given",
	} {
		srv := httptest.NewServer(NewHandler(&static{results: extendedResults, err: denied}, Config{Frontend: true}))
		defer srv.Close()
		resp, body := get(t, srv, "/?q="+url.QueryEscape(exampleMultihash), "text/html")
		if resp.StatusCode != http.StatusGone || !strings.Contains(body, want) || strings.Contains(body, "<script") || strings.Contains(body, provider.ID.String()) {
			t.Errorf("%d %s", resp.StatusCode, body)
		}
	}
}
