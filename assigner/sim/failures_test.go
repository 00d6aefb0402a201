package sim

import (
	"testing"
	"time"

	"github.com/signpost-index/signpost/assigner"
)

// disturb has something happen to the pool every so often: crashes (most return,
// some after the grace), losses, freezes and thaws, joins, restarts of an
// assigner. A quarter of the nodes is down or frozen at most.
func disturb(w *World, every time.Duration) {
	w.after(time.Duration(w.rand.ExpFloat64()*float64(every)), func() {
		defer disturb(w, every)
		away := 0
		for _, n := range w.nodes {
			if !n.lost && (!n.up || n.frozen) {
				away++
			}
		}
		n := w.nodes[w.rand.IntN(len(w.nodes))]
		what := w.rand.IntN(100)
		switch {
		case what < 5:
			w.RestartAssigner(w.rand.IntN(len(w.assigners)))
		case what < 10 && len(w.nodes) < 3*w.cfg.Nodes:
			w.Join()
			w.watch.emptied++
		case n.lost || !n.up || n.frozen || away >= w.cfg.Nodes/4:
		case what < 15:
			w.Lose(n)
			w.Join() // its replacement, empty
			w.watch.emptied++
		case what < 30:
			n.freeze()
			w.after(time.Duration(1+w.rand.IntN(6))*time.Hour, func() {
				if !n.lost {
					n.thaw(1.5)
					w.watch.emptied++
				}
			})
		default:
			n.crash(w.rand.IntN(2) == 0)
			down := time.Duration(float64(w.cfg.Grace) * 2 * w.rand.Float64() * w.rand.Float64())
			w.after(down, func() {
				if !n.lost {
					n.start()
					if down > w.cfg.Grace {
						w.watch.emptied++
					}
				}
			})
		}
	})
}

// mostMovesADay is how often a publisher is moved for balance, on average, although
// something happens to the pool every half hour.
const mostMovesADay = 4

func failures(t *testing.T, cfg Config, publishers int, days float64, table *Table, what string) *World {
	t.Helper()
	w := NewWorld(cfg)
	w.AddPublishers(publishers, 1.0, 1e5, 24*time.Hour, 0)
	w.AddPublishers(publishers/10, 1.0, 1e4, time.Hour, time.Duration(days*20)*time.Hour) // join over time
	w.Run(10 * time.Minute)
	disturb(w, 30*time.Minute)
	end := w.now + time.Duration(days*24*float64(time.Hour))
	for w.now < end {
		w.Run(10 * time.Minute)
		w.watch.chains()
	}
	moves, most := w.watch.moves[assigner.ReasonBalance], 0
	for _, n := range w.watch.balanced {
		most = max(most, n)
	}
	perDay := float64(moves) / float64(len(w.publishers)) / days
	table.Add(what, days, len(w.publishers), w.watch.longestOwnerless, w.watch.longestSurplus, w.watch.unexplained,
		w.watch.fills, w.watch.longestBroken, w.watch.emptied, moves, perDay, most, w.watch.returned)
	// A restarted assigner waits for a grace anew.
	if limit := 2*cfg.Grace + time.Minute; w.watch.longestOwnerless > limit {
		t.Errorf("%s: a publisher had no owner for %s, want at most %s", what, w.watch.longestOwnerless, limit)
	}
	if w.watch.unexplained > 0 {
		t.Errorf("%s: %d publishers had no whole copy although nothing was lost", what, w.watch.unexplained)
	}
	if perDay > mostMovesADay {
		t.Errorf("%s: %.1f moves for balance of a publisher and day, want at most %d", what, perDay, mostMovesADay)
	}
	if w.watch.returned > moves/10 {
		t.Errorf("%s: %d of %d moves went back within a day", what, w.watch.returned, moves)
	}
	return w
}

func failureTable() *Table {
	return &Table{Columns: []string{"what", "days", "publishers", "longest without owner", "longest with too many",
		"no whole copy without a loss", "backfills", "longest without whole copy, after a loss", "nodes that came in empty", "balance moves", "a publisher and day",
		"most of one", "back within a day"}}
}

func TestFailuresLeaveNoPublisherBehind(t *testing.T) {
	days, publishers := 0.25, 200
	if soak() {
		days, publishers = 3, 300
	}
	table := failureTable()
	cfg := Config{Seed: seed(t), Nodes: 12, Grace: assigner.DefaultGrace, Sample: 10 * time.Second, Tick: 10 * time.Second, Poll: 5 * time.Second}
	w := failures(t, cfg, publishers, days, table, "one assigner")
	plot(t, Plot{Title: "days of crashes, losses, freezes and joins", Unit: "publishers without an owner that is up and takes ads", Curves: []Curve{
		w.curve("", func(s sample) float64 { return float64(s.noOwner) })}}, "failures")
	cfg.Assigners = 2
	failures(t, cfg, publishers, days, table, "two assigners")
	if soak() {
		cfg.Replication = 2
		failures(t, cfg, publishers, days, table, "two assigners, two copies")
	}
	t.Logf("failures\n%s", table)
}

func TestASlowNetworkLeavesNoPublisherBehind(t *testing.T) {
	days, publishers := 0.2, 200
	if soak() {
		days, publishers = 1, 300
	}
	table := failureTable()
	cfg := Config{Seed: seed(t), Nodes: 12, Grace: assigner.DefaultGrace, Sample: 10 * time.Second, Tick: 10 * time.Second, Poll: 5 * time.Second,
		Network: Network{Least: 20 * time.Millisecond, Most: 5 * time.Second, Lost: 0.1}, Assigners: 2}
	failures(t, cfg, publishers, days, table, "slow network")
	t.Logf("slow network\n%s", table)
}
