package e2e

import (
	"fmt"
	"os"
	"strconv"
	"testing"

	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/ingest/schema"
)

const (
	memoryAds   = 40
	memoryStore = 64 << 20 // the least there is
	memoryFetch = 32 << 20 // likewise
	// memoryProcess is what doc/operations.md says a process needs besides.
	memoryProcess = 128 << 20
)

// TestMemoryStaysWithinWhatWasGiven has an indexer with the least memory take
// in 3.3 million multihashes, in both encodings, with lookups meanwhile.
func TestMemoryStaysWithinWhatWasGiven(t *testing.T) {
	if _, err := os.Stat("/proc/self/status"); err != nil {
		t.Fatalf("the peak comes from /proc: %v", err)
	}
	c := newChain(t, "memory")
	var some []multihash.Multihash
	for n := range memoryAds {
		if n == memoryAds/2 {
			c.codec = schema.DagCBOR
		}
		mhs := multihashes(fmt.Sprintf("memory %d", n), benchChunks*benchChunkSize)
		some = append(some, mhs[n*1000:n*1000+50]...)
		c.push(c.ad(fmt.Sprintf("memory %d", n), c.entries(mhs, benchChunkSize)[0]))
	}
	ix := startIndexer(t, workDir(t), "indexer", "--freeze-at", "-1",
		"--store-memory", strconv.Itoa(memoryStore), "--ingest-memory", strconv.Itoa(memoryFetch))
	c.announce(ix.Ingest)
	untilDurable(t, ix, c, c.genesis())
	for _, mh := range some {
		if got, err := findJSON(ix.Find, raw(mh)); err != nil || len(got) != 1 {
			t.Fatalf("%s is held by %q, %v", mh.B58String(), got, err)
		}
	}
	withinMemory(t, ix)
}
