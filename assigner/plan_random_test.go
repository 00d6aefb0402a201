package assigner

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
)

// randomView makes a view with everything in it: few publishers on few
// indexers, so that they meet, whose facts need not make sense together.
func randomView(r *rand.Rand) View {
	publishers := ids("p q r s t u v w")
	some := func(chance float64) (out []peer.ID) {
		for _, p := range publishers {
			if r.Float64() < chance {
				out = append(out, p)
			}
		}
		return out
	}
	v := View{Replication: 1 + r.IntN(3), Wanted: some(0.6), Moves: -r.IntN(2), Fills: -r.IntN(2)}
	if r.IntN(5) == 0 {
		v.Unread = 1 + r.IntN(2)
	}
	if r.IntN(4) == 0 {
		v.Copies = map[peer.ID]int{"p": 1 + r.IntN(3), "q": r.IntN(2)}
	}
	if r.IntN(6) == 0 {
		v.Denied, v.Busy = some(0.1), some(0.1)
	}
	names := ids("A B C D E F")[:1+r.IntN(6)]
	foreign := r.IntN(3) // none, all, some
	for _, id := range names {
		ix := Indexer{ID: id, Reachable: r.IntN(4) > 0, Frozen: r.IntN(3) == 0, Standby: r.IntN(5) == 0,
			Preferred: some(0.1), Refused: some(0.1), Spent: some(0.1), Draining: r.IntN(8) == 0,
			Plain: foreign == 1 || foreign == 2 && r.IntN(2) == 0, Room: r.Int64N(100) - 1, Stored: r.Int64N(9), Lag: r.IntN(9)}
		ix.Lost = !ix.Reachable && r.IntN(2) == 0
		if r.IntN(4) == 0 {
			ix.Presets = some(0.2)
			v.Bound = append(v.Bound, ix.Presets...)
		}
		for _, p := range some(0.3) {
			h := Held{Publisher: p, Role: admin.RoleOwner, Height: r.Uint64N(4)}
			if other := names[r.IntN(len(names))]; r.IntN(2) == 0 && other != id {
				h.Continued = other
			}
			if !ix.Plain {
				randomRole(r, &h, ix.Frozen)
			}
			ix.Held = append(ix.Held, h)
		}
		v.Indexers = append(v.Indexers, ix)
	}
	for _, p := range publishers {
		v.nameContinued(p)
		for i := range v.Indexers {
			if h := v.Indexers[i].held(p); h != nil && h.Continued != "" && !v.Indexers[i].Plain && r.IntN(4) == 0 {
				h.LeansOn = []peer.ID{h.Continued}
			}
		}
	}
	return v
}

// nameContinued has the copies of p say whom they continue, each somebody else
// as long as there is one that stopped there.
func (v View) nameContinued(p peer.ID) {
	taken := make(map[peer.ID]bool)
	for i := range v.Indexers {
		h := v.Indexers[i].held(p)
		if h == nil || len(h.Ranges) == 0 {
			continue
		}
		from := h.Ranges[runOf(h.Ranges)].From
		h.Continued = ""
		for j := range v.Indexers {
			o := v.Indexers[j].held(p)
			if j != i && o != nil && from != "" && !taken[v.Indexers[j].ID] &&
				slices.ContainsFunc(o.Ranges, func(r admin.Range) bool { return r.To == from }) {
				h.Continued = v.Indexers[j].ID
				taken[h.Continued] = true
				break
			}
		}
	}
}

func randomRole(r *rand.Rand, h *Held, frozen bool) {
	ads := []string{"", "1", "2", "3", "4"}
	for at := r.IntN(3); at < len(ads); {
		to := at + 1 + r.IntN(len(ads))
		if to >= len(ads) {
			if !frozen {
				h.Ranges = append(h.Ranges, admin.Range{From: ads[at]})
			} else if at < len(ads)-1 {
				h.Ranges = append(h.Ranges, admin.Range{From: ads[at], To: "4"})
			}
			break
		}
		h.Ranges = append(h.Ranges, admin.Range{From: ads[at], To: ads[to]})
		// Who continued whom is only told of the last range. Of an older one that
		// does not begin at the genesis it would be a guess, which another step may
		// turn.
		if first := h.Ranges[0].From != "" || len(h.Ranges) > 1; first || r.IntN(3) == 0 {
			break
		}
		if at = min(to+r.IntN(2), len(ads)-1); at == len(ads)-1 {
			break
		}
	}
	if n := len(h.Ranges); !frozen && (n == 0 || h.Ranges[n-1].To != "") || r.IntN(4) == 0 {
		h.Role = admin.RoleHolder
		if n > 0 && h.Ranges[n-1].To == "" {
			h.Ranges[n-1].To = "4"
		}
	}
	h.Load, h.Weight = float64(h.Publisher[0]%3)*10, float64(r.IntN(3))/2
	h.Stale = h.Role == admin.RoleOwner && r.IntN(8) == 0
	h.Filling = h.Role == admin.RoleOwner && r.IntN(8) == 0
}

