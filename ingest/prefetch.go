package ingest

import (
	"context"
	"sync"

	"github.com/ipfs/go-cid"
)

// maxPrefetch is how many nodes of a HAMT are fetched ahead at once.
const maxPrefetch = 16

// prefetch fetches the nodes of a HAMT a little ahead of the walk over it, so
// that a tree of small nodes does not cost a round trip for each. It is used by
// one lane.
type prefetch struct {
	l      *lane
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	nodes  map[cid.Cid]*prefetched
}

// prefetched is a node under way or there.
type prefetched struct {
	ready   chan struct{} // closed when the fields below are set
	block   []byte
	err     error
	release func()
}

func newPrefetch(ctx context.Context, l *lane) *prefetch {
	ctx, cancel := context.WithCancel(ctx)
	return &prefetch{l: l, ctx: ctx, cancel: cancel, nodes: make(map[cid.Cid]*prefetched)}
}

// give hands in a block that is there already.
func (p *prefetch) give(c cid.Cid, block []byte) {
	n := &prefetched{ready: make(chan struct{}), block: block, release: func() {}}
	close(n.ready)
	p.nodes[c] = n
}

// fetch is a schema.HAMTFetch.
func (p *prefetch) fetch(ctx context.Context, c cid.Cid, next []cid.Cid) ([]byte, error) {
	for _, k := range next {
		if len(p.nodes) >= maxPrefetch {
			break
		}
		p.begin(k)
	}
	n, ok := p.nodes[c]
	if !ok {
		if !p.begin(c) {
			// No room: what was fetched ahead may be what takes it.
			p.drop()
			block, release, err := p.l.entryBlock(ctx, c)
			if err == nil {
				release() // the walk keeps what it decodes of a node only
			}
			return block, err
		}
		n = p.nodes[c]
	}
	delete(p.nodes, c)
	<-n.ready
	if n.err == nil {
		n.release()
	}
	return n.block, n.err
}

// begin starts to fetch a node if there is room for it, and says whether it is
// there or under way.
func (p *prefetch) begin(c cid.Cid) bool {
	if p.nodes[c] != nil {
		return true
	}
	release, ok := p.l.i.tryReserve(p.l.session.blockBytes())
	if !ok {
		return false
	}
	n := &prefetched{ready: make(chan struct{})}
	p.nodes[c] = n
	p.wg.Go(func() {
		defer close(n.ready)
		n.block, n.err = p.l.fetchEntryBlock(p.ctx, c)
		if n.err != nil {
			release()
			return
		}
		n.release = release
	})
	return true
}

// drop gives up what was fetched ahead.
func (p *prefetch) drop() {
	for c, n := range p.nodes {
		delete(p.nodes, c)
		<-n.ready
		if n.err == nil {
			n.release()
		}
	}
}

func (p *prefetch) close() {
	p.cancel()
	p.wg.Wait()
	p.drop()
}
