package api_test

import (
	"errors"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/signpost-index/signpost/api"
)

func TestErrorIsOneLineOfPlainText(t *testing.T) {
	for _, text := range []string{"", "no results for query"} {
		w := httptest.NewRecorder()
		api.Error(w, http.StatusNotFound, text)
		if got, want := w.Body.String(), text+"\n"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if got := w.Header().Get("Content-Type"); got != "text/plain; charset=utf-8" {
			t.Errorf("content type %q", got)
		}
		if got := w.Header().Get("X-Content-Type-Options"); got != "nosniff" {
			t.Errorf("X-Content-Type-Options %q", got)
		}
	}
}

func TestJSONSendsNothingOfWhatCannotBeMarshalled(t *testing.T) {
	w := httptest.NewRecorder()
	api.JSON(w, http.StatusOK, []any{"a", math.Inf(1)})
	if w.Code != http.StatusInternalServerError || w.Body.String() != "\n" {
		t.Errorf("got %d %q", w.Code, w.Body)
	}
}

func TestMethodAnswersWhatIsNotAllowed(t *testing.T) {
	tests := []struct {
		method  string
		allowed []string
		pass    bool
		status  int
	}{
		{"GET", []string{"GET"}, true, 200},
		{"HEAD", []string{"GET"}, false, 405},
		{"OPTIONS", []string{"GET", "POST"}, false, 200},
		{"DELETE", []string{"GET", "POST"}, false, 405},
	}
	for _, test := range tests {
		w := httptest.NewRecorder()
		pass := api.Method(w, httptest.NewRequest(test.method, "/", nil), test.allowed...)
		if pass != test.pass || w.Code != test.status {
			t.Errorf("%s of %v: got %v %d", test.method, test.allowed, pass, w.Code)
		}
		if got, want := w.Header().Get("Allow"), strings.Join(test.allowed, ", "); !pass && got != want {
			t.Errorf("Allow: got %q, want %q", got, want)
		}
	}
}

func TestParseAccept(t *testing.T) {
	tests := []struct {
		name         string
		headers      []string
		json, ndjson bool
		err          string
	}{
		{"absent is JSON", nil, true, false, ""},
		{"empty is absent", []string{""}, true, false, ""},
		{"JSON", []string{"application/json"}, true, false, ""},
		{"NDJSON", []string{"application/x-ndjson"}, false, true, ""},
		{"case does not matter", []string{"Application/X-NDJSON"}, false, true, ""},
		{"both in one header", []string{"application/json, application/x-ndjson;q=0.5"}, true, true, ""},
		{"both in two headers", []string{"application/x-ndjson", "application/json"}, true, true, ""},
		{"any", []string{"*/*"}, true, false, ""},
		{"any application", []string{"application/*"}, true, false, ""},
		{"only others", []string{"text/html, image/png"}, false, false, ""},
		{"others and any, as browsers", []string{"text/html,application/xml;q=0.9,*/*;q=0.8"}, true, false, ""},
		{"empty elements are ignored", []string{", application/x-ndjson,"}, false, true, ""},
		{"no media type", []string{";;;"}, false, false, "mime: no media type"},
		{"broken after good", []string{"application/json, a b"}, false, false, "mime: expected slash after first token"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/", nil)
			r.Header["Accept"] = test.headers
			json, ndjson, err := api.ParseAccept(r)
			text := ""
			if err != nil {
				text = err.Error()
			}
			if json != test.json || ndjson != test.ndjson || text != test.err {
				t.Errorf("got %v %v %q", json, ndjson, text)
			}
		})
	}
}

