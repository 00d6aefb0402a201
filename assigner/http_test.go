package assigner

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
)

// idleAssigner is an assigner that does not run, with one member per name.
func idleAssigner(t *testing.T, names ...string) *Assigner {
	t.Helper()
	return idleWith(t, AnnounceConfig{}, names...)
}

func idleWith(t *testing.T, announces AnnounceConfig, names ...string) *Assigner {
	t.Helper()
	return idleConfigured(t, Config{Announces: announces}, names...)
}

func idleConfigured(t *testing.T, cfg Config, names ...string) *Assigner {
	t.Helper()
	cfg.Listener, cfg.Replication = newIdleListener(), 1
	for _, name := range names {
		cfg.Members = append(cfg.Members, admin.PoolMember{Find: url("find", name), Ingest: url("ingest", name), Admin: url("admin", name)})
	}
	a, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

// exchange is one recorded request with the reference's answer.
type exchange struct {
	Method          string            `json:"method"`
	Path            string            `json:"path"`
	RequestHeaders  map[string]string `json:"request_headers"`
	RequestBody     string            `json:"request_body"`
	RequestBodyB64  string            `json:"request_body_b64"`
	Status          int               `json:"status"`
	ResponseHeaders map[string]string `json:"response_headers"`
	ResponseBody    string            `json:"response_body"`
	Note            string            `json:"note"`
}

// expected is the reference's answer with our departures put in.
func (e exchange) expected() exchange {
	switch {
	case e.Path == "/health":
		e.ResponseBody = "assigner ready\n" // without a version
		delete(e.ResponseHeaders, "Content-Length")
	case e.Note == "JSON is not understood by the assigner":
		e.Status, e.ResponseBody = http.StatusNoContent, "" // we do
		e.ResponseHeaders = map[string]string{"Content-Type": "application/json"}
	}
	return e
}

func TestAnswersAreThoseOfTheReference(t *testing.T) {
	b, err := os.ReadFile("testdata/transcripts.json")
	if err != nil {
		t.Fatal(err)
	}
	var recorded struct{ Exchanges []exchange }
	if err := json.Unmarshal(b, &recorded); err != nil {
		t.Fatal(err)
	}
	if len(recorded.Exchanges) != 6 {
		t.Fatalf("%d exchanges, want 6", len(recorded.Exchanges))
	}
	for _, e := range recorded.Exchanges {
		paths := []string{e.Path}
		if e.Path == "/announce" {
			paths = append(paths, "/ingest/announce")
		}
		for _, path := range paths {
			t.Run(e.Method+path+" "+e.Note, func(t *testing.T) {
				srv := httptest.NewServer(idleWith(t, AnnounceConfig{Journal: t.TempDir()}, "A").handler())
				defer srv.Close()
				body := []byte(e.RequestBody)
				if e.RequestBodyB64 != "" {
					if body, err = base64.StdEncoding.DecodeString(e.RequestBodyB64); err != nil {
						t.Fatal(err)
					}
				}
				req, err := http.NewRequestWithContext(t.Context(), e.Method, srv.URL+path, bytes.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				for name, value := range e.RequestHeaders {
					req.Header.Set(name, value)
				}
				resp, err := srv.Client().Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				text, err := io.ReadAll(resp.Body)
				if err != nil {
					t.Fatal(err)
				}
				want := e.expected()
				got := want
				got.Status, got.ResponseBody, got.ResponseHeaders = resp.StatusCode, string(text), make(map[string]string)
				for name := range want.ResponseHeaders {
					got.ResponseHeaders[name] = resp.Header.Get(name)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("answer (-want +got):\n%s", diff)
				}
			})
		}
	}
}

func TestPagesAreReadOnly(t *testing.T) {
	h := idleAssigner(t, "A").handler()
	for _, path := range []string{"/health", PoolPath, AssignmentsPath} {
		for method, status := range map[string]int{
			http.MethodGet: http.StatusOK, http.MethodOptions: http.StatusOK,
			http.MethodPost: http.StatusMethodNotAllowed, http.MethodDelete: http.StatusMethodNotAllowed,
		} {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
			if w.Code != status {
				t.Errorf("%s %s: %d, want %d", method, path, w.Code, status)
			}
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/elsewhere", nil))
	if w.Code != http.StatusNotFound {
		t.Errorf("unknown path: %d, want 404", w.Code)
	}
}

func TestPoolPageNamesEveryMember(t *testing.T) {
	a := idleAssigner(t, "A", "B", "C")
	x, y := realID(t, 1), realID(t, 2)
	p := []peer.ID{realID(t, 11), realID(t, 12)}
	now := time.Now()
	nodes := a.pool.starting()
	for i, st := range []admin.Status{{ID: x, Usage: 40}, {ID: y, Frozen: true, Usage: 96.5}} {
		look, _, _, _ := a.pool.startLook(nodes[i])
		assigned := []admin.Assignment{{Publisher: p[0]}}
		if i == 0 {
			assigned = []admin.Assignment{{Publisher: p[0], Continued: y}, {Publisher: p[1]}}
		}
		a.pool.finishLook(nodes[i], look, plainFacts(st, assigned), nil, now)
	}
	a.pool.handOut(decide(a.pool.view(now)), now)

	get := func(path string) string {
		w := httptest.NewRecorder()
		a.handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/json; charset=utf-8" {
			t.Fatalf("%s: %d %s", path, w.Code, w.Header())
		}
		return w.Body.String()
	}
	want := `{"Members":[` +
		`{"ID":"X","Find":"http://find.A","Ingest":"http://ingest.A","Admin":"http://admin.A","State":"active","Publishers":2,"Owned":2,"Usage":40,REST,"Plain":true},` +
		`{"ID":"Y","Find":"http://find.B","Ingest":"http://ingest.B","Admin":"http://admin.B","State":"frozen","Publishers":1,"Owned":1,"Usage":96.5,REST,"Plain":true},` +
		`{"Find":"http://find.C","Ingest":"http://ingest.C","Admin":"http://admin.C","State":"unknown","Publishers":0,"Owned":0,"Usage":-1,REST}],` +
		`"Publishers":2,"Unplaced":0}`
	names := strings.NewReplacer(`"X"`, `"`+x.String()+`"`, `"Y"`, `"`+y.String()+`"`,
		"REST", `"MultihashesPerSecond":0,"PendingAds":0,"StoredBytes":0,"RoomBytes":-1`,
		`"P"`, `"`+p[0].String()+`"`, `"Q"`, `"`+p[1].String()+`"`)
	if diff := cmp.Diff(names.Replace(want), get(PoolPath)); diff != "" {
		t.Errorf("pool page (-want +got):\n%s", diff)
	}
	var page PoolPage
	if err := json.Unmarshal([]byte(get(PoolPath)), &page); err != nil || len(page.Members) != 3 || page.Members[0].ID != x {
		t.Errorf("pool page does not read back: %v %+v", err, page)
	}

	var rows []Placement
	if err := json.Unmarshal([]byte(get(AssignmentsPath)), &rows); err != nil {
		t.Fatal(err)
	}
	got := make(map[Placement]bool)
	for _, r := range rows {
		got[r] = true
	}
	wantRows := map[Placement]bool{
		{Publisher: p[0], Indexer: x, Role: admin.RoleOwner, Continued: y, State: StateActive}: true,
		{Publisher: p[1], Indexer: x, Role: admin.RoleOwner, State: StateActive}:               true,
		{Publisher: p[0], Indexer: y, Role: admin.RoleOwner, State: StateFrozen}:               true,
	}
	if diff := cmp.Diff(wantRows, got); diff != "" {
		t.Errorf("assignments (-want +got):\n%s", diff)
	}
}

func TestEmptyAssignmentsAreAnEmptyList(t *testing.T) {
	w := httptest.NewRecorder()
	idleAssigner(t, "A").handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, AssignmentsPath, nil))
	if w.Body.String() != "[]" {
		t.Errorf("got %q, want []", w.Body)
	}
}
