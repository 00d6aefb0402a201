package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/signpost-index/signpost/assigner"
)

// TestACrashLoopingNodeIsHandedOff: a node is killed again and again, and started
// again each time, as a supervisor would. It always answers soon, so it is never
// down for as long as the grace; still it gets nothing new once that is noticed,
// and after the grace another node owns what it had, also when it runs again.
// Status, events, health and alert say so.
func TestACrashLoopingNodeIsHandedOff(t *testing.T) {
	t.Parallel()
	const noticed = "it has restarted 5 times within 10m0s"
	p := startPool(t, workDir(t), 2, "--grace", "8s", "--listen-metrics", anyPort)
	o := &observed{t: t, dir: p.dir, daemons: map[string]string{"assigner": p.assigner.ready().Metrics}}
	b := newLedger(t, "at a node that crashes")
	for range 3 {
		b.publish(20)
	}
	b.announce(p.announce)
	bad := p.owner(t, b.id)
	good := p.others(bad)
	untilDone(t, bad.Ingest, b.chain)
	o.untilHealthy()

	f := o.after(func() {
		began, handed := time.Now(), false
		for n := 1; !handed; n++ {
			p.crash(t, bad, n)
			owners, err := ownersOf(good, b.id)
			if err != nil {
				t.Fatal(err)
			}
			handed = len(owners) == 1
			if handed && n < 5 || time.Since(began) > 2*patience {
				t.Fatalf("after %d crashes in %v: handed off %v", n, time.Since(began), handed)
			}
			if handed {
				t.Logf("handed off after %d crashes in %v", n, time.Since(began).Round(time.Millisecond))
			}
		}
	}, map[string]string{"assigner": "pool-node-silent"})
	f.fires(t, p.dir, map[string][]string{"SignpostPoolNodeSilent": {"assigner"}, "SignpostAssignerNoRoom": nil})

	// It runs, and has the least to do of all.
	p.newcomers(t, "beside a node that crashes", 2, bad)
	if err := p.stateIs(bad, assigner.StateLost); err != nil {
		t.Error(err)
	}
	for _, what := range []string{"list", "events"} {
		if r := p.command(t, what); r.code != 0 || !strings.Contains(r.stdout, noticed) {
			t.Errorf("signpost pool %s does not say %q\n%s%s", what, noticed, r.stdout, r.stderr)
		}
	}
	if r := command(t, "health", "--admin", o.daemons["assigner"]); !strings.Contains(r.stdout, bad.Admin+" is lost") {
		t.Errorf("signpost health does not name the node:\n%s", r.stdout)
	}
	b.publish(20)
	b.announce(p.announce)
	untilIndexed(t, good[0].Ingest, b.head)
	b.want.mustFind(t, p.frontend, "with an ad that is new")
	b.want.mustFind(t, good[0].Find, "at the new owner")
}

// crash kills an indexer for the n-th time, starts it again, and waits until the
// assigner has seen that.
func (p *pool) crash(t *testing.T, ix *indexer, n int) {
	t.Helper()
	ix.kill()
	client.CloseIdleConnections()
	ix.restart()
	eventually(t, fmt.Sprintf("restart %d of %s is seen", n, ix.name), func() error {
		a, err := get(p.admin+assigner.EventsPath, "")
		if err != nil {
			return err
		}
		var page assigner.EventPage
		if err := json.Unmarshal(a.body, &page); err != nil {
			return fmt.Errorf("%w: %s", err, a.body)
		}
		seen := 0
		for _, e := range page.Events {
			if e.Indexer.String() == ix.ID && e.Text == "restarted" {
				seen++
			}
		}
		if seen < n {
			return fmt.Errorf("%d are", seen)
		}
		return nil
	})
}
