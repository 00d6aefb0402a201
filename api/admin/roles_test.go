package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/peer"
)

// fakeRoles answers every call with what it has and notes what it was asked.
type fakeRoles struct {
	err     error
	call    string
	asked   []peer.ID
	taken   TakeOver
	roles   Roles
	offers  []Offer
	covered Coverage
	poolMap PoolMap
}

func (f *fakeRoles) outcomes(call string, ids []peer.ID) ([]Outcome, error) {
	f.call, f.asked = call, ids
	out := make([]Outcome, len(ids))
	for i, id := range ids {
		out[i] = Outcome{Publisher: id, Error: "so"}
	}
	return out, f.err
}

func (f *fakeRoles) Roles(_ context.Context, version string) (*Roles, error) {
	f.call = "roles"
	if version == f.roles.Version {
		return nil, f.err
	}
	return &f.roles, f.err
}

func (f *fakeRoles) Close(_ context.Context, ids []peer.ID) ([]Offer, error) {
	f.call, f.asked = "close", ids
	return f.offers, f.err
}

func (f *fakeRoles) TakeOver(_ context.Context, t TakeOver) ([]Outcome, error) {
	f.taken = t
	ids := make([]peer.ID, len(t.Offers))
	for i, o := range t.Offers {
		ids[i] = o.Publisher
	}
	return f.outcomes("takeover", ids)
}

func (f *fakeRoles) Open(_ context.Context, ids []peer.ID) ([]Outcome, error) {
	return f.outcomes("open", ids)
}

func (f *fakeRoles) Backfill(_ context.Context, ids []peer.ID) ([]Outcome, error) {
	return f.outcomes("backfill", ids)
}

func (f *fakeRoles) Release(_ context.Context, ids []peer.ID) ([]Outcome, error) {
	return f.outcomes("release", ids)
}

func (f *fakeRoles) Coverage(context.Context) (Coverage, error) {
	f.call = "coverage"
	return f.covered, f.err
}

func (f *fakeRoles) PoolMap(context.Context) (PoolMap, error) {
	f.call = "poolmap"
	return f.poolMap, f.err
}

func (f *fakeRoles) SetPoolMap(_ context.Context, m PoolMap) error {
	f.call, f.poolMap = "set poolmap", m
	return f.err
}

func testRoles() *fakeRoles {
	ranges := []Range{{To: "a"}, {From: "b"}}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return &fakeRoles{
		roles: Roles{Version: "7 of 9", Publishers: []PublisherRole{{
			Publisher: publisher, Role: RoleOwner, Since: at, Continued: frozen, Ranges: ranges, Mark: "m", Height: 5,
			Pending: 1, Gaps: 2, Filling: true, MultihashesPerSecond: 1.5, Multihashes: 9, LastError: "e",
		}}},
		offers: []Offer{{
			Publisher: publisher, Addrs: []string{"/ip4/127.0.0.1"}, Mark: "m", Height: 5, Applied: []string{"x"},
			Providers: []json.RawMessage{json.RawMessage(`{"a":1}`)},
		}},
		covered: Coverage{ID: frozen, Version: "7", AsOf: at, Frozen: true, Publishers: []CoveredPublisher{{
			Publisher: publisher, Role: RoleHolder, Ranges: ranges, Mark: "m", Gaps: []string{"g"}, More: true,
		}}},
		poolMap: PoolMap{Version: 3, Time: at, Assigner: frozen, Members: []MappedMember{{
			ID: frozen, Admin: "http://x", Frozen: true, Publishers: []MappedPublisher{{Publisher: publisher, Role: RoleOwner, Ranges: ranges}},
		}}},
	}
}

// everyRoleCall calls each method of a RoleKeeper, by the name it has in fakeRoles.
func everyRoleCall(ctx context.Context, k RoleKeeper) map[string]func() error {
	ids := []peer.ID{publisher}
	return map[string]func() error{
		"roles": func() error { _, err := k.Roles(ctx, ""); return err },
		"close": func() error { _, err := k.Close(ctx, ids); return err },
		"takeover": func() error {
			_, err := k.TakeOver(ctx, TakeOver{From: frozen, Offers: testRoles().offers})
			return err
		},
		"open":        func() error { _, err := k.Open(ctx, ids); return err },
		"backfill":    func() error { _, err := k.Backfill(ctx, ids); return err },
		"release":     func() error { _, err := k.Release(ctx, ids); return err },
		"coverage":    func() error { _, err := k.Coverage(ctx); return err },
		"poolmap":     func() error { _, err := k.PoolMap(ctx); return err },
		"set poolmap": func() error { return k.SetPoolMap(ctx, PoolMap{Version: 1}) },
	}
}

