package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/ingest/schema"
)

// What the whole-way figures are taken of.
const (
	benchAds       = 100
	benchChunks    = 5
	benchChunkSize = 16_384
	benchEntries   = benchAds * benchChunks * benchChunkSize
	// ticksPerSecond is the unit of CPU times in /proc, the same on every
	// Linux that Go runs on.
	ticksPerSecond = 100
	// quietFor is how long the files must not change for the store to have
	// settled, and settleLimit how long that is waited for.
	quietFor    = 5 * time.Second
	settleLimit = 3 * time.Minute
)

// figures are those of one run of the whole way.
type figures struct {
	name                 string
	elapsed              time.Duration
	cpu                  time.Duration
	peak                 int64 // bytes of memory
	wire                 int64 // bytes of entry chunks
	disk, settled        int64 // bytes
	settling, settledCPU time.Duration
}

// TestBenchWholeWay measures one indexer from the announce to the last ad
// durable: 8.2 million multihashes that it has not seen before, served from
// the memory of this process, which shares the machine. Only with
// SIGNPOST_BENCH=1.
func TestBenchWholeWay(t *testing.T) {
	if os.Getenv("SIGNPOST_BENCH") != "1" {
		t.Log("not asked for: SIGNPOST_BENCH=1 is not set")
		return
	}
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Fatalf("the figures come from /proc: %v", err)
	}
	var rows []figures
	for _, codec := range []schema.Codec{schema.DagJSON, schema.DagCBOR} {
		t.Run(codec.String(), func(t *testing.T) { rows = append(rows, benchWholeWay(t, codec)) })
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d ads x %d chunks x %d sha2-256 multihashes = %d\n\n", benchAds, benchChunks, benchChunkSize, benchEntries)
	b.WriteString("| codec | mhs/s | seconds | CPU seconds | us CPU/mh | peak memory MiB | MB on the wire | bytes/mh on disk | settled | after s | settling CPU s |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, f := range rows {
		fmt.Fprintf(&b, "| %s | %.0f | %.1f | %.1f | %.2f | %d | %d | %.1f | %.1f | %.0f | %.1f |\n", f.name,
			benchEntries/f.elapsed.Seconds(), f.elapsed.Seconds(), f.cpu.Seconds(), float64(f.cpu.Microseconds())/benchEntries,
			f.peak>>20, f.wire/1e6, float64(f.disk)/benchEntries, float64(f.settled)/benchEntries,
			f.settling.Seconds(), f.settledCPU.Seconds())
	}
	t.Logf("\n%s", b.String())
}

func benchWholeWay(t *testing.T, codec schema.Codec) figures {
	c := newChain(t, "bench "+codec.String())
	c.codec = codec
	f := figures{name: codec.String()}
	var some []multihash.Multihash // of every ad, to be found in the end
	for n := range benchAds {
		mhs := multihashes(fmt.Sprintf("bench %d", n), benchChunks*benchChunkSize)
		some = append(some, mhs[n], mhs[len(mhs)-1-n])
		links := c.entries(mhs, benchChunkSize)
		for _, link := range links {
			block, err := c.mem.Block(t.Context(), link)
			if err != nil {
				t.Fatal(err)
			}
			f.wire += int64(len(block))
		}
		c.push(c.ad(fmt.Sprintf("bench %d", n), links[0]))
	}
	ix := startIndexer(t, workDir(t), "indexer", "--store-memory", "1GiB", "--ingest-memory", "512MiB", "--freeze-at", "-1")

	start, cpu := time.Now(), cpuTime(t, ix.process)
	c.announce(ix.Ingest)
	untilDurable(t, ix, c)
	f.elapsed, f.cpu = time.Since(start), cpuTime(t, ix.process)-cpu
	f.disk = diskUse(t, ix.dir)
	f.settled, f.settling = untilSettled(t, ix.dir)
	f.settledCPU = cpuTime(t, ix.process) - cpu - f.cpu
	f.peak = peakMemory(t, ix.process)
	for _, mh := range some {
		if got, err := findJSON(ix.Find, raw(mh)); err != nil || len(got) != 1 {
			t.Fatalf("%s is held by %q, %v", mh.B58String(), got, err)
		}
	}
	return f
}

// untilDurable waits for the head, however long it takes, as long as there is
// progress.
func untilDurable(t *testing.T, ix *indexer, c *chain) {
	t.Helper()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		st, err := getAdStatus(ix.Ingest, c.head)
		if err != nil {
			t.Fatal(err)
		}
		if st.Indexed {
			return
		}
		<-tick.C
	}
}

// untilSettled waits until the disk use has not changed for a while.
func untilSettled(t *testing.T, dir string) (bytes int64, after time.Duration) {
	t.Helper()
	tick := time.NewTicker(pollEvery * 10)
	defer tick.Stop()
	start := time.Now()
	last, since := diskUse(t, dir), start
	for time.Since(since) < quietFor {
		if time.Since(start) > settleLimit {
			t.Logf("%s has not settled within %v", dir, settleLimit)
			break
		}
		<-tick.C
		if now := diskUse(t, dir); now != last {
			last, since = now, time.Now()
		}
	}
	return last, since.Sub(start)
}

// diskUse is what the files below dir occupy.
func diskUse(t *testing.T, dir string) int64 {
	t.Helper()
	var sum int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return ignoreGone(err)
		}
		info, err := d.Info()
		if err != nil {
			return ignoreGone(err)
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			sum += st.Blocks * 512
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// ignoreGone passes over files that compactions delete under our eyes.
func ignoreGone(err error) error {
	if os.IsNotExist(err) {
		return nil
	}
	return err
}

// cpuTime is the user and system time the process has used.
func cpuTime(t *testing.T, p *process) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	// The name, in parentheses, may contain anything; utime and stime are the
	// 12th and 13th field after it.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	var ticks int64
	for _, text := range fields[11:13] {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / ticksPerSecond
}

// peakMemory is the most memory the process has had resident, bytes.
func peakMemory(t *testing.T, p *process) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(bytes.NewReader(status)); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.Fields(text)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatal("no VmHWM in /proc")
	return 0
}
