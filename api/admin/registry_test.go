package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// fakeRegistry answers every call with err and notes the last one.
type fakeRegistry struct {
	err        error
	call       string
	policy     Policy
	publishers []Publisher
	polling    Polling
	telemetry  map[peer.ID]Telemetry
}

func (f *fakeRegistry) note(words ...any) error {
	f.call = strings.TrimSuffix(fmt.Sprintln(words...), "\n")
	return f.err
}

func (f *fakeRegistry) Policy(context.Context) (Policy, error) { return f.policy, f.note("policy") }
func (f *fakeRegistry) SetPolicy(_ context.Context, p Policy) error {
	f.policy = p
	return f.note("set policy")
}
func (f *fakeRegistry) Allow(_ context.Context, id peer.ID) error { return f.note("allow", id) }
func (f *fakeRegistry) Block(_ context.Context, id peer.ID) error { return f.note("block", id) }
func (f *fakeRegistry) Publishers(context.Context) ([]Publisher, error) {
	return f.publishers, f.note("publishers")
}
func (f *fakeRegistry) Publisher(_ context.Context, id peer.ID) (Publisher, error) {
	p := Publisher{ID: id}
	if len(f.publishers) > 0 {
		p = f.publishers[0]
	}
	return p, f.note("publisher", id)
}
func (f *fakeRegistry) SetPolling(_ context.Context, id peer.ID, p Polling) error {
	f.polling = p
	return f.note("polling", id)
}
func (f *fakeRegistry) MarkAdProcessed(_ context.Context, id peer.ID, ad cid.Cid) error {
	return f.note("mark", id, ad)
}
func (f *fakeRegistry) ImportProviders(_ context.Context, u string) error { return f.note("import", u) }
func (f *fakeRegistry) Telemetry(context.Context) (map[peer.ID]Telemetry, error) {
	return f.telemetry, f.note("telemetry")
}

const someAd = "baguqeera2ocl5mgh7zoitqrmfykahhhsgsgl7o53oluagt7ffqvaxxrazjiq"

