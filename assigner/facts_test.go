package assigner

import (
	"testing"
	"time"

	"github.com/signpost-index/signpost/api/admin"
)

// TestFactsAreTakenWithinBounds, whatever an indexer says.
func TestFactsAreTakenWithinBounds(t *testing.T) {
	f := new(facts)
	last := admin.Range{From: "last"}
	f.setRoles([]admin.PublisherRole{
		{Publisher: "p", Role: admin.RoleOwner, Ranges: append(make([]admin.Range, 100_000), last), LeansOn: ids("A B"),
			MultihashesPerSecond: 1e300, RateWeight: 1e300},
		{Publisher: "p", Role: admin.RoleHolder},
		{Publisher: "q", Role: "king", MultihashesPerSecond: -1, RateWeight: -1},
	})
	h := f.held(time.Now())
	if len(h) != 2 || len(h[0].Ranges) != maxRanges || h[0].Ranges[maxRanges-1] != last || h[0].Load != maxRate || h[0].Weight != 1 || h[1].Load != 0 || h[1].Weight != 0 {
		t.Errorf("%d roles, %d ranges, rates %v %v, weights %v %v", len(h), len(h[0].Ranges), h[0].Load, h[1].Load, h[0].Weight, h[1].Weight)
	}
	v := View{Replication: 1, Moves: -1, Fills: -1, Indexers: []Indexer{
		{ID: "A", Reachable: true, Room: -1, Held: h}, {ID: "B", Reachable: true, Room: -1}}}
	for _, s := range Plan(v) {
		if broken := checkStep(v, s); broken != "" {
			t.Errorf("%s: %s", text([]Step{s}), broken)
		}
	}
}
