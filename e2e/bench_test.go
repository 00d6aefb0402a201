package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/announce"
	"github.com/signpost-index/signpost/api/admin"
	"github.com/signpost-index/signpost/ingest/ipnisync"
	"github.com/signpost-index/signpost/ingest/schema"
)

const (
	benchChunks    = 5
	benchChunkSize = 16_384
	// ticksPerSecond is the unit of CPU times in /proc, the same on every
	// Linux that Go runs on.
	ticksPerSecond = 100
	// benchPoll is how often a bench asks whether all is durable.
	benchPoll = 5 * time.Millisecond
	// quietFor is how long the files must not change for the store to have
	// settled, and settleLimit how long that is waited for.
	quietFor    = 5 * time.Second
	settleLimit = 3 * time.Minute
)

// benchCase is one run of the whole way: chains of the same shape, served from
// the memory of this process with a delay before each answer.
type benchCase struct {
	name       string
	codec      schema.Codec
	publishers int
	ads        int // of each
	chunks     int // of each ad
	per        int // multihashes of each chunk
	delay      time.Duration
	settle     bool // say what is on disk in the end
}

func (b benchCase) entries() int { return b.publishers * b.ads * b.chunks * b.per }

// benchCases are those of issue "Ingest at the speed of the wire".
var benchCases = []benchCase{
	{"a-json", schema.DagJSON, 1, 100, benchChunks, benchChunkSize, 0, true},
	{"a-cbor", schema.DagCBOR, 1, 100, benchChunks, benchChunkSize, 0, true},
	{"b-json-25ms", schema.DagJSON, 1, 60, benchChunks, benchChunkSize, 25 * time.Millisecond, false},
	{"c-json-8-publishers", schema.DagJSON, 8, 25, 2, benchChunkSize, 0, false},
	{"d-tiny-0ms", schema.DagJSON, 1, 5000, 1, 10, 0, false},
	{"d-tiny-5ms", schema.DagJSON, 1, 5000, 1, 10, 5 * time.Millisecond, false},
}

// figures are those of one run.
type figures struct {
	benchCase
	elapsed       time.Duration
	cpu, ownCPU   time.Duration // of the daemon, of publishers and test
	peak          int64         // bytes of memory
	wire          int64         // bytes of entry chunks
	disk, settled int64         // bytes
	roundTrip     time.Duration // of a request to the publisher, delay included
}

// TestBenchWholeWay measures one indexer from the announce to the last ad
// durable, with multihashes that it has not seen before; publishers share the
// machine. Only with SIGNPOST_BENCH=1; SIGNPOST_BENCH_CASES chooses.
func TestBenchWholeWay(t *testing.T) {
	if os.Getenv("SIGNPOST_BENCH") != "1" {
		t.Log("not asked for: SIGNPOST_BENCH=1 is not set")
		return
	}
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Fatalf("the figures come from /proc: %v", err)
	}
	var rows []figures
	for _, b := range benchCases {
		if only := os.Getenv("SIGNPOST_BENCH_CASES"); only == "" || slices.Contains(strings.Split(only, ","), b.name) {
			t.Run(b.name, func(t *testing.T) { rows = append(rows, benchWholeWay(t, b)) })
		}
	}
	var b strings.Builder
	b.WriteString("| case | mhs/s | ads/s | seconds | daemon CPU us/mh | daemon CPU us/ad | publisher CPU s | peak memory MiB | fetched MB | one round trip an ad allows, ads/s | bytes/mh on disk | settled |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, f := range rows {
		n, ads := float64(f.entries()), float64(f.ads*f.publishers)
		disk := "| |"
		if f.settle {
			disk = fmt.Sprintf("%.1f | %.1f |", float64(f.disk)/n, float64(f.settled)/n)
		}
		fmt.Fprintf(&b, "| %s | %.0f | %.0f | %.2f | %.2f | %.0f | %.1f | %d | %d | %.0f | %s\n", f.name,
			n/f.elapsed.Seconds(), ads/f.elapsed.Seconds(), f.elapsed.Seconds(),
			float64(f.cpu.Microseconds())/n, float64(f.cpu.Microseconds())/ads, f.ownCPU.Seconds(),
			f.peak>>20, f.wire/1e6, float64(f.publishers)/f.roundTrip.Seconds(), disk)
	}
	t.Logf("\n%s", b.String())
}