// TestRegistryIsTheSameLocallyAndRemotely: calls, answers and kinds of errors
// cross the wire.
func TestRegistryIsTheSameLocallyAndRemotely(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	f := &fakeRegistry{
		policy: Policy{Allow: true, AllowExcept: []peer.ID{rsa}, PublishExcept: []peer.ID{frozen},
			Publishers: []PublisherList{{Provider: rsa, Publishers: []peer.ID{publisher}}}},
		publishers: []Publisher{{ID: publisher, State: "removed", Allowed: true, Addrs: []string{"/a"}, LastContact: at, LastFailure: at,
			Silent: Duration(time.Hour), NextPoll: at, Polling: Polling{Interval: -1, Retry: Duration(time.Minute)},
			LastAd: someAd, Mark: someAd, MarkTime: at, Pending: 3, Lag: Duration(time.Second), Removed: at, Removals: 2,
			LastError: "e", LastErrorTime: at}},
		telemetry: map[peer.ID]Telemetry{publisher: {Count: 7, Elapsed: time.Second, Samples: 2}},
	}
	want := *f
	client := dial(t, &fake{}, HandlerConfig{Registry: f}, "")
	ad := cid.MustParse(someAd)
	p := publisher.String()
	calls := map[string]func(r Registry) error{
		"policy": func(r Registry) error {
			got, err := r.Policy(t.Context())
			if diff := cmp.Diff(want.policy, got); err == nil && diff != "" {
				t.Error(diff)
			}
			return err
		},
		"set policy": func(r Registry) error { return r.SetPolicy(t.Context(), want.policy) },
		"allow " + p: func(r Registry) error { return r.Allow(t.Context(), publisher) },
		"block " + p: func(r Registry) error { return r.Block(t.Context(), publisher) },
		"publishers": func(r Registry) error {
			got, err := r.Publishers(t.Context())
			if diff := cmp.Diff(want.publishers, got); err == nil && diff != "" {
				t.Error(diff)
			}
			return err
		},
		"publisher " + p: func(r Registry) error { _, err := r.Publisher(t.Context(), publisher); return err },
		"mark " + p + " " + someAd: func(r Registry) error {
			err := r.MarkAdProcessed(t.Context(), publisher, ad)
			return err
		},
		"import http://h:3000": func(r Registry) error { return r.ImportProviders(t.Context(), "http://h:3000") },
		"telemetry": func(r Registry) error {
			got, err := r.Telemetry(t.Context())
			if diff := cmp.Diff(want.telemetry, got); err == nil && diff != "" {
				t.Error(diff)
			}
			return err
		},
	}
	for _, kind := range []error{nil, ErrNotFound, ErrBadRequest, ErrUnavailable, ErrFrozen} {
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
	if err := client.SetPolling(t.Context(), publisher, Polling{Interval: Duration(time.Hour)}); err != nil || f.polling != (Polling{Interval: Duration(time.Hour)}) {
		t.Errorf("put polling: %v, %v", f.polling, err)
	}
}

func TestRegistryOverHTTP(t *testing.T) {
	f := &fakeRegistry{publishers: []Publisher{{ID: publisher, Polling: Polling{Retry: Duration(time.Minute)}}}}
	level := new(slog.LevelVar)
	h := NewHandler(&fake{}, HandlerConfig{Registry: f, Operator: &fakeOperator{}, LogLevel: level, Insecure: true})
	p := publisher.String()
	for _, tc := range []struct {
		method, path, body string
		status             int
		answer, call       string
	}{
		{"PATCH", PublishersPath + "/" + p, `{"Interval":"2h0m0s"}`, 200, `"Retry":"1m0s"`, "publisher " + p},
		{"PATCH", PublishersPath + "/" + p, `{"Interval":"soon"}`, 400, "invalid duration", "publisher " + p},
		{"PUT", PublishersPath + "/" + p, `{"Interval":"2h"} x`, 400, "follows", "publisher " + p},
		{"PUT", PublishersPath + "/nobody", `{}`, 400, "Cannot decode peer id", ""},
		{"DELETE", PublishersPath + "/" + p, "", 405, "", ""},
		{"PUT", PolicyPath, `{"Alow":true}`, 400, "unknown field", ""},
		{"PUT", PolicyPath, `{"Allow":true}`, 200, "", "set policy"},
		{"POST", PolicyPath, `{}`, 405, "", ""},
		{"GET", "/telemetry/providers/nobody", "", 400, "cannot decode provider id", ""},
		{"PUT", "/ingest/block/nobody", "", 400, "Cannot decode peer id", ""},
		{"POST", "/importproviders", `{"indexer":"eDp5"}`, 400, "indexer", ""},
		{"DELETE", "/removeprovider/" + p + "?block=t", "", 200, "", "block " + p},
		{"POST", "/reloadconfig", "", 501, "no configuration file", ""},
		{"POST", "/config/log/level?find=debug", "", 400, "no subsystem is called find", ""},
		{"POST", "/config/log/level?(=debug", "", 400, "error parsing regexp", ""},
		{"POST", "/config/log/level?.*=loud", "", 400, "use debug", ""},
		{"POST", "/config/log/level?.*=debug", "", 200, "", ""},
	} {
		f.call = ""
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(tc.method, tc.path, strings.NewReader(tc.body)))
		if w.Code != tc.status || !strings.Contains(w.Body.String(), tc.answer) || f.call != tc.call {
			t.Errorf("%s %s: %d %q, called %q; want %d %q, called %q", tc.method, tc.path, w.Code, w.Body, f.call, tc.status, tc.answer, tc.call)
		}
	}
	if want := (Polling{Interval: Duration(2 * time.Hour), Retry: Duration(time.Minute)}); f.polling != want {
		t.Errorf("patched to %v, want %v", f.polling, want)
	}
	if level.Level() != slog.LevelDebug {
		t.Errorf("level %v", level)
	}
	fixed := NewHandler(&fake{}, HandlerConfig{Insecure: true})
	w := httptest.NewRecorder()
	fixed.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/config/log/level?.*=debug", nil))
	if w.Code != http.StatusNotImplemented {
		t.Errorf("fixed level: %d", w.Code)
	}
}
