package assigner

import (
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
)

// View is everything a plan is made from: what the indexers said, and what the
// operator wishes. The order of its lists means nothing, and Plan changes none
// of them.
type View struct {
	// Indexers are the members of the pool whose facts are known, from the last
	// look at them or from a pool map. IDs are unique.
	Indexers []Indexer
	// Wanted are the publishers that have been announced. Publishers that some
	// indexer has are wanted as well and need not be listed.
	Wanted []peer.ID
	// Busy are publishers with steps under way: they are left alone.
	Busy []peer.ID
	// Bound are the publishers in the preset of any member, read or not: they
	// go to indexers whose Presets list them and to no other.
	Bound []peer.ID
	// Denied are publishers that get no step.
	Denied []peer.ID
	// Replication is how many owners each publisher should have, at least 1, and
	// Copies the same for single publishers. Fewer candidates than that is no
	// error; the rest stays undone.
	Replication int
	Copies      map[peer.ID]int
	// Unread is how many members nothing is known of and which are still waited
	// for. Any of them may hold any publisher: while Unread is above 0, a
	// publisher that no indexer has is left alone, and others are thought to
	// have one more copy on each unread member (assigner.md, section 2.6).
	Unread int
	// MaxStrangers is how many publishers may be owned of whom nothing ever came;
	// 0: any number.
	MaxStrangers int
	// Moves is how many publishers may be moved for the sake of balance, Fills
	// how many backfills may run in the whole pool. Negative: any number.
	Moves, Fills int
}

// Indexer is what is known of one indexer. What it owns counts even while it
// cannot be reached, for its roles are on its disk, until it is Lost.
type Indexer struct {
	ID peer.ID
	// Reachable: the last look at it succeeded. Only reachable indexers get
	// anything to do.
	Reachable bool
	// Resting: it is held for maintenance, which is as good as down for a while; it
	// is neither Frozen nor Reachable then.
	Resting bool
	// Crashing: it restarts again and again, and is not Reachable as far as a plan
	// goes; Lost in the end.
	Crashing bool
	// Frozen: it stores no new content, and its publishers move elsewhere.
	Frozen bool
	// Standby: it gets a publisher only when no other indexer can take it.
	Standby bool
	// Lost: it has been down for longer than the grace. What it has counts for
	// nothing.
	Lost bool
	// Draining: it is to be retired. Everything moves off it, also what it holds.
	Draining bool
	// NoNew: it gets nothing, and keeps what it has: its drain is paused.
	NoNew bool
	// Plain: it knows no roles, only assignments (a foreign indexer). It cannot
	// be told to close, backfill or release.
	Plain bool
	// Held are its publishers, each once.
	Held []Held
	// Expected are publishers that steps under way make its own.
	Expected []peer.ID
	// Preferred are publishers it has content of without having a role.
	Preferred []peer.ID
	// Presets are publishers reserved for it by configuration.
	Presets []peer.ID
	// Refused are publishers it lately would not take, or not do a step for.
	Refused []peer.ID
	// Spent are publishers a handoff of which from this indexer was accepted
	// and came to nothing, because it had no content of them to continue from.
	Spent []peer.ID
	// Room is how many bytes it can store until it freezes, negative: not known.
	// Stored are those it has.
	Room, Stored int64
	// Lag is the number of ads it knows and has not done.
	Lag int
}

// Held is what an indexer is to one publisher.
type Held struct {
	Publisher peer.ID
	Role      admin.Role
	Continued peer.ID
	Ranges    []admin.Range
	LeansOn   []peer.ID // who has content within Ranges that is not here
	Height    uint64    // ads at or below its mark
	Top       uint64    // if above Height: up to where it has something
	Unsure    bool      // where that is, is not known
	Filling   bool      // a backfill is under way
	// Load is a mean of multihashes a second, and Weight, 0 to 1, how much of the
	// last twelve hours it is about.
	Load, Weight float64
	// Stale: it is an owner for long and has nothing, nor knows of anything.
	Stale bool
}

// Kind says what a step does.
type Kind int

const (
	// Assign gives the publisher to the indexer, which starts at the beginning
	// of the chain or wherever it stopped before.
	Assign Kind = iota + 1
	// Handoff gives the publisher to the indexer, which goes on where From stops;
	// From is a holder then.
	Handoff
	// Close makes the indexer, one of too many owners, a holder.
	Close
	// Backfill has the indexer fetch what is older than its ranges.
	Backfill
	// Release ends what the indexer is to the publisher, and removes its content.
	Release
)

