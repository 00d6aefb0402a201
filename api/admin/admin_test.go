package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"go.uber.org/goleak"

	"github.com/signpost-index/signpost/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is an Indexer that answers every call with err and notes the last one.
type fake struct {
	err      error
	call     string
	status   Status
	assigned []Assignment
	peers    []peer.ID
	handoff  Handoff
	sync     SyncOptions
}

func (f *fake) note(call string, p peer.ID) error {
	f.call = strings.TrimSpace(call + " " + p.String())
	return f.err
}

func (f *fake) Status(context.Context) (Status, error) { return f.status, f.note("status", "") }
func (f *fake) Assigned(context.Context) ([]Assignment, error) {
	return f.assigned, f.note("assigned", "")
}
func (f *fake) Preferred(context.Context) ([]peer.ID, error) { return f.peers, f.note("preferred", "") }
func (f *fake) Assign(_ context.Context, p peer.ID) error    { return f.note("assign", p) }
func (f *fake) Unassign(_ context.Context, p peer.ID) error  { return f.note("unassign", p) }
func (f *fake) Freeze(context.Context) error                 { return f.note("freeze", "") }
func (f *fake) Syncs(context.Context) ([]peer.ID, error)     { return f.peers, f.note("syncs", "") }
func (f *fake) Handoff(_ context.Context, p peer.ID, h Handoff) error {
	f.handoff = h
	return f.note("handoff", p)
}
func (f *fake) Sync(_ context.Context, p peer.ID, o SyncOptions) error {
	f.sync = o
	return f.note("sync", p)
}

var (
	publisher = mustPeer("12D3KooWF2uBBKjGJA7LqUWjAcXcnwkAjXjBQDKFTafDkfgCUJDw")
	frozen    = mustPeer("12D3KooWGLezqQm2cXwcNP1hzt3VX9BRUEa18FKjrkFYgetkE6Lo")
	rsa       = mustPeer("QmSe44jQ4PrLxT7ei7hkLTc1kPjVjWS5GAoQDS8uhBRXpG")
)

func mustPeer(s string) peer.ID {
	id, err := peer.Decode(s)
	if err != nil {
		panic(err)
	}
	return id
}

// dial serves ix and returns a client of it.
func dial(t *testing.T, ix Indexer, cfg HandlerConfig, token string) *Client {
	t.Helper()
	srv := httptest.NewServer(NewHandler(ix, cfg))
	t.Cleanup(srv.Close)
	client, err := NewClient(srv.URL, nil, token)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdleConnections)
	return client
}

// everyCall calls each method of an Indexer, by the name it has in fake.
func everyCall(ctx context.Context, ix Indexer) map[string]func() error {
	return map[string]func() error{
		"status":                         func() error { _, err := ix.Status(ctx); return err },
		"assigned":                       func() error { _, err := ix.Assigned(ctx); return err },
		"preferred":                      func() error { _, err := ix.Preferred(ctx); return err },
		"assign " + publisher.String():   func() error { return ix.Assign(ctx, publisher) },
		"unassign " + publisher.String(): func() error { return ix.Unassign(ctx, publisher) },
		"handoff " + publisher.String():  func() error { return ix.Handoff(ctx, publisher, Handoff{frozen, "http://h:3000"}) },
		"freeze":                         func() error { return ix.Freeze(ctx) },
		"sync " + publisher.String():     func() error { return ix.Sync(ctx, publisher, SyncOptions{Depth: -1, Resync: true}) },
		"syncs":                          func() error { _, err := ix.Syncs(ctx); return err },
	}
}

