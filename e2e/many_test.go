package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multihash"
	"golang.org/x/sync/errgroup"

	"github.com/signpost-index/signpost/announce"
	"github.com/signpost-index/signpost/api/admin"
	"github.com/signpost-index/signpost/ingest/ipnisync"
	"github.com/signpost-index/signpost/ingest/schema"
)

// handOffWithin is how long it may take to hand off all publishers of a node.
const handOffWithin = time.Minute

// TestManyPublishersHandOffWithinAMinute: a node with thousands of publishers
// freezes, and another, on standby so far, owns all of them, goes on where the
// first has stopped, and has stored nothing again. Ten thousand in the long form.
func TestManyPublishersHandOffWithinAMinute(t *testing.T) {
	t.Parallel()
	n := 1000
	if os.Getenv("SIGNPOST_SOAK") == "1" {
		n = 10_000
	}
	dir := workDir(t)
	p := &pool{dir: dir, indexers: []*indexer{
		startIndexer(t, dir, "freezes", "--assigned-only"), startIndexer(t, dir, "takes-over", "--assigned-only"),
	}}
	from, to := p.indexers[0], p.indexers[1]
	p.file = writePoolLines(t, dir, poolLine(from), poolLine(to)+" standby")
	p.startAssigner(t, anyPort, "--journal", filepath.Join(dir, "journal"))
	p.frontend = startFrontend(t, dir, p.file)
	crowd := newCrowd(t, n)
	began := time.Now()
	crowd.announce(t, p.announce)
	from.untilHas(t, n, func(r admin.PublisherRole) bool { return r.Role == admin.RoleOwner && r.Height == 1 })
	t.Logf("%d publishers were assigned and indexed in %v", n, time.Since(began).Round(time.Millisecond))

	commandOK(t, "freeze", "--admin", from.Admin)
	began = time.Now()
	to.untilHas(t, n, func(r admin.PublisherRole) bool {
		return r.Role == admin.RoleOwner && r.Continued.String() == from.ID && r.Height == 1
	})
	from.untilHas(t, n, func(r admin.PublisherRole) bool { return r.Role == admin.RoleHolder })
	took := time.Since(began)
	t.Logf("%d publishers were handed off in %v", n, took.Round(time.Millisecond))
	if took > handOffWithin {
		t.Errorf("the handoff of %d publishers took %v, want %v at most", n, took, handOffWithin)
	}
	crowd.want.mustFind(t, p.frontend, "after the handoff")
	none := make(index)
	for mh := range crowd.want {
		none[mh] = nil
	}
	none.mustFind(t, to.Find, "at the new owner, which holds nothing")
}

// untilHas waits until the indexer has so many roles of a kind, and no other.
func (ix *indexer) untilHas(t *testing.T, n int, is func(admin.PublisherRole) bool) {
	t.Helper()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(5 * patience); ; <-tick.C {
		roles, good := ix.roles(), 0
		for _, r := range roles {
			if is(r) {
				good++
			}
		}
		if good == n && len(roles) == n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s has %d publishers, %d as they should be; want %d", ix.name, len(roles), good, n)
		}
	}
}

// crowd is many publishers with one ad each, behind one HTTP server.
type crowd struct {
	announces []announce.Announce
	want      index
}

func newCrowd(t *testing.T, n int) *crowd {
	t.Helper()
	mux := http.NewServeMux()
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	base, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	c := &crowd{want: make(index)}
	for i := range n {
		prefix := fmt.Sprintf("/p%d", i)
		mhs := multihashes(prefix, 1)
		mem, head := oneAd(t, "one of many "+prefix, mhs)
		mux.Handle(prefix+"/", http.StripPrefix(prefix, ipnisync.NewHandler(mem)))
		addr, err := ipnisync.FromURL(base.JoinPath(prefix))
		if err != nil {
			t.Fatal(err)
		}
		c.announces = append(c.announces, announce.Announce{Head: head, Publisher: peer.AddrInfo{ID: mem.ID(), Addrs: []multiaddr.Multiaddr{addr}}})
		c.want.with(newHolding(mem.ID(), []byte("only"), bitswap), mhs)
	}
	return c
}

// oneAd is a chain of one ad.
func oneAd(t *testing.T, name string, mhs []multihash.Multihash) (*ipnisync.Memory, cid.Cid) {
	t.Helper()
	key := keyOf(t, name[strings.LastIndex(name, " ")+1:])
	mem := ipnisync.NewMemory(key, announce.DefaultTopic)
	chunk, err := (&schema.EntryChunk{Entries: mhs}).Encode(schema.DagJSON)
	if err != nil {
		t.Fatal(err)
	}
	ad := schema.Advertisement{
		Provider: mem.ID().String(), Addresses: []string{providerAddr},
		Entries: mem.Put(chunk, schema.DagJSON), ContextID: []byte("only"), Metadata: bitswap,
	}
	err = ad.Sign(key)
	block, eerr := ad.Encode(schema.DagJSON)
	if err := errors.Join(err, eerr); err != nil {
		t.Fatal(err)
	}
	head := mem.Put(block, schema.DagJSON)
	if err := mem.SetHead(head); err != nil {
		t.Fatal(err)
	}
	return mem, head
}

func (c *crowd) announce(t *testing.T, url string) {
	t.Helper()
	sender := announce.NewSender(client)
	g := new(errgroup.Group)
	g.SetLimit(workers)
	for _, a := range c.announces {
		g.Go(func() error { return sender.Send(t.Context(), url, a) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}