func TestGuardLocalRefusesWhatAWebPageCanSend(t *testing.T) {
	tests := []struct {
		host, origin string
		pass         bool
	}{
		{"localhost:3002", "", true},
		{"LOCALHOST", "", true},
		{"127.0.0.1:3002", "", true},
		{"127.1.2.3", "", true},
		{"[::1]:3002", "", true},
		{"[::1]", "", true},
		{"[::ffff:127.0.0.1]:80", "", true},
		{"localhost:3002", "http://localhost:8080", true},
		{"localhost:3002", "https://127.0.0.1", true},
		{"", "", false},
		{"rebound.example.com:3002", "", false},
		{"localhost.example.com", "", false},
		{"localhost.", "", false},
		{"10.0.0.1:3002", "", false},
		{"0.0.0.0:3002", "", false},
		{"127.0.0.1.example.com", "", false},
		{"localhost:3002", "https://example.com", false},
		{"localhost:3002", "http://localhost.example.com", false},
		{"localhost:3002", "null", false},
		{"localhost:3002", "file://localhost", false},
		{"localhost:3002", "http://user@evil.example@localhost:1/%zz", false},
	}
	h := api.GuardLocal(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	for _, test := range tests {
		t.Run(test.host+" "+test.origin, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/", nil)
			r.Host = test.host
			if test.origin != "" {
				r.Header.Set("Origin", test.origin)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if pass := w.Code == http.StatusNoContent; pass != test.pass {
				t.Errorf("pass %v, want %v", pass, test.pass)
			}
		})
	}
}

func TestStatusErrorIsOneShortLine(t *testing.T) {
	tests := []struct{ body, want string }{
		{"peer was not assigned\n", "http://user:xxxxx@h/p: 404 Not Found: peer was not assigned"},
		{"\n", "http://user:xxxxx@h/p: 404 Not Found"},
		{"a\x00\x1b[31m\nb\xff", "http://user:xxxxx@h/p: 404 Not Found: a  [31m b"},
		{strings.Repeat("x", 1<<20), "http://user:xxxxx@h/p: 404 Not Found: " + strings.Repeat("x", 1<<10)},
	}
	for _, test := range tests {
		err := api.ReadStatusError(&http.Response{
			StatusCode: http.StatusNotFound,
			Body:       io.NopCloser(strings.NewReader(test.body)),
			Request:    httptest.NewRequest("GET", "http://user:password@h/p", nil),
		})
		if diff := cmp.Diff(test.want, err.Error()); diff != "" {
			t.Error(diff)
		}
	}
}

func TestPlainTextIsOneLineThatPrints(t *testing.T) {
	for _, tc := range []struct {
		text  string
		limit int
		want  string
	}{
		{"fine: zwölf 日本", 0, "fine: zwölf 日本"},
		{" a\x1b]0;x\x07\r\nb\u009bc\u202ed\u2028e\x80 ", 0, "a ]0;x   b c d e"},
		{"zwölf", 5, "zwölf"},
		{"zwölfe", 5, "zwöl…"},
	} {
		if got := api.PlainText(tc.text, tc.limit); got != tc.want {
			t.Errorf("%q, %d: got %q, want %q", tc.text, tc.limit, got, tc.want)
		}
	}
}

func TestParseBaseURLTakesServersOnly(t *testing.T) {
	for _, s := range []string{"http://127.0.0.1:3000", "https://cid.contact/", "http://[::1]:1/under/path"} {
		if u, err := api.ParseBaseURL(s); err != nil || u.String() != s {
			t.Errorf("%s: got %v, %v", s, u, err)
		}
	}
	for _, s := range []string{"", "127.0.0.1:3000", "host", "ftp://host", "http://", "http://h?a=b", "http://h#f", "http://h/%zz", "http://h:port"} {
		if u, err := api.ParseBaseURL(s); err == nil {
			t.Errorf("%q: got %v, want an error", s, u)
		} else if strings.Contains(err.Error(), "nil") {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestReadBodyStopsAtItsLimit(t *testing.T) {
	if b, err := api.ReadBody(strings.NewReader("12345"), 5); err != nil || string(b) != "12345" {
		t.Errorf("got %q, %v", b, err)
	}
	if _, err := api.ReadBody(strings.NewReader("123456"), 5); !errors.Is(err, api.ErrTooLarge) {
		t.Errorf("got %v, want ErrTooLarge", err)
	}
}