// TestErrorsAreTheSameLocallyAndRemotely makes an indexer fail in each way in
// each of its methods and asks it over HTTP.
func TestErrorsAreTheSameLocallyAndRemotely(t *testing.T) {
	f := &fake{status: Status{ID: frozen}}
	client := dial(t, f, HandlerConfig{}, "")
	for _, kind := range kinds {
		f.err = fmt.Errorf("publisher x: %w", kind.err)
		for name, call := range everyCall(t.Context(), client) {
			err := call()
			if f.call != name {
				t.Fatalf("called %s, want %s", f.call, name)
			}
			for _, other := range kinds {
				if errors.Is(err, other.err) != (other.err == kind.err) {
					t.Errorf("%s: %v: is %q: %v", name, err, other.err, errors.Is(err, other.err))
				}
			}
			if status := (*api.StatusError)(nil); !errors.As(err, &status) || status.Status != kind.status {
				t.Errorf("%s: %v: want status %d", name, err, kind.status)
			}
		}
	}
	f.err = errors.New("a secret of this node")
	for name, call := range everyCall(t.Context(), client) {
		err := call()
		if status := (*api.StatusError)(nil); !errors.As(err, &status) || status.Status != 500 || status.Body != "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	f.err = context.DeadlineExceeded
	if err := client.Freeze(t.Context()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("timed out: %v", err)
	}
	f.err = nil
	for name, call := range everyCall(t.Context(), client) {
		if err := call(); err != nil || f.call != name {
			t.Errorf("%s: called %s, %v", name, f.call, err)
		}
	}
}

func TestAnIndexerThatIsNotThereIsUnavailable(t *testing.T) {
	srv := httptest.NewServer(nil)
	client, err := NewClient(srv.URL, srv.Client(), "")
	if err != nil {
		t.Fatal(err)
	}
	srv.Close()
	for name, call := range everyCall(t.Context(), client) {
		if err := call(); !errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestValuesCrossTheWire(t *testing.T) {
	f := &fake{
		status:   Status{Frozen: true, ID: frozen, Usage: 97.25, Capabilities: []string{"mark"}},
		assigned: []Assignment{{Publisher: publisher}, {Publisher: rsa, Continued: frozen}},
		peers:    []peer.ID{publisher, rsa},
	}
	client := dial(t, f, HandlerConfig{}, "")
	status, err := client.Status(t.Context())
	if diff := cmp.Diff(f.status, status); diff != "" || err != nil {
		t.Error(diff, err)
	}
	assigned, err := client.Assigned(t.Context())
	if diff := cmp.Diff(f.assigned, assigned); diff != "" || err != nil {
		t.Error(diff, err)
	}
	preferred, err := client.Preferred(t.Context())
	if diff := cmp.Diff(f.peers, preferred); diff != "" || err != nil {
		t.Error(diff, err)
	}
	handoff := Handoff{FrozenID: frozen, FrozenURL: "http://frozen:3000"}
	if err := client.Handoff(t.Context(), publisher, handoff); err != nil || f.handoff != handoff {
		t.Errorf("got %v, %v", f.handoff, err)
	}
	for _, o := range []SyncOptions{
		{},
		{Depth: -1},
		{Depth: 7, Resync: true, Addr: multiaddr.StringCast("/ip4/127.0.0.1/tcp/3104/http")},
	} {
		if err := client.Sync(t.Context(), publisher, o); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(o, f.sync, cmp.Comparer(multiaddr.Multiaddr.Equal)); diff != "" {
			t.Error(diff)
		}
	}
	f.status.Usage = math.NaN()
	if status, err := client.Status(t.Context()); err != nil || status.Usage != -1 {
		t.Errorf("usage unknown: %v, %v", status, err)
	}
	f.assigned, f.peers = nil, nil
	if assigned, err := client.Assigned(t.Context()); assigned != nil || err != nil {
		t.Errorf("none assigned: %v, %v", assigned, err)
	}
	if syncs, err := client.Syncs(t.Context()); len(syncs) != 0 || err != nil {
		t.Errorf("no syncs: %v, %v", syncs, err)
	}
}

func TestBadRequestsNeverReachTheIndexer(t *testing.T) {
	p := publisher.String()
	good := `{"FrozenID":"` + frozen.String() + `","FrozenURL":"http://h:3000"}`
	tests := []struct {
		name, method, path, body string
		status                   int
	}{
		{"peer ID", "POST", "/ingest/assign/nonsense", "", 400},
		{"no peer ID", "PUT", "/ingest/unassign/", "", 400},
		{"long peer ID", "POST", "/ingest/assign/" + strings.Repeat("1", 4000), "", 400},
		{"no handoff", "POST", "/ingest/handoff/" + p, "", 400},
		{"handoff of nonsense", "POST", "/ingest/handoff/" + p, "{", 400},
		{"handoff from no one", "POST", "/ingest/handoff/" + p, `{"FrozenURL":"http://h"}`, 400},
		{"handoff from nowhere", "POST", "/ingest/handoff/" + p, strings.Replace(good, "http://h:3000", "h:3000", 1), 400},
		{"handoff too large", "POST", "/ingest/handoff/" + p, strings.Repeat(" ", maxRequestBody) + good, 400},
		{"depth", "POST", "/ingest/sync/" + p + "?depth=-2", "", 400},
		{"large depth", "POST", "/ingest/sync/" + p + "?depth=99999999999", "", 400},
		{"address", "POST", "/ingest/sync/" + p, `"nonsense"`, 400},
		{"sync of no one", "POST", "/ingest/sync/", "", 400},
		{"list of one", "GET", "/ingest/sync/" + p, "", 405},
		{"method", "PUT", "/ingest/assign/" + p, "", 405},
		{"unknown path", "GET", "/importproviders", "", 404},
		{"no metrics", "GET", "/metrics/", "", 404},
		{"no profiles", "GET", "/debug/pprof/", "", 404},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := &fake{}
			r := httptest.NewRequest(test.method, test.path, strings.NewReader(test.body))
			r.Host = "127.0.0.1:3002"
			w := httptest.NewRecorder()
			NewHandler(f, HandlerConfig{}).ServeHTTP(w, r)
			if w.Code != test.status || f.call != "" {
				t.Errorf("got %d %q, called %q", w.Code, w.Body, f.call)
			}
		})
	}
}

// TestWhoIsLetIn is the table of tokens, hosts and origins.
func TestWhoIsLetIn(t *testing.T) {
	const token = "0123456789abcdef"
	withToken, open, insecure := HandlerConfig{Token: token}, HandlerConfig{}, HandlerConfig{Insecure: true}
	tests := []struct {
		name                        string
		cfg                         HandlerConfig
		host, origin, authorization string
		status                      int
	}{
		{"token", withToken, "indexer.example.com", "", "Bearer " + token, 200},
		{"scheme in any case", withToken, "indexer.example.com", "", "bearer  " + token + " ", 200},
		{"no token", withToken, "127.0.0.1:3002", "", "", 401},
		{"wrong token", withToken, "127.0.0.1:3002", "", "Bearer " + token + "0", 401},
		{"start of the token", withToken, "127.0.0.1:3002", "", "Bearer " + token[:8], 401},
		{"other scheme", withToken, "127.0.0.1:3002", "", "Basic " + token, 401},
		{"token without scheme", withToken, "127.0.0.1:3002", "", token, 401},
		{"token beats insecure", HandlerConfig{Token: token, Insecure: true}, "127.0.0.1:3002", "", "", 401},
		{"open to this machine", open, "127.0.0.1:3002", "", "", 200},
		{"open to no other", open, "indexer.example.com", "", "", 403},
		{"open to no page", open, "127.0.0.1:3002", "https://example.com", "", 403},
		{"insecure", insecure, "indexer.example.com", "", "", 200},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.cfg.Metrics = http.NotFoundHandler()
			for _, path := range []string{"/status", "/healthcheck"} {
				r := httptest.NewRequest("GET", path, nil)
				r.Host = test.host
				r.Header.Set("Origin", test.origin)
				if test.origin == "" {
					r.Header.Del("Origin")
				}
				if test.authorization != "" {
					r.Header.Set("Authorization", test.authorization)
				}
				w := httptest.NewRecorder()
				NewHandler(&fake{status: Status{ID: frozen}}, test.cfg).ServeHTTP(w, r)
				if w.Code != test.status {
					t.Errorf("%s: got %d %q", path, w.Code, w.Body)
				}
				if (w.Header().Get("WWW-Authenticate") != "") != (test.status == 401) {
					t.Errorf("%s: %v", path, w.Header())
				}
			}
		})
	}
	t.Run("client", func(t *testing.T) {
		for _, given := range []string{token, "", "wrong"} {
			err := dial(t, &fake{}, withToken, given).Freeze(t.Context())
			if given == token && err != nil || given != token && !errors.Is(err, ErrUnauthorized) {
				t.Errorf("token %q: %v", given, err)
			}
		}
	})
}

