package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/api/find"
)

// TestReplicaMakesUpForAFrozenIndexer: with two copies of everything, answers stay
// whole while a frozen indexer is gone, hits and misses. But only for ten
// seconds: after that nobody says any more what it holds, and a miss is
// undecided; of one that takes new content it is so at once.
func TestReplicaMakesUpForAFrozenIndexer(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	p := startPool(t, dir, 2, "--replication", "2")
	fe := spawn(t, dir, "frontend-2", "frontend", "--listen", anyPort, "--pool", p.file, "--listen-metrics", anyPort).ready()
	b := newLedger(t, "two copies")
	for range 3 {
		b.publish(20)
	}
	b.announce(p.announce)
	for _, ix := range p.indexers {
		eventually(t, ix.name+" owns it", func() error {
			c, err := ix.coverage()
			if err == nil && len(c.Publishers) != 1 {
				err = fmt.Errorf("%d publishers", len(c.Publishers))
			}
			return err
		})
		untilDone(t, ix.Ingest, b.chain)
	}
	commandOK(t, "freeze", "--admin", p.indexers[0].Admin)
	eventually(t, "the frontend knows that there are two copies", func() error {
		a, err := get(fe.Metrics+"/metrics", "")
		if err == nil && !strings.Contains(string(a.body), "signpost_fanout_spare_backends 1") {
			err = errors.New("it does not")
		}
		return err
	})
	unknown := multihashes("nobody has a copy", 1)[0]
	p.indexers[0].kill()
	b.want.mustFind(t, fe.HTTP, "with one of two indexers")
	if err := miss(fe.HTTP, unknown, http.StatusNotFound, ""); err != nil {
		t.Error(err)
	}
	killed := time.Now()
	eventually(t, "a miss is undecided", func() error {
		return miss(fe.HTTP, unknown, http.StatusServiceUnavailable, p.indexers[0].Find)
	})
	if took := time.Since(killed); took < 5*time.Second || took > 12*time.Second {
		t.Errorf("what a killed indexer said stood for %s", took)
	}
	p.indexers[0].restart()
	eventually(t, "a miss is a miss again", func() error { return miss(fe.HTTP, unknown, http.StatusNotFound, "") })
	p.indexers[1].kill()
	if err := miss(fe.HTTP, unknown, http.StatusServiceUnavailable, p.indexers[1].Find); err != nil {
		t.Errorf("the other one, which takes new content: %v", err)
	}
}

// miss asks for what nobody has, and reports nil if the answer is as it should be.
func miss(base string, mh multihash.Multihash, status int, missing string) error {
	a, err := get(base+"/multihash/"+mh.B58String(), asJSON)
	if err == nil && (a.status != status || !strings.Contains(a.header.Get(find.HeaderPartial), missing) || missing == "" && a.header.Get(find.HeaderPartial) != "") {
		err = fmt.Errorf("%d, missing %q; want %d, missing %q", a.status, a.header.Get(find.HeaderPartial), status, missing)
	}
	return err
}
