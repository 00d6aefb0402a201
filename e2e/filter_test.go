package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestWhatIsIndexedIsFoundAtOnceThroughFilters: whenever an indexer says that an
// ad is indexed, two frontends that ask only who may have a key find all of it,
// while ads come one after the other, over a frozen and a restarted indexer, and
// beside one that gives no keys. An absent key reaches hardly anybody.
func TestWhatIsIndexedIsFoundAtOnceThroughFilters(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	secret := filepath.Join(dir, "secret")
	var indexers []*indexer
	for n := range 3 {
		flags := []string{"--index-secret", secret, "--allow-private"}
		if n == 2 {
			flags = append(flags, "--no-filter")
		}
		indexers = append(indexers, startIndexer(t, dir, fmt.Sprint("indexer-", n), flags...))
	}
	file := writePool(t, dir, indexers...)
	var frontends []readyLine
	for n := range 2 {
		frontends = append(frontends, spawn(t, dir, fmt.Sprint("frontend-", n), "frontend", "--listen", anyPort, "--pool", file, "--index-secret", secret, "--listen-metrics", anyPort).ready())
	}
	followed := func(want int) {
		for _, fe := range frontends {
			eventually(t, fmt.Sprint(want, " indexers are followed"), func() error { return metricIs(fe.Metrics, "signpost_filter_backends", want) })
		}
	}
	followed(2)
	var ledgers []*ledger
	for n := range indexers {
		ledgers = append(ledgers, newLedger(t, fmt.Sprint("publisher ", n)))
	}
	rounds := 12
	if os.Getenv("SIGNPOST_SOAK") == "1" {
		rounds = 200
	}
	publish := func(n int, when string) {
		ledgers[n].publish(30)
		ledgers[n].announce(indexers[n].Ingest)
		untilDone(t, indexers[n].Ingest, ledgers[n].chain)
		for _, fe := range frontends {
			ledgers[n].want.mustFind(t, fe.HTTP, when)
		}
	}
	for round := range rounds {
		publish(round%len(indexers), fmt.Sprint("after ad ", round))
	}
	commandOK(t, "freeze", "--admin", indexers[0].Admin)
	indexers[1].kill()
	indexers[1].restart()
	followed(2)
	for round := range rounds / 3 {
		publish(1, fmt.Sprint("after the restart, ad ", round))
	}
	for _, l := range ledgers {
		for _, fe := range frontends {
			l.want.mustFind(t, fe.HTTP, "in the end")
		}
	}
	// Who gives no keys is asked each time, of the others one in fifty at most.
	before := findsOf(t, indexers[0]) + findsOf(t, indexers[1])
	absent := multihashes("in no filter", 400)
	for _, mh := range absent {
		if err := miss(frontends[0].HTTP, mh, http.StatusNotFound, ""); err != nil {
			t.Fatal(err)
		}
	}
	if asked := findsOf(t, indexers[0]) + findsOf(t, indexers[1]) - before; asked > 2*2*float64(len(absent))/100 {
		t.Errorf("%d absent keys reached the two indexers %.0f times", len(absent), asked)
	}
	// A filter stands for a lease only: then a miss is undecided without the indexer.
	indexers[0].kill()
	eventually(t, "a miss is undecided", func() error {
		return miss(frontends[0].HTTP, absent[0], http.StatusServiceUnavailable, indexers[0].Find)
	})
}

func metricIs(base, name string, want int) error {
	a, err := get(base+"/metrics", "")
	if err == nil && !strings.Contains(string(a.body), fmt.Sprintf("\n%s %d\n", name, want)) {
		err = errors.New("it is not so")
	}
	return err
}

// findsOf is how many single lookups an indexer has answered.
func findsOf(t testing.TB, ix *indexer) (n float64) {
	t.Helper()
	a := mustGet(t, ix.Admin+"/metrics", "")
	for line := range strings.Lines(string(a.body)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && strings.HasPrefix(name, `signpost_find_request_seconds_count{endpoint="`) && (strings.Contains(name, `"multihash"`) || strings.Contains(name, `"line"`)) {
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatal(err)
			}
			n += v
		}
	}
	return n
}

// TestAnswersAreKeptForSecondsOnly: a frontend gives an answer again, and a
// removal is seen through it within the five seconds that answers are kept.
func TestAnswersAreKeptForSecondsOnly(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	ix := startIndexer(t, dir, "indexer")
	fe := spawn(t, dir, "frontend", "frontend", "--listen", anyPort, "--pool", writePool(t, dir, ix), "--cache-for", "5s", "--listen-metrics", anyPort).ready()
	l := newLedger(t, "kept")
	l.publish(1)
	l.announce(ix.Ingest)
	untilDone(t, ix.Ingest, l.chain)
	before := findsOf(t, ix)
	for range 50 {
		l.want.mustFind(t, fe.HTTP, "again and again")
	}
	if asked := findsOf(t, ix) - before; asked > 10 {
		t.Errorf("asked %.0f times", asked)
	}
	mh := l.ads[0].mhs[0]
	l.withdraw(0)
	l.announce(ix.Ingest)
	untilDone(t, ix.Ingest, l.chain)
	removed := time.Now()
	eventually(t, "the removal is seen", func() error { return miss(fe.HTTP, mh, http.StatusNotFound, "") })
	if took := time.Since(removed); took > 6*time.Second {
		t.Errorf("a removal was seen after %s", took)
	}
}