func TestOperationsEndpoints(t *testing.T) {
	sick := errors.New("disk\non fire")
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "up 1\n") })
	ok := func(context.Context) error { return nil }
	tests := []struct {
		name, path string
		cfg        HandlerConfig
		err        error
		status     int
		body       string // its start
	}{
		{"health by status", "/healthcheck", HandlerConfig{}, nil, 200, `"OK"`},
		{"no health by status", "/healthcheck", HandlerConfig{}, sick, 500, "disk on fire\n"},
		{"health by check", "/healthcheck", HandlerConfig{Check: ok}, sick, 200, `"OK"`},
		{"no health by check", "/healthcheck", HandlerConfig{Check: func(context.Context) error { return sick }}, nil, 500, "disk on fire\n"},
		{"metrics", "/metrics/", HandlerConfig{Metrics: metrics}, nil, 200, "up 1\n"},
		{"metrics where scrapers look", "/metrics", HandlerConfig{Metrics: metrics}, nil, 200, "up 1\n"},
		{"profiles", "/debug/pprof/", HandlerConfig{Pprof: true}, nil, 200, "<html>"},
		{"one profile", "/debug/pprof/goroutine?debug=1", HandlerConfig{Pprof: true}, nil, 200, "goroutine profile:"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", test.path, nil)
			r.Host = "localhost"
			w := httptest.NewRecorder()
			NewHandler(&fake{err: test.err, status: Status{ID: frozen}}, test.cfg).ServeHTTP(w, r)
			if w.Code != test.status || !strings.HasPrefix(w.Body.String(), test.body) {
				t.Errorf("got %d %q", w.Code, w.Body)
			}
		})
	}
}

