package indexer

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/signpost-index/signpost/api/admin"
	"github.com/signpost-index/signpost/store"
)

// snapshotNode is a node with content, and a client of its admin API.
func snapshotNode(t *testing.T) (*node, *admin.Client) {
	n := startNode(t, nil)
	if err := n.announce(vectorPublisher(t)); err != nil {
		t.Fatal(err)
	}
	n.waitIndexed(vectorHead)
	client, err := admin.NewClient(n.admin, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdleConnections)
	return n, client
}

// TestACheckpointIsLentToOne: it is a store with all there was, nobody else gets
// one meanwhile, and it goes when it is given back.
func TestACheckpointIsLentToOne(t *testing.T) {
	n, client := snapshotNode(t)
	ctx := t.Context()
	point, err := client.BeginSnapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if point.Node != n.ix.ID() || point.Format != store.FormatNumber || point.Secret != store.SecretID(n.ix.cfg.IndexSecret) ||
		point.Postings == 0 || len(point.Marks) != 1 || point.Marks[0].Ad != vectorHead || !filepath.IsAbs(point.Dir) {
		t.Errorf("%+v", point)
	}
	if _, err := client.BeginSnapshot(ctx); !errors.Is(err, admin.ErrBusy) {
		t.Errorf("another: %v, want ErrBusy", err)
	}
	if err := client.RenewSnapshot(ctx, point.ID); err != nil {
		t.Error(err)
	}
	for _, id := range []string{"other", "..", point.ID + "/"} {
		if err := errors.Join(client.RenewSnapshot(ctx, id)); !errors.Is(err, admin.ErrNotFound) {
			t.Errorf("renew %q: %v, want ErrNotFound", id, err)
		}
	}
	st, err := store.Open(store.Config{Dir: point.Dir, Secret: n.ix.cfg.IndexSecret})
	if err != nil {
		t.Fatal(err)
	}
	found, err := st.Find(vectorMultihash(t, "hamt1000-7"))
	if err = errors.Join(err, st.Close()); err != nil || len(found) == 0 {
		t.Errorf("in the copy: %v, %v", found, err)
	}
	if err := client.EndSnapshot(ctx, point.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(point.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the checkpoint is still there: %v", err)
	}
	if err := client.EndSnapshot(ctx, point.ID); !errors.Is(err, admin.ErrNotFound) {
		t.Errorf("ended twice: %v, want ErrNotFound", err)
	}
	if _, err := client.BeginSnapshot(ctx); err != nil {
		t.Errorf("the next: %v", err)
	}
}

// TestACheckpointNobodyRenewsGoes: its space comes back, and others get theirs.
func TestACheckpointNobodyRenewsGoes(t *testing.T) {
	n, client := snapshotNode(t)
	n.ix.checkpoints.lease = 10 * time.Millisecond
	point, err := client.BeginSnapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n.eventually("the checkpoint is gone", func() bool {
		_, err := os.Stat(point.Dir)
		return errors.Is(err, os.ErrNotExist)
	})
	n.eventually("another is lent", func() bool {
		_, err := client.BeginSnapshot(t.Context())
		if err != nil && !errors.Is(err, admin.ErrBusy) {
			t.Fatal(err)
		}
		return err == nil
	})
}

// TestWhatAKilledNodeLentGoesAtItsStart: and at an orderly end.
func TestWhatAKilledNodeLentGoesAtItsStart(t *testing.T) {
	dir, key := t.TempDir(), newKey(t)
	left := filepath.Join(dir, checkpointDir, "ID", "rows")
	if err := os.MkdirAll(left, 0o755); err != nil {
		t.Fatal(err)
	}
	n := startNode(t, func(c *Config) { c.DataDir, c.Key = dir, key })
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after the start: %v", err)
	}
	client, err := admin.NewClient(n.admin, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	if _, err := client.BeginSnapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.stop()
	if _, err := os.Stat(filepath.Join(dir, checkpointDir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after the end: %v", err)
	}
}
