package indexer

import (
	"context"
	"sync"
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"

	"github.com/signpost-index/signpost/ingest/ipnisync"
)

// A publisher that listens on libp2p only is found out from its address.
func TestPublisherOnStreamsIsIndexed(t *testing.T) {
	n := startNode(t, nil)
	chain, key := vectorChain(t)
	h, err := libp2p.New(libp2p.Identity(key), libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay(), libp2p.DisableMetrics())
	if err != nil {
		t.Fatal(err)
	}
	ln, err := ipnisync.ListenStreams(h)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var served sync.WaitGroup
	served.Go(func() {
		if err := ipnisync.ServeStreams(ctx, ln, ipnisync.NewHandler(chain)); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		served.Wait()
		if err := h.Close(); err != nil {
			t.Errorf("close host: %v", err)
		}
	})
	if err := n.announce(*host.InfoFromHost(h)); err != nil {
		t.Fatal(err)
	}
	n.waitIndexed(vectorHead)
}
