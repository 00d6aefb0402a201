package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// TestDevDemo: the README's command publishes a real directory into a whole
// pool in one process, finds and fetches it again and ends; and again on what
// the first run left, and again for another directory.
func TestDevDemo(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	src := librarySource(t)
	var ids []string
	for n, path := range []string{filepath.Join(src, "net"), filepath.Join(src, "net"), filepath.Join(src, "fmt")} {
		dev := spawn(t, dir, fmt.Sprintf("dev-%d", n), "dev", "--data", filepath.Join(dir, "data"),
			"--listen", anyPort, "--listen-announce", anyPort, "--listen-p2p", "none", "--demo", path, "--exit")
		r := dev.ready()
		checkDevReady(t, r)
		dev.succeeds()
		if lines := dev.lines.all(); len(lines) != 1 {
			t.Errorf("run %d: %d lines on stdout, want the ready line alone", n, len(lines))
		}
		ids = append(ids, r.ID+" "+r.Indexers[0].ID+" "+r.Indexers[1].ID)
		if ids[n] != ids[0] {
			t.Errorf("run %d: identities %s, in the first run %s", n, ids[n], ids[0])
		}
		for _, step := range []string{"publish", "announce", "index", "find", "fetch", "verified"} {
			if log := dev.log(); !strings.Contains(log, step) {
				t.Errorf("run %d does not tell of step %q:\n%s", n, step, log)
			}
		}
	}
}

// checkDevReady: the ready line of dev has the whole pool in it.
func checkDevReady(t *testing.T, r readyLine) {
	t.Helper()
	if len(r.Indexers) != 2 || r.Assigner == nil || r.Frontend == nil {
		t.Fatalf("ready line lacks a part: %+v", r)
	}
	for _, ix := range r.Indexers {
		if !ix.Ready || ix.ID == "" || ix.Find == "" || ix.Ingest == "" || ix.Admin == "" {
			t.Errorf("indexer in the ready line: %+v", ix)
		}
	}
	if r.Assigner.Page != r.Assigner.Admin+"/" {
		t.Errorf("the pool's page is at %q", r.Assigner.Page)
	}
	for _, part := range []*readyLine{r.Assigner, r.Frontend} {
		if !part.Ready || part.ID == "" || part.HTTP == "" {
			t.Errorf("part in the ready line: %+v", *part)
		}
	}
}
