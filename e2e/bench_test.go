package e2e

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/api/admin"
	"github.com/signpost-index/signpost/ingest/ipnisync"
	"github.com/signpost-index/signpost/ingest/schema"
)

// What most of the whole-way figures are taken of.
const (
	benchAds       = 100
	benchChunks    = 5
	benchChunkSize = 16_384
)

// benchPoll is how often a bench asks whether all is durable, at least; in a
// long run it asks benchLooks times in the time since it began.
const (
	benchPoll  = 5 * time.Millisecond
	benchLooks = 200
)

// benchCase is one run of the whole way.
type benchCase struct {
	name       string
	publishers int
	ads        int // of each publisher
	chunks     int // of an ad
	size       int // multihashes of a chunk
	delay      time.Duration
	codec      schema.Codec
}

var benchCases = []benchCase{
	{"a-json", 1, benchAds, benchChunks, benchChunkSize, 0, schema.DagJSON},
	{"a-cbor", 1, benchAds, benchChunks, benchChunkSize, 0, schema.DagCBOR},
	{"b-25ms", 1, 60, 5, benchChunkSize, 25 * time.Millisecond, schema.DagJSON},
	{"c-8pubs", 8, 25, 2, benchChunkSize, 0, schema.DagJSON},
	{"d-0ms", 1, 5000, 1, 10, 0, schema.DagJSON},
	{"d-5ms", 1, 5000, 1, 10, 5 * time.Millisecond, schema.DagJSON},
}

func (bc benchCase) mhs() int    { return bc.allAds() * bc.chunks * bc.size }
func (bc benchCase) allAds() int { return bc.publishers * bc.ads }

// benchFigures are those of one run of the whole way.
type benchFigures struct {
	benchCase
	elapsed   time.Duration
	cpu       time.Duration // of the daemon
	publisher time.Duration // CPU of this process, which publishes and asks
	peak      int64         // bytes of the daemon's memory
	wire      int64         // bytes of blocks
	disk      int64         // bytes right after
	roundTrip time.Duration // of one small block, asked for alone, delay included
}

// TestBenchWholeWay measures one indexer from the announce to the last ad
// durable, of multihashes that it has not seen before. The publishers are in
// this process, which shares the machine. Only with SIGNPOST_BENCH=1;
// SIGNPOST_BENCH_CASES names some of the cases, separated by commas.
func TestBenchWholeWay(t *testing.T) {
	if os.Getenv("SIGNPOST_BENCH") != "1" {
		t.Log("not asked for: SIGNPOST_BENCH=1 is not set")
		return
	}
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Fatalf("the figures come from /proc: %v", err)
	}
	var rows []benchFigures
	for _, bc := range benchChosen(t) {
		t.Run(bc.name, func(t *testing.T) {
			f := bc.run(t)
			t.Logf("%.0f mhs/s in %.2f s, round trip %v", f.mhsRate(), f.elapsed.Seconds(), f.roundTrip)
			rows = append(rows, f)
		})
	}
	t.Logf("\n%s", benchTable(rows))
}

// benchChosen are the cases that SIGNPOST_BENCH_CASES names, all without it.
func benchChosen(t *testing.T) []benchCase {
	t.Helper()
	text := os.Getenv("SIGNPOST_BENCH_CASES")
	if text == "" {
		return benchCases
	}
	var chosen []benchCase
	for name := range strings.SplitSeq(text, ",") {
		n := slices.IndexFunc(benchCases, func(bc benchCase) bool { return bc.name == name })
		if n < 0 {
			t.Fatalf("SIGNPOST_BENCH_CASES: no case %q", name)
		}
		chosen = append(chosen, benchCases[n])
	}
	return chosen
}

