package ingest

import (
	"context"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
)

// TestWhatIsNotTracedCostsNextToNothing: neither a span nor its texts are made.
func TestWhatIsNotTracedCostsNextToNothing(t *testing.T) {
	i := &Ingester{}
	ctx, publisher := context.Background(), peer.ID("publisher")
	n := testing.AllocsPerRun(100, func() {
		_, s := i.span(ctx, "sync", "publisher", publisher)
		s.end(nil)
	})
	if n > 1 { // the interface around the publisher
		t.Errorf("%v allocations", n)
	}
}
