package e2e

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/signpost-index/signpost/announce"
	"github.com/signpost-index/signpost/api/admin"
)

// TestUnassignedAnnounceIsRefused: an indexer with --assigned-only takes
// announces of assigned publishers only, over either form of the message, and
// stops when the publisher is unassigned.
func TestUnassignedAnnounceIsRefused(t *testing.T) {
	t.Parallel()
	ix := startIndexer(t, workDir(t), "indexer", "--assigned-only")
	c := newChain(t, "publisher")
	mhs := multihashes("content", 10)
	c.add("content", mhs)
	refused := func(when string) {
		t.Helper()
		sender := announce.NewSender(client)
		for name, send := range map[string]func() error{
			"CBOR": func() error { return sender.Send(t.Context(), ix.Ingest, c.announced()) },
			"JSON": func() error { return sender.SendJSON(t.Context(), ix.Ingest, c.announced()) },
		} {
			var status *announce.StatusError
			err := send()
			if !errors.As(err, &status) || status.Code != http.StatusForbidden ||
				!strings.Contains(status.Body, "announce requests not allowed from peer "+c.id.String()) {
				t.Errorf("%s, announce in %s: %v; want a 403 that says so", when, name, err)
			}
		}
	}
	refused("before the assignment")
	make(index).with("", mhs).mustFind(t, ix.Find, "before the assignment")

	if err := ix.api().Assign(t.Context(), c.id); err != nil {
		t.Fatal(err)
	}
	if err := ix.api().Assign(t.Context(), c.id); !errors.Is(err, admin.ErrAlreadyAssigned) {
		t.Errorf("assigned twice: %v, want %v", err, admin.ErrAlreadyAssigned)
	}
	c.announce(ix.Ingest)
	untilDone(t, ix.Ingest, c)
	want := make(index).with(newHolding(c.id, []byte("content"), bitswap), mhs)
	want.mustFind(t, ix.Find, "once assigned")

	if err := ix.api().Unassign(t.Context(), c.id); err != nil {
		t.Fatal(err)
	}
	c.add("more", multihashes("more", 10))
	refused("after the unassignment")
	want.mustFind(t, ix.Find, "once unassigned") // the data stay
	if err := ix.api().Unassign(t.Context(), c.id); !errors.Is(err, admin.ErrNotAssigned) {
		t.Errorf("unassigned twice: %v, want %v", err, admin.ErrNotAssigned)
	}
	preferred, err := ix.api().Preferred(t.Context())
	if err != nil || slices.Contains(preferred, c.id) {
		t.Errorf("preferred right after the unassignment: %v, %v; want without %s", preferred, err, c.id)
	}
	ix.kill()
	ix.restart()
	refused("after a restart")
	preferred, err = ix.api().Preferred(t.Context())
	if err != nil || !slices.Contains(preferred, c.id) {
		t.Errorf("preferred after a restart: %v, %v; want %s", preferred, err, c.id)
	}
}

// TestNotAssignerMode: without --assigned-only an indexer ingests from whom it
// hears, and says 503 to whoever wants to assign.
func TestNotAssignerMode(t *testing.T) {
	t.Parallel()
	ix := startIndexer(t, workDir(t), "indexer")
	c := newChain(t, "publisher")
	for _, q := range []struct{ method, path, body string }{
		{http.MethodGet, "/ingest/assigned", ""},
		{http.MethodGet, "/ingest/preferred", ""},
		{http.MethodPost, "/ingest/assign/" + c.id.String(), ""},
		{http.MethodPut, "/ingest/unassign/" + c.id.String(), ""},
		{http.MethodPost, "/ingest/handoff/" + c.id.String(), `{"FrozenID":"` + c.id.String() + `","FrozenURL":"` + ix.Find + `"}`},
	} {
		req, err := http.NewRequest(q.method, ix.Admin+q.path, strings.NewReader(q.body))
		if err != nil {
			t.Fatal(err)
		}
		a, err := do(req)
		if err != nil || a.status != http.StatusServiceUnavailable ||
			!strings.Contains(string(a.body), "not configured to work with assigner service") {
			t.Errorf("%s %s: %d %s, %v; want 503 with the contract's text", q.method, q.path, a.status, a.body, err)
		}
	}
	mhs := multihashes("content", 10)
	c.add("content", mhs)
	c.announce(ix.Ingest)
	untilDone(t, ix.Ingest, c)
	make(index).with(newHolding(c.id, []byte("content"), bitswap), mhs).mustFind(t, ix.Find, "announced to an indexer of its own")
}
