package sim

import (
	"testing"
	"time"

	"github.com/signpost-index/signpost/assigner"
)

// balanced is a pool of ten nodes and Zipf's publishers, in which load has become
// known and even, as a row of the report.
func balanced(t *testing.T, cfg Config, publishers int, s float64, join int, table *Table) *World {
	t.Helper()
	quiet := cfg
	quiet.Moves = -1
	w := NewWorld(quiet)
	w.watch.keepLoads = true
	w.AddPublishers(publishers, s, 1e5, 0, 0)
	if _, ok := w.RunUntil(time.Hour, func() bool { return w.owned() && w.now > 30*time.Minute }); !ok {
		t.Fatal("publishers without owner after an hour")
	}
	row := func(what string) {
		least := fewestMoves(w.rates())
		before := w.watch.moves[assigner.ReasonBalance]
		w.Run(cfg.Sample)
		took, even := w.RunUntil(12*time.Hour, w.even)
		w.Run(6 * time.Hour)
		last, moves := w.watch.last(), w.watch.moves[assigner.ReasonBalance]-before
		fewest := fewestWorld(cfg, publishers, s, join, what == "join")
		table.Add(s, what, last.maxToMean, last.goal(), fewest, took, moves, least)
		if !even || last.maxToMean > last.goal() {
			t.Errorf("s=%.1f, %s: max/mean is %.3f, want at most %.3f", s, what, last.maxToMean, last.goal())
		}
		limit := least + least/10
		if cfg.Seed != 1 {
			limit = least + max(least*3/10, 2) // doc/scale.md
		}
		if moves > limit {
			t.Errorf("s=%.1f, %s: %d moves, at least %d", s, what, moves, least)
		}
		if w.watch.returned > 0 {
			t.Errorf("s=%.1f, %s: %d moves back to where a publisher came from", s, what, w.watch.returned)
		}
	}
	// Loads of the first minutes are mostly noise: let them become known.
	w.cfg.Moves = cfg.Moves
	row("from empty")
	for range join {
		w.Join()
	}
	row("join")
	return w
}

// fewestWorld is max/mean with the rule that knows only numbers of publishers.
func fewestWorld(cfg Config, publishers int, s float64, join int, joined bool) float64 {
	cfg.Plan = FewestPublishers
	w := NewWorld(cfg)
	w.AddPublishers(publishers, s, 1e5, 0, 0)
	w.RunUntil(time.Hour, func() bool { return w.owned() && w.now > time.Minute })
	if joined {
		for range join {
			w.Join()
		}
		w.Run(time.Minute)
	}
	return w.watch.last().maxToMean
}

func TestLoadBecomesEvenAndStays(t *testing.T) {
	cfg := Config{Seed: seed(t), Nodes: 10, Moves: assigner.DefaultMoves, Sample: 10 * time.Second, Tick: 10 * time.Second}
	table := &Table{Columns: []string{"s", "what", "max/mean", "at most", "fewest publishers", "even after", "moves", "at least"}}
	exponents := []float64{0.8, 1.0, 1.2}
	if !soak() {
		exponents = exponents[1:2]
	}
	for _, s := range exponents {
		w := balanced(t, cfg, 1000, s, 2, table)
		if s == 1.0 {
			plot(t, loadsPlot(w), "loads")
			plot(t, Plot{Title: "most loaded node / mean, s = 1.0", Unit: "max/mean", From: 1, Curves: []Curve{
				w.curve("max/mean", func(s sample) float64 { return max(s.maxToMean, 1) }),
				w.curve("what is promised", func(s sample) float64 { return max(s.goal(), 1) }),
			}}, "even")
		}
	}
	t.Logf("balance\n%s", table)
}

// loadsPlot is the load of each node.
func loadsPlot(w *World) Plot {
	p := Plot{Title: "load of each node: 10 nodes, 2 more join", Unit: "multihashes a second"}
	for n := range w.nodes {
		p.Curves = append(p.Curves, w.curve("", func(s sample) float64 {
			if n < len(s.loads) {
				return s.loads[n]
			}
			return 0
		}))
	}
	return p
}
