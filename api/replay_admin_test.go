package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/admin"
)

// scripted is an Indexer that gives what a recorded answer says, and notes
// what it was asked.
type scripted struct {
	status   admin.Status
	assigned []admin.Assignment
	peers    []peer.ID
	err      error
	called   []string
	handoff  admin.Handoff
	sync     admin.SyncOptions

	telemetry map[peer.ID]admin.Telemetry
	// What no recorded exchange asks for is not there: a call panics.
	admin.Registry
	admin.Operator
}

func (s *scripted) call(name string, publisher peer.ID) error {
	s.called = append(s.called, strings.TrimSpace(name+" "+publisher.String()))
	return s.err
}

func (s *scripted) Status(context.Context) (admin.Status, error) {
	return s.status, s.call("status", "")
}

func (s *scripted) Assigned(context.Context) ([]admin.Assignment, error) {
	return s.assigned, s.call("assigned", "")
}

func (s *scripted) Preferred(context.Context) ([]peer.ID, error) {
	return s.peers, s.call("preferred", "")
}

func (s *scripted) Assign(_ context.Context, p peer.ID) error   { return s.call("assign", p) }
func (s *scripted) Unassign(_ context.Context, p peer.ID) error { return s.call("unassign", p) }
func (s *scripted) Freeze(context.Context) error                { return s.call("freeze", "") }
func (s *scripted) Syncs(context.Context) ([]peer.ID, error)    { return s.peers, s.call("syncs", "") }

func (s *scripted) Handoff(_ context.Context, p peer.ID, h admin.Handoff) error {
	s.handoff = h
	return s.call("handoff", p)
}

func (s *scripted) Sync(_ context.Context, p peer.ID, o admin.SyncOptions) error {
	s.sync = o
	return s.call("sync", p)
}

func (s *scripted) Allow(_ context.Context, p peer.ID) error { return s.call("allow", p) }
func (s *scripted) Block(_ context.Context, p peer.ID) error { return s.call("block", p) }
func (s *scripted) MarkAdProcessed(_ context.Context, p peer.ID, _ cid.Cid) error {
	return s.call("mark", p)
}
func (s *scripted) ImportProviders(context.Context, string) error { return s.call("import", "") }
func (s *scripted) RemoveProvider(_ context.Context, p peer.ID) error {
	return s.call("remove", p)
}

func (s *scripted) Telemetry(context.Context) (map[peer.ID]admin.Telemetry, error) {
	return s.telemetry, s.call("telemetry", "")
}

// scriptOf reads what e's answer says.
func scriptOf(t *testing.T, e exchange) *scripted {
	t.Helper()
	s := &scripted{}
	var into any
	switch e.Path {
	case "/status":
		into = &s.status
	case "/ingest/assigned":
		into = &s.assigned
	case "/ingest/preferred", "/ingest/sync/":
		into = &s.peers
	}
	if e.Status == http.StatusOK && into != nil && e.Method == http.MethodGet {
		if err := json.Unmarshal([]byte(e.ResponseBody), into); err != nil {
			t.Fatal(err)
		}
	}
	if e.Status == http.StatusOK && strings.HasPrefix(e.Path, "/telemetry/") {
		s.telemetry = map[peer.ID]admin.Telemetry{recordedProvider: {Count: 1021, Elapsed: 404681222, Samples: 3}}
	}
	s.err = recordedKind(e)
	return s
}

// recordedProvider is the one that was ingested when exchanges were recorded.
var recordedProvider = func() peer.ID {
	id, err := peer.Decode("12D3KooWF2uBBKjGJA7LqUWjAcXcnwkAjXjBQDKFTafDkfgCUJDw")
	if err != nil {
		panic(err)
	}
	return id
}()

// recordedKind is the kind of error a recorded answer stands for.
func recordedKind(e exchange) error {
	switch {
	case e.Status == http.StatusBadGateway:
		return admin.ErrUnavailable
	case strings.HasPrefix(e.Path, "/removeprovider/") && e.Status == http.StatusNotFound:
		return fmt.Errorf("provider %w", admin.ErrNotFound)
	case strings.HasPrefix(e.Path, "/markadprocessed/") && e.Status == http.StatusNotFound:
		return admin.ErrNotFound
	case e.Status == http.StatusServiceUnavailable:
		return admin.ErrNotAssigner
	case e.Status == http.StatusConflict:
		return admin.ErrSyncRunning
	case e.Status == http.StatusInternalServerError:
		return admin.ErrFrozen
	case strings.Contains(e.ResponseBody, "already assigned"):
		return admin.ErrAlreadyAssigned
	case strings.Contains(e.ResponseBody, "not assigned"):
		return admin.ErrNotAssigned
	}
	return nil
}