// run makes the chains, which is not measured, and then has them fetched.
func (bc benchCase) run(t *testing.T) benchFigures {
	f := benchFigures{benchCase: bc}
	chains := make([]*benchChain, bc.publishers)
	for n := range chains {
		chains[n] = bc.chain(t, n)
		f.wire += chains[n].bytes
	}
	f.roundTrip = roundTrip(t, chains[0])
	ix := startIndexer(t, workDir(t), "indexer", "--store-memory", "1GiB", "--ingest-memory", "512MiB", "--freeze-at", "-1")

	start, cpu, own := time.Now(), cpuTime(t, ix.process), ownCPU(t)
	for _, c := range chains {
		c.announce(ix.Ingest)
	}
	for _, c := range chains {
		untilDurable(t, ix, c.chain, c.oldest)
	}
	f.elapsed, f.cpu, f.publisher = time.Since(start), cpuTime(t, ix.process)-cpu, ownCPU(t)-own
	f.disk = diskUse(t, ix.dir)
	f.peak = peakMemory(t, ix.process)
	for _, c := range chains {
		for _, mh := range c.some {
			if got, err := findJSON(ix.Find, raw(mh)); err != nil || len(got) != 1 {
				t.Fatalf("%s is held by %q, %v", mh.B58String(), got, err)
			}
		}
	}
	return f
}

// benchChain is a chain on a wire.
type benchChain struct {
	*chain
	wire   *wire
	oldest cid.Cid
	some   []multihash.Multihash // of all over the chain, to be found in the end
	bytes  int64                 // of all blocks
}

func (bc benchCase) chain(t *testing.T, publisher int) *benchChain {
	c := &benchChain{chain: newChain(t, fmt.Sprintf("bench %s %d", bc.name, publisher))}
	c.codec = bc.codec
	for n := range bc.ads {
		name := fmt.Sprintf("bench %d %d", publisher, n)
		mhs := multihashes(name, bc.chunks*bc.size)
		if n%max(1, bc.ads/benchAds) == 0 {
			c.some = append(c.some, mhs[n%len(mhs)], mhs[len(mhs)-1-n%len(mhs)])
		}
		c.push(c.ad(name, c.entries(mhs, bc.size)[0]))
	}
	c.oldest = c.genesis()
	c.wire = newWire(c.chain, bc.delay).start()
	for _, r := range c.wire.blocks {
		c.bytes += int64(len(r.body))
	}
	return c
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

// untilDurable waits for all ads up to the head, however long it takes, as long
// as it goes on. It asks for the ends of the chain first, which costs the
// daemon little.
func untilDurable(t *testing.T, ix *indexer, c *chain, oldest cid.Cid) {
	t.Helper()
	start := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var last admin.Progress
	moved := start
	for ends := []cid.Cid{oldest, c.head}; ; {
		for len(ends) > 0 && isIndexed(t, ix, ends[0]) {
			ends = ends[1:]
		}
		if len(ends) == 0 || time.Since(moved) > patience {
			p, err := ix.api().Progress(t.Context(), c.id)
			if err != nil && !errors.Is(err, admin.ErrNotFound) {
				t.Fatal(err)
			}
			if p.Durable == c.head.String() {
				return
			}
			if p.Durable != last.Durable || p.Above != last.Above || p.Pending != last.Pending {
				last, moved = p, time.Now()
			}
			if time.Since(moved) > patience {
				t.Fatalf("nothing goes on: %+v; see %s", p, ix.stderr)
			}
		}
		timer.Reset(max(benchPoll, time.Since(start)/benchLooks))
		<-timer.C
	}
}

func isIndexed(t *testing.T, ix *indexer, ad cid.Cid) bool {
	t.Helper()
	st, err := getAdStatus(ix.Ingest, ad)
	if err != nil {
		t.Fatal(err)
	}
	return st.Indexed
}

// roundTrip is the median time from asking for an ad to having it, over one
// connection that stays open and with nothing else to do.
func roundTrip(t *testing.T, c *benchChain) time.Duration {
	t.Helper()
	const times = 101
	u := "http://" + c.wire.ln.Addr().String() + ipnisync.Path + "/" + c.head.String()
	var took []time.Duration
	for range times {
		start := time.Now()
		if a := mustGet(t, u, ""); a.status != 200 {
			t.Fatalf("%s: status %d", u, a.status)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	return took[times/2]
}
