package api_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// exchange is one of testdata/transcripts.json.
type exchange struct {
	ID              int               `json:"id"`
	Peer            string            `json:"peer"`
	Method          string            `json:"method"`
	Path            string            `json:"path"`
	RequestHeaders  map[string]string `json:"request_headers"`
	RequestBody     string            `json:"request_body"`
	Status          int               `json:"status"`
	ResponseHeaders map[string]string `json:"response_headers"`
	ResponseBody    string            `json:"response_body"`
	Note            string            `json:"note"`
}

func (e exchange) String() string {
	return fmt.Sprintf("%d %s %s %s", e.ID, e.Peer, e.Method, e.Path)
}

// exchanges reads those with a peer whose name starts with one of peers.
func exchanges(t *testing.T, peers ...string) []exchange {
	t.Helper()
	b, err := os.ReadFile("testdata/transcripts.json")
	if err != nil {
		t.Fatal(err)
	}
	var all, wanted []exchange
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if slices.ContainsFunc(peers, func(p string) bool { return strings.HasPrefix(e.Peer, p) }) {
			wanted = append(wanted, e)
		}
	}
	if len(wanted) == 0 {
		t.Fatalf("no exchange with %v", peers)
	}
	return wanted
}

// departure is a difference from the recorded answers that we mean. peer,
// request and recorded are patterns of path.Match on the peer's name, on
// "METHOD status" and on the path with "/" replaced by ":"; field is "status",
// "body" or a header's name; want is our value of it, "" for a header that is
// absent, and "any" for whatever other value.
type departure struct {
	peer, request, path, field, want string
	why                              string
}

// replay sends each exchange's request to the handler made for it and reports
// every difference that no departure explains, and every departure that
// explains none.
func replay(t *testing.T, recorded []exchange, serve func(exchange) http.Handler, departures []departure) {
	used := make([]bool, len(departures))
	for _, e := range recorded {
		t.Run(strings.ReplaceAll(e.String(), "/", ":"), func(t *testing.T) {
			status, header, body := send(t, e, serve(e))
			differ := func(field, got, want string) {
				for i, d := range departures {
					if d.covers(t, e, field) && (d.want == got || d.want == "any") {
						used[i] = true
						return
					}
				}
				t.Errorf("%s\n got: %q\nwant: %q", field, got, want)
			}
			if status != e.Status {
				differ("status", fmt.Sprint(status), fmt.Sprint(e.Status))
			}
			if !sameBody(header.Get("Content-Type"), body, e.ResponseBody) {
				differ("body", body, e.ResponseBody)
			}
			for _, name := range headerNames(header, e.ResponseHeaders) {
				if got, want := header.Get(name), e.ResponseHeaders[name]; got != want {
					differ(name, got, want)
				}
			}
		})
	}
	for i, d := range departures {
		if !used[i] {
			t.Errorf("departure explains nothing: %+v", d)
		}
	}
}

// covers reports whether d is about a field of e.
func (d departure) covers(t *testing.T, e exchange, field string) bool {
	match := func(pattern, s string) bool {
		ok, err := path.Match(pattern, strings.ReplaceAll(s, "/", ":"))
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	return d.field == field && match(d.peer, e.Peer) && match(d.path, e.Path) &&
		match(d.request, fmt.Sprint(e.Method, " ", e.Status))
}

// send sends e's request over a real connection.
func send(t *testing.T, e exchange, h http.Handler) (status int, header http.Header, body string) {
	t.Helper()
	srv := httptest.NewServer(h)
	defer srv.Close()
	var content io.Reader
	if e.RequestBody != "" {
		content = strings.NewReader(e.RequestBody)
	}
	req, err := http.NewRequest(e.Method, srv.URL+e.Path, content)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range e.RequestHeaders {
		req.Header.Set(name, value)
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req) // follows no redirect
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(b)
}

// headerNames is the names in either set, without those that follow from the
// body or change from run to run.
func headerNames(got http.Header, want map[string]string) []string {
	var names []string
	for name := range got {
		names = append(names, name)
	}
	for name := range want {
		names = append(names, name)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	return slices.DeleteFunc(names, func(name string) bool {
		return slices.Contains([]string{"Date", "Content-Length", "Transfer-Encoding"}, name)
	})
}

// sameBody compares JSON by meaning and everything else by bytes.
func sameBody(contentType, got, want string) bool {
	if got == want || !strings.HasPrefix(contentType, "application/json") {
		return got == want
	}
	var g, w any
	return json.Unmarshal([]byte(got), &g) == nil && json.Unmarshal([]byte(want), &w) == nil && reflect.DeepEqual(g, w)
}

// answering is a server that answers every request as recorded in e.
func answering(t *testing.T, e exchange) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, value := range e.ResponseHeaders {
			switch name {
			case "Content-Length", "Transfer-Encoding", "Connection":
			default:
				w.Header().Set(name, value)
			}
		}
		w.WriteHeader(e.Status)
		_, _ = io.WriteString(w, e.ResponseBody)
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}
