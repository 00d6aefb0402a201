package e2e

import (
	"path/filepath"
	"testing"
)

// TestSigtermEndsCleanly: each daemon ends with status 0 soon after SIGTERM,
// having printed its ready line and nothing else on stdout. (The other tests
// end their processes like this, too.)
func TestSigtermEndsCleanly(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	file := writePool(t, dir, startIndexer(t, dir, "member", "--assigned-only"))
	daemons := map[string][]string{
		"indexer": {"indexer", "--data", filepath.Join(dir, "indexer-data"), "--listen-find", anyPort, "--listen-ingest", anyPort,
			"--listen-admin", anyPort, "--listen-p2p", anyPort, "--listen-metrics", anyPort, "--freeze-at", "-1"},
		"assigner": {"assigner", "--listen", anyPort, "--pool", file, "--listen-p2p", anyPort, "--listen-metrics", anyPort,
			"--listen-admin", anyPort, "--intents", filepath.Join(dir, "intents"), "--events", filepath.Join(dir, "events")},
		"frontend": {"frontend", "--listen", anyPort, "--pool", file, "--listen-metrics", anyPort},
		"dev": {"dev", "--data", filepath.Join(dir, "dev-data"), "--listen", anyPort, "--listen-announce", anyPort,
			"--indexers", "3"},
	}
	for name, args := range daemons {
		t.Run(name, func(t *testing.T) {
			p := spawn(t, dir, name, args...)
			r := p.ready()
			if name != "dev" {
				if a := mustGet(t, r.Metrics+"/metrics", ""); a.status != 200 || len(a.body) == 0 {
					t.Errorf("metrics at %s: status %d, %d bytes", r.Metrics, a.status, len(a.body))
				}
			} else if len(r.Indexers) != 3 {
				t.Errorf("dev --indexers 3 has %d", len(r.Indexers))
			}
			p.stop()
			if lines := p.lines.all(); len(lines) != 1 {
				t.Errorf("%d lines on stdout, want the ready line alone: %q", len(lines), lines)
			}
		})
	}
	t.Run("publish", func(t *testing.T) {
		p := spawn(t, dir, "publish", publishArgs(filepath.Join(dir, "publisher"), anyPort, "none", "none", writeTree(t, dir, 0))...)
		p.event("waiting")
		p.stop()
	})
}

// TestSigtermInTheMiddleOfASync: an indexer that waits for a publisher ends as
// cleanly, and goes on after a restart without an announce.
func TestSigtermInTheMiddleOfASync(t *testing.T) {
	t.Parallel()
	ix := startIndexer(t, workDir(t), "indexer")
	c := newChain(t, "slow")
	mhs := multihashes("slow", 4000)
	links := c.entries(mhs, 1000)
	c.push(c.ad("slow", links[0]))
	reached := c.gate.close(links[2].String())
	c.announce(ix.Ingest)
	c.await(reached)
	ix.stop()
	c.gate.letGo()
	ix.restart()
	untilDone(t, ix.Ingest, c)
	make(index).with(newHolding(c.id, []byte("slow"), bitswap), mhs).mustFind(t, ix.Find, "after the restart")
}
