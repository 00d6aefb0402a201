package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/ipfs/go-cid"
)

// TestGossipAloneLeadsToIndexedAd: a publisher that tells nobody by HTTP, and
// only whispers to one gossip peer, is indexed: by an indexer that listens
// itself, and by a pool whose assigner does.
func TestGossipAloneLeadsToIndexedAd(t *testing.T) {
	t.Parallel()
	t.Run("indexer", func(t *testing.T) {
		t.Parallel()
		dir := workDir(t)
		ix := startIndexer(t, dir, "indexer", "--listen-p2p", anyPort)
		whispered(t, dir, ix.P2P, ix.Find)
	})
	t.Run("assigner", func(t *testing.T) {
		t.Parallel()
		p := startPool(t, workDir(t), 2, "--listen-p2p", anyPort)
		whispered(t, p.dir, p.gossip, p.frontend)
	})
}

// whispered publishes by gossip to the peer at addrs, twice, and finds the
// content at find.
func whispered(t *testing.T, dir string, addrs []string, find string) {
	t.Helper()
	if len(addrs) == 0 {
		t.Fatal("the ready line has no p2p address")
	}
	for n := range 2 {
		path := writeTree(t, dir, n)
		pub := spawn(t, dir, filepath.Base(path), publishArgs(filepath.Join(dir, "publisher"), anyPort, "none", find,
			"--gossip-peer", addrs[0], path)...)
		pub.event("indexed")
		if e := pub.events("announced"); len(e) != 1 || e[0]["to"] != "gossip" {
			t.Errorf("announced %v, want once, to gossip", e)
		}
		rootIsFound(t, find, pub.event("added"))
		pub.stop()
	}
}

// writeTree makes a small directory to publish, another for each n.
func writeTree(t testing.TB, dir string, n int) string {
	t.Helper()
	path := filepath.Join(dir, "tree-"+string(rune('a'+n)))
	if err := os.MkdirAll(filepath.Join(path, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one.txt", "two.txt", "sub/three.txt"} {
		if err := os.WriteFile(filepath.Join(path, name), []byte(path+name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// rootIsFound: the root of what an added event tells of has one holder.
func rootIsFound(t testing.TB, base string, added map[string]any) {
	t.Helper()
	root, err := cid.Decode(added["roots"].([]any)[0].(string))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := findJSON(base, root); err != nil || len(got) != 1 {
		t.Errorf("%s: root %s is held by %q, %v; want one holder", added["path"], root, got, err)
	}
}
