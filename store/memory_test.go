package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

	"github.com/multiformats/go-multihash"
)

func TestMemoryIsDividedWithoutRest(t *testing.T) {
	for _, bytes := range []int64{minMemoryBytes, 64 << 20, DefaultMemoryBytes, 1<<40 + 7} {
		m := memoryOf(bytes)
		if m.work+m.rows+m.postings != bytes || m.work < 4<<20 || m.rows < 3<<20 || m.postings < 9<<20 {
			t.Errorf("%d bytes are divided into %+v", bytes, m)
		}
		if off := OffHeapBytes(bytes); off <= 0 || off >= bytes-m.work {
			t.Errorf("%d of %d bytes are off the heap", off, bytes)
		}
	}
	if OffHeapBytes(0) != OffHeapBytes(DefaultMemoryBytes) {
		t.Error("no memory given is not the default")
	}
}

const (
	// memoryChild is the environment variable that makes of this test binary the
	// process of TestMemoryStaysWithinItsBound: the directory of its store.
	memoryChild = "SIGNPOST_TEST_MEMORY_DIR"

	memoryGiven = 64 << 20
	// memorySlack is what the runtime and the child itself need above what a
	// process has when the test begins: garbage and stacks, a chunk of
	// multihashes, scratch of the writer, and memoryUnused that C's malloc has
	// and cannot use.
	memorySlack  = 20 << 20
	memoryUnused = 8 << 20
)

// TestMemoryStaysWithinItsBound has a process of its own put 6 million
// multihashes and 20,000 small records into a store on disk with 64 MiB: it
// flushes, splits, compacts, removes and looks up.
func TestMemoryStaysWithinItsBound(t *testing.T) {
	if dir := os.Getenv(memoryChild); dir != "" {
		useMemory(t, dir)
		return
	}
	if raceEnabled {
		t.Skip("the race detector takes memory of its own")
	}
	if _, err := os.Stat("/proc/self/status"); err != nil {
		t.Skipf("no /proc: %v", err)
	}
	n := 6_000_000
	if testing.Short() {
		n = 3_000_000
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), memoryChild+"="+t.TempDir(), "N="+strconv.Itoa(n),
		"MALLOC_ARENA_MAX=2") // as cmd/signpost does
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}

func useMemory(t *testing.T, dir string) {
	n, err := strconv.Atoi(os.Getenv("N"))
	if err != nil {
		t.Fatal(err)
	}
	before := int64(peakBytes())
	// As cmd/signpost does.
	debug.SetMemoryLimit(memoryGiven - OffHeapBytes(memoryGiven) + memorySlack - memoryUnused)
	s, err := Open(Config{Dir: dir, MemoryBytes: memoryGiven, ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	c, rng := newChain("pub", "prov"), rand.New(rand.NewPCG(1, 2))
	mhs := make([]multihash.Multihash, 16384)
	for i := range mhs {
		mhs[i] = testMH(0)
	}
	another := func(mhs []multihash.Multihash) []multihash.Multihash {
		for _, mh := range mhs {
			for k := 2; k < len(mh); k += 8 {
				binary.LittleEndian.PutUint64(mh[k:], rng.Uint64())
			}
		}
		return mhs
	}
	find := func(mhs []multihash.Multihash, want int) {
		t.Helper()
		for _, mh := range mhs {
			if got, err := s.Find(mh); err != nil || len(got) != want {
				t.Fatalf("found %v %v, want %d", got, err, want)
			}
		}
	}
	told := func(what string) {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		t.Logf("%s: peak %d MiB above the %d at the start, of which Go has %d", what, (int64(peakBytes())-before)>>20, before>>20, (m.Sys-m.HeapReleased)>>20)
	}
	small := n / 300
	for put, k := 0, 0; put < n; k++ {
		w, err := s.Begin(c.ad(fmt.Sprintf("large %d", k), "m"))
		if err != nil {
			t.Fatal(err)
		}
		for range 5 {
			if err := w.Put(another(mhs)); err != nil {
				t.Fatal(err)
			}
			put += len(mhs)
		}
		if _, err := w.Commit(content); err != nil {
			t.Fatal(err)
		}
		find(mhs[:200], 1)
		for i := range small * 5 * len(mhs) / n {
			write(t, s, c.ad(fmt.Sprintf("small %d %d", k, i), strings.Repeat("metadata", 10)), content, another(mhs[:10])...)
			find(mhs[:1], 1)
		}
	}
	told("put")
	if err := errors.Join(s.Sync(), s.tidyLog(t.Context(), true)); err != nil {
		t.Fatal(err)
	}
	for k := 0; k*5*len(mhs) < n; k += 2 {
		write(t, s, c.ad(fmt.Sprintf("large %d", k), "m"), removal)
	}
	if err := s.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	told("half removed, compacted")
	find(another(mhs), 0)
	told("looked up")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if peak := int64(peakBytes()) - before; peak > memoryGiven+memorySlack {
		t.Errorf("%d MiB above the start, given %d", peak>>20, memoryGiven>>20)
	}
}
