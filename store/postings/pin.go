package postings

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// ingests knows what an ingest under way means for lookups.
//
// An ingest is atomic, but Pebble (v2.1.7, ingest.go) makes its tables part of
// the database a moment before it makes their sequence numbers visible. A
// compaction may begin and end in between. It merges what can be seen with
// what cannot be seen yet, and the result cannot be seen yet either: who
// begins to read then misses entries that were there all the time. So a lookup
// beside an ingest is good only if no compaction began and ended since the
// ingest did; if not, it reads the state from before the ingest. That has
// everything, as a lookup looks into the memtables first.
type ingests struct {
	turn         atomic.Uint64 // odd while an ingest is under way
	begun, ended atomic.Uint64 // compactions
	// What these were when the ingest began.
	begunBefore, endedBefore atomic.Uint64
	before                   atomic.Pointer[pin]
}

// clean tells whether what was read from the turn on is right.
func (g *ingests) clean(turn uint64) bool {
	quiet := turn%2 == 0 || g.begun.Load() == g.begunBefore.Load() || g.ended.Load() == g.endedBefore.Load()
	return quiet && g.turn.Load() == turn
}

// pin holds the state of the buckets for others to read.
type pin struct {
	m  *meta
	mu sync.Mutex
	it *pebble.Iterator // nil when it is released
}

// ingest makes tables and a meta row part of the database, all or nothing,
// durable on return. The caller holds ingesting.
func (x *Index) ingest(t *tables, m *meta) error {
	return x.ingestOver(t, m, nil, func(paths []string) error { return x.db.Ingest(context.Background(), paths) })
}

// ingestOver is ingest done by a function, which removes keys of the regions.
// Their lookups read the state from before until the meta row is in use.
func (x *Index) ingestOver(t *tables, m *meta, over []int, ingest func(paths []string) error) (err error) {
	paths, err := t.finish(m)
	if err != nil {
		return errors.Join(err, t.drop())
	}
	it, err := x.db.NewIter(&pebble.IterOptions{LowerBound: []byte{prefixBucket}, UpperBound: []byte{prefixBucket + 1}})
	if err != nil {
		return errors.Join(fmt.Errorf("read buckets: %w", err), t.drop())
	}
	p := &pin{m: x.meta.Load(), it: it}
	x.ingests.begin(p)
	x.move(over)
	if err = ingest(paths); err != nil {
		err = errors.Join(fmt.Errorf("ingest: %w", damage(err)), t.drop())
	} else {
		x.meta.Store(m)
	}
	x.move(over)
	x.ingests.end()
	return errors.Join(err, p.release())
}

// move begins or ends that regions' keys are replaced.
func (x *Index) move(over []int) {
	if len(over) == 0 {
		return
	}
	x.moves.Add(1)
	for _, region := range over {
		x.moving[region].Add(1)
	}
}

func (g *ingests) begin(p *pin) {
	g.before.Store(p)
	g.begunBefore.Store(g.begun.Load())
	g.endedBefore.Store(g.ended.Load())
	g.turn.Add(1)
}

func (g *ingests) end() {
	g.turn.Add(1)
	g.before.Store(nil)
}

// reader returns an iterator over the state from before the ingest that is
// under way, for the caller to close, and the meta row of then; nil if that is
// over.
func (g *ingests) reader() (*pebble.Iterator, *meta, error) {
	p := g.before.Load()
	if p == nil {
		return nil, nil, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.it == nil {
		return nil, nil, nil
	}
	it, err := p.it.Clone(pebble.CloneOptions{})
	if err != nil {
		return nil, nil, fmt.Errorf("read buckets: %w", err)
	}
	return it, p.m, nil
}

func (p *pin) release() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	it := p.it
	p.it = nil
	return it.Close()
}