var kindNames = [...]string{Assign: "assign", Handoff: "handoff", Close: "close", Backfill: "backfill", Release: "release"}

func (k Kind) String() string {
	if k < Assign || k > Release {
		return fmt.Sprintf("Kind(%d)", int(k))
	}
	return kindNames[k]
}

// gives: it makes the indexer an owner.
func (k Kind) gives() bool { return k == Assign || k == Handoff }

// Reason says why a step is taken.
type Reason string

const (
	ReasonNew     Reason = "nobody has it"
	ReasonCopies  Reason = "it has fewer owners than wished"
	ReasonFrozen  Reason = "its owner is frozen"
	ReasonClosed  Reason = "its owner was closed"
	ReasonPinned  Reason = "its owner is none of those it is bound to"
	ReasonDrain   Reason = "the indexer is drained"
	ReasonBalance Reason = "load is uneven"
	ReasonSurplus Reason = "it has more owners than wished"
	ReasonHole    Reason = "older ads are on too few indexers"
	ReasonStale   Reason = "nothing ever came of it"
	ReasonClean   Reason = "other indexers hold as many copies as wished"
)

// Step is one thing to do. Steps of one publisher are done in the order of the
// plan; those of different publishers are independent of each other. A step
// can be done twice, or not at all and planned again.
type Step struct {
	Kind      Kind
	Publisher peer.ID
	Indexer   peer.ID // who is told
	From      peer.ID // whom a Handoff continues, else empty
	Why       Reason
}

// Plan says what to do so that every wanted publisher has as many owners as
// wished, its whole chain is on as many indexers, and load is spread. It is
// pure, and the same facts in any order make the same plan, which has these
// properties:
//
//  1. Nothing is given to an indexer that is frozen, not reachable, draining,
//     lost, refusing the publisher, or its owner already; a bound publisher goes
//     to its presets only.
//  2. A missing owner is made by a handoff from an indexer that stopped
//     (frozen, closed, draining, or none of the presets) and whom no other has
//     continued, as long as there is one, and else by assignment. One that
//     cannot be reached now is waited for until it is lost. So a finished
//     handoff is neither repeated nor turned round.
//  3. The indexer chosen is in this order: not on standby, preferred, with the
//     lowest load index counting what this plan gives it, with the fewest
//     publishers, of the lowest ID. See loadIndex.
//  4. Of too many owners, all of whom can be reached, the highest stay (the
//     lowest ID if equal) and the others are closed.
//  5. If fewer copies of the whole chain than wished are on indexers that count,
//     an owner that lacks the beginning fetches it.
//  6. Content is taken away only from draining indexers, once the others hold as
//     many whole copies as wished, and of publishers nothing came of.
//  7. Load moves from the most to the least loaded indexers in the fewest moves
//     that bring all near their share. See balance.
//  8. If every step succeeds, the next plan has no steps but releases of what
//     is drained, and the one after has none, until the indexers say that a
//     backfill has ended or that they have caught up.
//
// Handoffs come before assignments, then closes, backfills and releases, each in
// the order of publishers, and moves for balance, the largest first.
func Plan(v View) []Step {
	return decide(v).steps
}

// decision is a plan together with what it leaves undone.
type decision struct {
	steps      []Step
	publishers int // that some indexer has
	// unplaced are the wanted publishers that have no owner who takes ads and get
	// none by steps.
	unplaced int
	// stuck are draining indexers with publishers that can go nowhere.
	stuck map[peer.ID]int
}

func decide(v View) decision {
	t := newTally(v)
	d := decision{publishers: len(t.copies), stuck: make(map[peer.ID]int)}
	var closes, fills, releases []Step
	short := t.shortages()
	for i := range short {
		closes = t.closeSurplus(&short[i], closes)
	}
	for i := range short {
		d.steps = t.handOff(&short[i], d.steps)
	}
	for i := range short {
		d.steps = t.assign(&short[i], d.steps)
		if short[i].owned == 0 {
			d.unplaced++
		}
	}
	for i := range short {
		fills = t.fill(&short[i], fills)
		releases = t.release(&short[i], releases, d.stuck)
	}
	d.steps = append(append(append(d.steps, closes...), fills...), releases...)
	d.steps = t.balance(d.steps)
	return d
}
