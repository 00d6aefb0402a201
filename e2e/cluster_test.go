package e2e

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
)

const anyPort = "127.0.0.1:0"

// client is the HTTP client of the tests: no proxy, and as many connections
// kept as there are workers asking.
var client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}, Timeout: patience}

// indexer is a signpost indexer process.
type indexer struct {
	*process
	readyLine
	dir   string
	extra []string
}

// startIndexer starts an indexer on any ports; flags are added to its own.
func startIndexer(t testing.TB, dir, name string, flags ...string) *indexer {
	t.Helper()
	ix := &indexer{dir: filepath.Join(dir, name), extra: flags}
	ix.process = spawn(t, dir, name, ix.flags(anyPort, anyPort, anyPort)...)
	ix.readyLine = ix.ready()
	return ix
}

func (ix *indexer) flags(find, ingest, admin string) []string {
	return append([]string{
		"indexer", "--data", ix.dir, "--listen-find", find, "--listen-ingest", ingest, "--listen-admin", admin,
		"--allow-private", "--listen-p2p", "none",
		"--store-memory", "128MiB", "--ingest-memory", "128MiB",
	}, ix.extra...) // a flag given again wins
}

// restart starts a dead indexer again, at the ports it had.
func (ix *indexer) restart() {
	ix.t.Helper()
	before := ix.readyLine
	ix.args = ix.flags(hostport(before.Find), hostport(before.Ingest), hostport(before.Admin))
	ix.launch()
	ix.readyLine = ix.ready()
	if ix.ID != before.ID {
		ix.t.Errorf("%s: identity %s after a restart, was %s", ix.name, ix.ID, before.ID)
	}
}

// api is the admin client of the indexer.
func (ix *indexer) api() *admin.Client {
	ix.t.Helper()
	c, err := admin.NewClient(ix.Admin, client, "")
	if err != nil {
		ix.t.Fatal(err)
	}
	return c
}

// assigned is what the indexer says is assigned to it.
func (ix *indexer) assigned() map[peer.ID]admin.Assignment {
	ix.t.Helper()
	list, err := ix.api().Assigned(ix.t.Context())
	if err != nil {
		ix.t.Fatal(err)
	}
	out := make(map[peer.ID]admin.Assignment)
	for _, a := range list {
		out[a.Publisher] = a
	}
	return out
}

func hostport(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return rawURL
	}
	return u.Host
}

// pool is a whole pool: indexers, an assigner and a frontend.
type pool struct {
	dir      string
	file     string
	indexers []*indexer
	assigner *process
	announce string // URL of the assigner
	admin    string // URL of its admin API
	frontend string // URL of the frontend
	gossip   []string
	flags    []string // of the assigner, besides its own
}

// startPool starts a pool of n indexers; flags are added to the assigner's.
func startPool(t testing.TB, dir string, n int, flags ...string) *pool {
	t.Helper()
	p := &pool{dir: dir}
	for i := range n {
		p.indexers = append(p.indexers, startIndexer(t, dir, fmt.Sprintf("indexer-%d", i+1), "--assigned-only"))
	}
	p.file = writePool(t, dir, p.indexers...)
	p.startAssigner(t, anyPort, flags...)
	p.frontend = startFrontend(t, dir, p.file)
	return p
}

func (p *pool) startAssigner(t testing.TB, listen string, flags ...string) {
	t.Helper()
	p.flags = flags
	args := append([]string{
		"assigner", "--listen", listen, "--pool", p.file, "--poll-interval", "200ms",
		"--identity", filepath.Join(p.dir, "assigner.key"), "--listen-p2p", "none", "--listen-admin", anyPort,
	}, flags...)
	p.assigner = spawn(t, p.dir, "assigner", args...)
	r := p.assigner.ready()
	p.announce, p.admin, p.gossip = r.HTTP, r.Admin, r.P2P
}

// restartAssigner starts an assigner that was killed again, where it was.
func (p *pool) restartAssigner(t testing.TB) {
	t.Helper()
	p.startAssigner(t, hostport(p.announce), p.flags...)
}

func startFrontend(t testing.TB, dir, poolFile string) string {
	t.Helper()
	return spawn(t, dir, "frontend", "frontend", "--listen", anyPort, "--pool", poolFile).ready().HTTP
}

// writePool writes the pool file of these indexers.
func writePool(t testing.TB, dir string, indexers ...*indexer) string {
	t.Helper()
	var lines []string
	for _, ix := range indexers {
		lines = append(lines, poolLine(ix))
	}
	return writePoolLines(t, dir, lines...)
}

// poolLine is the line of an indexer in a pool file.
func poolLine(ix *indexer) string {
	return fmt.Sprintf("find=%s ingest=%s admin=%s", ix.Find, ix.Ingest, ix.Admin)
}

func writePoolLines(t testing.TB, dir string, lines ...string) string {
	t.Helper()
	file := filepath.Join(dir, "pool.txt")
	text := "# made by a test\n" + strings.Join(lines, "\n") + "\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// freeAddr is a loopback address that was free a moment ago, for a process
// that has to come back at the same place.
func freeAddr(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", anyPort)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// publishArgs are the flags of a publisher that keeps its place.
func publishArgs(dir, listen, announce, find string, more ...string) []string {
	return append([]string{
		"publish", "--data", dir, "--listen", listen, "--announce", announce, "--find", find, "--json",
	}, more...)
}
