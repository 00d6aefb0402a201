package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/signpost-index/signpost/api/admin"
)

// TestUnfrozenNodeStaysHolderOfWhatWasHandedOff: what was handed off stays where
// it is, through an unfreeze too.
func TestUnfrozenNodeStaysHolderOfWhatWasHandedOff(t *testing.T) {
	t.Parallel()
	p := startPool(t, workDir(t), 2)
	b := newLedger(t, "handed off and unfrozen")
	for range 4 {
		b.publish(20)
	}
	b.announce(p.announce)
	frozen := p.owner(t, b.id)
	untilDone(t, frozen.Ingest, b.chain)
	commandOK(t, "freeze", "--admin", frozen.Admin)
	var to *indexer
	eventually(t, "another node owns the publisher", func() error {
		owners, err := ownersOf(p.others(frozen), b.id)
		if err == nil && len(owners) != 1 {
			err = fmt.Errorf("%d do", len(owners))
		}
		if err == nil {
			to = owners[0]
		}
		return err
	})
	b.publish(20)
	b.withdraw(1)
	b.announce(p.announce)
	untilIndexed(t, to.Ingest, b.head)
	commandOK(t, "unfreeze", "--admin", frozen.Admin)
	b.publish(20)
	b.withdraw(2)
	b.announce(p.announce)
	untilIndexed(t, to.Ingest, b.head)
	p.mustEnd(t, b)
	if owner := p.owner(t, b.id); owner != to {
		t.Errorf("after the unfreeze the owner is %s, want still %s", owner.name, to.name)
	}
}

// TestUnfrozenNodeFetchesWhatNobodyTookOver: the only node of a pool freezes, so
// nothing can be handed off; unfrozen, it owns the publisher and has what it
// left out.
func TestUnfrozenNodeFetchesWhatNobodyTookOver(t *testing.T) {
	t.Parallel()
	p := startPool(t, workDir(t), 1)
	b := newLedger(t, "unfrozen")
	b.publish(20)
	b.publish(20)
	b.announce(p.announce)
	ix := p.owner(t, b.id)
	untilDone(t, ix.Ingest, b.chain)
	commandOK(t, "freeze", "--admin", ix.Admin)
	for range 5 {
		b.publish(20)
	}
	b.withdraw(0)
	skipped := b.ads[3]
	b.announce(p.announce)
	eventually(t, "the frozen node skips", func() error {
		s, err := getAdStatus(ix.Ingest, skipped.cid)
		if err == nil && s.Verdict != "skipped-frozen" {
			err = fmt.Errorf("status %+v", s)
		}
		return err
	})
	make(index).with("", skipped.mhs).mustFind(t, ix.Find, "while the node is frozen")
	commandOK(t, "unfreeze", "--admin", ix.Admin)
	p.mustEnd(t, b)
}

// TestStandbyTakesPublishersOnceTheOnlyActiveNodeFreezes, within a minute, and
// nobody edits anything. Before it takes none.
func TestStandbyTakesPublishersOnceTheOnlyActiveNodeFreezes(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	p := &pool{dir: dir}
	for _, name := range []string{"active", "standby"} {
		p.indexers = append(p.indexers, startIndexer(t, dir, name, "--assigned-only"))
	}
	active, standby := p.indexers[0], p.indexers[1]
	p.file = writePoolLines(t, dir, poolLine(active), poolLine(standby)+" standby")
	p.startAssigner(t, anyPort)
	p.frontend = startFrontend(t, dir, p.file)
	var ledgers []*ledger
	for n := range 4 {
		b := newLedger(t, fmt.Sprintf("before a standby %d", n))
		b.publish(20)
		b.announce(p.announce)
		untilDone(t, p.owner(t, b.id).Ingest, b.chain)
		ledgers = append(ledgers, b)
	}
	if roles := standby.roles(); len(roles) != 0 {
		t.Errorf("the node on standby has %d publishers while another is active", len(roles))
	}
	commandOK(t, "freeze", "--admin", active.Admin)
	frozen := time.Now()
	for _, b := range ledgers {
		b.publish(20)
		b.announce(p.announce)
		untilIndexed(t, standby.Ingest, b.head)
	}
	newcomer := newLedger(t, "after the freeze")
	newcomer.publish(20)
	newcomer.announce(p.announce)
	untilIndexed(t, standby.Ingest, newcomer.head)
	if took := time.Since(frozen); took > time.Minute {
		t.Errorf("the node on standby took its publishers after %v, want a minute at most", took)
	} else {
		t.Logf("5 publishers are at the node on standby, with new content, %v after the freeze", took.Round(time.Millisecond))
	}
	p.mustEnd(t, append(ledgers, newcomer)...)
}

// roles are those the indexer tells an assigner.
func (ix *indexer) roles() []admin.PublisherRole {
	ix.t.Helper()
	r, err := ix.api().Roles(ix.t.Context(), "")
	if err != nil {
		ix.t.Fatal(err)
	}
	return r.Publishers
}
