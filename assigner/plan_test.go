package assigner

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
)

// ids makes peer IDs of words; the words are the raw bytes of the IDs, so they
// sort as written.
func ids(words string) []peer.ID {
	var out []peer.ID
	for w := range strings.FieldsSeq(words) {
		out = append(out, peer.ID(w))
	}
	return out
}

// holding makes assignments of words "publisher" or "publisher<frozen".
func holding(words string) []admin.Assignment {
	var out []admin.Assignment
	for w := range strings.FieldsSeq(words) {
		publisher, frozen, _ := strings.Cut(w, "<")
		out = append(out, admin.Assignment{Publisher: peer.ID(publisher), Continued: peer.ID(frozen)})
	}
	return out
}

func active(id, assigned string) Indexer {
	return Indexer{ID: peer.ID(id), Reachable: true, Assigned: holding(assigned)}
}

func frozen(id, assigned string) Indexer {
	ix := active(id, assigned)
	ix.Frozen = true
	return ix
}

func down(ix Indexer) Indexer {
	ix.Reachable = false
	return ix
}

func with(ix Indexer, change func(*Indexer)) Indexer {
	change(&ix)
	return ix
}

// text writes steps as "p>A" and "p>A<F".
func text(steps []Step) string {
	var words []string
	for _, s := range steps {
		w := fmt.Sprintf("%s>%s", string(s.Publisher), string(s.Indexer))
		if s.Kind == Handoff {
			w += "<" + string(s.From)
		}
		words = append(words, w)
	}
	return strings.Join(words, " ")
}

