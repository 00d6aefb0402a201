package admin

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type fakeSnapshotter struct {
	err   error
	call  string
	point Checkpoint
}

func (f *fakeSnapshotter) BeginSnapshot(context.Context) (Checkpoint, error) {
	f.call = "begin"
	return f.point, f.err
}

func (f *fakeSnapshotter) RenewSnapshot(_ context.Context, id string) error {
	f.call = "renew " + id
	return f.err
}

func (f *fakeSnapshotter) EndSnapshot(_ context.Context, id string) error {
	f.call = "end " + id
	return f.err
}

func TestSnapshotterIsTheSameLocallyAndRemotely(t *testing.T) {
	f := &fakeSnapshotter{point: Checkpoint{ID: "a", Dir: "/d/checkpoint/a", DataDir: "/d", LeaseSeconds: 300, Node: publisher, Format: 6,
		Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Secret: "00", Postings: 1, Records: 2, Marks: []CheckpointMark{{publisher, "bafy"}}}}
	client := dial(t, &fake{}, HandlerConfig{Snapshots: f}, "")
	ctx := t.Context()
	for _, kind := range []error{nil, ErrBusy, ErrNotFound, ErrUnavailable} {
		f.err = nil
		if kind != nil {
			f.err = fmt.Errorf("it: %w", kind)
		}
		for name, call := range map[string]func() error{
			"begin":   func() error { _, err := client.BeginSnapshot(ctx); return err },
			"renew a": func() error { return client.RenewSnapshot(ctx, "a") },
			"end a":   func() error { return client.EndSnapshot(ctx, "a") },
		} {
			if err := call(); !errors.Is(err, kind) || f.call != name {
				t.Errorf("%s: called %s, %v, want %v", name, f.call, err, kind)
			}
		}
	}
	f.err = nil
	got, err := client.BeginSnapshot(ctx)
	if diff := cmp.Diff(f.point, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}
