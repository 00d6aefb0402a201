package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/multiformats/go-multihash"
	"golang.org/x/sync/errgroup"

	"github.com/signpost-index/signpost/api/find"
)

// trouble stands between the frontend and an indexer, and is in the way if told so.
type trouble struct {
	url  string
	way  atomic.Pointer[string] // "", "503" or "slow"
	left chan struct{}
}

func inFrontOf(t *testing.T, ix *indexer) *trouble {
	t.Helper()
	u, err := url.Parse(ix.Find)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(u)
	proxy.ErrorLog = log.New(io.Discard, "", 0)
	tr := &trouble{left: make(chan struct{})}
	tr.set("")
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch *tr.way.Load() {
		case "503":
			http.Error(w, "out of order", http.StatusServiceUnavailable)
			return
		case "slow":
			select {
			case <-time.After(2 * time.Second):
			case <-r.Context().Done():
				return
			case <-tr.left:
			}
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	t.Cleanup(func() { close(tr.left) })
	tr.url = srv.URL
	return tr
}

func (tr *trouble) set(way string) { tr.way.Store(&way) }

// poolLine is the line of the indexer behind it.
func (tr *trouble) poolLine(ix *indexer) string {
	return fmt.Sprintf("find=%s ingest=%s admin=%s", tr.url, ix.Ingest, ix.Admin)
}

// TestFaultsHoldUpNobody: of four indexers one hangs, one is killed, one answers
// 503 and one is slow by two seconds, one after the other. Misses take less than
// 300 ms in 99 of 100 cases, nothing known is ever said to be nowhere, batches
// agree, and ten seconds after all is well again answers are whole.
func TestFaultsHoldUpNobody(t *testing.T) {
	t.Parallel()
	// Few lookups are not to be judged by those that find out that one hangs.
	lookups, first := 400, 50
	if os.Getenv("SIGNPOST_SOAK") == "1" {
		lookups, first = 10_000, 0
	}
	dir := workDir(t)
	var ixs []*indexer
	var lines []string
	var troubles []*trouble
	whole := make(index)
	for n := range 4 {
		ix := startIndexer(t, dir, fmt.Sprintf("indexer-%d", n+1))
		c := newChain(t, ix.name+" of four")
		mhs := multihashes(ix.name+" of four", 50)
		whole.with(newHolding(c.id, []byte(ix.name), bitswap), mhs)
		c.add(ix.name, mhs)
		indexedAt(t, ix, c)
		tr := inFrontOf(t, ix)
		ixs, troubles, lines = append(ixs, ix), append(troubles, tr), append(lines, tr.poolLine(ix))
	}
	known := slices.Collect(func(yield func(multihash.Multihash) bool) {
		for mh := range whole {
			if !yield(multihash.Multihash(mh)) {
				return
			}
		}
	})
	whole.with("", multihashes("nobody has it", 20))
	frontend := startFrontend(t, dir, writePoolLines(t, dir, lines...))
	whole.mustFind(t, frontend, "before anything happens")
	for _, fault := range []struct {
		name       string
		begin, end func()
	}{
		{"hangs", func() { ixs[0].hang() }, func() { ixs[0].signal(syscall.SIGCONT) }},
		{"is killed", func() { ixs[1].kill() }, func() { ixs[1].restart() }},
		{"answers 503", func() { troubles[2].set("503") }, func() { troubles[2].set("") }},
		{"is slow", func() { troubles[3].set("slow") }, func() { troubles[3].set("") }},
	} {
		fault.begin()
		manyLookups(t, frontend, known, first)
		p99 := manyLookups(t, frontend, known, lookups)
		t.Logf("one of four %s: 99 of 100 misses take at most %s", fault.name, p99.Round(time.Millisecond))
		if p99 > 300*time.Millisecond {
			t.Errorf("one of four %s: p99 of misses is %s, want at most 300 ms", fault.name, p99)
		}
		if err := batchNeverLies(frontend, known); err != nil {
			t.Errorf("one of four %s: %v", fault.name, err)
		}
		fault.end()
		since := time.Now()
		eventually(t, "whole answers after one that "+fault.name, func() error { return whole.check(frontend) })
		if took := time.Since(since); took > 10*time.Second {
			t.Errorf("answers were whole %s after the one that %s was well", took, fault.name)
		}
	}
}

// manyLookups asks for known and unknown keys, and returns the 99th percentile of
// what the unknown ones took. Nothing known may be said to be nowhere.
func manyLookups(t *testing.T, frontend string, known []multihash.Multihash, n int) time.Duration {
	t.Helper()
	took := make([]time.Duration, n)
	g := new(errgroup.Group)
	g.SetLimit(8)
	for i := range n {
		g.Go(func() error {
			path := "/multihash/" + known[i%len(known)].B58String()
			a, err := get(frontend+path, asJSON)
			if err != nil || a.status == http.StatusNotFound {
				return fmt.Errorf("known %s: %d, %w", path, a.status, err)
			}
			start := time.Now()
			a, err = get(frontend+"/multihash/"+multihashes(fmt.Sprint("unknown ", i), 1)[0].B58String(), asJSON)
			took[i] = time.Since(start)
			if err == nil && a.status != http.StatusServiceUnavailable {
				err = fmt.Errorf("unknown: %d although one is missing", a.status)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	slices.Sort(took)
	if n == 0 {
		return 0
	}
	return took[n*99/100]
}

// batchNeverLies: each key of a batch that is known is found, or undecided.
func batchNeverLies(frontend string, known []multihash.Multihash) error {
	body, err := json.Marshal(struct{ Multihashes []multihash.Multihash }{known})
	if err != nil {
		return err
	}
	req, err := http.NewRequest(http.MethodPost, frontend+"/multihash", bytes.NewReader(body))
	if err != nil {
		return err
	}
	a, err := do(req)
	if err != nil {
		return err
	}
	var answer struct {
		MultihashResults []find.MultihashResult
		Unknown          [][]byte
	}
	if err := json.Unmarshal(a.body, &answer); err != nil {
		return fmt.Errorf("%d %s: %w", a.status, a.body, err)
	}
	if len(answer.MultihashResults) == 0 || len(answer.MultihashResults)+len(answer.Unknown) != len(known) {
		return fmt.Errorf("of %d keys %d were found and %d not decided", len(known), len(answer.MultihashResults), len(answer.Unknown))
	}
	if !strings.Contains(a.header.Get(find.HeaderPartial), "http") {
		return errors.New("the answer does not say who is missing")
	}
	return nil
}
