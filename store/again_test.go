package store

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestRemovalsAboveAnAdToBeAppliedAgainAreRemembered: whatever the mark has
// passed since the ad was noted, and across a restart, it does not bring back
// what was removed; and when nothing is to be applied again nothing is kept.
func TestRemovalsAboveAnAdToBeAppliedAgainAreRemembered(t *testing.T) {
	fs := vfs.NewMem()
	s := openTest(t, fs)
	c := newChain("pub", "prov")
	old, second, gone, last := c.ad("a", "1"), c.ad("b", "2"), c.ad("a", "3"), c.ad("c", "4")
	write(t, s, old, Effect{Kind: EffectNone, Verdict: Rejected, Reason: "no entries"})
	write(t, s, second, content, testMH(2))
	must(t, s.AddAgain("pub", []AdRef{old.AdRef}, true))
	write(t, s, gone, removal)
	write(t, s, last, content, testMH(4))
	if got := s.Progress("pub").Mark.Pos; got != last.Pos {
		t.Fatalf("mark at %d, want %d", got, last.Pos)
	}
	must(t, s.Close())
	s = openTest(t, fs)
	removed, err := s.RemovedAt("pub", "prov", old.ContextID, old.Pos)
	if err != nil || !removed {
		t.Fatalf("removal of the ad's context is known: %v, %v", removed, err)
	}
	write(t, s, old, content, testMH(1)) // had somebody not looked
	if v, err := s.Find(testMH(1)); err != nil || len(v) != 0 {
		t.Errorf("the ad brought back what was removed: %v, %v", v, err)
	}
	if left := againBacklog(t, s, "pub"); len(left) != 0 {
		t.Errorf("%d ads are left to be applied again", len(left))
	}
	for k := range 3 {
		write(t, s, c.ad("d", string(rune('5'+k))), content, testMH(uint64(5+k)))
	}
	if w := s.publisher("pub").progress; w.tombs != 0 || w.againFrom != 0 {
		t.Errorf("%d rows are kept for what is done, from %d", w.tombs, w.againFrom)
	}
	must(t, s.Check(t.Context(), func(d Damage) error { t.Errorf("damage: %v", d); return nil }))
}
