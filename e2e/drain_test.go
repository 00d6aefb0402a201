package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/signpost-index/signpost/assigner"
)

// TestNodesJoinAndLeaveARunningPool: one node joins by an edit of the pool file,
// one by signpost pool add. New publishers go there, and load of those the pool
// has. Then an old node is drained: all it has is at others before it lets go,
// lookups are whole all the time, and it can be removed then and not before.
func TestNodesJoinAndLeaveARunningPool(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	p := startPool(t, dir, 2, "--intents", filepath.Join(dir, "intents.txt"), "--journal", filepath.Join(dir, "journal"))
	p.frontend = spawn(t, dir, "follower", "frontend", "--listen", anyPort, "--assigner", p.announce).ready().HTTP
	old := slices.Clone(p.indexers)
	var ledgers []*ledger
	for n := range 6 {
		b := newLedger(t, fmt.Sprintf("of a pool that changes %d", n))
		for range 4 {
			b.publish(8)
		}
		b.announce(p.announce)
		untilDone(t, p.owner(t, b.id).Ingest, b.chain)
		ledgers = append(ledgers, b)
	}

	p.join(t)
	fresh := p.newcomers(t, "once there is room", 3, old[0])
	for _, b := range fresh {
		if ix := p.owner(t, b.id); slices.Contains(old, ix) {
			t.Errorf("a new publisher went to %s, although others have nothing yet", ix.name)
		}
	}
	// Load moves by itself when it has been measured for a quarter of an hour, which
	// package assigner and its simulator show. By hand it moves at once.
	moved, from := ledgers[0], p.owner(t, ledgers[0].id)
	if r := p.command(t, "move", moved.id.String(), from.ID, p.indexers[2].ID); r.code != 0 {
		t.Fatalf("move: %d %s", r.code, r.stderr)
	}
	moved.publish(40)
	moved.announce(p.announce)
	eventually(t, "the publisher has moved to a new node", func() error {
		if owners, err := ownersOf(p.indexers[2:3], moved.id); len(owners) > 0 || err != nil {
			return err
		}
		return fmt.Errorf("it is where it was; the plan:\n%s", p.command(t, "plan").stdout)
	})
	ledgers = append(ledgers, fresh...)
	p.mustEnd(t, ledgers...)

	leaves := old[0]
	if r := p.command(t, "remove", leaves.ID); r.code != 1 || !strings.Contains(r.stderr, "drain it first") || !namesOneOf(r.stderr, ledgers) {
		t.Errorf("removal of a node that has publishers: status %d, want 1 and their names: %s", r.code, r.stderr)
	}
	checked := p.checkAllAlong(t, leaves, ledgers)
	if r := p.command(t, "drain", leaves.ID, "--reason", "it gets old"); r.code != 0 {
		t.Fatalf("drain: %d %s", r.code, r.stderr)
	}
	for _, b := range ledgers {
		b.publish(8)
		b.announce(p.announce)
	}
	eventually(t, "the drained node has nothing left", func() error {
		if roles := leaves.roles(); len(roles) > 0 {
			return fmt.Errorf("%d publishers left, the first %+v; the plan:\n%s", len(roles), roles[0], p.command(t, "plan").stdout)
		}
		return nil
	})
	if n := checked(); n < 2 {
		t.Errorf("what it had was looked up %d times during the drain, which shows little", n)
	} else {
		t.Logf("what it had was looked up %d times during the drain", n)
	}
	p.mustEnd(t, ledgers...)
	if r := p.command(t, "remove", leaves.ID); r.code != 0 {
		t.Fatalf("removal of a node that is drained: %d %s", r.code, r.stderr)
	}
	leaves.stop()
	p.indexers = p.others(leaves)
	p.mustEnd(t, ledgers...)
}

// join has two more indexers join a pool that runs.
func (p *pool) join(t *testing.T) {
	t.Helper()
	var lines []string
	for _, ix := range p.indexers {
		lines = append(lines, poolLine(ix))
	}
	edited, added := startIndexer(t, p.dir, "indexer-3", "--assigned-only"), startIndexer(t, p.dir, "indexer-4", "--assigned-only")
	writePoolLines(t, p.dir, append(lines, poolLine(edited))...)
	if r := p.command(t, append([]string{"add"}, strings.Fields(poolLine(added))...)...); r.code != 0 {
		t.Fatalf("add: %d %s", r.code, r.stderr)
	}
	p.indexers = append(p.indexers, edited, added)
	for _, ix := range p.indexers {
		eventually(t, ix.name+" is in the pool", func() error { return p.stateIs(ix, assigner.StateActive) })
	}
}

func namesOneOf(text string, ledgers []*ledger) bool {
	return slices.ContainsFunc(ledgers, func(b *ledger) bool { return strings.Contains(text, b.id.String()) })
}

// checkAllAlong looks up what an indexer has of the ledgers, one multihash of each
// ad, again and again, until the function it returns is called, which says how
// many times. Each time all has to be found.
func (p *pool) checkAllAlong(t *testing.T, ix *indexer, ledgers []*ledger) (stop func() int) {
	t.Helper()
	want := make(index)
	for _, b := range ledgers {
		parts, _, err := b.parts([]*indexer{ix})
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range parts {
			for _, a := range b.ads[part.from+1 : part.to+1] {
				mh := string(a.mhs[0])
				want[mh] = slices.Clone(b.want[mh])
			}
		}
	}
	if len(want) == 0 {
		t.Fatalf("%s has nothing", ix.name)
	}
	ctx, cancel := context.WithCancel(context.Background())
	rounds := 0
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			if err := want.check(p.frontend); err != nil {
				t.Errorf("during the drain: %v", err)
				return
			}
			rounds++
		}
	})
	stop = func() int {
		cancel()
		wg.Wait()
		return rounds
	}
	t.Cleanup(func() { stop() })
	return stop
}
