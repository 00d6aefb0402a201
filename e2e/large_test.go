package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/find"
)

const (
	largeAds = 14_000
	// What a frontend may have more, at its peak, for one stream of as many records,
	// and for one answer in JSON.
	largeStreamMemory = 64 << 20
	largeJSONMemory   = 128 << 20
)

// TestAnAnswerOf14000RecordsStaysUseful: through a frontend, a stream begins long
// before it ends and has all of them, JSON has all of them, delegated routing a
// hundred, and the frontend needs little memory for it.
func TestAnAnswerOf14000RecordsStaysUseful(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	secret := filepath.Join(dir, "secret")
	knows, other := startIndexer(t, dir, "knows", "--index-secret", secret), startIndexer(t, dir, "other", "--index-secret", secret)
	c, mh := popular(t, largeAds, 50)
	c.announce(knows.Ingest)
	untilDone(t, knows.Ingest, c)
	fe := spawn(t, dir, "frontend", "frontend", "--listen", anyPort, "--pool", writePool(t, dir, knows, other), "--index-secret", secret)
	base := fe.ready().HTTP
	eventually(t, "health", func() error {
		if a := mustGet(t, base+"/health", ""); a.status != http.StatusOK {
			return fmt.Errorf("%d %s", a.status, a.body)
		}
		return nil
	})
	before := peakMemory(t, fe)

	first, all, n := stream(t, base+"/multihash/"+mh.B58String())
	t.Logf("stream: the first record after %v, all %d after %v; peak %d MiB, before %d MiB", first, n, all, peakMemory(t, fe)>>20, before>>20)
	if n != largeAds || first > all/2 {
		t.Errorf("%d records, the first after %v, the last after %v", n, first, all)
	}
	if more := peakMemory(t, fe) - before; more > largeStreamMemory {
		t.Errorf("a stream takes %d MiB, want %d at most", more>>20, largeStreamMemory>>20)
	}
	began := time.Now()
	got, err := findJSON(base, raw(mh))
	t.Logf("JSON: %d records after %v; peak %d MiB", len(got), time.Since(began).Round(time.Millisecond), peakMemory(t, fe)>>20)
	if err != nil || len(got) != largeAds {
		t.Errorf("JSON: %d records of %d, %v", len(got), largeAds, err)
	}
	if more := peakMemory(t, fe) - before; more > largeJSONMemory {
		t.Errorf("JSON takes %d MiB, want %d at most", more>>20, largeJSONMemory>>20)
	}
	// Each record has other parameters than the others, so none can be merged.
	a := mustGet(t, base+"/routing/v1/providers/"+raw(mh).String(), asJSON)
	var routed struct{ Providers []routingRecord }
	if err := json.Unmarshal(a.body, &routed); err != nil || len(routed.Providers) != 100 || a.header.Get(find.HeaderLeftOut) != "13900" {
		t.Errorf("delegated routing: %d records, %q left out, %v", len(routed.Providers), a.header.Get(find.HeaderLeftOut), err)
	}
}

// TestRoutingHasAHundredOfManyPeers, and says how many it leaves out; a stream has
// all, and the front page says what it does not show.
func TestRoutingHasAHundredOfManyPeers(t *testing.T) {
	t.Parallel()
	const peers = 250
	dir := workDir(t)
	ix := startIndexer(t, dir, "indexer", "--any-publisher")
	c := newChain(t, "many peers")
	links := c.entries(multihashes("many peers", 1), 1)
	for i := range peers {
		ad := c.ad(fmt.Sprint("of peer ", i), links[0])
		ad.Provider = idOf(t, fmt.Sprint("peer ", i))
		c.push(ad)
	}
	c.announce(ix.Ingest)
	untilDone(t, ix.Ingest, c)
	base := startFrontend(t, dir, writePool(t, dir, ix))
	key := raw(multihashes("many peers", 1)[0])
	path := base + "/routing/v1/providers/" + key.String()
	var routed struct{ Providers []routingRecord }
	a := mustGet(t, path, asJSON)
	if err := json.Unmarshal(a.body, &routed); err != nil || len(routed.Providers) != 100 || a.header.Get(find.HeaderLeftOut) != "150" {
		t.Errorf("JSON: %d records, %q left out, %v", len(routed.Providers), a.header.Get(find.HeaderLeftOut), err)
	}
	if n := strings.Count(string(mustGet(t, path, asNDJSON).body), "\n"); n != peers {
		t.Errorf("NDJSON: %d records, want %d", n, peers)
	}
	if a := mustGet(t, path+"?filter-protocols=transport-ipfs-gateway-http", asJSON); a.status != http.StatusOK || a.header.Get(find.HeaderLeftOut) != "" {
		t.Errorf("filtered: %d, %q left out", a.status, a.header.Get(find.HeaderLeftOut))
	}
	if body := string(mustGet(t, base+"/?q="+key.String(), "").body); !strings.Contains(body, "250 results from 250 providers") || !strings.Contains(body, "150 are left out") {
		t.Errorf("the front page: %s", body)
	}
}

// idOf is the peer ID of a name.
func idOf(t *testing.T, name string) string {
	t.Helper()
	id, err := peer.IDFromPrivateKey(keyOf(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return id.String()
}

// stream reads a stream: when its first line came, when its end, and how many lines
// there were.
func stream(t *testing.T, url string) (first, all time.Duration, lines int) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", asNDJSON)
	began := time.Now()
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	r := bufio.NewReader(resp.Body)
	for {
		_, err := r.ReadSlice('\n')
		if err != nil {
			if err != io.EOF {
				t.Fatal(err)
			}
			return first, time.Since(began), lines
		}
		if lines++; lines == 1 {
			first = time.Since(began)
		}
	}
}
