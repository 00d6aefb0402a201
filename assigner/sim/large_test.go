package sim

import (
	"slices"
	"testing"
	"time"
)

// planTimes are the median and the longest of the plans since the from-th.
func (w *World) planTimes(from int) (median, longest time.Duration) {
	took := slices.Sorted(slices.Values(w.planning[from:]))
	return took[len(took)/2], took[len(took)-1]
}

// TestALargePoolIsPlannedWithinAPoll has two assigners fill an empty pool, then
// freezes and loses some of it.
func TestALargePoolIsPlannedWithinAPoll(t *testing.T) {
	nodes, publishers := 100, 5_000
	if soak() {
		nodes, publishers = 1_000, 100_000
	}
	w := NewWorld(Config{Seed: seed(t), Nodes: nodes, Assigners: 2, Grace: time.Minute, Sample: 2 * time.Second})
	w.AddPublishers(publishers, 1.0, 1e7, 0, 0)
	table := &Table{Columns: []string{"nodes", "publishers", "what", "all have an owner after", "longest surplus owner", "plans", "median plan", "longest plan"}}
	row := func(what string) {
		from := len(w.planning)
		w.Run(w.cfg.Sample)
		took, ok := w.RunUntil(10*time.Minute, func() bool { return w.owned() && w.watch.last().surplus == 0 })
		if w.Run(20 * time.Second); !ok {
			t.Errorf("%s: %d publishers without owner and %d with too many after %s", what, w.watch.waits, w.watch.last().surplus, took)
		}
		median, longest := w.planTimes(from)
		table.Add(nodes, publishers, what, took, w.watch.longestSurplus, len(w.planning)-from, median, longest)
		if median > w.cfg.Poll {
			t.Errorf("%s: a plan takes %s, more than a poll", what, median)
		}
		if w.watch.longestSurplus > time.Minute {
			t.Errorf("%s: a publisher had too many owners for %s", what, w.watch.longestSurplus)
		}
	}
	row("from empty")
	for _, n := range w.nodes[:nodes/20] {
		n.freeze()
	}
	row("a twentieth freezes")
	for _, n := range w.nodes[nodes/20 : nodes/20+nodes/100] {
		w.Lose(n)
	}
	row("a hundredth is lost (grace 1 m)")
	plot(t, Plot{Title: "owners: two assigners fill a pool, a twentieth freezes, a hundredth is lost", Unit: "publishers", Curves: []Curve{
		w.curve("one owner", func(s sample) float64 { return float64(s.oneOwner) }),
		w.curve("none", func(s sample) float64 { return float64(s.noOwner) }),
		w.curve("too many", func(s sample) float64 { return float64(s.surplus) }),
	}}, "owners")
	t.Logf("large\n%s", table)
}
