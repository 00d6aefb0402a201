package e2e

import (
	"fmt"
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/ingest/schema"
)

// holder returns the indexer that has the publisher assigned.
func (p *pool) holder(t testing.TB, publisher peer.ID) *indexer {
	t.Helper()
	var found *indexer
	eventually(t, fmt.Sprintf("publisher %s assigned", publisher), func() error {
		found = nil
		for _, ix := range p.indexers {
			if _, ok := ix.assigned()[publisher]; ok {
				if found != nil {
					return fmt.Errorf("assigned to %s and %s", found.name, ix.name)
				}
				found = ix
			}
		}
		if found == nil {
			return fmt.Errorf("assigned to nobody")
		}
		return nil
	})
	return found
}

// TestFrozenIndexerHandsOff: when an indexer is frozen, its publisher goes on
// at another one, right where the frozen one stopped. The old content is still
// found, and what the publisher says about it later, removals and metadata,
// still reaches the frozen one, before and after everything is restarted.
func TestFrozenIndexerHandsOff(t *testing.T) {
	t.Parallel()
	p := startPool(t, workDir(t), 2)
	c := newChain(t, "handed off")
	want := make(index)
	add := func(name string) {
		mhs := multihashes(name, 40)
		want.with(newHolding(c.id, []byte(name), bitswap), mhs)
		c.add(name, mhs)
	}
	add("old 1")
	add("old 2")
	add("old 3")
	c.announce(p.announce)
	frozen := p.holder(t, c.id)
	other := p.indexers[1-slices.Index(p.indexers, frozen)]
	untilDone(t, frozen.Ingest, c)
	want.mustFind(t, p.frontend, "before the freeze")

	if err := frozen.api().Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st, err := frozen.api().Status(t.Context()); err != nil || !st.Frozen {
		t.Fatalf("status after the freeze: %+v, %v", st, err)
	}
	eventually(t, "the publisher is handed off", func() error {
		a, ok := other.assigned()[c.id]
		if !ok || a.Continued.String() != frozen.ID {
			return fmt.Errorf("%s has it: %v, continued from %q, want %s", other.name, ok, a.Continued, frozen.ID)
		}
		return nil
	})
	want.mustFind(t, p.frontend, "after the handoff")

	add("new 1")
	c.announce(p.announce)
	untilIndexed(t, other.Ingest, c.head)
	want.mustFind(t, p.frontend, "with content after the handoff")
	holdsNone(t, frozen, "new 1")
	holdsNone(t, other, "old 1")

	gone := multihashes("old 1", 40)
	want.drop(newHolding(c.id, []byte("old 1"), bitswap), gone)
	c.remove("old 1")
	update := c.ad("old 2", schema.NoEntries)
	update.Metadata = bitswapGateway
	c.push(update)
	want.drop(newHolding(c.id, []byte("old 2"), bitswap), multihashes("old 2", 40))
	want.with(newHolding(c.id, []byte("old 2"), bitswapGateway), multihashes("old 2", 40))
	c.announce(p.announce)
	eventually(t, "removal and metadata reach the frozen indexer", func() error { return want.check(p.frontend) })

	frozen.kill()
	other.kill()
	frozen.restart()
	other.restart()
	want.mustFind(t, p.frontend, "after a restart of both")
	if st, err := frozen.api().Status(t.Context()); err != nil || !st.Frozen {
		t.Errorf("status of the frozen indexer after a restart: %+v, %v", st, err)
	}
	add("new 2")
	c.remove("old 3")
	want.drop(newHolding(c.id, []byte("old 3"), bitswap), multihashes("old 3", 40))
	c.announce(p.announce)
	eventually(t, "both go on after a restart", func() error { return want.check(p.frontend) })
	holdsNone(t, frozen, "new 2")
}

// holdsNone: the indexer itself has nothing of the context of this name.
func holdsNone(t testing.TB, ix *indexer, name string) {
	t.Helper()
	make(index).with("", multihashes(name, 40)).mustFind(t, ix.Find, ix.name+" about "+name)
}
