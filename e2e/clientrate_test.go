package e2e

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/signpost-index/signpost/ingest/schema"
)

// TestAClientThatAsksTooMuchIsRefused and told when to come back, at a frontend and
// at an indexer; others are answered, through the same trusted proxy too, and batches
// count by their keys.
func TestAClientThatAsksTooMuchIsRefused(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	limit := []string{"--client-rate", "0.01", "--trusted-proxies", "::1,127.0.0.0/8", "--listen-metrics", anyPort}
	ix := startIndexer(t, dir, "indexer", limit...)
	fe := spawn(t, dir, "frontend", append([]string{"frontend", "--listen", anyPort, "--pool", writePool(t, dir, startIndexer(t, dir, "behind"))}, limit...)...).ready()
	key := schema.NoEntries.String()
	ask := func(base, client string, keys int) answer {
		t.Helper()
		req, err := http.NewRequest(http.MethodGet, base+"/cid/"+key, nil)
		if keys > 1 {
			body := `{"Cids":["` + strings.Repeat(key+`","`, keys-1) + key + `"]}`
			req, err = http.NewRequest(http.MethodPost, base+"/cid", strings.NewReader(body))
		}
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Forwarded-For", "203.0.113.9, "+client)
		a, err := do(req)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for base, metrics := range map[string]string{fe.HTTP: fe.Metrics, ix.Find: ix.Metrics} {
		for n := range 10 {
			if a := ask(base, "192.0.2.1", 1); a.status == http.StatusTooManyRequests {
				t.Fatalf("lookup %d of 10: %s", n+1, a.body)
			}
		}
		a := ask(base, "192.0.2.1", 1)
		wait, err := strconv.Atoi(a.header.Get("Retry-After"))
		if a.status != http.StatusTooManyRequests || err != nil || wait < 1 || wait > 100 || !strings.Contains(string(a.body), "192.0.2.1") {
			t.Errorf("the eleventh: %d, %v, %s", a.status, a.header, a.body)
		}
		if a := ask(base, "192.0.2.2", 8); a.status == http.StatusTooManyRequests {
			t.Errorf("a batch of 8 of another client: %s", a.body)
		}
		if a := ask(base, "192.0.2.2", 8); a.status != http.StatusTooManyRequests {
			t.Errorf("a second batch of 8: %d", a.status)
		}
		if a := ask(base, "192.0.2.3", 1000); a.status == http.StatusTooManyRequests {
			t.Errorf("a batch of 1000 of one who had asked nothing: %s", a.body)
		}
		eventually(t, "health", func() error {
			if a := mustGet(t, base+"/health", ""); a.status != http.StatusOK {
				return fmt.Errorf("%d %s", a.status, a.body)
			}
			return nil
		})
		if n := metric(t, mustGet(t, metrics+"/metrics", "").body, "signpost_client_refused_total"); n != 2 {
			t.Errorf("%s has counted %v refusals, want 2", base, n)
		}
	}
}
