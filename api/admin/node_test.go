package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// fakeNode answers every call with err and notes the last one.
type fakeNode struct {
	err    error
	call   string
	status NodeStatus
}

func (f *fakeNode) Node(context.Context) (NodeStatus, error) {
	f.call = "node"
	return f.status, f.err
}

func (f *fakeNode) Unfreeze(context.Context) error {
	f.call = "unfreeze"
	return f.err
}

func (f *fakeNode) Hold(_ context.Context, d time.Duration, reason string) error {
	f.call = fmt.Sprint("hold ", d, " ", reason)
	return f.err
}

// TestHoldOverHTTP: how long and why cross the wire, and only a time that is
// bounded is taken.
func TestHoldOverHTTP(t *testing.T) {
	f := &fakeNode{}
	client := dial(t, &fake{}, HandlerConfig{Node: f}, "")
	if err := client.Hold(t.Context(), 1500*time.Millisecond, "to be restarted"); err != nil || f.call != "hold 1.5s to be restarted" {
		t.Errorf("hold: called %q, %v", f.call, err)
	}
	f.call = ""
	for _, d := range []time.Duration{0, -1, MaxHold + 1} {
		if err := client.Hold(t.Context(), d, ""); !errors.Is(err, ErrBadRequest) || f.call != "" {
			t.Errorf("hold for %v: called %q, %v", d, f.call, err)
		}
	}
	f.err = fmt.Errorf("%w for another 3s", ErrHeld)
	if err := client.Unfreeze(t.Context()); !errors.Is(err, ErrHeld) || !strings.Contains(err.Error(), "another 3s") {
		t.Errorf("unfreeze of a node that is held: %v", err)
	}
}

// TestNodeIsTheSameLocallyAndRemotely: calls, answers and kinds of errors cross
// the wire.
func TestNodeIsTheSameLocallyAndRemotely(t *testing.T) {
	left := 12.5
	f := &fakeNode{status: NodeStatus{
		ID: frozen, Started: time.Date(2026, 1, 1, 3, 4, 5, 6, time.UTC), Frozen: true, HeldSeconds: 1.5, FrozenSince: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), FrozenBy: FrozenByQuota, FrozenWhy: "much",
		FreezePercent: 95, Usage: 96.5, NearFreeze: true, FreezeSeconds: &left, StoredBytes: 7, QuotaBytes: 8,
		Disks:                []Disk{{Dirs: []string{"/data"}, UsedBytes: 1, TotalBytes: 2, FreeBytes: 3, MinFreeBytes: 4, Usage: 5, GrowthBytesPerSecond: -6}},
		MultihashesPerSecond: 1234.5, Publishers: 2, PendingAds: 3,
	}}
	client := dial(t, &fake{}, HandlerConfig{Node: f}, "")
	got, err := client.Node(t.Context())
	if diff := cmp.Diff(f.status, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	for _, kind := range []error{nil, ErrDiskFull, ErrUnavailable} {
		f.err = nil
		if kind != nil {
			f.err = fmt.Errorf("%w: 96 %% are in use", kind)
		}
		err := client.Unfreeze(t.Context())
		if !errors.Is(err, kind) || f.call != "unfreeze" || (kind != nil && !strings.Contains(err.Error(), "96 % are in use")) {
			t.Errorf("unfreeze: called %s, %v, want %v", f.call, err, kind)
		}
		if _, err := client.Node(t.Context()); !errors.Is(err, kind) {
			t.Errorf("node: %v, want %v", err, kind)
		}
	}
}

func TestNodeOverHTTP(t *testing.T) {
	f := &fakeNode{}
	h := NewHandler(&fake{}, HandlerConfig{Node: f, Insecure: true})
	call := func(h http.Handler, method, path string) (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
		return w.Code, w.Body.String()
	}
	if code, body := call(h, http.MethodGet, NodePath); code != 200 || strings.Contains(body, "FrozenSince") || strings.Contains(body, "FreezeSeconds") {
		t.Errorf("%d %s of a node that is not frozen and does not grow", code, body)
	}
	f.err = fmt.Errorf("%w: 96 %% are in use", ErrDiskFull)
	if code, body := call(h, http.MethodPut, unfreezePath); code != http.StatusConflict || !strings.Contains(body, "96 % are in use") {
		t.Errorf("unfreeze with a full disk: %d %q, want 409 with the reason", code, body)
	}
	for path, method := range map[string]string{NodePath: http.MethodPut, unfreezePath: http.MethodPost} {
		if code, _ := call(h, method, path); code != http.StatusMethodNotAllowed {
			t.Errorf("%s %s: %d, want 405", method, path, code)
		}
		if code, _ := call(NewHandler(&fake{}, HandlerConfig{Insecure: true}), method, path); code != http.StatusNotFound {
			t.Errorf("%s: %d without a node, want 404", path, code)
		}
	}
}