func TestPlan(t *testing.T) {
	standby := func(ix *Indexer) { ix.Standby = true }
	preset := func(p string) func(*Indexer) { return func(ix *Indexer) { ix.Presets = ids(p) } }
	prefers := func(p string) func(*Indexer) { return func(ix *Indexer) { ix.Preferred = ids(p) } }
	refuses := func(p string) func(*Indexer) { return func(ix *Indexer) { ix.Refused = ids(p) } }
	spent := func(p string) func(*Indexer) { return func(ix *Indexer) { ix.Spent = ids(p) } }

	tests := []struct {
		name string
		view View
		want string
	}{
		{"an empty pool has nothing to do", View{Wanted: ids("p")}, ""},
		{"publishers are spread within one plan",
			View{Indexers: []Indexer{active("A", ""), active("B", ""), active("C", "")}, Wanted: ids("p q r s t u")},
			"p>A q>B r>C s>A t>B u>C"},
		{"the least loaded is filled first",
			View{Indexers: []Indexer{active("A", "a b"), active("B", "c")}, Wanted: ids("p q r")},
			"p>B q>A r>B"},
		{"an assigned publisher stays", View{Indexers: []Indexer{active("A", "p"), active("B", "")}, Wanted: ids("p")}, ""},
		{"a copy on an indexer that is down counts",
			View{Indexers: []Indexer{down(active("A", "p")), active("B", "")}, Wanted: ids("p")}, ""},
		{"an indexer that is down gets nothing",
			View{Indexers: []Indexer{down(active("A", "")), active("B", "a b c")}, Wanted: ids("p")}, "p>B"},
		{"a frozen indexer gets nothing",
			View{Indexers: []Indexer{frozen("A", ""), active("B", "a b c")}, Wanted: ids("p")}, "p>B"},
		{"a preferring indexer comes before a less loaded one",
			View{Indexers: []Indexer{active("A", ""), with(active("B", "a b"), prefers("p"))}, Wanted: ids("p q")},
			"p>B q>A"},
		{"a standby waits while others can take the publisher",
			View{Indexers: []Indexer{with(with(active("A", ""), standby), prefers("p")), active("B", "a b")}, Wanted: ids("p")},
			"p>B"},
		{"a standby steps in when no other can",
			View{Indexers: []Indexer{with(active("A", ""), standby), frozen("B", "q"), down(active("C", "r"))}, Wanted: ids("p")},
			"q>A<B p>A"},
		{"a preset publisher goes to its presets only",
			View{Indexers: []Indexer{active("A", ""), with(active("B", "a b"), preset("p"))}, Wanted: ids("p q"), Bound: ids("p")},
			"p>B q>A"},
		{"a preset publisher waits for its preset",
			View{Indexers: []Indexer{active("A", ""), down(with(active("B", ""), preset("p")))}, Wanted: ids("p"), Bound: ids("p")}, ""},
		{"a preset of a member never read binds too",
			View{Indexers: []Indexer{active("A", "")}, Wanted: ids("p q"), Bound: ids("p")}, "q>A"},
		{"an assignment against the preset does not count",
			View{Indexers: []Indexer{active("A", "p"), with(active("B", ""), preset("p"))}, Bound: ids("p")}, "p>B"},
		{"an indexer that refused is passed over",
			View{Indexers: []Indexer{with(active("A", ""), refuses("p")), active("B", "a b")}, Wanted: ids("p q")}, "p>B q>A"},
		{"replication takes different indexers",
			View{Indexers: []Indexer{active("A", ""), active("B", ""), active("C", "")}, Wanted: ids("p q r"), Replication: 2},
			"p>A p>B q>C q>A r>B r>C"},
		{"replication larger than the pool takes all",
			View{Indexers: []Indexer{active("A", ""), active("B", "")}, Wanted: ids("p"), Replication: 5}, "p>A p>B"},
		{"a standby makes up for replication",
			View{Indexers: []Indexer{active("A", "p"), with(active("S", ""), standby)}, Replication: 2}, "p>S"},
		{"a raised replication covers publishers known only by assignment",
			View{Indexers: []Indexer{active("A", "p"), active("B", "")}, Replication: 2}, "p>B"},

		{"an unread member holds up a new publisher",
			View{Indexers: []Indexer{active("A", "")}, Wanted: ids("p"), Unread: 1}, ""},
		{"an unread member holds up a handoff, which may be done",
			View{Indexers: []Indexer{frozen("A", "p"), active("B", "")}, Unread: 1}, ""},
		{"an unread member counts as one copy",
			View{Indexers: []Indexer{active("A", "p"), active("B", ""), active("C", "")}, Replication: 3, Unread: 1}, "p>B"},

		{"publishers of a frozen indexer are spread",
			View{Indexers: []Indexer{frozen("F", "p q r s"), active("A", "a"), active("B", "b c")}},
			"p>A<F q>A<F r>B<F s>A<F"},
		{"handoffs come before assignments and count for them",
			View{Indexers: []Indexer{frozen("F", "z"), active("A", ""), active("B", "")}, Wanted: ids("p")}, "z>A<F p>B"},
		{"a finished handoff is not repeated",
			View{Indexers: []Indexer{frozen("F", "p"), active("A", "p<F"), active("B", "")}, Wanted: ids("p")}, ""},
		{"a finished handoff whose target is down is not repeated",
			View{Indexers: []Indexer{frozen("F", "p"), down(active("A", "p<F")), active("B", "")}, Wanted: ids("p")}, ""},
		{"another active copy continues a frozen one",
			View{Indexers: []Indexer{frozen("F", "p"), active("A", "p"), active("B", "")}}, ""},
		{"with replication a lost copy is made up for by handoff",
			View{Indexers: []Indexer{frozen("F", "p"), active("A", "p"), active("B", "")}, Replication: 2}, "p>B<F"},
		{"a chain of handoffs goes on from its end",
			View{Indexers: []Indexer{frozen("E", "p"), frozen("F", "p<E"), active("A", "")}}, "p>A<F"},
		{"an indexer that came back from frozen is its own continuation",
			View{Indexers: []Indexer{active("F", "p"), frozen("A", "p<F"), active("B", "")}}, ""},
		{"two frozen copies make two handoffs",
			View{Indexers: []Indexer{frozen("E", "p"), frozen("F", "p"), active("A", ""), active("B", "")}, Replication: 2},
			"p>A<E p>B<F"},
		{"a frozen indexer that is down is waited for",
			View{Indexers: []Indexer{down(frozen("F", "p")), active("A", "")}, Wanted: ids("p")}, ""},
		{"nowhere to hand off to leaves it undone",
			View{Indexers: []Indexer{frozen("F", "p"), frozen("G", ""), down(active("A", ""))}, Wanted: ids("p q")}, ""},
		{"after a handoff that came to nothing the publisher is assigned",
			View{Indexers: []Indexer{with(frozen("F", "p"), spent("p")), active("A", "")}}, "p>A"},
		{"a handoff respects presets",
			View{Indexers: []Indexer{frozen("F", "p"), active("A", ""), with(active("B", "a"), preset("p"))}, Bound: ids("p")}, "p>B<F"},
		{"a handoff passes over who refused",
			View{Indexers: []Indexer{frozen("F", "p"), with(active("A", ""), refuses("p")), active("B", "a")}}, "p>B<F"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.view.Replication == 0 {
				tt.view.Replication = 1
			}
			if diff := cmp.Diff(tt.want, text(Plan(tt.view))); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
		})
	}
}

// randomView makes a view with everything in it: few publishers on few
// indexers, so that they meet.
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
	v := View{Replication: 1 + r.IntN(3), Wanted: some(0.6)}
	if r.IntN(5) == 0 {
		v.Unread = 1 + r.IntN(2)
	}
	names := ids("A B C D E F")[:1+r.IntN(6)]
	for _, id := range names {
		ix := Indexer{ID: id, Reachable: r.IntN(4) > 0, Frozen: r.IntN(3) == 0, Standby: r.IntN(5) == 0,
			Preferred: some(0.1), Refused: some(0.1), Spent: some(0.1)}
		if r.IntN(4) == 0 {
			ix.Presets = some(0.2)
			v.Bound = append(v.Bound, ix.Presets...)
		}
		for _, p := range some(0.3) {
			as := admin.Assignment{Publisher: p}
			if other := names[r.IntN(len(names))]; r.IntN(2) == 0 && other != id {
				as.Continued = other
			}
			ix.Assigned = append(ix.Assigned, as)
		}
		v.Indexers = append(v.Indexers, ix)
	}
	return v
}

