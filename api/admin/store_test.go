package admin

import (
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

// fakeOperator answers every call with err and notes the last one.
type fakeOperator struct {
	err    error
	call   string
	status StoreStatus
}

func (f *fakeOperator) Store(context.Context) (StoreStatus, error) {
	f.call = "store"
	return f.status, f.err
}

func (f *fakeOperator) StartJob(_ context.Context, kind JobKind) error {
	f.call = "start " + string(kind)
	return f.err
}

func (f *fakeOperator) Reindex(context.Context) (Reindexed, error) {
	f.call = "reindex"
	return Reindexed{7, 2}, f.err
}

func (f *fakeOperator) MarkWhole(_ context.Context, force bool) error {
	f.call = fmt.Sprint("whole ", force)
	return f.err
}

func (f *fakeOperator) RemoveProvider(_ context.Context, p peer.ID) error {
	f.call = "remove " + p.String()
	return f.err
}

// TestOperatorIsTheSameLocallyAndRemotely: calls, answers and kinds of errors
// cross the wire.
func TestOperatorIsTheSameLocallyAndRemotely(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	f := &fakeOperator{status: StoreStatus{Postings: 1, Records: 2, Garbage: 3, Multihashes: 4, MultihashesError: 0.5,
		Bytes: StoreBytes{Total: 9, Postings: 8, Rows: 7, Records: 6, Ledger: 5, Log: 4, Obsolete: 3}, RemovedProviders: 2,
		Job: &StoreJob{Kind: JobCheck, Started: at, Damages: 1, Damage: []string{"a bucket"}}}}
	client := dial(t, &fake{}, HandlerConfig{Operator: f}, "")
	calls := map[string]func(o Operator) error{
		"store":         func(o Operator) error { _, err := o.Store(t.Context()); return err },
		"start compact": func(o Operator) error { return o.StartJob(t.Context(), JobCompact) },
		"whole true":    func(o Operator) error { return o.MarkWhole(t.Context(), true) },
		"whole false":   func(o Operator) error { return o.MarkWhole(t.Context(), false) },
		"reindex": func(o Operator) error {
			done, err := o.Reindex(t.Context())
			if want := (Reindexed{7, 2}); err == nil && done != want {
				t.Errorf("%+v, want %+v", done, want)
			}
			return err
		},
		"remove " + publisher.String(): func(o Operator) error { return o.RemoveProvider(t.Context(), publisher) },
	}
	for _, kind := range []error{nil, ErrBusy, ErrNotFound, ErrBadRequest, ErrUnavailable} {
		f.err = nil
		if kind != nil {
			f.err = fmt.Errorf("it: %w", kind)
		}
		for name, call := range calls {
			if err := call(client); !errors.Is(err, kind) || f.call != name {
				t.Errorf("%s: called %s, %v, want %v", name, f.call, err, kind)
			}
		}
	}
	f.err = nil
	got, err := client.Store(t.Context())
	if diff := cmp.Diff(f.status, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if !got.Job.Running() {
		t.Error("a job without an end does not run")
	}
	if b, err := json.Marshal(f.status.Job); err != nil || strings.Contains(string(b), "Ended") {
		t.Errorf("%s %v: a running job has no end", b, err)
	}
	f.status.Job.Ended = at.Add(time.Minute)
	if got, err = client.Store(t.Context()); err != nil || got.Job.Running() || !got.Job.Ended.Equal(f.status.Job.Ended) {
		t.Errorf("job %+v %v", got.Job, err)
	}
}

func TestRemoveProviderOverHTTP(t *testing.T) {
	f := &fakeOperator{}
	h := NewHandler(&fake{}, HandlerConfig{Operator: f, Insecure: true})
	for _, tc := range []struct {
		method, path string
		status       int
		body         string
	}{
		{http.MethodDelete, "/removeprovider/" + publisher.String(), 200, ""},
		{http.MethodDelete, "/removeprovider/" + publisher.String() + "?block=f", 200, ""},
		{http.MethodDelete, "/removeprovider/" + publisher.String() + "?block=x", 400, "bad value for block: x"},
		{http.MethodDelete, "/removeprovider/" + publisher.String() + "?block=t", 501, "cannot block"},
		{http.MethodDelete, "/removeprovider/nobody", 400, "Cannot decode peer id"},
		{http.MethodGet, "/removeprovider/" + publisher.String(), 405, ""},
		{http.MethodGet, "/signpost/v1/store/compact", 405, ""},
		{http.MethodPost, "/signpost/v1/store/compact", 202, ""},
		{http.MethodPost, "/signpost/v1/store", 405, ""},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(tc.method, tc.path, nil))
		if w.Code != tc.status || !strings.Contains(w.Body.String(), tc.body) {
			t.Errorf("%s %s: %d %q, want %d %q", tc.method, tc.path, w.Code, w.Body, tc.status, tc.body)
		}
	}
	without := NewHandler(&fake{}, HandlerConfig{Insecure: true})
	w := httptest.NewRecorder()
	without.ServeHTTP(w, httptest.NewRequest(http.MethodGet, StorePath, nil))
	if w.Code != http.StatusNotFound {
		t.Errorf("%d without an operator, want 404", w.Code)
	}
}
