package sim

import (
	"cmp"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
	"github.com/signpost-index/signpost/assigner"
)

// FewestPublishers is the rule Plan is compared with, for one owner each: what
// nobody has goes to the indexer with the fewest publishers, what is on a frozen
// one is handed off to it, and nothing moves for the sake of balance.
func FewestPublishers(v assigner.View) []assigner.Step {
	if v.Unread > 0 {
		return nil
	}
	count := make(map[peer.ID]int)
	owner, frozen := make(map[peer.ID]bool), make(map[peer.ID]peer.ID)
	var able []peer.ID
	busy := make(map[peer.ID]bool)
	for _, p := range v.Busy {
		busy[p] = true
	}
	for _, ix := range v.Indexers {
		if ix.Reachable && !ix.Frozen {
			able = append(able, ix.ID)
		}
		count[ix.ID] = len(ix.Expected)
		for _, h := range ix.Held {
			if h.Role != admin.RoleOwner || ix.Lost {
				continue
			}
			count[ix.ID]++
			if ix.Frozen {
				frozen[h.Publisher] = ix.ID
			} else {
				owner[h.Publisher] = true
			}
		}
	}
	if len(able) == 0 {
		return nil
	}
	var steps []assigner.Step
	for _, p := range slices.Sorted(slices.Values(v.Wanted)) {
		if owner[p] || busy[p] {
			continue
		}
		to := slices.MinFunc(able, func(a, b peer.ID) int { return cmp.Or(cmp.Compare(count[a], count[b]), cmp.Compare(a, b)) })
		count[to]++
		s := assigner.Step{Kind: assigner.Assign, Publisher: p, Indexer: to, Why: assigner.ReasonNew}
		if from, ok := frozen[p]; ok {
			s.Kind, s.From, s.Why = assigner.Handoff, from, assigner.ReasonFrozen
		}
		steps = append(steps, s)
	}
	return steps
}
