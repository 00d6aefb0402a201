package assigner

import (
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

// holding makes what a foreign indexer says of words "publisher" or
// "publisher<frozen".
func holding(words string) []Held {
	var out []Held
	for w := range strings.FieldsSeq(words) {
		publisher, frozen, _ := strings.Cut(w, "<")
		out = append(out, Held{Publisher: peer.ID(publisher), Continued: peer.ID(frozen), Role: admin.RoleOwner})
	}
	return out
}

// active is an indexer without roles, as the reference's.
func active(id, assigned string) Indexer {
	return Indexer{ID: peer.ID(id), Reachable: true, Plain: true, Held: holding(assigned)}
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

func but(ix Indexer, change func(*Indexer)) Indexer {
	change(&ix)
	return ix
}

// text writes steps as "p>A" (assign), "p>A<F" (handoff), "p-A" (close), "p^A"
// (backfill) and "p!A" (release).
func text(steps []Step) string {
	signs := map[Kind]string{Assign: ">", Handoff: ">", Close: "-", Backfill: "^", Release: "!"}
	var words []string
	for _, s := range steps {
		w := string(s.Publisher) + signs[s.Kind] + string(s.Indexer)
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
			View{Indexers: []Indexer{active("A", ""), but(active("B", "a b"), prefers("p"))}, Wanted: ids("p q")},
			"p>B q>A"},
		{"a standby waits while others can take the publisher",
			View{Indexers: []Indexer{but(but(active("A", ""), standby), prefers("p")), active("B", "a b")}, Wanted: ids("p")},
			"p>B"},
		{"a standby steps in when no other can",
			View{Indexers: []Indexer{but(active("A", ""), standby), frozen("B", "q"), down(active("C", "r"))}, Wanted: ids("p")},
			"q>A<B p>A"},
		{"a preset publisher goes to its presets only",
			View{Indexers: []Indexer{active("A", ""), but(active("B", "a b"), preset("p"))}, Wanted: ids("p q"), Bound: ids("p")},
			"p>B q>A"},
		{"a preset publisher waits for its preset",
			View{Indexers: []Indexer{active("A", ""), down(but(active("B", ""), preset("p")))}, Wanted: ids("p"), Bound: ids("p")}, ""},
		{"a preset of a member never read binds too",
			View{Indexers: []Indexer{active("A", "")}, Wanted: ids("p q"), Bound: ids("p")}, "q>A"},
		{"an assignment against the preset does not count",
			View{Indexers: []Indexer{active("A", "p"), but(active("B", ""), preset("p"))}, Bound: ids("p")}, "p>B"},
		{"an indexer that refused is passed over",
			View{Indexers: []Indexer{but(active("A", ""), refuses("p")), active("B", "a b")}, Wanted: ids("p q")}, "p>B q>A"},
		{"replication takes different indexers",
			View{Indexers: []Indexer{active("A", ""), active("B", ""), active("C", "")}, Wanted: ids("p q r"), Replication: 2},
			"p>A p>B q>C q>A r>B r>C"},
		{"replication larger than the pool takes all",
			View{Indexers: []Indexer{active("A", ""), active("B", "")}, Wanted: ids("p"), Replication: 5}, "p>A p>B"},
		{"a standby makes up for replication",
			View{Indexers: []Indexer{active("A", "p"), but(active("S", ""), standby)}, Replication: 2}, "p>S"},
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
			View{Indexers: []Indexer{but(frozen("F", "p"), spent("p")), active("A", "")}}, "p>A"},
		{"a handoff respects presets",
			View{Indexers: []Indexer{frozen("F", "p"), active("A", ""), but(active("B", "a"), preset("p"))}, Bound: ids("p")}, "p>B<F"},
		{"a handoff passes over who refused",
			View{Indexers: []Indexer{frozen("F", "p"), but(active("A", ""), refuses("p")), active("B", "a")}}, "p>B<F"},
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