// apply returns the view after the steps have succeeded.
func apply(v View, steps []Step) View {
	v.Indexers = slices.Clone(v.Indexers)
	for i := range v.Indexers {
		v.Indexers[i].Held = slices.Clone(v.Indexers[i].Held)
	}
	for _, s := range steps {
		v.do(s)
	}
	return v
}

// do carries out a step as the indexers would.
func (v View) do(s Step) {
	ix := v.find(s.Indexer)
	h := ix.held(s.Publisher)
	switch s.Kind {
	case Assign, Handoff:
		end, seam := "", false
		if s.Kind == Handoff {
			if from := v.find(s.From); !from.Plain {
				end, seam = from.held(s.Publisher).stop(from.ID), true
			}
		}
		if h == nil {
			ix.Held = append(ix.Held, Held{Publisher: s.Publisher})
			h = &ix.Held[len(ix.Held)-1]
		}
		h.Role = admin.RoleOwner
		if seam || ix.Plain || s.Kind == Handoff || len(h.Ranges) == 0 {
			h.Continued = s.From
		}
		h.Ranges = slices.Clone(h.Ranges)
		switch {
		case ix.Plain:
			h.Ranges = nil
		case seam || len(h.Ranges) == 0:
			h.Ranges = append(h.Ranges, admin.Range{From: end})
		default:
			h.Ranges = append(h.Ranges, admin.Range{From: h.Ranges[len(h.Ranges)-1].To})
		}
	case Close:
		h.stop(ix.ID)
	case Backfill:
		h.Filling = true
	case Release:
		ix.Held = slices.DeleteFunc(ix.Held, func(h Held) bool { return h.Publisher == s.Publisher })
	}
}

func (h *Held) stop(id peer.ID) (end string) {
	h.Role = admin.RoleHolder
	h.Ranges = slices.Clone(h.Ranges)
	if n := len(h.Ranges); n > 0 {
		if h.Ranges[n-1].To == "" {
			h.Ranges[n-1].To = fmt.Sprintf("%s%d", string(id), n)
		}
		end = h.Ranges[n-1].To
	}
	return end
}

func (v View) find(id peer.ID) *Indexer {
	for i := range v.Indexers {
		if v.Indexers[i].ID == id {
			return &v.Indexers[i]
		}
	}
	return nil
}

func (ix *Indexer) held(p peer.ID) *Held {
	for i := range ix.Held {
		if ix.Held[i].Publisher == p {
			return &ix.Held[i]
		}
	}
	return nil
}

func shuffled(r *rand.Rand, v View) View {
	mix := func(ids []peer.ID) []peer.ID {
		ids = slices.Clone(ids)
		r.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
		return ids
	}
	v.Wanted, v.Bound = mix(v.Wanted), mix(v.Bound)
	v.Indexers = slices.Clone(v.Indexers)
	for i := range v.Indexers {
		ix := &v.Indexers[i]
		ix.Preferred, ix.Presets, ix.Refused, ix.Spent = mix(ix.Preferred), mix(ix.Presets), mix(ix.Refused), mix(ix.Spent)
		ix.Held = slices.Clone(ix.Held)
		r.Shuffle(len(ix.Held), func(i, j int) { ix.Held[i], ix.Held[j] = ix.Held[j], ix.Held[i] })
	}
	r.Shuffle(len(v.Indexers), func(i, j int) { v.Indexers[i], v.Indexers[j] = v.Indexers[j], v.Indexers[i] })
	return v
}