// TestAdminAnswersAsRecorded replays what storetheindex was asked, as an
// indexer of its own and as one of an assigner's pool.
func TestAdminAnswersAsRecorded(t *testing.T) {
	serve := func(e exchange) http.Handler {
		s := scriptOf(t, e)
		return admin.NewHandler(s, admin.HandlerConfig{Registry: s, Operator: s, LogLevel: new(slog.LevelVar)})
	}
	frozen := "a frozen indexer says so"
	reload := "there is no configuration file to read again"
	find := "there is one subsystem, and no silence about others"
	replay(t, exchanges(t, "storetheindex-admin"), serve, []departure{
		{"*", "*", "*", "X-Signpost-Error", "any", "the kind of an error, for errors.Is"},
		{"*", "POST 500", ":ingest:assign:*", "status", "409", frozen},
		{"*", "POST 500", ":ingest:assign:*", "body", "indexer is frozen\n", frozen},
		{"*", "POST 200", ":reloadconfig", "status", "501", reload},
		{"*", "POST 200", ":reloadconfig", "body", "any", reload},
		{"*", "POST 200", ":reloadconfig", "Content-Type", "any", reload},
		{"*", "POST 200", ":reloadconfig", "X-Content-Type-Options", "any", reload},
		{"*", "POST 200", ":config:log:level?find=debug", "status", "400", find},
		{"*", "POST 200", ":config:log:level?find=debug", "body", "any", find},
		{"*", "POST 200", ":config:log:level?find=debug", "Content-Type", "any", find},
		{"*", "POST 200", ":config:log:level?find=debug", "X-Content-Type-Options", "any", find},
		{"*", "GET 200", ":config:log:subsystems", "body", "signpost\n", find},
		{"*", "GET 200", ":telemetry:providers", "body", "any", "keys are peer IDs, not their bytes forced into JSON"},
		{"*", "PUT 405", ":ingest:sync:*", "Allow", "POST", "a 405 says what is allowed"},
	})
}

// TestAdminClientReadsRecordedAnswers gives the client every recorded answer
// of an indexer that it could get.
func TestAdminClientReadsRecordedAnswers(t *testing.T) {
	publisher, err := peer.Decode("12D3KooWF2uBBKjGJA7LqUWjAcXcnwkAjXjBQDKFTafDkfgCUJDw")
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string]func(c *admin.Client, got *scripted) error{
		"GET /status": func(c *admin.Client, got *scripted) (err error) {
			got.status, err = c.Status(t.Context())
			return err
		},
		"GET /ingest/assigned": func(c *admin.Client, got *scripted) (err error) {
			got.assigned, err = c.Assigned(t.Context())
			return err
		},
		"GET /ingest/preferred": func(c *admin.Client, got *scripted) (err error) {
			got.peers, err = c.Preferred(t.Context())
			return err
		},
		"GET /ingest": func(c *admin.Client, got *scripted) (err error) { // path.Dir of /ingest/sync/
			got.peers, err = c.Syncs(t.Context())
			return err
		},
		"PUT /freeze": func(c *admin.Client, _ *scripted) error { return c.Freeze(t.Context()) },
		"POST /ingest/assign": func(c *admin.Client, _ *scripted) error {
			return c.Assign(t.Context(), publisher)
		},
		"PUT /ingest/unassign": func(c *admin.Client, _ *scripted) error {
			return c.Unassign(t.Context(), publisher)
		},
		"POST /ingest/handoff": func(c *admin.Client, _ *scripted) error {
			return c.Handoff(t.Context(), publisher, admin.Handoff{FrozenID: publisher, FrozenURL: "http://127.0.0.1"})
		},
		"POST /ingest/sync": func(c *admin.Client, _ *scripted) error {
			return c.Sync(t.Context(), publisher, admin.SyncOptions{})
		},
	}
	tried := 0
	for _, e := range exchanges(t, "storetheindex-admin") {
		pathOnly, _, _ := strings.Cut(e.Path, "?")
		call := calls[e.Method+" "+pathOnly]
		if call == nil {
			call = calls[e.Method+" "+path.Dir(strings.TrimSuffix(pathOnly, "/"))]
		}
		if call == nil || e.Status == http.StatusTemporaryRedirect {
			continue
		}
		tried++
		t.Run(strings.ReplaceAll(e.String(), "/", ":"), func(t *testing.T) {
			hc := api.NewHTTPClient()
			defer hc.CloseIdleConnections()
			client, err := admin.NewClient(answering(t, e), hc, "")
			if err != nil {
				t.Fatal(err)
			}
			got := &scripted{}
			err = call(client, got)
			want := scriptOf(t, e)
			kind := want.err
			want.err = nil
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(scripted{}), cmp.Comparer(multiaddr.Multiaddr.Equal)); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if e.Status < 300 {
				if err != nil {
					t.Errorf("error for %d: %v", e.Status, err)
				}
				return
			}
			if status := (*api.StatusError)(nil); !errors.As(err, &status) || status.Status != e.Status {
				t.Errorf("got %v, want a StatusError of %d", err, e.Status)
			}
			if e.Status == http.StatusInternalServerError {
				return // the reference does not say why
			}
			if kind == nil && e.Status == http.StatusBadRequest {
				kind = admin.ErrBadRequest
			}
			if kind != nil && !errors.Is(err, kind) {
				t.Errorf("got %v, want one that is %v", err, kind)
			}
		})
	}
	if tried < 25 {
		t.Errorf("only %d exchanges tried", tried)
	}
}
