package find

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/signpost-index/signpost/api"
)

// answers is a client of a server that answers everything with h.
func answers(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	client, err := NewClient(srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// typed answers 200 with a body of a type.
func typed(contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if contentType == "" {
			w.Header()["Content-Type"] = nil
		} else {
			w.Header().Set("Content-Type", contentType)
		}
		_, _ = w.Write([]byte(body))
	}
}

func TestClientReadsWhatServersSend(t *testing.T) {
	var lines []byte
	for _, r := range extendedResults {
		lines, _ = appendLine(lines, &r, maxLine)
	}
	body, _ := json.Marshal(Response{[]MultihashResult{{mhB, extendedResults[:1]}, {mhA, extendedResults}}})
	nullProvider := `{"ContextID":"YQ=="}` + "\n" + `{"Provider":null}` + "\n" + `{"Provider":{"ID":"","Addrs":[]}}` + "\n"
	long := result("a", bitswap, provider)
	long.Metadata = make([]byte, 700<<10)
	longLine, _ := json.Marshal(long)
	tests := []struct {
		name        string
		contentType string
		body        string
		results     int
		err         error
	}{
		{"NDJSON", "application/x-ndjson", string(lines), 3, nil},
		{"NDJSON with parameters", "application/x-ndjson; charset=utf-8", string(lines), 3, nil},
		{"no type is what was asked for", "", string(lines), 3, nil},
		{"empty lines", "application/x-ndjson", "\n\r\n" + strings.ReplaceAll(string(lines), "\n", "\r\n \n\n"), 3, nil},
		{"no newline at the end", "application/x-ndjson", strings.TrimSpace(string(lines)), 3, nil},
		{"no provider", "application/x-ndjson", nullProvider + string(lines), 3, nil},
		{"nothing", "application/x-ndjson", "", 0, nil},
		{"line of almost 1 MiB", "application/x-ndjson", string(longLine) + "\n", 1, nil},
		{"line over 1 MiB", "application/x-ndjson", string(lines) + strings.Repeat(" ", maxLineRead+2), 3, ErrMalformed},
		{"malformed line", "application/x-ndjson", string(lines) + "{oops\n" + string(lines), 3, ErrMalformed},
		{"peer ID that is none", "application/x-ndjson", string(lines) + `{"Provider":{"ID":"oops"}}`, 3, ErrMalformed},
		{"JSON, results of another multihash dropped", "application/json; charset=utf-8", string(body), 3, nil},
		{"JSON, null list", "application/json", `{"MultihashResults":null}`, 0, nil},
		{"JSON, null lists", "application/json", `{"MultihashResults":[{"Multihash":null,"ProviderResults":null}]}`, 0, nil},
		{"JSON, nothing", "application/json", `{}`, 0, nil},
		{"JSON, null", "application/json", `null`, 0, nil},
		{"JSON, malformed", "application/json", string(body[:len(body)-2]), 0, ErrMalformed},
		{"JSON, empty", "application/json", "", 0, ErrMalformed},
		{"HTML", "text/html", "<html>", 0, ErrMalformed},
		{"type that is none", ";;", string(lines), 0, ErrMalformed},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			results, err := collect(t, answers(t, typed(test.contentType, test.body)))
			if len(results) != test.results || !errors.Is(err, test.err) {
				t.Fatalf("got %d results and %v, want %d and %v", len(results), err, test.results, test.err)
			}
			if test.results == 3 {
				if diff := cmp.Diff(extendedResults, results, compare); diff != "" {
					t.Errorf("-want +got\n%s", diff)
				}
			}
		})
	}
}

func TestClientTellsRefusalsApart(t *testing.T) {
	tests := []struct {
		status                int
		notFound, unavailable bool
	}{
		{400, false, false},
		{404, true, false},
		{406, false, false},
		{429, false, true},
		{500, false, true},
		{503, false, true},
		{504, false, true},
		{204, false, false},
	}
	for _, test := range tests {
		t.Run(fmt.Sprint(test.status), func(t *testing.T) {
			client := answers(t, func(w http.ResponseWriter, _ *http.Request) {
				if test.status == http.StatusNoContent {
					w.WriteHeader(test.status)
					return
				}
				api.Error(w, test.status, "because")
			})
			_, err := client.Provider(t.Context(), provider.ID)
			var status *api.StatusError
			if !errors.As(err, &status) || status.Status != test.status {
				t.Fatalf("got %v", err)
			}
			if errors.Is(err, ErrNotFound) != test.notFound || errors.Is(err, ErrUnavailable) != test.unavailable {
				t.Errorf("%v: not found %v, unavailable %v", err, errors.Is(err, ErrNotFound), errors.Is(err, ErrUnavailable))
			}
			results, err := collect(t, client)
			if len(results) != 0 || (err == nil) != test.notFound {
				t.Errorf("find: %d results, %v", len(results), err)
			}
		})
	}
}