// apply returns the view after the steps have succeeded.
func apply(v View, steps []Step) View {
	v.Indexers = slices.Clone(v.Indexers)
	for _, s := range steps {
		for i := range v.Indexers {
			if ix := &v.Indexers[i]; ix.ID == s.Indexer {
				ix.Assigned = append(slices.Clip(ix.Assigned), admin.Assignment{Publisher: s.Publisher, Continued: s.From})
			}
		}
	}
	return v
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
		ix.Assigned = slices.Clone(ix.Assigned)
		r.Shuffle(len(ix.Assigned), func(i, j int) { ix.Assigned[i], ix.Assigned[j] = ix.Assigned[j], ix.Assigned[i] })
	}
	r.Shuffle(len(v.Indexers), func(i, j int) { v.Indexers[i], v.Indexers[j] = v.Indexers[j], v.Indexers[i] })
	return v
}

func byID(v View) map[peer.ID]Indexer {
	m := make(map[peer.ID]Indexer)
	for _, ix := range v.Indexers {
		m[ix.ID] = ix
	}
	return m
}

func assignedTo(ix Indexer, p peer.ID) bool {
	return slices.ContainsFunc(ix.Assigned, func(as admin.Assignment) bool { return as.Publisher == p })
}

// checkStep returns which rule of Plan the step breaks, or "".
func checkStep(v View, s Step) string {
	indexers := byID(v)
	target, known := indexers[s.Indexer]
	switch {
	case !known:
		return "unknown target"
	case target.Frozen:
		return "frozen target"
	case !target.Reachable:
		return "target is down"
	case slices.Contains(target.Refused, s.Publisher):
		return "target refused"
	case assignedTo(target, s.Publisher):
		return "target has it"
	case slices.Contains(v.Bound, s.Publisher) && !slices.Contains(target.Presets, s.Publisher):
		return "against the preset"
	}
	if s.Kind == Assign {
		if s.From != "" {
			return "assignment with a source"
		}
		return ""
	}
	from := indexers[s.From]
	switch {
	case s.Kind != Handoff:
		return "unknown kind"
	case !from.Frozen || !from.Reachable || !assignedTo(from, s.Publisher):
		return "source cannot hand off"
	}
	for _, ix := range v.Indexers {
		for _, as := range ix.Assigned {
			if as.Publisher == s.Publisher && as.Continued == s.From {
				return "source is continued already"
			}
		}
	}
	return ""
}

func TestPlanKeepsItsRules(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
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
		if again := Plan(apply(v, steps)); len(again) > 0 {
			t.Fatalf("%s is followed by %s for\n%+v", text(steps), text(again), v)
		}
	}
}

// TestPlanNeverMakesTooManyCopies carries out any part of a plan and plans again, as the
// loop does when calls fail: copies must never exceed what one plan makes.
func TestPlanNeverMakesTooManyCopies(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	for range 5_000 {
		v := randomView(r)
		start := copiesOf(v)
		for range 6 {
			steps := Plan(v)
			r.Shuffle(len(steps), func(i, j int) { steps[i], steps[j] = steps[j], steps[i] })
			v = apply(v, steps[:r.IntN(len(steps)+1)])
		}
		for p, n := range copiesOf(v) {
			if n > max(v.Replication, start[p]) {
				t.Fatalf("%s has %d active indexers of %d wanted\n%+v", string(p), n, v.Replication, v)
			}
		}
	}
}

// copiesOf counts the active indexers of each publisher that configuration
// allows it.
func copiesOf(v View) map[peer.ID]int {
	n := make(map[peer.ID]int)
	for _, ix := range v.Indexers {
		for _, as := range ix.Assigned {
			if !ix.Frozen && (!slices.Contains(v.Bound, as.Publisher) || slices.Contains(ix.Presets, as.Publisher)) {
				n[as.Publisher]++
			}
		}
	}
	return n
}

func BenchmarkPlan(b *testing.B) {
	const indexers, publishers = 10, 100_000
	v := View{Replication: 1}
	for i := range indexers {
		v.Indexers = append(v.Indexers, Indexer{ID: peer.ID(fmt.Sprintf("indexer %d", i)), Reachable: true})
	}
	for i := range publishers {
		ix := &v.Indexers[i%indexers]
		p := peer.ID(fmt.Sprintf("publisher %d", i))
		ix.Assigned = append(ix.Assigned, admin.Assignment{Publisher: p})
		v.Wanted = append(v.Wanted, p)
	}
	b.ReportAllocs()
	for b.Loop() {
		if steps := Plan(v); len(steps) > 0 {
			b.Fatal("steps in a settled pool")
		}
	}
}
