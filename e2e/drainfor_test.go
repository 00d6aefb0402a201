package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/signpost-index/signpost/api/find"
)

const (
	drainFor       = 2 * time.Second
	drainClients   = 8
	drainLookups   = 500 // before, between and after what happens
	balancerChecks = 100 * time.Millisecond
)

// TestAFrontendIsReplacedWithoutAFailedLookup: behind a balancer that only looks at
// /health now and then, each of two frontends is stopped and started again under
// lookups, and not one of them fails.
func TestAFrontendIsReplacedWithoutAFailedLookup(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	ix := startIndexer(t, dir, "indexer")
	c := newChain(t, "balanced")
	mhs := multihashes("balanced", 100)
	c.add("balanced", mhs)
	c.announce(ix.Ingest)
	untilDone(t, ix.Ingest, c)
	file := writePool(t, dir, ix)
	var frontends []*process
	var urls []string
	for n := range 2 {
		p := spawn(t, dir, fmt.Sprint("frontend-", n), "frontend", "--listen", freeAddr(t), "--pool", file, "--drain-for", drainFor.String())
		frontends, urls = append(frontends, p), append(urls, p.ready().HTTP)
	}
	b := newBalancer(t, urls...)
	b.until(t, 2)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	load := new(errgroup.Group)
	for n := range drainClients {
		load.Go(func() error {
			for at := n; ctx.Err() == nil; at++ {
				if err := b.lookUp(mhs[at%len(mhs)].B58String(), raw(mhs[at%len(mhs)]).String()); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for n, p := range frontends {
		b.more(t, drainLookups)
		last := b.last.Load()
		began := time.Now()
		p.signal(syscall.SIGTERM)
		untilShuttingDown(t, urls[n])
		p.succeeds()
		if took := time.Since(began); took < drainFor {
			t.Errorf("it has gone after %v, before the %v it had for its clients", took, drainFor)
		}
		if b.last.Load() == last {
			t.Error("no lookup was answered while it was draining: this test tests nothing")
		}
		b.more(t, drainLookups)
		p.launch()
		p.ready()
		b.until(t, 2)
	}
	b.more(t, drainLookups)
	cancel()
	if err := load.Wait(); err != nil {
		t.Error(err)
	}
	t.Logf("%d lookups, of which %d told their client to leave; none failed", b.answered.Load(), b.last.Load())
}

// TestASecondSignalEndsTheDrain, of an indexer and of a frontend.
func TestASecondSignalEndsTheDrain(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	ix := startIndexer(t, dir, "indexer", "--drain-for", "1h")
	fe := spawn(t, dir, "frontend", "frontend", "--listen", anyPort, "--pool", writePool(t, dir, ix), "--drain-for", "1h")
	for url, p := range map[string]*process{fe.ready().HTTP: fe, ix.Find: ix.process} {
		p.signal(syscall.SIGTERM)
		untilShuttingDown(t, url)
		p.stop()
	}
}

// untilShuttingDown waits until /health says so. A frontend that has just started
// answers 503 for another reason.
func untilShuttingDown(t *testing.T, url string) {
	t.Helper()
	eventually(t, "/health says that it is shutting down", func() error {
		if a, err := get(url+"/health", ""); err != nil || a.status != http.StatusServiceUnavailable || !strings.Contains(string(a.body), "shutting down") {
			return fmt.Errorf("%d %s, %v", a.status, a.body, err)
		}
		return nil
	})
}

// balancer sends each lookup to the next of its servers that is healthy, as it
// saw when it last looked.
type balancer struct {
	urls     []string
	client   *http.Client
	turn     atomic.Int64
	answered atomic.Int64
	last     atomic.Int64 // answers after which the connection was closed

	mu   sync.Mutex
	good []string
}

func newBalancer(t *testing.T, urls ...string) *balancer {
	b := &balancer{urls: urls, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: drainClients}, Timeout: patience}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(balancerChecks)
		defer tick.Stop()
		for {
			b.look()
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		b.client.CloseIdleConnections()
	})
	return b
}

func (b *balancer) look() {
	var good []string
	for _, u := range b.urls {
		if a, err := get(u+"/health", ""); err == nil && a.status == http.StatusOK {
			good = append(good, u)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.good = good
}

// until waits until so many servers are healthy.
func (b *balancer) until(t *testing.T, n int) {
	t.Helper()
	eventually(t, fmt.Sprint(n, " healthy frontends"), func() error {
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(b.good) != n {
			return fmt.Errorf("healthy: %q", b.good)
		}
		return nil
	})
}

// more waits until so many more lookups were answered.
func (b *balancer) more(t *testing.T, n int64) {
	t.Helper()
	want := b.answered.Load() + n
	eventually(t, fmt.Sprint(n, " lookups"), func() error {
		if got := b.answered.Load(); got < want {
			return fmt.Errorf("%d of %d", got, want)
		}
		return nil
	})
}

// lookUp asks one server, once by GET and once by a batch. A Go client repeats a GET
// by itself if its connection was closed under it, and would hide that; it cannot
// repeat a body it knows nothing of.
func (b *balancer) lookUp(mh, cid string) error {
	b.mu.Lock()
	good := b.good
	b.mu.Unlock()
	if len(good) == 0 {
		return errors.New("no frontend is healthy")
	}
	base := good[int(b.turn.Add(1))%len(good)]
	body, err := json.Marshal(map[string][]string{"Cids": {cid}})
	if err != nil {
		return err
	}
	single, err := http.NewRequest(http.MethodGet, base+"/multihash/"+mh, nil)
	batch, berr := http.NewRequest(http.MethodPost, base+"/cid", struct{ io.Reader }{strings.NewReader(string(body))})
	if err := errors.Join(err, berr); err != nil {
		return err
	}
	return errors.Join(b.do(single), b.do(batch))
}

func (b *balancer) do(req *http.Request) error {
	resp, err := b.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || resp.Header.Get(find.HeaderPartial) != "" {
		return fmt.Errorf("%s %s: %d %v %s, %v", req.Method, req.URL, resp.StatusCode, resp.Header, body, err)
	}
	b.answered.Add(1)
	if resp.Close {
		b.last.Add(1)
	}
	return nil
}
