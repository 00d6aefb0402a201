package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/signpost-index/signpost/assigner"
)

// losePostings damages a node's index on disk while it is down, and has it repaired:
// then it has lost postings, and says so.
func losePostings(t *testing.T, ix *indexer) {
	t.Helper()
	commandOK(t, "store", "compact", "--admin", ix.Admin)
	ix.stop()
	files, err := filepath.Glob(filepath.Join(ix.dir, "store", "postings", "buckets", "*.sst"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no tables: %v", err)
	}
	largest, size := "", int64(0)
	for _, file := range files {
		if st, err := os.Stat(file); err == nil && st.Size() > size {
			largest, size = file, st.Size()
		}
	}
	b, err := os.ReadFile(largest)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 64 { // in the middle, where postings are
		b[len(b)/2+n] ^= 0x55
	}
	if err := os.WriteFile(largest, b, 0o600); err != nil {
		t.Fatal(err)
	}
	ix.restart()
	commandOK(t, "store", "repair", "--admin", ix.Admin)
	if n, err := ix.api().Node(t.Context()); err != nil || n.LostShare == 0 {
		t.Fatalf("%s has lost %v after a repair, %v", ix.name, n.LostShare, err)
	}
}

// TestAReindexOfAPoolBringsBackWhatARepairHasLost: both indexers have lost postings.
// They are re-indexed one after the other, and each is marked as whole; the assigner
// is killed while the first one is at it. Every multihash is found at both then.
func TestAReindexOfAPoolBringsBackWhatARepairHasLost(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	p := startPool(t, dir, 2, "--replication", "2", "--intents", filepath.Join(dir, "intents.txt"), "--listen-admin", freeAddr(t))
	b := newLedger(t, "of a damaged pool")
	for range 5 {
		b.publish(2000)
	}
	b.announce(p.announce)
	p.twoCopies(t, []*ledger{b})
	for _, ix := range p.indexers {
		losePostings(t, ix)
	}
	if b.want.check(p.indexers[0].Find) == nil {
		t.Fatal("nothing is lost")
	}
	eventually(t, "the assigner knows that both are damaged", func() error {
		a, err := get(p.announce+assigner.PoolPath, "")
		if n := strings.Count(string(a.body), "LostShare"); err != nil || n != 2 {
			return fmt.Errorf("%d are, %w", n, err)
		}
		return nil
	})
	reached := b.gate.close(b.ads[0].cid.String())
	cmd := spawn(t, dir, "reindex-1", "pool", "reindex", "--admin", p.admin, "--then-mark-whole", "--reason", "damage")
	b.await(reached)
	eventually(t, "the first one is at it", func() error { return p.tasksSay(t, p.indexers[0].ID+"  running") })
	p.assigner.kill()
	p.restartAssigner(t)
	eventually(t, "it is known again how far it is", func() error {
		return p.tasksSay(t, "reindex-1  running", p.indexers[0].ID+"  running", "1 publishers are yet to be applied again", p.indexers[1].ID+"  pending")
	})
	if n, err := p.indexers[1].api().Node(t.Context()); err != nil || n.Reindexing == nil || *n.Reindexing != 0 {
		t.Errorf("the second one is at it, too: %+v, %v", n.Reindexing, err)
	}
	b.gate.letGo()
	cmd.succeeds()
	if log := cmd.log(); !strings.Contains(log, "reindex-1: 2 indexers") || !strings.Contains(log, "reindex-1 is done") {
		t.Errorf("the command says %s", log)
	}
	for _, ix := range p.indexers {
		b.want.mustFind(t, ix.Find, "after the re-index")
		if err := miss(ix.Find, multihashes("nobody has it", 1)[0], http.StatusNotFound, ""); err != nil {
			t.Error(err)
		}
		if n, err := ix.api().Node(t.Context()); err != nil || n.LostShare != 0 {
			t.Errorf("%s is not whole: %v, %v", ix.name, n.LostShare, err)
		}
	}
}

// tasksSay checks what signpost pool tasks says.
func (p *pool) tasksSay(t *testing.T, words ...string) error {
	t.Helper()
	out := command(t, "pool", "tasks", "--admin", p.admin)
	for _, w := range words {
		if !strings.Contains(out.stdout, w) {
			return fmt.Errorf("tasks lack %q:\n%s%s", w, out.stdout, out.stderr)
		}
	}
	return nil
}
