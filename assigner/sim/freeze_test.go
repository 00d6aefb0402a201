package sim

import (
	"testing"
	"time"
)

// TestAFreezeWaveIsHandedOffWithinAMinute freezes three of ten nodes at once; the
// others have different room.
func TestAFreezeWaveIsHandedOffWithinAMinute(t *testing.T) {
	publishers := 2_000
	if soak() {
		publishers = 10_000
	}
	w := NewWorld(Config{Seed: seed(t), Nodes: 10, Moves: -1, Sample: time.Second})
	for i, n := range w.nodes { // room of 0.7 to 1.5 times the mean
		n.disk *= 0.7 + 0.8*float64(i%5)/4
	}
	w.AddPublishers(publishers, 0.8, 1e5, time.Hour, 0)
	w.RunUntil(time.Hour, func() bool { return w.now > 30*time.Minute && w.owned() })
	before := make(map[*node]float64)
	var rooms float64
	for _, n := range w.nodes[3:] {
		before[n] = n.load()
		rooms += n.disk
	}
	for _, n := range w.nodes[:3] {
		n.freeze()
	}
	w.Run(w.cfg.Sample)
	took, ok := w.RunUntil(time.Minute, w.owned)
	if !ok {
		t.Errorf("%d publishers without owner a minute after the freeze", w.watch.waits)
	}
	total := 0.0
	for _, n := range w.nodes[3:] {
		total += n.load()
	}
	table := &Table{Columns: []string{"node", "share of room", "load before", "load after", "load after / its share"}}
	for _, n := range w.nodes[3:] {
		share := n.disk / rooms
		table.Add(string(n.id), share, before[n], n.load(), n.load()/total/share)
		if over := n.load() / total / share; over > 1.3 {
			t.Errorf("%s has %.2f times its share of load", n.id, over)
		}
	}
	t.Logf("freeze wave: %d publishers, all handed off after %s\n%s", publishers, took, table)
}