func TestCheckListenRefusesStrangers(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:3002", "127.0.0.2:0", "[::1]:3002", "localhost:3002", "LocalHost:0"} {
		if err := CheckListen(addr, false, false); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
	for _, addr := range []string{":3002", "0.0.0.0:3002", "[::]:3002", "10.0.0.1:3002", "indexer.example.com:3002"} {
		err := CheckListen(addr, false, false)
		if err == nil {
			t.Errorf("%s: let in", addr)
			continue
		}
		for _, want := range []string{addr, "--admin-token-file", "--insecure-admin"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%v: does not name %s", err, want)
			}
		}
		if err := CheckListen(addr, true, false); err != nil {
			t.Errorf("%s with a token: %v", addr, err)
		}
		if err := CheckListen(addr, false, true); err != nil {
			t.Errorf("%s, insecure: %v", addr, err)
		}
	}
	if err := CheckListen("3002", true, true); err == nil {
		t.Error("no port: let in")
	}
}

func TestReadTokenFile(t *testing.T) {
	tests := []struct{ name, content, token, err string }{
		{"with newline", "0123456789abcdef\n", "0123456789abcdef", ""},
		{"with blanks around", "\n  0123456789abcdef \r\n", "0123456789abcdef", ""},
		{"empty", "", "", "want at least 16 characters"},
		{"short", "secret\n", "", "want at least 16 characters"},
		{"two lines", "0123456789abcdef\n0123456789abcdef\n", "", "want one line"},
		{"not ASCII", "0123456789abcdefü\n", "", "want one line"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "token")
			if err := os.WriteFile(path, []byte(test.content), 0o600); err != nil {
				t.Fatal(err)
			}
			token, err := ReadTokenFile(path)
			if token != test.token || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("got %q, %v", token, err)
			}
		})
	}
	if _, err := ReadTokenFile(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}
