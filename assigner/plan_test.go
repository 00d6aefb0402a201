package assigner

import (
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

// ours is an indexer with roles: words "p" (owner of the whole chain), "p:2"
// (owner after ad 2), "p:-4" (holder up to ad 4), "p:2-4".
func ours(id, roles string) Indexer {
	ix := Indexer{ID: peer.ID(id), Reachable: true, Room: -1}
	for w := range strings.FieldsSeq(roles) {
		publisher, span, _ := strings.Cut(w, ":")
		from, to, ends := strings.Cut(span, "-")
		h := Held{Publisher: peer.ID(publisher), Role: admin.RoleOwner, Ranges: []admin.Range{{From: from, To: to}}, Height: 5, Load: 1, Weight: 1}
		if ends {
			h.Role, h.Height = admin.RoleHolder, 4
		}
		ix.Held = append(ix.Held, h)
	}
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

func TestPlanOfIndexersWithRoles(t *testing.T) {
	set := func(f func(*Indexer)) func(*Indexer) { return f }
	lost := set(func(ix *Indexer) { ix.Reachable, ix.Lost = false, true })
	drained := set(func(ix *Indexer) { ix.Draining = true })
	frozen := set(func(ix *Indexer) { ix.Frozen = true })
	leans := set(func(ix *Indexer) { ix.Held[0].LeansOn = ids("A") })
	filling := set(func(ix *Indexer) { ix.Held[0].Filling = true })
	height := func(n uint64) func(*Indexer) { return func(ix *Indexer) { ix.Held[0].Height = n } }
	presets := func(p string) func(*Indexer) { return func(ix *Indexer) { ix.Presets = ids(p) } }
	stale := set(func(ix *Indexer) { ix.Held[0].Stale, ix.Held[0].Height = true, 0 })
	tests := []struct {
		name string
		view View
		want string
	}{
		{"a closed chain is gone on with by another", View{Indexers: []Indexer{but(ours("A", "p:-4"), frozen), ours("B", "")}}, "p>B<A"},
		{"or by the one that was closed", View{Indexers: []Indexer{ours("A", "p:-4"), but(ours("B", ""), frozen)}}, "p>A"},
		{"a handoff that is done is not repeated", View{Indexers: []Indexer{but(ours("A", "p:-4"), frozen), ours("B", "p:4"), ours("C", "")}}, ""},
		{"one that thawed stays what it is", View{Indexers: []Indexer{ours("A", "p:-4"), ours("B", "p:4")}}, ""},
		{"a chain of handoffs goes on from its end", View{Indexers: []Indexer{but(ours("A", "p:-2"), frozen), but(ours("B", "p:2-4"), frozen), ours("C", "")}}, "p>C<B"},
		{"and back at who began it", View{Indexers: []Indexer{ours("A", "p:-2"), but(ours("B", "p:2-4"), frozen)}}, "p>A<B"},
		{"of two owners the most advanced stays", View{Indexers: []Indexer{but(ours("A", "p"), height(3)), but(ours("B", "p"), height(4))}}, "p-A"},
		{"and if equal the one of the lowest ID", View{Indexers: []Indexer{ours("A", "p"), ours("B", "p")}}, "p-B"},
		{"nobody is closed while an owner cannot be reached", View{Indexers: []Indexer{ours("A", "p"), down(ours("B", "p"))}}, ""},
		{"what an indexer that is down has counts", View{Indexers: []Indexer{down(ours("A", "p:-4")), ours("B", "p:4")}}, ""},
		{"what a lost one had is fetched", View{Indexers: []Indexer{but(ours("A", "p:-4"), lost), ours("B", "p:4")}}, "p^B"},
		{"once", View{Indexers: []Indexer{but(ours("A", "p:-4"), lost), but(ours("B", "p:4"), filling)}}, ""},
		{"a lost owner's chain is gone on with from its holder", View{Indexers: []Indexer{ours("A", "p:-4"), but(ours("B", "p:4"), lost), but(ours("C", ""), frozen)}}, "p>A"},
		{"a lost owner's chain begins anew if nobody has it", View{Indexers: []Indexer{but(ours("A", "p"), lost), ours("B", "")}}, "p>B"},
		{"a drained owner's chain moves and is fetched", View{Indexers: []Indexer{but(ours("A", "p"), drained), ours("B", "")}}, "p>B<A p^B"},
		{"a drained holder is not let go before", View{Indexers: []Indexer{but(ours("A", "p:-4"), drained), but(ours("B", "p:4"), filling)}}, ""},
		{"but when others have it all", View{Indexers: []Indexer{but(ours("A", "p:-4"), drained), ours("B", "p")}}, "p!A"},
		{"and have caught up", View{Indexers: []Indexer{but(ours("A", "p:-4"), drained), but(ours("B", "p"), height(2))}}, ""},
		{"who leans on a lost one fetches", View{Indexers: []Indexer{but(ours("A", "p:-4"), lost), but(ours("B", "p"), leans)}}, "p^B"},
		{"who leans on one that is there does not", View{Indexers: []Indexer{ours("A", "p:-4"), but(ours("B", "p:4"), leans)}}, ""},
		{"one that others lean on is not let go", View{Indexers: []Indexer{but(ours("A", "p:-4"), drained), but(but(ours("B", "p"), leans), filling)}}, ""},
		{"a bound publisher moves to its preset", View{Indexers: []Indexer{ours("A", "p"), but(ours("B", ""), presets("p"))}, Bound: ids("p")}, "p>B<A"},
		{"one publisher may have more owners", View{Indexers: []Indexer{ours("A", "p q"), ours("B", "")}, Copies: map[peer.ID]int{"q": 2}}, "q>B"},
		{"two owners of one beginning are not two copies",
			View{Indexers: []Indexer{but(ours("A", "p:-4"), frozen), ours("B", "p:4"), ours("C", "p:4")}, Replication: 2}, "p^B"},
		{"what nothing came of is released", View{Indexers: []Indexer{but(ours("A", "p"), stale)}}, "p!A"},
		{"unless it is announced", View{Indexers: []Indexer{but(ours("A", "p"), stale)}, Wanted: ids("p")}, ""},
		{"strangers are limited", View{Indexers: []Indexer{but(ours("A", "p"), height(0)), ours("B", "q")}, Wanted: ids("r s t"), MaxStrangers: 2}, "r>A"},
		{"whose publisher is known is no stranger", View{Indexers: []Indexer{but(ours("A", "p:-4"), frozen), but(ours("B", "q"), height(0))}, MaxStrangers: 1}, "p>B<A"},
		{"denied publishers are left alone", View{Indexers: []Indexer{but(ours("A", "p"), frozen), ours("B", "")}, Wanted: ids("q"), Denied: ids("p q")}, ""},
		{"and those with steps under way", View{Indexers: []Indexer{but(ours("A", "p:-4"), frozen), ours("B", "")}, Busy: ids("p")}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.view.Replication == 0 {
				tt.view.Replication = 1
			}
			tt.view.Fills = -1
			if diff := cmp.Diff(tt.want, text(Plan(tt.view))); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
		})
	}
}

// TestIndexerThatComesBackCostsNoBackfill: B had gone on from A, was given up as
// lost, and A went on itself. When B is back, A stops later than B begins; but A
// still says where it had stopped first.
func TestIndexerThatComesBackCostsNoBackfill(t *testing.T) {
	b := but(ours("B", "p:3"), func(ix *Indexer) { ix.Held[0].Continued = "A" })
	for _, c := range []struct {
		ranges []admin.Range
		want   string
	}{
		{[]admin.Range{{To: "3"}, {From: "3", To: "4"}}, ""},
		{[]admin.Range{{To: "4"}}, "p^B"},
	} {
		a := but(ours("A", "p:-4"), func(ix *Indexer) { ix.Held[0].Ranges = c.ranges })
		if got := text(Plan(View{Replication: 1, Fills: -1, Indexers: []Indexer{a, b}})); got != c.want {
			t.Errorf("%v: %q, want %q", c.ranges, got, c.want)
		}
	}
}

// TestBalanceTakesFewMoves: what is too much for one indexer is packed so that
// what is moved anyway also fills those that lack something.
func TestBalanceTakesFewMoves(t *testing.T) {
	rates := func(id string, rates ...float64) Indexer {
		ix := Indexer{ID: peer.ID(id), Reachable: true, Room: -1}
		for n, r := range rates {
			ix.Held = append(ix.Held, Held{Publisher: peer.ID(id + string(rune('a'+n))), Role: admin.RoleOwner, Ranges: []admin.Range{{}}, Height: 5, Load: r, Weight: 1})
		}
		return ix
	}
	for _, c := range []struct {
		name     string
		indexers []Indexer
		want     string
	}{
		{"one is empty", []Indexer{rates("A", 40, 30, 20, 10), rates("B", 40, 30, 20, 10), rates("C")}, "Aa>C<A Bc>C<B"},
		{"the one that fits", []Indexer{rates("A", 60, 40), rates("B", 20, 20, 20), rates("C", 10, 10)}, "Ab>C<A"},
		{"more than the giver can spare, which gets something else", []Indexer{rates("A", 62, 8, 8, 8, 8, 8), rates("B", 40, 30, 29), rates("C")}, "Aa>C<A Bc>A<B"},
	} {
		if got := text(Plan(View{Replication: 1, Moves: -1, Indexers: c.indexers})); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// TestMovesOfOnePublisherDoNotWaitForEachOther: from B to D and from D to A is
// from B to A, whichever was found first; and there and back is nothing.
func TestMovesOfOnePublisherDoNotWaitForEachOther(t *testing.T) {
	on := make(map[string]*entry)
	for _, id := range []string{"A", "B", "C", "D"} {
		on[id] = &entry{Indexer: Indexer{ID: peer.ID(id)}}
	}
	for moves, want := range map[string]string{
		"vBD vDA": "vBA", "vDA vBD": "vBA", "vAB vBA": "", "vAB vCD vBC": "vAD", "vAB wBC": "vAB wBC", "vAA vBC": "vBC",
	} {
		r := &round{}
		for w := range strings.FieldsSeq(moves) {
			r.moves = append(r.moves, moved{peer.ID(w[:1]), on[w[1:2]], on[w[2:]]})
		}
		var got []string
		for _, m := range r.made() {
			got = append(got, string(m.publisher+m.from.ID+m.to.ID))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v, want %s", moves, got, want)
		}
	}
}

func TestNeedingAndSurplus(t *testing.T) {
	v := View{Replication: 1, Indexers: []Indexer{ours("A", "p:-4 q:-4 r s:-4"), ours("B", "p:4 q s"), ours("C", "")}}
	v.Indexers[1].Held[2].Height = 3 // it has not caught up with A
	if got := Needing(v, "A"); !slices.Equal(got, ids("p r s")) {
		t.Errorf("without A: %q", got)
	}
	if got := Needing(v, "B"); !slices.Equal(got, ids("p q s")) {
		t.Errorf("without B: %q", got)
	}
	if got := Needing(v, "C"); len(got) > 0 {
		t.Errorf("without C: %q", got)
	}
	if got := text(Surplus(v)); got != "q!A" {
		t.Errorf("surplus %q", got)
	}
	v.Indexers[0].Refused = ids("q") // it lately could not: it is not asked again and again
	if got := text(Surplus(v)); got != "" {
		t.Errorf("surplus of who refused: %q", got)
	}
}