func TestClientErrorsOfAServerThatIsNotThereAreUnavailable(t *testing.T) {
	client := answers(t, nil)
	srv := httptest.NewServer(nil)
	client.base.Host = srv.Listener.Addr().String()
	srv.Close()
	if _, err := collect(t, client); !errors.Is(err, ErrUnavailable) {
		t.Errorf("find: %v", err)
	}
	if _, err := client.Stats(t.Context()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("stats: %v", err)
	}
}

// TestPartialAnswersStayPartialAcrossTheWire serves a partial Finder, asks it
// by HTTP, and gets the same results and the same error.
func TestPartialAnswersStayPartialAcrossTheWire(t *testing.T) {
	f := &static{results: extendedResults, infos: []ProviderInfo{{AddrInfo: provider}}, stats: Stats{3, 2}, err: missingB}
	client := answers(t, NewHandler(f, Config{Frontend: true}).ServeHTTP)
	check := func(what string, err error) {
		t.Helper()
		var partial *PartialError
		if !errors.As(err, &partial) || !cmp.Equal(partial.Missing, missingB.Missing) {
			t.Errorf("%s: got %v, want %v", what, err, missingB)
		}
	}
	results, err := collect(t, client)
	check("find", err)
	if diff := cmp.Diff(extendedResults, results, compare); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	infos, err := client.Providers(t.Context())
	check("providers", err)
	if len(infos) != 1 {
		t.Errorf("%d providers", len(infos))
	}
	info, err := client.Provider(t.Context(), provider.ID)
	check("provider", err)
	if info == nil {
		t.Error("no provider")
	}
	stats, err := client.Stats(t.Context())
	check("stats", err)
	if stats != f.stats {
		t.Errorf("stats %v", stats)
	}

	f.results, f.infos, f.stats = nil, nil, Stats{}
	results, err = collect(t, client)
	check("find of nothing", err)
	if len(results) != 0 || !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %d results, %v", len(results), err)
	}
	_, err = client.Provider(t.Context(), provider.ID)
	check("unknown provider", err)
}

func TestClientStopsReadingWhenItsConsumerDoes(t *testing.T) {
	gone := make(chan struct{})
	client := answers(t, func(w http.ResponseWriter, r *http.Request) {
		defer close(gone)
		w.Header().Set("Content-Type", "application/x-ndjson")
		line, _ := appendLine(nil, &extendedResults[0], maxLine)
		for r.Context().Err() == nil {
			if _, err := w.Write(line); err != nil {
				return
			}
		}
	})
	for _, err := range client.Find(t.Context(), mhA) {
		if err != nil {
			t.Fatal(err)
		}
		break
	}
	<-gone
}

func TestClientBoundsTheNumberOfResults(t *testing.T) {
	line := `{"Provider":{"ID":"` + noAddress.ID.String() + `"}}` + "\n"
	client := answers(t, typed("application/x-ndjson", strings.Repeat(line, maxResults+1)))
	results, err := collect(t, client)
	if len(results) != maxResults || !errors.Is(err, ErrMalformed) {
		t.Errorf("got %d results, %v", len(results), err)
	}
}

func TestClientEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	client := answers(t, func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	})
	for _, err := range client.Find(ctx, mhA) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	}
}

func TestNewClientRefusesWhatIsNoServer(t *testing.T) {
	for _, s := range []string{"", "127.0.0.1:3000", "http://h?q"} {
		if _, err := NewClient(s, nil); err == nil {
			t.Errorf("%q: no error", s)
		}
	}
	client, err := NewClient("http://user:secret@host/under/", nil)
	if err != nil || strings.Contains(client.String(), "secret") {
		t.Errorf("got %v, %v", client, err)
	}
	if got := client.base.JoinPath("multihash", "x").Path; got != "/under/multihash/x" {
		t.Errorf("path %s", got)
	}
}