func benchWholeWay(t *testing.T, b benchCase) figures {
	f := figures{benchCase: b}
	var some []multihash.Multihash // to be found in the end
	var chains []*chain
	for p := range b.publishers {
		c := newDelayedChain(t, fmt.Sprintf("bench %s %d", b.name, p), b.delay)
		c.codec = b.codec
		for n := range b.ads {
			name := fmt.Sprintf("bench %s %d %d", b.name, p, n)
			mhs := multihashes(name, b.chunks*b.per)
			some = append(some, mhs[n%len(mhs)])
			links := c.entries(mhs, b.per)
			for _, link := range links {
				block, err := c.mem.Block(t.Context(), link)
				if err != nil {
					t.Fatal(err)
				}
				f.wire += int64(len(block))
			}
			c.push(c.ad(name, links[0]))
		}
		chains = append(chains, c)
	}
	ix := startIndexer(t, workDir(t), "indexer", "--store-memory", "1GiB", "--ingest-memory", "512MiB", "--freeze-at", "-1")
	f.roundTrip = roundTrip(t, chains[0])
	var oldest []cid.Cid
	for _, c := range chains {
		oldest = append(oldest, c.genesis())
	}

	start, cpu, own := time.Now(), cpuTime(t, ix.process), ownCPU(t)
	for _, c := range chains {
		c.announce(ix.Ingest)
	}
	for n, c := range chains {
		untilDurable(t, ix, c, oldest[n])
	}
	f.elapsed, f.cpu, f.ownCPU = time.Since(start), cpuTime(t, ix.process)-cpu, ownCPU(t)-own
	if b.settle {
		f.disk = diskUse(t, ix.dir)
		f.settled, _ = untilSettled(t, ix.dir)
	}
	f.peak = peakMemory(t, ix.process)
	for _, mh := range some {
		if got, err := findJSON(ix.Find, raw(mh)); err != nil || len(got) != 1 {
			t.Fatalf("%s is held by %q, %v", mh.B58String(), got, err)
		}
	}
	return f
}

// genesis is the oldest ad of the chain.
func (c *chain) genesis() cid.Cid {
	c.t.Helper()
	for link := c.head; ; {
		block, err := c.mem.Block(c.t.Context(), link)
		if err != nil {
			c.t.Fatal(err)
		}
		ad, err := schema.DecodeAdvertisement(link, block)
		if err != nil {
			c.t.Fatal(err)
		}
		if !ad.PreviousID.Defined() {
			return link
		}
		link = ad.PreviousID
	}
}

// newDelayedChain is newChain behind a round trip of so long.
func newDelayedChain(t testing.TB, name string, delay time.Duration) *chain {
	t.Helper()
	c := &chain{t: t, key: keyOf(t, name), codec: schema.DagJSON}
	c.mem = ipnisync.NewMemory(c.key, announce.DefaultTopic)
	c.id = c.mem.ID()
	h := ipnisync.NewHandler(c.mem)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if delay > 0 {
			timer := time.NewTimer(delay)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-r.Context().Done():
				return
			}
		}
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	c.addr = addrOf(t, srv.URL)
	return c
}

// roundTrip is how long the publisher takes to answer one request after the
// other for ads, on a warm connection.
func roundTrip(t testing.TB, c *chain) time.Duration {
	t.Helper()
	hc := ipnisync.NewClient(ipnisync.ClientConfig{AllowPrivate: true})
	defer hc.Close()
	pub, err := hc.Publisher(c.announced().Publisher)
	if err != nil {
		t.Fatal(err)
	}
	const times = 100
	var start time.Time
	for n := range times + 1 {
		if n == 1 {
			start = time.Now()
		}
		if _, err := pub.Block(t.Context(), c.head, ipnisync.HintAdvertisement); err != nil {
			t.Fatal(err)
		}
	}
	return time.Since(start) / times
}

// ownCPU is the user and system time of this process.
func ownCPU(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// untilDurable waits for all ads up to the head, however long it takes. It asks
// for the ends of the chain first, which costs the daemon little.
func untilDurable(t *testing.T, ix *indexer, c *chain, oldest cid.Cid) {
	t.Helper()
	for _, ad := range []cid.Cid{oldest, c.head} {
		for {
			st, err := getAdStatus(ix.Ingest, ad)
			if err != nil {
				t.Fatal(err)
			}
			if st.Indexed {
				break
			}
			<-time.After(benchPoll)
		}
	}
	hc, err := admin.NewClient(ix.Admin, client, "")
	if err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(benchPoll)
	defer tick.Stop()
	for {
		p, err := hc.Progress(t.Context(), c.id)
		if err != nil && !errors.Is(err, admin.ErrNotFound) {
			t.Fatal(err)
		}
		if p.Durable == c.head.String() {
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
