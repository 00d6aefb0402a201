package ingest

import (
	"context"
	"sync"

	"github.com/ipfs/go-cid"

	"github.com/signpost-index/signpost/ingest/ipnisync"
	"github.com/signpost-index/signpost/ingest/schema"
)

const (
	// maxPrefetch is how many nodes of a HAMT are fetched ahead at once.
	maxPrefetch = 16
	// maxAheadBytes bounds a node kept while an earlier one is waited for. It is
	// what a block may have without the budget, so that what is kept never stands
	// in the way of what is waited for. Usual nodes have a tenth of it.
	maxAheadBytes = 64 << 10
)

// prefetch fetches the nodes of a HAMT a little ahead of the walk over it, so
// that a tree of small nodes does not cost a round trip for each. It is used by
// one lane.
type prefetch struct {
	l      *lane
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	nodes  map[cid.Cid]*prefetched
	last   ipnisync.Block // handed out; the walk is done with it when it asks for the next
}

// prefetched is a node under way or there.
type prefetched struct {
	ready chan struct{} // closed when the fields below are set
	block ipnisync.Block
	large bool // it was there, and not kept
	err   error
}

func newPrefetch(ctx context.Context, l *lane) *prefetch {
	ctx, cancel := context.WithCancel(ctx)
	return &prefetch{l: l, ctx: ctx, cancel: cancel, nodes: make(map[cid.Cid]*prefetched)}
}

// give hands in a block that is there already.
func (p *prefetch) give(c cid.Cid, block ipnisync.Block) {
	n := &prefetched{ready: make(chan struct{}), block: block}
	close(n.ready)
	p.nodes[c] = n
}

// fetch is a schema.HAMTFetch.
func (p *prefetch) fetch(ctx context.Context, c cid.Cid, next []cid.Cid) ([]byte, error) {
	block, err := p.node(ctx, c, next)
	if err == nil && p.l.i.cfg.Mirror != nil {
		if err := schema.CheckBlock(c, block); err == nil { // else the walk says so
			p.l.file.wrote(c, block)
		}
	}
	return block, err
}

func (p *prefetch) node(ctx context.Context, c cid.Cid, next []cid.Cid) ([]byte, error) {
	p.last.Release()
	p.last = ipnisync.Block{}
	if p.l.file.reads() { // in the order of the walk
		next = nil
	}
	for _, k := range next {
		if len(p.nodes) >= maxPrefetch {
			break
		}
		p.begin(k)
	}
	n := p.nodes[c]
	delete(p.nodes, c)
	if n != nil {
		<-n.ready
	}
	if n == nil || n.large {
		var err error
		p.last, err = p.l.entryBlock(ctx, c)
		return p.last.Bytes, err
	}
	p.last = n.block
	return p.last.Bytes, n.err
}

// begin starts to fetch a node that is not under way.
func (p *prefetch) begin(c cid.Cid) {
	if p.nodes[c] != nil {
		return
	}
	n := &prefetched{ready: make(chan struct{})}
	p.nodes[c] = n
	p.wg.Go(func() {
		defer close(n.ready)
		n.block, n.err = p.l.entryBlock(p.ctx, c)
		if len(n.block.Bytes) > maxAheadBytes {
			n.block.Release()
			n.block, n.large = ipnisync.Block{}, true
		}
	})
}

func (p *prefetch) close() {
	p.cancel()
	p.wg.Wait()
	p.last.Release()
	for _, n := range p.nodes {
		n.block.Release()
	}
}