// checkStep returns which rule of Plan the step breaks, or "".
func checkStep(v View, s Step) string {
	target := v.find(s.Indexer)
	switch {
	case target == nil:
		return "unknown indexer"
	case !target.Reachable:
		return "indexer is down"
	case slices.Contains(target.Refused, s.Publisher):
		return "indexer refused"
	case slices.Contains(v.Busy, s.Publisher), slices.Contains(v.Denied, s.Publisher):
		return "publisher is to be left alone"
	}
	h := target.held(s.Publisher)
	if s.Kind == Assign || s.Kind == Handoff {
		return checkGift(v, s, target, h)
	}
	switch {
	case target.Plain, h == nil:
		return "it cannot do that"
	case s.From != "":
		return "a source without a handoff"
	case s.Kind == Close && (h.Role != admin.RoleOwner || v.owners(s.Publisher) <= v.wish(s.Publisher)):
		return "closed one that is needed"
	case s.Kind == Backfill && (h.Role != admin.RoleOwner || h.Filling || v.Fills == 0):
		return "nothing to fill"
	case s.Kind == Release && !target.Draining && !h.Stale:
		return "released one that is needed"
	case s.Kind == Release && target.Draining && !h.Stale && v.whole(s.Publisher, target.ID) < v.wish(s.Publisher):
		return "released before others have it"
	}
	return ""
}

func checkGift(v View, s Step, target *Indexer, h *Held) string {
	switch {
	case target.Frozen, target.Lost, target.Draining:
		return "given to one that takes nothing"
	case h != nil && (target.Plain || h.Role == admin.RoleOwner):
		return "target has it"
	case slices.Contains(v.Bound, s.Publisher) && !slices.Contains(target.Presets, s.Publisher):
		return "against the preset"
	case s.Kind == Assign:
		if s.From != "" {
			return "assignment with a source"
		}
		return ""
	}
	from := v.find(s.From)
	if from == nil || !from.Reachable || from.held(s.Publisher) == nil {
		return "source cannot hand off"
	}
	if !from.Plain && slices.Contains(from.Refused, s.Publisher) {
		return "source refused"
	}
	if from.Plain && !from.Frozen {
		return "source has not stopped"
	}
	for _, c := range v.Indexers {
		if h := c.held(s.Publisher); h != nil && from.Plain && !c.Lost && h.Continued == s.From {
			return "source is continued already"
		}
	}
	return ""
}

func (v View) wish(p peer.ID) int {
	if n := v.Copies[p]; n > 0 {
		return n
	}
	return v.Replication
}

// owners counts those of p that take ads and are allowed to.
func (v View) owners(p peer.ID) (n int) {
	for _, ix := range v.Indexers {
		h := ix.held(p)
		if h != nil && h.Role == admin.RoleOwner && !ix.Frozen && !ix.Lost && !ix.Draining &&
			(!slices.Contains(v.Bound, p) || slices.Contains(ix.Presets, p)) {
			n++
		}
	}
	return n
}

// whole counts whole copies without one indexer.
func (v View) whole(p, without peer.ID) int {
	var ranges []admin.Range
	for _, ix := range v.Indexers {
		if h := ix.held(p); h != nil && ix.ID != without && !ix.Lost && !ix.Draining {
			ranges = append(ranges, h.Ranges...)
		}
	}
	return copiesOf(ranges, 9)
}

