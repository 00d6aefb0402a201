package ingest

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/store"
)

// failing is a disk that can fail, under a store that syncs only when told to.
func failing() (store.Config, *errorfs.Toggle) {
	broken := &errorfs.Toggle{Injector: errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			return errorfs.ErrInjected
		}
		return nil
	})}
	return store.Config{Dir: "data", FS: errorfs.Wrap(vfs.NewMem(), broken), MemoryBytes: 64 << 20,
		SyncEvery: time.Hour, SyncBytes: 1 << 40}, broken
}

// fail fails the store's disk and waits until the store has recovered.
func (n *testNode) fail(broken *errorfs.Toggle) {
	n.t.Helper()
	recovered := n.store.Recovered()
	broken.On()
	if err := n.store.Sync(); !errors.Is(err, store.ErrFailed) {
		n.t.Fatalf("sync on a broken disk: %v", err)
	}
	broken.Off()
	select {
	case <-recovered:
	case <-time.After(testWait):
		n.t.Fatal("the store did not recover")
	}
}

// know has the publisher on disk, as after a first sync.
func (n *testNode) know(c *testChain) {
	n.t.Helper()
	err := n.store.SetPublisherAddrs(c.id(), []string{"/ip4/127.0.0.1/tcp/1/http"})
	if err := errors.Join(err, n.store.Sync()); err != nil {
		n.t.Fatal(err)
	}
}

// run runs the ingester until the test ends.
func (n *testNode) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.i.Run(ctx) }()
	n.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			n.t.Error(err)
		}
	})
}

// TestWhatAFailureLostIsAppliedAgain: nobody announces anything.
func TestWhatAFailureLostIsAppliedAgain(t *testing.T) {
	c := newTestChain(t)
	a, b := testMultihashes(t, "a", 20), testMultihashes(t, "b", 20)
	c.put("a", a)
	cfg, broken := failing()
	n := openNodeOn(t, cfg, nil, c)
	n.i.durable.pending.Store(true) // nothing is durable before the failure
	n.know(c)
	n.run()
	n.until("the first ad is applied", func() bool { return n.store.Progress(c.id()).Mark.Ad == c.head })
	if err := n.store.Sync(); err != nil {
		t.Fatal(err)
	}
	c.put("b", b)
	n.notify(c, c.head)
	n.until("the second ad is applied", func() bool { return n.store.Progress(c.id()).Mark.Ad == c.head })
	n.idle()
	n.fail(broken)
	n.until("the second ad is applied again", func() bool { return n.store.Progress(c.id()).Mark.Ad == c.head })
	n.wantFound(a, "a")
	n.wantFound(b, "b")
}

// TestSyncUnderWayAtAFailureLeavesNoGap holds a sync up right before it begins
// an ad, while a failure loses the ad before.
func TestSyncUnderWayAtAFailureLeavesNoGap(t *testing.T) {
	c := newTestChain(t)
	a, b := testMultihashes(t, "a", 20), testMultihashes(t, "b", 20)
	c.put("a", a)
	c.put("b", b)
	held, release := make(chan struct{}), make(chan struct{})
	var asked atomic.Int32
	mayPublish := func(id, provider peer.ID) bool {
		if asked.Add(1) == 3 { // asked twice an ad
			close(held)
			<-release
		}
		return id == provider
	}
	cfg, broken := failing()
	n := openNodeOn(t, cfg, mayPublish, c)
	n.i.firstLanes, n.i.maxLanes = 1, 1
	n.i.durable.pending.Store(true)
	n.know(c)
	n.run()
	<-held
	n.wantFound(a, "a")
	n.fail(broken)
	n.wantGone(a)
	close(release)
	n.until("both ads are applied", func() bool { return n.store.Progress(c.id()).Mark.Ad == c.head })
	n.wantFound(a, "a")
	n.wantFound(b, "b")
}