// TestRolesAreTheSameLocallyAndRemotely: calls, values and kinds of errors
// cross the wire.
func TestRolesAreTheSameLocallyAndRemotely(t *testing.T) {
	f, want := testRoles(), testRoles()
	client := dial(t, &fake{}, HandlerConfig{Roles: f}, "")
	roles, err := client.Roles(t.Context(), "6 of 9")
	if diff := cmp.Diff(&want.roles, roles); diff != "" || err != nil {
		t.Errorf("roles: %v (-want +got):\n%s", err, diff)
	}
	if roles, err := client.Roles(t.Context(), "7 of 9"); roles != nil || err != nil {
		t.Errorf("roles of the same version: %v, %v; want nothing", roles, err)
	}
	offers, err := client.Close(t.Context(), []peer.ID{publisher})
	if diff := cmp.Diff(want.offers, offers); diff != "" || err != nil {
		t.Errorf("offers: %v (-want +got):\n%s", err, diff)
	}
	out, err := client.TakeOver(t.Context(), TakeOver{From: frozen, Offers: offers})
	if diff := cmp.Diff(TakeOver{From: frozen, Offers: want.offers}, f.taken); diff != "" || err != nil || out[0] != (Outcome{publisher, "so"}) {
		t.Errorf("takeover: %v, %v (-want +got):\n%s", out, err, diff)
	}
	cov, err := client.Coverage(t.Context())
	if diff := cmp.Diff(want.covered, cov); diff != "" || err != nil {
		t.Errorf("coverage: %v (-want +got):\n%s", err, diff)
	}
	if err := client.SetPoolMap(t.Context(), want.poolMap); err != nil {
		t.Error(err)
	}
	m, err := client.PoolMap(t.Context())
	if diff := cmp.Diff(want.poolMap, m); diff != "" || err != nil {
		t.Errorf("pool map: %v (-want +got):\n%s", err, diff)
	}
	for name, call := range everyRoleCall(t.Context(), client) {
		for _, kind := range []error{nil, ErrNotAssigner, ErrFrozen, ErrNotFound} {
			f.err = kind
			if err := call(); !errors.Is(err, kind) || f.call != name || errors.Is(err, ErrNotSupported) {
				t.Errorf("%s: called %s, %v; want %v", name, f.call, err, kind)
			}
		}
	}
}

// TestAForeignIndexerDoesNotKeepRoles: a 404 of a path that is not known is
// another thing than one of something that is not found.
func TestAForeignIndexerDoesNotKeepRoles(t *testing.T) {
	foreign := httptest.NewServer(http.NotFoundHandler())
	defer foreign.Close()
	client, err := NewClient(foreign.URL, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	for _, c := range []*Client{client, dial(t, &fake{}, HandlerConfig{}, "")} {
		for name, call := range everyRoleCall(t.Context(), c) {
			if err := call(); !errors.Is(err, ErrNotSupported) || errors.Is(err, ErrNotFound) {
				t.Errorf("%s: %v, want ErrNotSupported", name, err)
			}
		}
	}
}

// TestBatchesAreBounded: too many publishers are refused in words, as is what
// would take long to decode; what a full takeover may take is taken.
func TestBatchesAreBounded(t *testing.T) {
	f := testRoles()
	h := NewHandler(&fake{}, HandlerConfig{Roles: f, Insecure: true})
	post := func(path string, body []byte) (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, bytes.NewReader(body)))
		return w.Code, w.Body.String()
	}
	many := make([]peer.ID, MaxBatch+1)
	offers := make([]Offer, MaxBatch)
	for i := range many {
		many[i] = publisher
	}
	for i := range offers {
		offers[i] = Offer{Publisher: publisher, Applied: make([]string, MaxOfferedAds)}
		for k := range offers[i].Applied {
			offers[i].Applied[k] = strings.Repeat("b", 61)
		}
	}
	text := func(v any) []byte {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, path := range []string{closePath, openPath, backfillPath, releasePath} {
		if code, body := post(path, text(many)); code != 400 || !strings.Contains(body, "batch of 257 publishers, at most 256") {
			t.Errorf("%s: %d %q", path, code, body)
		}
		if code, body := post(path, text(many[1:])); code != 200 {
			t.Errorf("%s: %d %q", path, code, body)
		}
		for _, hostile := range []string{"", "x", `["x"]`, `["1` + strings.Repeat("1", 1<<19) + `"]`, strings.Repeat(" ", maxRequestBody+1)} {
			if code, body := post(path, []byte(hostile)); code != 400 || len(body) > 200 {
				t.Errorf("%s %.20q: %d %q", path, hostile, code, body)
			}
		}
	}
	if code, body := post(takeOverPath, text(TakeOver{From: frozen, Offers: offers})); code != 200 {
		t.Errorf("full takeover: %d %q", code, body)
	}
	if code, body := post(takeOverPath, text(TakeOver{From: frozen, Offers: append(offers, offers[1])})); code != 400 {
		t.Errorf("takeover of too many: %d %q", code, body)
	}
	offers[0].Applied = append(offers[0].Applied, "b")
	if code, body := post(takeOverPath, text(TakeOver{From: frozen, Offers: offers[:1]})); code != 400 || !strings.Contains(body, "at most 1024") {
		t.Errorf("takeover with too many ads: %d %q", code, body)
	}
	for path, method := range map[string]string{RolesPath: "POST", CoveragePath: "PUT", PoolMapPath: "POST", closePath: "GET", takeOverPath: "GET"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
		if w.Code != http.StatusMethodNotAllowed {
			t.Errorf("%s %s: %d, want 405", method, path, w.Code)
		}
	}
}

// TestCoverageIsServedAlone: a listener for everybody serves nothing else.
func TestCoverageIsServedAlone(t *testing.T) {
	f := testRoles()
	h := NewCoverageHandler(f, HandlerConfig{})
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, CoveragePath, nil))
	var got Coverage
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 200 || cmp.Diff(f.covered, got) != "" {
		t.Errorf("%d %v %v", w.Code, err, got)
	}
	f.err = fmt.Errorf("%w: no roles", ErrNotAssigner)
	w = httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, CoveragePath, nil))
	if w.Code != http.StatusServiceUnavailable {
		t.Errorf("%d of a node without roles, want 503", w.Code)
	}
}
