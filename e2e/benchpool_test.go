package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/signpost-index/signpost/announce"
	"github.com/signpost-index/signpost/ingest/schema"
)

// What the figures of a pool are taken of.
const (
	poolConns = 8
	// poolMhs is how many multihashes each indexer holds, in ads of poolAd.
	poolMhs = 50_000
	poolAd  = 10_000
	// poolRow is how long a row is measured, after poolWarm that is not.
	poolRow  = 3 * time.Second
	poolWarm = 300 * time.Millisecond
	// poolFirst is how long each target is asked before the first row.
	poolFirst = 2 * time.Second
	// poolUndecided is the share of answers that may be 503 or partial, on a
	// machine that is busy. None may be wrong.
	poolUndecided = 0.01
	// poolAds is how many ads a second an indexer gets that ingests meanwhile.
	poolAds = 5
)

// poolHits are the shares of lookups of what is held.
var poolHits = []float64{1, 0.5, 0}

// poolVariant is a way to run the frontend.
type poolVariant struct {
	name string
	args []string
}

// poolVariants are measured beside each other, over the same indexers. What a
// pool costs is held against one node with the first.
var poolVariants = []poolVariant{
	{"asks everybody, HTTP", []string{"--index-secret", ""}},
	{"filters and lines", nil},
}

// TestBenchPool measures lookups through a frontend, as the pool behind it
// grows: how many a second, how long one takes, and what it costs at all
// indexers together and at the frontend. In the same run one of the indexers is
// asked directly, and a server that has nothing to look up. Of an answer it
// checks what it says; every lookup is of other keys. Only with
// SIGNPOST_BENCH=1; SIGNPOST_BENCH_POOL are the sizes of pools,
// SIGNPOST_BENCH_POOL_MHS what each indexer holds, SIGNPOST_BENCH_POOL_ROW how
// long a row takes.
func TestBenchPool(t *testing.T) {
	if os.Getenv("SIGNPOST_BENCH") != "1" {
		t.Log("not asked for: SIGNPOST_BENCH=1 is not set")
		return
	}
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Fatalf("the figures come from /proc: %v", err)
	}
	mhs, err := strconv.Atoi(envOr("SIGNPOST_BENCH_POOL_MHS", strconv.Itoa(poolMhs)))
	if err != nil || mhs <= 0 {
		t.Fatalf("SIGNPOST_BENCH_POOL_MHS: %d, %v", mhs, err)
	}
	row, err := time.ParseDuration(envOr("SIGNPOST_BENCH_POOL_ROW", poolRow.String()))
	if err != nil || row <= 0 {
		t.Fatalf("SIGNPOST_BENCH_POOL_ROW: %v, %v", row, err)
	}
	var rows []poolFigures
	for text := range strings.SplitSeq(envOr("SIGNPOST_BENCH_POOL", "1,4,16"), ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			t.Fatalf("SIGNPOST_BENCH_POOL: %q is no size of a pool", text)
		}
		t.Run(text, func(t *testing.T) {
			rows = append(rows, startBenchPool(t, n, mhs, row).run()...)
		})
	}
	t.Logf("\n%s\n%s", poolTable(rows), poolRatios(rows))
}

