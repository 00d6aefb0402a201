package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/multiformats/go-multihash"
	"golang.org/x/sync/errgroup"

	"github.com/signpost-index/signpost/api/find"
)

// restartWord makes this test binary a command that asks the test to restart an
// indexer, as an operator's script would: its arguments are a URL and a peer ID.
const restartWord = "e2e-restart"

func askForRestart(args []string) int {
	if len(args) != 2 || os.Getenv("UPGRADE_ID") != args[1] {
		fmt.Fprintf(os.Stderr, "restart of %q, UPGRADE_ID is %q\n", args, os.Getenv("UPGRADE_ID"))
		return 2
	}
	resp, err := http.Post(args[0]+"/?id="+args[1], "", nil)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	fmt.Fprint(os.Stderr, string(body))
	if resp.StatusCode != http.StatusOK {
		return 1
	}
	return 0
}

// restarter takes the restarts that commands ask for to the test's goroutine.
type restarter struct {
	url  string
	asks chan restartAsk
}

type restartAsk struct {
	id   string
	done chan string // empty: it was done; else what went wrong
}

func newRestarter(t *testing.T) *restarter {
	r := &restarter{asks: make(chan restartAsk)}
	ctx, cancel := context.WithCancel(context.Background())
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		a := restartAsk{req.URL.Query().Get("id"), make(chan string, 1)}
		select {
		case r.asks <- a:
		case <-ctx.Done():
			return
		}
		if text := <-a.done; text != "" {
			http.Error(w, text, http.StatusInternalServerError)
		}
	}))
	t.Cleanup(func() {
		cancel()
		srv.Close()
	})
	r.url = srv.URL
	return r
}

// command is what to give to --exec.
func (r *restarter) command() string {
	return strings.Join([]string{os.Args[0], restartWord, r.url, "{id}"}, " ")
}

// upgradeLoad looks up what is there and what is nowhere, again and again, and not
// so fast that indexers are late for want of processors. A hit that is partial, as
// another indexer was late, is counted; a miss then is a failure.
type upgradeLoad struct {
	hits, misses, partial atomic.Int64
	failed                chan error
	stop                  func()
}

// loadPause is the time between two lookups of one of six clients.
const loadPause = 5 * time.Millisecond

