package indexer

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/signpost-index/signpost/api/admin"
)

// TestFreezeAndUnfreezeLive freezes a node over its admin API, starts it again,
// and unfreezes it; then it takes the content it would not take before.
func TestFreezeAndUnfreezeLive(t *testing.T) {
	dir, key := t.TempDir(), newKey(t)
	start := func() (*node, *admin.Client) {
		n := startNode(t, func(c *Config) { c.DataDir, c.Key, c.AssignedOnly = dir, key, true })
		client, err := admin.NewClient(n.admin, http.DefaultClient, "")
		if err != nil {
			t.Fatal(err)
		}
		return n, client
	}
	n, client := start()
	info := vectorPublisher(t)
	ctx := t.Context()
	status := func() admin.NodeStatus {
		t.Helper()
		s, err := client.Node(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if s := status(); s.Frozen || !s.FrozenSince.IsZero() || s.FrozenBy != "" || s.ID != n.ix.ID() || s.FreezePercent != -1 {
		t.Errorf("node %+v, want not frozen", s)
	}
	if err := errors.Join(client.Unfreeze(ctx), client.Freeze(ctx), client.Freeze(ctx)); err != nil {
		t.Fatal(err)
	}
	n.stop()
	n, client = start()
	s := status()
	if !s.Frozen || s.FrozenBy != admin.FrozenByRequest || s.FrozenWhy == "" || time.Since(s.FrozenSince) > time.Hour {
		t.Errorf("node after a restart %+v, want frozen on request", s)
	}
	if err := client.Assign(ctx, info.ID); !errors.Is(err, admin.ErrFrozen) {
		t.Errorf("assign to a frozen node: %v", err)
	}
	if err := client.Unfreeze(ctx); err != nil {
		t.Fatal(err)
	}
	if s := status(); s.Frozen || s.FrozenBy != "" {
		t.Errorf("node %+v, want not frozen", s)
	}
	if err := client.Assign(ctx, info.ID); err != nil {
		t.Fatal(err)
	}
	if err := n.announce(info); err != nil {
		t.Fatal(err)
	}
	n.waitIndexed(vectorHead)
	if v, err := n.ix.store.Find(vectorMultihash(t, "hamt1000-7")); err != nil || len(v) == 0 {
		t.Errorf("content that came after unfreezing is not found: %v, %v", v, err)
	}
	if s := status(); s.StoredBytes == 0 || s.Publishers != 1 || s.PendingAds != 0 || len(s.Disks) == 0 || s.Disks[0].TotalBytes == 0 || s.Usage <= 0 {
		t.Errorf("node %+v, want what it has", s)
	}
}

// TestUnfreezeAtAFullQuotaIsRefused on a whole node: 409 with usage and limit.
func TestUnfreezeAtAFullQuotaIsRefused(t *testing.T) {
	n := startNode(t, func(c *Config) { c.FreezePercent, c.DiskQuotaBytes = 1, 1 })
	client, err := admin.NewClient(n.admin, http.DefaultClient, "")
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(testWait); !n.ix.store.Frozen(); {
		if time.Now().After(deadline) {
			t.Fatal("not frozen at a quota of one byte")
		}
		<-time.After(5 * time.Millisecond)
	}
	if err := client.Unfreeze(t.Context()); !errors.Is(err, admin.ErrDiskFull) {
		t.Errorf("unfreeze: %v, want that the disk is full", err)
	}
	if s, err := client.Node(t.Context()); err != nil || !s.Frozen || s.QuotaBytes != 1 {
		t.Errorf("node %+v, %v", s, err)
	}
}

func TestIngestRateIsOfTheLastMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin, end := time.Now(), 5*time.Minute
		r := &ingestRate{count: func() uint64 { return uint64(1000 * min(time.Since(begin), end).Seconds()) }}
		for _, step := range []struct {
			d        time.Duration
			min, max float64
		}{{4 * time.Minute, 990, 1010}, {2 * time.Minute, 300, 420}, {10 * time.Minute, 0, 1}} {
			ctx, cancel := context.WithTimeout(t.Context(), step.d)
			if err := r.run(ctx); err != nil {
				t.Error(err)
			}
			cancel()
			if got := r.perSecond(); got < step.min || got > step.max {
				t.Errorf("%v after the begin: %v multihashes/s, want %v to %v", time.Since(begin), got, step.min, step.max)
			}
		}
	})
}
