package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/store"
)

// TestAlertsWhenADiskDecays: bits of the postings have changed while a node was
// down. Lookups of what stood there fail, and once the node has met the damage
// itself, it says that something is lost.
func TestAlertsWhenADiskDecays(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	ix := startIndexer(t, dir, "indexer")
	o := &observed{t: t, dir: dir, daemons: map[string]string{"indexer": ix.Admin}}
	c, mhs := newChain(t, "decays"), multihashes("decays", 2000)
	c.add("all", mhs)
	c.announce(ix.Ingest)
	untilDone(t, ix.Ingest, c)
	commandOK(t, "store", "compact", "--admin", ix.Admin)
	o.untilHealthy()

	f := o.after(func() {
		ix.stop()
		decay(t, filepath.Join(ix.dir, "store", "postings", "buckets", "*.sst"), 16<<10)
		ix.restart()
		eventually(t, "a lookup fails", func() error {
			for _, mh := range mhs {
				if a, err := get(ix.Find+"/cid/"+raw(mh).String(), ""); err != nil || a.status == http.StatusInternalServerError {
					return err
				}
			}
			return fmt.Errorf("none of %d does", len(mhs))
		})
		command(t, "store", "compact", "--admin", ix.Admin) // it reads the damage, and may say so
	}, map[string]string{"indexer": "store-damaged"})
	f.fires(t, dir, map[string][]string{"SignpostLookupsFail": {"indexer"}, "SignpostStoreDamaged": {"indexer"}, "SignpostStoreFailed": nil})
}

// decay changes a byte in the middle of each of the files of so many bytes or more.
func decay(t *testing.T, pattern string, atLeast int) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	changed := 0
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) < atLeast {
			continue // such as what the index says of itself, without which no node starts
		}
		b[len(b)/2] ^= 0x55
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		changed++
	}
	if changed == 0 {
		t.Fatalf("none of %d files %s has %d bytes", len(files), pattern, atLeast)
	}
}

// TestAlertsWhenClocksDiffer: the clock of the assigner's machine, which is in the
// Date of all it answers, is set to another hour.
func TestAlertsWhenClocksDiffer(t *testing.T) {
	t.Parallel()
	p := startPool(t, workDir(t), 1)
	to, err := url.Parse(p.announce)
	if err != nil {
		t.Fatal(err)
	}
	var wrong atomic.Bool
	machine := httputil.NewSingleHostReverseProxy(to)
	machine.Transport = client.Transport
	machine.ModifyResponse = func(resp *http.Response) error {
		if wrong.Load() {
			resp.Header.Set("Date", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
		}
		return nil
	}
	srv := httptest.NewServer(machine)
	t.Cleanup(srv.Close)
	fe := spawn(t, p.dir, "observed", "frontend", "--listen", anyPort, "--pool", p.file, "--assigner", srv.URL, "--listen-metrics", anyPort)
	o := &observed{t: t, dir: p.dir, daemons: map[string]string{"frontend": fe.ready().Metrics}}
	o.untilHealthy()

	f := o.after(func() { wrong.Store(true) }, map[string]string{"frontend": "clock-skew"})
	f.fires(t, p.dir, map[string][]string{"SignpostClockSkew": {"frontend"}, "SignpostAssignerSilent": nil})
}

// TestAlertsWhenAPublisherLags: a publisher does not serve the entries of an ad, and
// that has been so for long: all the test makes up is when the node wrote down how
// far it is, which was half an hour ago or more.
func TestAlertsWhenAPublisherLags(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	ix := startIndexer(t, dir, "indexer")
	o := &observed{t: t, dir: dir, daemons: map[string]string{"indexer": ix.Admin}}
	c := newChain(t, "lags")
	c.add("served", multihashes("served", 10))
	c.announce(ix.Ingest)
	untilDone(t, ix.Ingest, c)
	o.untilHealthy()

	f := o.after(func() {
		missing, err := cid.NewPrefixV1(cid.DagJSON, multihash.SHA2_256).Sum([]byte("entries that are not served"))
		if err != nil {
			t.Fatal(err)
		}
		c.push(c.ad("not served", missing))
		c.announce(ix.Ingest)
		eventually(t, "the ad waits", func() error {
			p, err := ix.api().Publisher(t.Context(), c.id)
			if err == nil && p.Pending == 0 {
				err = fmt.Errorf("%+v", p)
			}
			return err
		})
		ix.stop()
		ix.markedLongAgo(c)
		ix.restart()
	}, map[string]string{"indexer": "publisher-lagging"})
	f.fires(t, dir, map[string][]string{"SignpostPublisherLagging": {"indexer"}, "SignpostPublishersUnreachable": nil})
}

// markedLongAgo has an indexer that does not run find that its mark of a publisher
// was set in the year 2000, which is when time begins in a bubble.
func (ix *indexer) markedLongAgo(c *chain) {
	t := c.t.(*testing.T)
	t.Helper()
	secret, err := os.ReadFile(filepath.Join(ix.dir, "index-secret"))
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		s, err := store.Open(store.Config{Dir: filepath.Join(ix.dir, "store"), Secret: secret})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.SetMark(c.id, s.Progress(c.id).Mark); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}
