package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// stages are what has counted at each daemon once something was announced and
// found.
var stages = map[string][]string{
	"assigner": {
		"signpost_assigner_announces_received_total", "signpost_assigner_announces_forwarded_total",
		"signpost_assigner_steps_total", "signpost_assigner_announce_taken_seconds_count",
	},
	"indexer": {
		"signpost_indexer_announces_total", "signpost_ingest_ads_walked_total", "signpost_ingest_fetched_blocks_total",
		"signpost_ingest_fetched_bytes_total", "signpost_ingest_fetch_seconds_count", "signpost_ingest_stage_seconds_count",
		"signpost_store_puts_total", "signpost_store_commits_total", "signpost_store_durable_seconds_count",
		"signpost_store_follow_seconds_count", "signpost_store_followers", "signpost_indexer_publishers_lag_seconds_count",
	},
	"frontend": {
		"signpost_filter_backends", "signpost_filter_received_bytes_total", "signpost_fanout_backend_seconds_count",
		"signpost_find_results_total", "signpost_find_request_seconds_count",
	},
}

// TestEachStageOfAnAnnounceIsCounted: from hearing it to the lookup, whatever
// happened has a metric that says so.
func TestEachStageOfAnAnnounceIsCounted(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	secret := filepath.Join(dir, "secret")
	ix := startIndexer(t, dir, "indexer", "--assigned-only", "--index-secret", secret)
	p := &pool{dir: dir, file: writePool(t, dir, ix)}
	p.startAssigner(t, anyPort, "--listen-metrics", anyPort)
	fe := spawn(t, dir, "frontend", "frontend", "--listen", anyPort, "--pool", p.file, "--index-secret", secret, "--listen-metrics", anyPort).ready()
	daemons := map[string]string{"assigner": p.assigner.ready().Metrics, "indexer": ix.Admin, "frontend": fe.Metrics}
	eventually(t, "the frontend follows the indexer", func() error {
		return counted(scrape(t, daemons), "frontend", "signpost_filter_backends")
	})
	c := newChain(t, "is counted")
	mhs := multihashes("is counted", 10)
	c.add("all", mhs)
	c.announce(p.announce)
	untilIndexed(t, ix.Ingest, c.head)
	make(index).with(newHolding(c.id, []byte("all"), bitswap), mhs).mustFind(t, fe.HTTP, "in the end")
	for daemon, metrics := range stages {
		for _, m := range metrics {
			eventually(t, m+" counts", func() error { return counted(scrape(t, daemons), daemon, m) })
		}
	}
}

// counted says whether some series of a metric is above 0.
func counted(s scrapes, instance, metric string) error {
	for series, v := range s {
		if name, _, _ := strings.Cut(series, "{"); name == metric && label(series, "instance") == instance && v > 0 {
			return nil
		}
	}
	return fmt.Errorf("%s of %s is 0, or not there", metric, instance)
}