func startLoad(t *testing.T, frontends []string, known, unknown []multihash.Multihash) *upgradeLoad {
	t.Helper()
	l := &upgradeLoad{failed: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	g := new(errgroup.Group)
	for n := range 6 {
		base := frontends[n%len(frontends)]
		g.Go(func() error {
			tick := time.NewTicker(loadPause)
			defer tick.Stop()
			for at := n; ctx.Err() == nil; at++ {
				<-tick.C
				mh, status, count := known[at%len(known)], http.StatusOK, &l.hits
				if at/6%2 == 0 {
					mh, status, count = unknown[at%len(unknown)], http.StatusNotFound, &l.misses
				}
				a, err := get(base+"/multihash/"+mh.B58String(), asJSON)
				missing := a.header.Get(find.HeaderPartial) != ""
				if missing && a.status == http.StatusOK {
					l.partial.Add(1)
					missing = false
				}
				if err == nil && (a.status != status || missing) {
					err = fmt.Errorf("%s at %s: %d, missing %q; want %d", mh.B58String(), base, a.status, a.header.Get(find.HeaderPartial), status)
				}
				if err != nil {
					return fmt.Errorf("at %s: %w", time.Now().UTC().Format(time.RFC3339Nano), err)
				}
				count.Add(1)
			}
			return nil
		})
	}
	l.stop = func() {
		cancel()
		if err := g.Wait(); err != nil {
			select {
			case l.failed <- err:
			default:
			}
		}
	}
	t.Cleanup(l.stop)
	return l
}

// startUpgradedPool starts four indexers at fixed ports, two copies of everything,
// and two frontends: one with a pool file, one that follows the assigner.
func startUpgradedPool(t *testing.T) (p *pool, frontends []string, ledgers []*ledger) {
	t.Helper()
	dir := workDir(t)
	p = startPool(t, dir, 4, "--replication", "2", "--intents", filepath.Join(dir, "intents.txt"), "--listen-admin", freeAddr(t))
	follower := spawn(t, dir, "follower", "frontend", "--listen", anyPort, "--assigner", p.announce).ready().HTTP
	for n := range 6 {
		b := newLedger(t, fmt.Sprint("of an upgrade ", n))
		for range 3 {
			b.publish(8)
		}
		b.announce(p.announce)
		ledgers = append(ledgers, b)
	}
	p.twoCopies(t, ledgers)
	return p, []string{p.frontend, follower}, ledgers
}

// twoCopies waits until two indexers of each publisher have caught up.
func (p *pool) twoCopies(t *testing.T, ledgers []*ledger) {
	t.Helper()
	for _, b := range ledgers {
		eventually(t, "two copies", func() error {
			n := 0
			for _, ix := range p.indexers {
				if b.caughtUp([]*indexer{ix}) == nil {
					n++
				}
			}
			if n != 2 {
				return fmt.Errorf("%d indexers have caught up with %s", n, b.id)
			}
			return nil
		})
	}
}

func (p *pool) byID(t *testing.T, id string) *indexer {
	t.Helper()
	for _, ix := range p.indexers {
		if ix.ID == id {
			return ix
		}
	}
	t.Fatalf("a restart of %q, which is none of ours", id)
	return nil
}

// upgrade starts signpost pool upgrade.
func (p *pool) upgrade(t *testing.T, name string, flags ...string) *process {
	t.Helper()
	return spawn(t, p.dir, name, append([]string{"pool", "upgrade", "--admin", p.admin}, flags...)...)
}

// TestAPoolIsUpgradedWithoutAFailedLookup: four indexers with two copies of
// everything are restarted one after the other, while publishers publish, under
// lookups of what is there and of what is nowhere. The assigner is killed in the
// middle, and so is the command, which goes on. No lookup fails, no indexer is
// restarted twice, and nothing has moved in the end.
func TestAPoolIsUpgradedWithoutAFailedLookup(t *testing.T) {
	t.Parallel()
	downFor, away := 6*time.Second, time.Second
	if os.Getenv("SIGNPOST_SOAK") == "1" {
		downFor, away = 30*time.Second, 20*time.Second // longer than what one that is not held may be silent
	}
	p, frontends, ledgers := startUpgradedPool(t)
	var known []multihash.Multihash
	for _, b := range ledgers {
		for _, a := range b.ads {
			known = append(known, a.mhs...)
		}
	}
	before := p.placements(t)
	unknown := multihashes("nobody has it", 50)
	eventually(t, "frontends know who is there", func() error {
		for _, base := range frontends {
			if err := miss(base, unknown[0], http.StatusNotFound, ""); err != nil {
				return err
			}
		}
		return nil
	})
	load := startLoad(t, frontends, known, unknown)
	r := newRestarter(t)
	flags := []string{"--exec", r.command(), "--down-for", downFor.String(), "--back-within", "40s"}
	cmd := p.upgrade(t, "upgrade-1", flags...)

	restarts := make(map[string]int)
	var silent int64
	deadline := time.After(10 * time.Minute)
	for over := false; !over; {
		select {
		case a := <-r.asks:
			ix := p.byID(t, a.id)
			restarts[ix.ID]++
			for _, b := range ledgers { // it skips this
				b.publish(8)
				b.announce(p.announce)
			}
			if len(restarts) == 2 {
				p.assigner.kill()
			}
			ix.stop()
			was := load.misses.Load()
			gone := time.Now()
			eventually(t, "lookups while it is down", func() error {
				if n := load.misses.Load() - was; n < 20 || time.Since(gone) < away {
					return fmt.Errorf("%d misses", n)
				}
				return nil
			})
			silent += load.misses.Load() - was
			ix.restart()
			if len(restarts) == 2 {
				p.restartAssigner(t)
			}
			if len(restarts) == 3 && restarts[ix.ID] == 1 {
				cmd.signal(syscall.SIGKILL)
				<-cmd.exited
				a.done <- ""
				cmd = p.upgrade(t, "upgrade-2", append([]string{"--resume"}, flags[:2]...)...)
				continue
			}
			a.done <- ""
		case <-cmd.exited:
			over = true
		case <-deadline:
			t.Fatalf("not over; %s\n%s", command(t, "pool", "tasks", "--admin", p.admin).stdout, cmd.logTail())
		}
	}
	if cmd.err != nil {
		t.Fatalf("the upgrade has ended with %v: %s", cmd.err, cmd.logTail())
	}
	load.stop()
	select {
	case err := <-load.failed:
		t.Errorf("a lookup failed: %v", err)
	default:
	}
	for _, ix := range p.indexers {
		if restarts[ix.ID] != 1 {
			t.Errorf("%s was restarted %d times", ix.name, restarts[ix.ID])
		}
	}
	p.twoCopies(t, ledgers)
	for _, b := range ledgers {
		b.want.mustFind(t, p.frontend, "after the upgrade")
	}
	if after := p.placements(t); fmt.Sprint(before) != fmt.Sprint(after) {
		t.Errorf("publishers have moved: %v, before %v", after, before)
	}
	if out := command(t, "pool", "tasks", "--admin", p.admin); !strings.Contains(out.stdout, "upgrade-1  done") || strings.Count(out.stdout, "  done") != 5 {
		t.Errorf("tasks: %s%s", out.stdout, out.stderr)
	}
	t.Logf("%d hits (%d partial) and %d misses, of these %d while an indexer was down", load.hits.Load(), load.partial.Load(), load.misses.Load(), silent)
	if load.partial.Load() > load.hits.Load()/100 {
		t.Error("more partial hits than a busy machine explains")
	}
}

// TestAnUpgradeStopsAtTheFirstFailure, goes on without that indexer, for a reason,
// and takes another one only then; one that was held and not restarted takes
// content again.
func TestAnUpgradeStopsAtTheFirstFailure(t *testing.T) {
	t.Parallel()
	p, _, ledgers := startUpgradedPool(t)
	r := newRestarter(t)
	cmd := p.upgrade(t, "upgrade-1", "--exec", r.command(), "--down-for", "1s", p.indexers[0].ID, p.indexers[1].ID)
	a := <-r.asks
	if a.id != p.indexers[0].ID {
		t.Errorf("the first to be restarted is %s", a.id)
	}
	a.done <- "no such version"
	<-cmd.exited
	if log := cmd.log(); cmd.err == nil || !strings.Contains(log, "no such version") || !strings.Contains(log, "--resume") {
		t.Fatalf("a command that fails: %v\n%s", cmd.err, log)
	}
	if r := command(t, "pool", "upgrade", "--admin", p.admin); r.code != 1 || !strings.Contains(r.stderr, "upgrade-1 is failed") {
		t.Errorf("another upgrade: %d %s", r.code, r.stderr)
	}
	eventually(t, "the indexer takes content again", func() error {
		if n, err := p.indexers[0].api().Node(t.Context()); err != nil || n.Frozen {
			return fmt.Errorf("frozen %v, %w", n.Frozen, err)
		}
		return nil
	})
	if r := command(t, "pool", "tasks", "skip", "--admin", p.admin, "upgrade-1"); r.code != 2 {
		t.Errorf("skipped without a reason: %d %s", r.code, r.stderr)
	}
	commandOK(t, "pool", "tasks", "skip", "--admin", p.admin, "upgrade-1", "--reason", "it gets a new disk")
	cmd = p.upgrade(t, "upgrade-2", "--resume", "--exec", r.command())
	a = <-r.asks
	if a.id != p.indexers[1].ID {
		t.Errorf("the second to be restarted is %s", a.id)
	}
	p.indexers[1].stop()
	p.indexers[1].restart()
	a.done <- ""
	cmd.succeeds()
	out := command(t, "pool", "tasks", "--admin", p.admin).stdout
	for _, want := range []string{"upgrade-1  done", p.indexers[0].ID + "  skipped", "it gets a new disk", p.indexers[1].ID + "  done"} {
		if !strings.Contains(out, want) {
			t.Errorf("tasks lack %q:\n%s", want, out)
		}
	}
	for _, b := range ledgers {
		if err := errors.Join(b.want.check(p.frontend)); err != nil {
			t.Error(err)
		}
	}
}
