package indexer

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
	"github.com/signpost-index/signpost/api/find"
)

// TestOperatorLooksAfterTheStore drives a node over HTTP as signpost store does.
func TestOperatorLooksAfterTheStore(t *testing.T) {
	n := startNode(t, nil)
	info := vectorPublisher(t)
	if err := n.announce(info); err != nil {
		t.Fatal(err)
	}
	n.waitIndexed(vectorHead)
	client, err := admin.NewClient(n.admin, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()

	full, err := client.Store(t.Context())
	if err != nil || full.Postings == 0 || full.Records == 0 || full.Multihashes == 0 || full.Bytes.Total <= 0 || full.Job != nil {
		t.Fatalf("store %+v %v", full, err)
	}
	if err := client.StartJob(t.Context(), "nonsense"); !errors.Is(err, admin.ErrBadRequest) {
		t.Errorf("unknown job: %v", err)
	}
	n.runJob(client, admin.JobCheck)

	n.runJob(client, admin.JobRepair)
	for range 2 { // again while it is under way, which does no harm
		if done, err := client.Reindex(t.Context()); err != nil || done != (admin.Reindexed{Publishers: 1}) {
			t.Fatalf("reindex: %+v, %v", done, err)
		}
	}
	n.eventually("all is applied again, and that is told", func() bool {
		status, err := client.Node(t.Context())
		if err != nil || status.Reindexing == nil {
			t.Fatalf("%+v, %v", status, err)
		}
		return *status.Reindexing == 0
	})
	n.eventually("marked whole once all is synced", func() bool {
		err := client.MarkWhole(t.Context(), false)
		if err != nil && !errors.Is(err, admin.ErrBusy) {
			t.Fatal(err)
		}
		return err == nil
	})
	if again, err := client.Store(t.Context()); err != nil || again.Postings != full.Postings || again.Records != full.Records {
		t.Errorf("store after a reindex %+v, was %+v, %v", again, full, err)
	}
	if err := client.MarkWhole(t.Context(), true); err != nil {
		t.Error(err)
	}

	if err := client.RemoveProvider(t.Context(), info.ID); err != nil {
		t.Fatal(err)
	}
	if err := client.RemoveProvider(t.Context(), info.ID); !errors.Is(err, admin.ErrNotFound) {
		t.Errorf("removed again: %v, want ErrNotFound", err)
	}
	finder, err := find.NewClient(n.find, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer finder.Close()
	for r, err := range finder.Find(context.Background(), vectorMultihash(t, "hamt1000-7")) {
		t.Errorf("found %v %v of a removed provider", r, err)
	}
	n.runJob(client, admin.JobCompact)
	empty, err := client.Store(t.Context())
	if err != nil || empty.Postings != 0 || empty.Records != 0 || empty.Garbage != 0 || empty.RemovedProviders != 0 {
		t.Errorf("store after removal and compaction %+v %v", empty, err)
	}
	n.runJob(client, admin.JobCheck)
}

// eventually asks until something is so.
func (n *node) eventually(what string, so func() bool) {
	n.t.Helper()
	deadline := time.Now().Add(testWait)
	for !so() {
		if time.Now().After(deadline) {
			n.t.Fatalf("not within %v: %s", testWait, what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// runJob runs a job to its end, which must be good.
func (n *node) runJob(client *admin.Client, kind admin.JobKind) {
	n.t.Helper()
	if err := client.StartJob(n.t.Context(), kind); err != nil {
		n.t.Fatal(err)
	}
	n.eventually(string(kind)+" ends", func() bool {
		s, err := client.Store(n.t.Context())
		if err != nil || s.Job == nil || s.Job.Kind != kind {
			n.t.Fatalf("%s: %+v %v", kind, s.Job, err)
		}
		if !s.Job.Running() && (s.Job.Error != "" || s.Job.Damages > 0) {
			n.t.Fatalf("%s: %+v", kind, s.Job)
		}
		return !s.Job.Running()
	})
}

// TestOneStoreJobAtATime: a second job is refused while one runs, and closing
// the node ends it.
func TestOneStoreJobAtATime(t *testing.T) {
	n := startNode(t, nil)
	begun, release := make(chan struct{}), make(chan struct{})
	jobs := n.ix.jobs
	jobs.mu.Lock()
	jobs.job = &admin.StoreJob{Kind: admin.JobCheck, Started: time.Now()}
	jobs.mu.Unlock()
	jobs.wg.Go(func() {
		jobs.run(*jobs.last(), func(*admin.StoreJob) error { close(begun); <-release; return jobs.ctx.Err() })
	})
	<-begun
	if status, header, body := n.call(http.MethodPost, n.admin+"/signpost/v1/store/compact", ""); status != http.StatusConflict || header.Get(admin.HeaderError) != "busy" {
		t.Errorf("second job: %d %s, want 409", status, body)
	}
	close(release)
	n.stop()
	if job := jobs.last(); job.Running() {
		t.Errorf("job %+v runs after the node was closed", job)
	}
	if err := jobs.start(admin.JobCheck); !errors.Is(err, admin.ErrUnavailable) {
		t.Errorf("job of a closed node: %v", err)
	}
}

// TestAReindexPassesOverWhatWouldNotComeBack: publishers that are closed here. Of one
// that was released nothing can be lost, and a node that is frozen refuses.
func TestAReindexPassesOverWhatWouldNotComeBack(t *testing.T) {
	n := startNode(t, func(c *Config) { c.AssignedOnly = true })
	client, err := admin.NewClient(n.admin, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	ctx, info := t.Context(), vectorPublisher(t)
	if err := client.Assign(ctx, info.ID); err != nil {
		t.Fatal(err)
	}
	if err := n.announce(info); err != nil {
		t.Fatal(err)
	}
	n.waitIndexed(vectorHead)
	reindex := func(when string, want admin.Reindexed, wantErr error) {
		t.Helper()
		if done, err := client.Reindex(ctx); done != want || !errors.Is(err, wantErr) {
			t.Errorf("%s: %+v, %v; want %+v, %v", when, done, err, want, wantErr)
		}
	}
	reindex("owned", admin.Reindexed{Publishers: 1}, nil)
	if err := client.Freeze(ctx); err != nil {
		t.Fatal(err)
	}
	reindex("frozen", admin.Reindexed{}, admin.ErrFrozen)
	if err := client.Unfreeze(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Close(ctx, []peer.ID{info.ID}); err != nil {
		t.Fatal(err)
	}
	reindex("closed", admin.Reindexed{PassedOver: 1}, nil)
	if out, err := client.Release(ctx, []peer.ID{info.ID}); err != nil || len(out) != 1 || out[0].Error != "" {
		t.Fatalf("release: %+v, %v", out, err)
	}
	reindex("released", admin.Reindexed{}, nil)
}
