package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

// TestAssignerRestartKeepsMap: an assigner keeps nothing, so one that was
// killed learns from the indexers who has whom, and nothing moves; nor if another
// takes its place that has nothing of it.
func TestAssignerRestartKeepsMap(t *testing.T) {
	t.Parallel()
	p := startPool(t, workDir(t), 2)
	chains := make([]*chain, 5)
	want := make(index)
	publish := func(c *chain, name string) {
		mhs := multihashes(c.id.String()+name, 10)
		want.with(newHolding(c.id, []byte(name), bitswap), mhs)
		c.add(name, mhs)
		c.announce(p.announce)
	}
	for n := range chains {
		chains[n] = newChain(t, fmt.Sprintf("publisher %d", n))
		publish(chains[n], "before")
		untilDone(t, p.holder(t, chains[n].id).Ingest, chains[n])
	}
	before := p.placements(t)
	for _, ix := range p.indexers {
		if n := len(ix.assigned()); n < 2 {
			t.Errorf("%s has %d of 5 publishers, want 2 or 3", ix.name, n)
		}
	}

	p.assigner.kill()
	p.startAssigner(t, hostport(p.announce))
	newcomer := newChain(t, "newcomer")
	for _, c := range append(chains, newcomer) {
		publish(c, "after")
	}
	for _, c := range append(chains, newcomer) {
		untilDone(t, p.holder(t, c.id).Ingest, c)
	}
	want.mustFind(t, p.frontend, "after the restart of the assigner")
	after := p.placements(t)
	at := after[newcomer.id]
	delete(after, newcomer.id)
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("placements before and after:\n%s", diff)
	}

	// Its machine is lost: another one has no file of it, and another address and key.
	p.assigner.kill()
	if err := os.Remove(filepath.Join(p.dir, "assigner.key")); err != nil {
		t.Fatal(err)
	}
	p.startAssigner(t, anyPort)
	for _, c := range append(chains, newcomer) {
		publish(c, "elsewhere")
	}
	for _, c := range append(chains, newcomer) {
		untilDone(t, p.holder(t, c.id).Ingest, c)
	}
	want.mustFind(t, p.frontend, "with an assigner elsewhere")
	before[newcomer.id] = at
	if diff := cmp.Diff(before, p.placements(t)); diff != "" {
		t.Errorf("placements before and with an assigner elsewhere:\n%s", diff)
	}
}

// placements is which indexer has each publisher.
func (p *pool) placements(t testing.TB) map[peer.ID]string {
	t.Helper()
	out := make(map[peer.ID]string)
	for _, ix := range p.indexers {
		for id := range ix.assigned() {
			out[id] += ix.name
		}
	}
	return out
}

// TestPublishRestartGoesOn: a publisher started again, after a clean end or a
// kill, has the same identity and goes on with the same chain, without an ad
// too many.
func TestPublishRestartGoesOn(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	ix := startIndexer(t, dir, "indexer")
	data, listen := filepath.Join(dir, "publisher"), freeAddr(t)
	ends := []func(*process){(*process).stop, (*process).kill, (*process).stop, (*process).stop}
	paths := []string{writeTree(t, dir, 0), writeTree(t, dir, 1), writeTree(t, dir, 2), writeTree(t, dir, 2)}
	var id string
	var ads []cid.Cid
	var all []map[string]any
	for n, end := range ends {
		pub := spawn(t, dir, fmt.Sprintf("publish-%d", n), publishArgs(data, listen, ix.Ingest, ix.Find, paths[n])...)
		head := parseCID(t, pub.event("indexed")["head"])
		added, serving := pub.event("added"), pub.event("serving")
		if n == 0 {
			id = serving["id"].(string)
		} else if serving["id"] != id {
			t.Errorf("run %d: identity %s, in the first %s", n, serving["id"], id)
		}
		if n == 3 { // nothing new
			if head != ads[2] || added["unchanged"] != true {
				t.Errorf("run %d: head %s, unchanged %v; want still %s", n, head, added["unchanged"], ads[2])
			}
		} else {
			ads = append(ads, head)
			info := peer.AddrInfo{Addrs: []multiaddr.Multiaddr{addrOf(t, "http://"+listen)}}
			if err := info.ID.UnmarshalText([]byte(id)); err != nil {
				t.Fatal(err)
			}
			if prev := fetchAd(t, info, head).PreviousID; n == 0 && prev.Defined() || n > 0 && prev != ads[n-1] {
				t.Errorf("run %d: head %s follows %s, want %v", n, head, prev, ads[:n])
			}
		}
		all = append(all, added)
		for _, a := range all {
			rootIsFound(t, ix.Find, a)
		}
		end(pub)
	}
}

func parseCID(t testing.TB, text any) cid.Cid {
	t.Helper()
	c, err := cid.Decode(fmt.Sprint(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}
