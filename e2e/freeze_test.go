package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
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

// TestOperatorFreezesAndUnfreezesLive, by command: while frozen, across a kill,
// the node finds, compacts, and applies removals, metadata and addresses of what
// it holds, each within a minute; then it takes content again without a restart,
// and fetches what it skipped.
func TestOperatorFreezesAndUnfreezesLive(t *testing.T) {
	t.Parallel()
	ix := startIndexer(t, workDir(t), "indexer")
	c := newChain(t, "frozen on request")
	want := make(index)
	hold := func(name string, metadata []byte) {
		want.with(newHolding(c.id, []byte(name), metadata), multihashes(name, 40))
	}
	drop := func(name string) { want.drop(newHolding(c.id, []byte(name), bitswap), multihashes(name, 40)) }
	for _, name := range []string{"kept", "changed", "removed"} {
		c.add(name, multihashes(name, 40))
		hold(name, bitswap)
	}
	c.announce(ix.Ingest)
	untilDone(t, ix.Ingest, c)
	commandOK(t, "freeze", "--admin", ix.Admin)
	ix.kill()
	ix.restart()

	skipped := c.add("skipped", multihashes("skipped", 40))
	c.remove("removed")
	drop("removed")
	update := c.ad("changed", schema.NoEntries)
	update.Metadata = bitswapGateway
	c.push(update)
	drop("changed")
	hold("changed", bitswapGateway)
	moved := c.ad("", schema.NoEntries)
	moved.Metadata, moved.Addresses = nil, []string{"/ip4/203.0.113.99/tcp/99"}
	c.push(moved)
	c.announce(ix.Ingest)
	eventually(t, "removal and metadata reach the frozen node", func() error { return want.check(ix.Find) })
	eventually(t, "addresses reach the frozen node", func() error {
		a, err := get(ix.Find+"/multihash/"+multihashes("kept", 1)[0].B58String(), "")
		if err == nil && !strings.Contains(string(a.body), moved.Addresses[0]) {
			err = fmt.Errorf("found %s", a.body)
		}
		return err
	})
	commandOK(t, "store", "compact", "--admin", ix.Admin)
	want.mustFind(t, ix.Find, "after a compaction of the frozen node")
	n, err := ix.api().Node(t.Context())
	if err != nil || !n.Frozen || n.FrozenBy != admin.FrozenByRequest || n.StoredBytes == 0 || len(n.Disks) == 0 {
		t.Errorf("node %+v, %v; want frozen on request", n, err)
	}

	commandOK(t, "unfreeze", "--admin", ix.Admin)
	c.add("new", multihashes("new", 40))
	hold("new", bitswap)
	c.announce(ix.Ingest)
	eventually(t, "the node takes content again", func() error { return want.check(ix.Find) })
	hold("skipped", bitswap)
	eventually(t, "what was skipped is fetched", func() error {
		st, err := getAdStatus(ix.Ingest, skipped)
		if err == nil && st.Verdict != "applied" {
			err = fmt.Errorf("the skipped ad is %+v", st)
		}
		return errors.Join(err, want.check(ix.Find))
	})
}

// TestUnfreezeOfAFullNodeSaysWhatToDo, by command, with a quota of nothing.
func TestUnfreezeOfAFullNodeSaysWhatToDo(t *testing.T) {
	t.Parallel()
	ix := startIndexer(t, workDir(t), "indexer", "--disk-quota", "1", "--freeze-at", "90")
	eventually(t, "the node freezes", func() error {
		if n, err := ix.api().Node(t.Context()); err != nil || !n.Frozen {
			return fmt.Errorf("node %+v, %v", n, err)
		}
		return nil
	})
	r := command(t, "unfreeze", "--admin", ix.Admin)
	for _, part := range []string{"the limit is 90 %", "make room"} {
		if r.code != 1 || !strings.Contains(r.stderr, part) {
			t.Errorf("unfreeze: status %d, want 1 and %q in:\n%s", r.code, part, r.stderr)
		}
	}
}
