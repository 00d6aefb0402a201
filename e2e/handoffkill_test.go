package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/signpost-index/signpost/assigner"
)

// The steps of a handoff, as the logs of the two indexers tell them.
const (
	closedLine = `"publisher closed"`
	takenLine  = `"publisher taken over"`
)

// handoffKill is who is killed at which moment of a handoff.
type handoffKill struct {
	victim string // assigner, source or target
	when   string
	// stop: the target is stopped from before the handoff until after the kill, so
	// that the source has closed and the target has not taken over.
	stop  bool
	line  string // the kill follows this line of whose log it is; empty: the request
	after time.Duration
}

// TestKillAtAnyStepOfAHandoff kills -9 the assigner, the source or the target of a
// handoff, before the source has closed, between its close and the takeover, and
// after that, while the publisher goes on. Each time, once all run again,
// there is one owner, the pieces of the chain join without overlap, each
// multihash is found, and on one indexer only.
func TestKillAtAnyStepOfAHandoff(t *testing.T) {
	t.Parallel()
	kills := []handoffKill{
		{"assigner", "between close and takeover", true, closedLine, 0},
		{"source", "between close and takeover", true, closedLine, 0},
		{"target", "between close and takeover", true, closedLine, 0},
		{"assigner", "right after the takeover", false, takenLine, 0},
		{"source", "right after the request", false, "", 0},
		{"target", "right after the takeover", false, takenLine, 0},
	}
	seed := uint64(time.Now().UnixNano())
	if os.Getenv("SIGNPOST_SOAK") == "1" {
		t.Logf("seed %d", seed)
		rng := rand.New(rand.NewPCG(seed, 2))
		for len(kills) < 40 {
			k := handoffKill{when: "somewhen", after: time.Duration(rng.Int64N(int64(40 * time.Millisecond)))}
			k.victim = []string{"assigner", "source", "target"}[rng.IntN(3)]
			k.line = []string{"", closedLine, takenLine}[rng.IntN(3)]
			k.stop = k.line != takenLine && rng.IntN(3) == 0
			kills = append(kills, k)
		}
	}
	dir := workDir(t)
	p := startPool(t, dir, 2, "--intents", filepath.Join(dir, "intents.txt"),
		"--journal", filepath.Join(dir, "journal"))
	b := newLedger(t, "moved to and fro")
	b.publish(10)
	b.announce(p.announce)
	source := p.owner(t, b.id)
	untilDone(t, source.Ingest, b.chain)
	killed := make(map[*indexer]int) // since the assigner was
	for n, k := range kills {
		target := p.others(source)[0]
		victim := map[string]*indexer{"source": source, "target": target}[k.victim]
		if killed[victim] == 3 {
			k.victim, victim = "assigner", nil // or it would count as crashing
		}
		if killed[victim]++; victim == nil {
			clear(killed)
		}
		started := time.Now()
		p.killAt(t, k, b, source, target)
		b.publish(10)
		b.announce(p.announce)
		eventually(t, "the publisher is where it was to go", func() error {
			owners, err := ownersOf(p.indexers, b.id)
			if err == nil && (len(owners) != 1 || owners[0] != target) {
				err = fmt.Errorf("%d owners", len(owners))
			}
			return err
		})
		p.untilSomewhere(t, b.head) // at the source, if it was faster than the handoff
		p.mustEnd(t, b)
		t.Logf("kill %d: %s, %s: whole again after %v", n+1, k.victim, k.when, time.Since(started).Round(time.Millisecond))
		if t.Failed() {
			return
		}
		source = target
	}
}

// killAt asks for a move, kills and starts again.
func (p *pool) killAt(t *testing.T, k handoffKill, b *ledger, source, target *indexer) {
	t.Helper()
	for _, ix := range p.indexers { // one that was killed before may not have been read again
		eventually(t, ix.name+" is active to the assigner", func() error { return p.stateIs(ix, assigner.StateActive) })
	}
	for range 3 { // in flight when the source closes
		b.publish(10)
	}
	b.withdraw(len(b.ads) - 4)
	b.withdrawOldest()
	b.announce(p.announce)
	of := map[string]*process{"assigner": p.assigner, "source": source.process, "target": target.process}
	victim := of[k.victim]
	closed, taken := len(source.log()), len(target.log())
	if k.stop {
		target.hang()
	}
	p.move(t, b, source, target)
	switch k.line {
	case closedLine:
		source.logs(closed, closedLine)
	case takenLine:
		target.logs(taken, takenLine)
	}
	<-time.After(k.after)
	victim.kill()
	client.CloseIdleConnections()
	if k.stop && k.victim != "target" {
		target.signal(syscall.SIGCONT)
	}
	switch k.victim {
	case "assigner":
		p.restartAssigner(t)
	case "source":
		source.restart()
	case "target":
		target.restart()
	}
}

// move asks the assigner to move the ledger's publisher.
func (p *pool) move(t *testing.T, b *ledger, from, to *indexer) {
	t.Helper()
	q := url.Values{"publisher": {b.id.String()}, "indexer": {to.ID}, "from": {from.ID}}
	req, err := http.NewRequest(http.MethodPut, p.admin+"/signpost/v1/pool/pin?"+q.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if a, err := do(req); err != nil || a.status != http.StatusOK {
		t.Fatalf("move: %d %s, %v", a.status, a.body, err)
	}
}

// logs waits until the log beyond the first so many bytes has the text. It looks
// often, as something is to happen right after.
func (p *process) logs(beyond int, text string) {
	p.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !strings.Contains(p.log()[beyond:], text); <-tick.C {
		if time.Now().After(deadline) {
			p.t.Fatalf("%s has not logged %s within %v; see %s", p.name, text, patience, p.stderr)
		}
	}
}
