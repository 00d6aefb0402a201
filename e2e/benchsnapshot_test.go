package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestBenchSnapshot measures a snapshot to a directory, one after nothing
// changed, and restoring it, beside cp -r and sync of the same store in the same
// run. Only with SIGNPOST_BENCH=1. How fast the disk is shows cp.
func TestBenchSnapshot(t *testing.T) {
	if os.Getenv("SIGNPOST_BENCH") != "1" {
		t.Log("not asked for: SIGNPOST_BENCH=1 is not set")
		return
	}
	dir := workDir(t)
	chain := benchCase{"snapshot", 1, 120, benchChunks, benchChunkSize, 0, benchCases[0].codec}.chain(t, 0)
	ix := startIndexer(t, dir, "indexer", "--store-memory", "512MiB")
	chain.announce(ix.Ingest)
	untilDone(t, ix.Ingest, chain.chain)
	commandOK(t, "store", "compact", "--admin", ix.Admin)
	place := filepath.Join(dir, "place")
	first := takeSnapshot(t, ix, place)
	again := takeSnapshot(t, ix, place)
	ix.stop()
	rate := func(bytes int64, seconds float64) float64 { return float64(bytes) / seconds / 1e6 }
	copied := func(from, to string) float64 {
		start := time.Now()
		if out, err := exec.Command("cp", "-r", from, to).CombinedOutput(); err != nil {
			t.Fatalf("cp: %v\n%s", err, out)
		}
		if out, err := exec.Command("sync", "-f", to).CombinedOutput(); err != nil {
			t.Fatalf("sync: %v\n%s", err, out)
		}
		return time.Since(start).Seconds()
	}
	cp := copied(filepath.Join(ix.dir, "store"), filepath.Join(dir, "cp"))
	var restored snapshotTaken
	out := commandOK(t, "restore", place, "--data", filepath.Join(dir, "restored"), "--index-secret", filepath.Join(ix.dir, "index-secret"), "--json").stdout
	if err := json.Unmarshal([]byte(out), &restored); err != nil {
		t.Fatal(err)
	}
	cp2 := copied(filepath.Join(dir, "restored", "store"), filepath.Join(dir, "cp2"))
	t.Logf("\n| of %d MB in %d files | MB/s | s |\n|---|---|---|\n| snapshot | %.0f | %.2f |\n| again, %d bytes new | | %.2f |\n| cp -r and sync | %.0f | %.2f |\n"+
		"| restore | %.0f | %.2f |\n| cp -r and sync | %.0f | %.2f |",
		first.Bytes/1e6, first.Files, rate(first.CopiedBytes, first.Seconds), first.Seconds, again.CopiedBytes, again.Seconds,
		rate(first.Bytes, cp), cp, rate(restored.Bytes, restored.Seconds), restored.Seconds, rate(restored.Bytes, cp2), cp2)
}
