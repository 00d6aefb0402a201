package page

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

func newID(t testing.TB) peer.ID {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// get asks a page for what p has.
func get(t testing.TB, access Access, p *Pool, d *Detail, query string) *http.Response {
	t.Helper()
	h := Handler(Config{Access: access, Pool: func() *Pool { return p }, Publisher: func(peer.ID) *Detail { return d }})
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/?"+query, nil))
	return w.Result()
}

func text(t testing.TB, resp *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// hostile is a text that is everything but text, wherever it is put.
const hostile = `"><script>document.title="taken"</script><img src=x onerror="1">'` + "`\u202e\x1b[2J{{.}}"

// hostilePool has it wherever somebody else may write something.
func hostilePool(t testing.TB) (*Pool, *Detail) {
	now, a, b := time.Now(), newID(t), newID(t)
	act := []Action{{Label: hostile, Do: "PUT /x?indexer=" + url.QueryEscape(hostile), Ask: hostile, Field: "copies", FieldLabel: "copies"}}
	event := Event{Time: now, Kind: hostile, Publisher: b, Indexer: a, Text: hostile, Error: hostile}
	p := &Pool{
		At: now, Publishers: 1,
		Nodes:   []Node{{ID: a, Admin: hostile, State: "frozen", Why: hostile, Error: hostile, Version: hostile, Usage: 50, Actions: act}},
		Leaving: []Leaving{{Node: a, Since: now, Why: hostile, Owned: 1, OwnedTotal: 3}},
		Steps:   []Steps{{Kind: hostile, Why: hostile, On: a, From: b, Total: 2}},
		Worst:   []Publisher{{ID: b, Node: a, LastError: hostile}},
		Events:  []Event{event}, Actions: act,
	}
	return p, &Detail{
		ID: b, Explained: true, Waiting: hostile, Refused: []string{hostile}, Next: p.Steps, Underway: p.Steps, Actions: act,
		Places: []Place{{Node: a, State: "frozen", Role: hostile, LastError: hostile}}, Events: p.Events,
	}
}

// TestNothingThatOthersWroteIsMoreThanText, in the page and in its part.
func TestNothingThatOthersWroteIsMoreThanText(t *testing.T) {
	p, d := hostilePool(t)
	for _, query := range []string{"", "part=live", "publisher=" + d.ID.String(), "publisher=%22%3E%3Cscript%3Ealert(1)%3C/script%3E"} {
		for _, access := range []Access{ReadOnly, AskToken, Operate} {
			page := text(t, get(t, access, p, d, query))
			if n := strings.Count(page, "<script"); n > 1 || n == 1 && query == "part=live" {
				t.Errorf("%q: %d scripts", query, n)
			}
			for _, bad := range []string{`<img`, `"><s`, "\x1b"} {
				if strings.Contains(page, bad) {
					t.Errorf("%q has %q", query, bad)
				}
			}
			if query == "" && !strings.Contains(page, "&lt;script&gt;") {
				t.Error("the text is not shown at all")
			}
		}
	}
}

// TestBrowsersAreToldToRunNothingElse: each answer has a policy that lets in the
// style and the script that are in the page, and nothing from anywhere.
func TestBrowsersAreToldToRunNothingElse(t *testing.T) {
	resp := get(t, Operate, new(Pool), nil, "")
	csp := resp.Header.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'", "connect-src 'self'"} {
		if !strings.Contains(csp, want) {
			t.Errorf("policy %q lacks %s", csp, want)
		}
	}
	if strings.Contains(csp, "unsafe") || strings.Contains(csp, "*") || strings.Contains(csp, "http") {
		t.Errorf("policy %q", csp)
	}
	body := text(t, resp)
	inside := func(tag string) string {
		_, rest, _ := strings.Cut(body, "<"+tag+">")
		in, _, _ := strings.Cut(rest, "</"+tag+">")
		return in
	}
	if !strings.Contains(csp, "style-src "+source(inside("style"))+";") || !strings.Contains(csp, "script-src "+source(inside("script"))+";") {
		t.Errorf("the policy %q is not about what is in the page", csp)
	}
	for _, name := range []string{"X-Content-Type-Options", "Referrer-Policy", "Cache-Control"} {
		if resp.Header.Get(name) == "" {
			t.Errorf("no %s", name)
		}
	}
	if strings.Contains(strings.ReplaceAll(body, "http://www.w3.org/2000/svg", ""), "://") || strings.Contains(body, " style=") {
		t.Error("the page names something elsewhere, or has style in an element")
	}
}

// TestWhoMayNotActIsOfferedNothing: buttons are not there where nothing can be done,
// and cannot be pressed without a token.
func TestWhoMayNotActIsOfferedNothing(t *testing.T) {
	p := &Pool{Nodes: []Node{{ID: newID(t), State: "active", Actions: []Action{{Label: "Freeze", Do: "PUT /f"}}}}}
	for access, want := range map[Access]string{ReadOnly: "", AskToken: ` disabled>Freeze`, Operate: `>Freeze`} {
		body := text(t, get(t, access, p, nil, "part=live"))
		if has := strings.Contains(body, "Freeze"); has != (want != "") || !strings.Contains(body, want) {
			t.Errorf("access %d: want %q in\n%s", access, want, body)
		}
		if access == Operate && strings.Contains(body, "disabled") {
			t.Error("who may act cannot")
		}
	}
	if body := text(t, get(t, ReadOnly, p, nil, "")); strings.Contains(body, `id="token"`) {
		t.Error("a token is asked for where it is of no use")
	}
}

// TestAPageShowsSomeNodesOfThousands: 200 at a time, and none twice.
func TestAPageShowsSomeNodesOfThousands(t *testing.T) {
	p := new(Pool)
	for n := range 2*NodesShown + 50 {
		p.Nodes = append(p.Nodes, Node{Admin: fmt.Sprintf("node-%d-", n), State: "active", Usage: -1})
	}
	for query, want := range map[string]struct{ nodes, first int }{
		"": {NodesShown, 0}, "page=2": {NodesShown, NodesShown}, "page=3": {50, 2 * NodesShown}, "page=99": {50, 2 * NodesShown},
		"page=-1": {NodesShown, 0}, "page=x": {NodesShown, 0},
	} {
		body := text(t, get(t, Operate, p, nil, query))
		if n := strings.Count(body, "node-"); n != want.nodes || !strings.Contains(body, fmt.Sprintf("node-%d-", want.first)) {
			t.Errorf("%q: %d nodes, want %d from %d", query, n, want.nodes, want.first)
		}
		if !strings.Contains(body, "450 active") {
			t.Errorf("%q does not count all", query)
		}
	}
	if body := text(t, get(t, Operate, p, nil, "page=2")); !strings.Contains(body, `href="/?page=1"`) || !strings.Contains(body, `href="/?page=3"`) {
		t.Error("no way to the other pages")
	}
}

// TestAPublisherIsLookedUp, and who asks for nonsense is told so.
func TestAPublisherIsLookedUp(t *testing.T) {
	d := &Detail{ID: newID(t), Explained: true, Wished: 2, Whole: 1, Waiting: "its owner cannot be reached",
		Places: []Place{{Node: newID(t), State: "down", Role: "owner", Lag: 7, LastError: "connection refused"}}}
	for _, tc := range []struct {
		query  string
		detail *Detail
		status int
		says   string
	}{
		{"publisher=" + d.ID.String(), d, http.StatusOK, "its owner cannot be reached"},
		{"publisher=" + d.ID.String(), nil, http.StatusNotFound, "No indexer has this publisher"},
		{"publisher=nonsense", d, http.StatusBadRequest, "not a peer ID"},
		{"publisher=" + strings.Repeat("1", 10_000), d, http.StatusBadRequest, "not a peer ID"},
		{"part=live&publisher=nonsense", d, http.StatusOK, "not a peer ID"},
	} {
		resp := get(t, Operate, new(Pool), tc.detail, tc.query)
		if body := text(t, resp); resp.StatusCode != tc.status || !strings.Contains(body, tc.says) || len(body) > 50_000 {
			t.Errorf("%.60s: status %d, %d bytes; want %d and %q", tc.query, resp.StatusCode, len(body), tc.status, tc.says)
		}
	}
}

// TestProgressIsTold, of handoffs, drains and single steps.
func TestProgressIsTold(t *testing.T) {
	a, b := newID(t), newID(t)
	body := text(t, get(t, ReadOnly, &Pool{
		At:      time.Now(),
		Leaving: []Leaving{{Node: a, Drained: true, Since: time.Now(), Owned: 3, OwnedTotal: 10, Held: 12, HeldTotal: 20}, {Node: b, Since: time.Now(), Owned: 1, OwnedTotal: 1}},
		Steps:   []Steps{{Kind: "handoff", On: b, From: a, Total: 1234, Done: 5, Unsure: 1}},
	}, nil, "part=live"))
	for _, want := range []string{"7 of 10 publishers go on", "8 of 20 publishers have left", "0 of 1 publishers go on", "handoff of 1,234 publishers", "5 of 1,234 done", "1 without an answer"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in\n%s", want, body)
		}
	}
}

// TestOnlySoManyPagesAreMadeAtOnce: the others wait, and are told to come again.
func TestOnlySoManyPagesAreMadeAtOnce(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	h := Handler(Config{Pool: func() *Pool { entered <- struct{}{}; <-release; return new(Pool) }})
	done := make(chan int)
	for range maxMaking {
		go func() {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
			done <- w.Code
		}()
		<-entered
	}
	impatient, cancel := context.WithCancel(t.Context())
	cancel()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(impatient, http.MethodGet, "/", nil))
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("status %d, want 503", w.Code)
	}
	close(release)
	for range maxMaking {
		if code := <-done; code != http.StatusOK {
			t.Errorf("status %d", code)
		}
	}
	for _, method := range []string{http.MethodPost, http.MethodPut} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, "/", nil))
		if w.Code != http.StatusMethodNotAllowed {
			t.Errorf("%s: status %d", method, w.Code)
		}
	}
}