// seeded is a random source whose seed is logged; SIGNPOST_SEED gives it again.
func seeded(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	if text := os.Getenv("SIGNPOST_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("SIGNPOST_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

func TestPlanKeepsItsRules(t *testing.T) {
	r := seeded(t)
	for range 20_000 {
		v := randomView(r)
		before := fmt.Sprintf("%+v", v)
		steps := Plan(v)
		if after := fmt.Sprintf("%+v", v); before != after {
			t.Fatalf("Plan changed its view\nfrom %s\nto   %s", before, after)
		}
		if other := Plan(shuffled(r, v)); text(other) != text(steps) {
			t.Fatalf("order of reports matters: %s and %s for\n%+v", text(steps), text(other), v)
		}
		// Each step must be good after those before it, and the last must leave
		// nothing to do.
		for i, s := range steps {
			if broken := checkStep(apply(v, steps[:i]), s); broken != "" {
				t.Fatalf("step %d of %s: %s for\n%+v", i, text(steps), broken, v)
			}
		}
		// But what the steps made whole drained indexers need not keep, and what
		// only they had may be stale then. And where somebody goes on from one that
		// was released, it may as well have gone on from another that ends there,
		// which need not be waited for then. And what had steps is moved for balance
		// by the next plan only.
		after := apply(v, steps)
		gone := make(map[peer.ID]bool)
		released := func(steps []Step) {
			for _, s := range steps {
				if s.Kind == Release {
					after.Moves = 0 // what was released had a rate
					gone[s.Publisher] = true
				}
			}
		}
		released(steps)
		moved := make(map[peer.ID]bool)
		for _, s := range steps {
			moved[s.Publisher] = true
		}
		for range 2 {
			again := Plan(after)
			for _, s := range again {
				later := s.Kind == Release || gone[s.Publisher] || s.Why == ReasonBalance && moved[s.Publisher]
				if !later || checkStep(after, s) != "" {
					t.Fatalf("%s is followed by %s for\n%+v", text(steps), text(again), v)
				}
			}
			after = apply(after, again)
			released(again)
		}
		if last := Plan(after); len(last) > 0 {
			t.Fatalf("%s ends with %s for\n%+v", text(steps), text(last), v)
		}
	}
}

// TestPlanNeverMakesTooManyOwners carries out any part of a plan and plans again,
// as the loop does when calls fail: owners must never exceed what one plan makes.
func TestPlanNeverMakesTooManyOwners(t *testing.T) {
	r := seeded(t)
	for range 5_000 {
		v := randomView(r)
		start := make(map[peer.ID]int)
		for _, p := range ids("p q r s t u v w") {
			start[p] = v.owners(p)
		}
		for range 6 {
			steps := Plan(v)
			v = apply(v, steps[:r.IntN(len(steps)+1)])
		}
		for p, n := range start {
			if v.owners(p) > max(v.wish(p), n) {
				t.Fatalf("%s has %d owners of %d wished\n%+v", string(p), v.owners(p), v.wish(p), v)
			}
		}
	}
}

func BenchmarkPlan(b *testing.B) {
	const indexers, publishers = 10, 100_000
	v := View{Replication: 1, Moves: -1, Fills: -1}
	for i := range indexers {
		v.Indexers = append(v.Indexers, Indexer{ID: peer.ID(fmt.Sprintf("indexer %d", i)), Reachable: true, Room: -1})
	}
	for i := range publishers {
		ix := &v.Indexers[i%indexers]
		p := peer.ID(fmt.Sprintf("publisher %d", i))
		ix.Held = append(ix.Held, Held{Publisher: p, Role: admin.RoleOwner, Ranges: []admin.Range{{}}, Load: 10, Weight: 1})
		v.Wanted = append(v.Wanted, p)
	}
	b.ReportAllocs()
	for b.Loop() {
		start := time.Now()
		if steps := Plan(v); len(steps) > 0 {
			b.Fatal("steps in a settled pool")
		}
		b.ReportMetric(time.Since(start).Seconds(), "s/plan")
	}
}

// BenchmarkPlanOfAnUnevenPool is of a thousand indexers with loads far apart, and
// with publishers that can be moved or not.
func BenchmarkPlanOfAnUnevenPool(b *testing.B) {
	for _, stuck := range []bool{false, true} {
		b.Run(fmt.Sprintf("stuck=%v", stuck), func(b *testing.B) {
			r := rand.New(rand.NewPCG(1, 1))
			v := View{Replication: 1, Moves: 10, Fills: 0}
			for i := range 1000 {
				ix := Indexer{ID: peer.ID(fmt.Sprintf("indexer %04d", i)), Reachable: true, Room: -1}
				for k := range 100 {
					p := peer.ID(fmt.Sprintf("publisher %04d %d", i, k))
					ix.Held = append(ix.Held, Held{
						Publisher: p, Role: admin.RoleOwner, Ranges: []admin.Range{{}}, Height: 1,
						Load: 1 / (r.Float64() + 0.001) * float64(1+i%7), Weight: 1, Filling: stuck,
					})
				}
				v.Indexers = append(v.Indexers, ix)
			}
			b.ReportAllocs()
			for b.Loop() {
				if n := len(Plan(v)); n != 10 && !stuck {
					b.Fatalf("%d steps", n)
				}
			}
		})
	}
}