func envOr(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

// benchPool is a pool whose lookups are measured.
type benchPool struct {
	t         *testing.T
	row       time.Duration
	nodes     []*poolNode
	frontends []*process // of the variants
	next      int        // counts ads of ingest, and loads
	reads     int64      // bytes from disks before the first row
}

// poolNode is an indexer and its one publisher.
type poolNode struct {
	*indexer
	chain *chain
	wire  *wire
	stock stock
}

// poolTarget is who is asked.
type poolTarget struct {
	name     string
	addr     string // host:port
	stocks   []stock
	servers  []int // process IDs of those that look up
	frontend *process
	miss     string
}

// startBenchPool starts indexers, has each ingest what others do not have, and
// write it to disk, and starts a frontend of each variant.
func startBenchPool(t *testing.T, n, mhs int, row time.Duration) *benchPool {
	b := &benchPool{t: t, row: row}
	dir := workDir(t)
	var all []*indexer
	for i := range n {
		name := fmt.Sprintf("pool-%d", i+1)
		c := newChain(t, name)
		c.codec = schema.DagCBOR
		nd := &poolNode{chain: c, stock: stock{c.id, multihashes(name, mhs)}}
		for from := 0; from < mhs; from += poolAd {
			c.push(c.ad(fmt.Sprint("before ", from), c.entries(nd.stock.mhs[from:min(mhs, from+poolAd)], benchChunkSize)[0]))
		}
		oldest := c.genesis()
		nd.wire = newWire(c, 0).start()
		nd.indexer = startIndexer(t, dir, name, "--listen-metrics", anyPort, "--index-secret", filepath.Join(dir, "secret"))
		c.announce(nd.Ingest)
		untilDurable(t, nd.indexer, c, oldest)
		commandOK(t, "store", "compact", "--admin", nd.Admin)
		b.nodes, all = append(b.nodes, nd), append(all, nd.indexer)
		b.reads += diskReads(t, nd.process)
	}
	file := writePool(t, dir, all...)
	for i, v := range poolVariants {
		args := append([]string{"frontend", "--listen", anyPort, "--pool", file, "--index-secret", filepath.Join(dir, "secret")}, v.args...)
		b.frontends = append(b.frontends, spawn(t, dir, fmt.Sprintf("frontend-%d", i+1), args...))
	}
	return b
}

// run measures all rows.
func (b *benchPool) run() (rows []poolFigures) {
	pools := b.pools()
	quiet := append([]poolTarget{b.static(), b.direct()}, pools...)
	for _, target := range quiet {
		b.ask(target, 0.5, poolFirst, nil)
	}
	for _, hits := range poolHits {
		for _, target := range quiet {
			rows = append(rows, b.measure(target, hits, nil, 0))
		}
	}
	busy := b.nodes[:(len(b.nodes)+1)/2]
	for _, hits := range poolHits {
		perMh := b.ingestCPU(busy)
		for _, target := range pools {
			rows = append(rows, b.measure(target, hits, busy, perMh))
		}
	}
	b.newIsFound(busy)
	read := -b.reads
	for _, nd := range b.nodes {
		read += diskReads(b.t, nd.process)
	}
	b.t.Logf("%d indexers have read %d bytes from disks in all rows; files are in the page cache", len(b.nodes), read)
	return rows
}

func (b *benchPool) pools() (out []poolTarget) {
	all := poolTarget{}
	for _, nd := range b.nodes {
		all.stocks = append(all.stocks, nd.stock)
		all.servers = append(all.servers, nd.cmd.Process.Pid)
	}
	for i, v := range poolVariants {
		all.name, all.frontend = v.name, b.frontends[i]
		all.addr = hostport(all.frontend.ready().HTTP)
		out = append(out, all)
	}
	return out
}

func (b *benchPool) direct() poolTarget {
	nd := b.nodes[0]
	return poolTarget{name: rowDirect, addr: hostport(nd.Find), stocks: []stock{nd.stock}, servers: []int{nd.cmd.Process.Pid}}
}

// static gives what the first indexer answers.
func (b *benchPool) static() poolTarget {
	nd := b.nodes[0]
	ask := func(seed string, status int, key []byte) staticAnswer {
		a := mustGet(b.t, nd.Find+"/cid/"+raw(key).String(), asJSON)
		if a.status != status {
			b.t.Fatalf("%s: status %d, want %d", seed, a.status, status)
		}
		return asStatic(a)
	}
	addr, pid := startStatic(b.t, staticAnswers{
		Hit:  ask("held", http.StatusOK, nd.stock.mhs[0]),
		Miss: ask("not held", http.StatusNotFound, multihashes("nobody has a static one", 1)[0]),
	})
	return poolTarget{name: rowStatic, addr: addr, stocks: []stock{nd.stock}, servers: []int{pid}, miss: staticMiss}
}

// ask asks a target for a while, with some of the nodes getting ads meanwhile.
func (b *benchPool) ask(target poolTarget, hits float64, during time.Duration, busy []*poolNode) (f loadFigures) {
	b.t.Helper()
	b.next++
	l := load{
		addr: target.addr, conns: poolConns, hits: hits, stocks: target.stocks, miss: target.miss,
		seed: fmt.Sprint(len(b.nodes), " ", b.next),
	}
	b.publishWhile(busy, func() (err error) {
		f, err = l.run(during)
		return err
	})
	return f
}

// measure gives one row. perMh is the CPU of the nodes for a multihash they
// ingest, which is taken off theirs.
func (b *benchPool) measure(target poolTarget, hits float64, busy []*poolNode, perMh time.Duration) poolFigures {
	b.t.Helper()
	b.ask(target, hits, poolWarm, busy)
	f := poolFigures{name: target.name, nodes: len(b.nodes), hits: hits, busy: len(busy)}
	asked, stored, puts := b.counts()
	servers, frontend, own := b.used(target)
	f.loadFigures = b.ask(target, hits, b.row, busy)
	servers2, frontend2, own2 := b.used(target)
	asked2, stored2, puts2 := b.counts()
	f.asked, f.stored, f.puts = asked2-asked, stored2-stored, puts2-puts
	f.servers, f.frontend, f.own = servers2-servers-time.Duration(float64(perMh)*f.puts), frontend2-frontend, own2-own
	if target.frontend != nil {
		f.memory = peakMemory(b.t, target.frontend)
	}
	b.t.Logf("%s", f)
	if float64(f.undecided) > poolUndecided*float64(len(f.took)) {
		b.t.Errorf("%d of %d answers were 503 or partial", f.undecided, len(f.took))
	}
	return f
}

// used is the CPU time used so far, and that of this process.
func (b *benchPool) used(target poolTarget) (servers, frontend, own time.Duration) {
	for _, pid := range target.servers {
		servers += cpuOf(b.t, pid)
	}
	if target.frontend != nil {
		frontend = cpuTime(b.t, target.frontend)
	}
	return servers, frontend, ownCPU(b.t)
}

// counts are what all indexers count: find requests of any form, multihashes
// looked up in their stores, and multihashes put.
func (b *benchPool) counts() (asked, stored, puts float64) {
	b.t.Helper()
	for _, nd := range b.nodes {
		a := mustGet(b.t, nd.Metrics+"/metrics", "")
		for _, endpoint := range []string{"cid", "multihash", "line", "cid-batch", "multihash-batch"} {
			asked += metric(b.t, a.body, `signpost_find_request_seconds_count{endpoint="`+endpoint+`"}`)
		}
		stored += metric(b.t, a.body, `signpost_store_finds_total`)
		puts += metric(b.t, a.body, `signpost_store_puts_total`)
	}
	return asked, stored, puts
}

// metric is the sum of the series whose line begins with this name.
func metric(t *testing.T, page []byte, name string) (sum float64) {
	t.Helper()
	for lines := bufio.NewScanner(bytes.NewReader(page)); lines.Scan(); {
		line, ok := strings.CutPrefix(lines.Text(), name)
		if !ok {
			continue
		}
		v, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
		if err != nil {
			t.Fatalf("metric %s: %v", lines.Text(), err)
		}
		sum += v
	}
	return sum
}

// ingestCPU is the CPU time of all nodes for a multihash that some of them
// ingest, without lookups.
func (b *benchPool) ingestCPU(busy []*poolNode) time.Duration {
	b.t.Helper()
	wait := func(during time.Duration) {
		b.publishWhile(busy, func() error {
			<-time.After(during)
			return nil
		})
	}
	all := b.pools()[0]
	wait(poolWarm)
	_, _, puts := b.counts()
	before, _, _ := b.used(all)
	wait(b.row)
	after, _, _ := b.used(all)
	_, _, puts2 := b.counts()
	if puts2 == puts {
		b.t.Fatal("nothing was ingested")
	}
	b.t.Logf("ingest alone: %.0f multihashes/s, %.1f ms of CPU a second at all indexers",
		(puts2-puts)/b.row.Seconds(), 1000*(after-before).Seconds()/b.row.Seconds())
	return time.Duration(float64(after-before) / (puts2 - puts))
}

// publishWhile has the publishers of some nodes publish new multihashes, one ad
// after the other, until work is done, which is on a goroutine of its own.
func (b *benchPool) publishWhile(busy []*poolNode, work func() error) {
	b.t.Helper()
	done := make(chan error, 1)
	go func() { done <- work() }()
	var due <-chan time.Time
	if len(busy) > 0 {
		tick := time.NewTicker(time.Second / poolAds / time.Duration(len(busy)))
		defer tick.Stop()
		due = tick.C
	}
	sender := announce.NewSender(client)
	for {
		select {
		case err := <-done:
			if err != nil {
				b.t.Fatal(err)
			}
			return
		case <-due:
			b.next++
			nd, name := busy[b.next%len(busy)], fmt.Sprint("meanwhile ", b.next)
			nd.chain.push(nd.chain.ad(name, nd.chain.entries(multihashes(name, poolAd), benchChunkSize)[0]))
			nd.wire.publish(nd.chain)
			if err := sender.Send(b.t.Context(), nd.Ingest, nd.chain.announced()); err != nil {
				b.t.Fatal(err)
			}
		}
	}
}

// newIsFound: what came last is found through every frontend at once.
func (b *benchPool) newIsFound(busy []*poolNode) {
	b.t.Helper()
	for _, nd := range busy {
		name := filepath.Base(nd.dir) + " last"
		mhs := multihashes(name, 10)
		head := nd.chain.add(name, mhs)
		nd.wire.publish(nd.chain)
		nd.chain.announce(nd.Ingest)
		untilIndexed(b.t, nd.Ingest, head)
		want := make(index).with(newHolding(nd.chain.id, []byte(name), bitswap), mhs)
		for _, p := range b.pools() {
			want.mustFind(b.t, "http://"+p.addr, "after ingest, "+p.name)
		}
	}
}
