package assigner

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
)

// Explanation says where a publisher is and why, and what is to come.
type Explanation struct {
	Publisher peer.ID
	// Wished is how many owners and whole copies it should have, Whole how many
	// copies of its chain there are (-1: indexers without roles have some of it).
	Wished, Whole int
	Places        []Place
	// Steps are what a plan would do now; Waiting says why it does no more.
	Steps   []PlannedStep `json:",omitempty"`
	Waiting string        `json:",omitempty"`
	// Underway are steps begun whose effect is not seen yet.
	Underway []PlannedStep `json:",omitempty"`
	Refused  []Refusal     `json:",omitempty"`
	// Events are the last about it.
	Events []Event `json:",omitempty"`
	// Bound are the indexers it is tied to.
	Bound []peer.ID `json:",omitempty"`
}

// Place is what one indexer is to a publisher.
type Place struct {
	Indexer   peer.ID
	State     State
	Role      admin.Role
	Continued peer.ID `json:",omitempty"`
	Ranges    []admin.Range
	Since     time.Time `json:",omitzero"` // of the role
	Mark      string    `json:",omitempty"`
	Height    uint64
	Pending   int
	Filling   bool    `json:",omitzero"`
	Load      float64 // multihashes a second
	LastError string  `json:",omitempty"`
}

// PlannedStep is a Step as the API shows it.
type PlannedStep struct {
	Kind      string
	Publisher peer.ID
	Indexer   peer.ID
	From      peer.ID `json:",omitempty"`
	Why       string
}

func shown(steps []Step) []PlannedStep {
	out := make([]PlannedStep, 0, len(steps))
	for _, s := range steps {
		out = append(out, PlannedStep{s.Kind.String(), s.Publisher, s.Indexer, s.From, string(s.Why)})
	}
	return out
}

// Explain is Plan for one publisher, in words.
func Explain(v View, p peer.ID) Explanation {
	t := newTally(v)
	x := Explanation{Publisher: p, Wished: t.wish(p), Whole: -1}
	plain := false
	for _, c := range t.copies[p] {
		plain = plain || c.on.Plain
		x.Places = append(x.Places, Place{
			Indexer: c.on.ID, State: stateOf(c.on.Indexer), Role: c.Role, Continued: c.Continued,
			Ranges: c.Ranges, Height: c.Height, Filling: c.Filling, Load: c.Load,
		})
	}
	if !plain {
		x.Whole = copiesOf(rangesOf(t.copies[p], placement.counts), len(t.indexers)+1)
	}
	for _, e := range t.bind[p] {
		x.Bound = append(x.Bound, e.ID)
	}
	for _, s := range Plan(v) {
		if s.Publisher == p {
			x.Steps = append(x.Steps, shown([]Step{s})...)
		}
	}
	x.Waiting = string(t.waiting(p))
	return x
}

// waiting says why a plan does not do more for p.
func (t *tally) waiting(p peer.ID) Reason {
	switch {
	case t.denied.has(p):
		return waitsDenied
	case t.busy.has(p):
		return waitsBusy
	}
	s := t.shortageOf(p)
	t.handOff(&s, nil)
	t.assign(&s, nil)
	t.fill(&s, nil)
	if s.surplus > 0 && slices.ContainsFunc(t.copies[p], func(c placement) bool { return t.owns(c) && !c.on.Reachable }) {
		return waitsOwner
	}
	return s.waiting
}

func stateOf(ix Indexer) State {
	switch {
	case ix.Lost:
		return StateLost
	case ix.Crashing:
		return StateCrashing
	case ix.Resting:
		return StateResting
	case !ix.Reachable:
		return StateDown
	case ix.Draining:
		return StateDraining
	case ix.Frozen:
		return StateFrozen
	case ix.Standby:
		return StateStandby
	}
	return StateActive
}
