package assigner

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
)

// ReindexSettings say how a re-index goes: indexers apply all ads again, one after
// the other, for what a repair has lost.
type ReindexSettings struct {
	// BackWithin is how long an indexer may be silent before its step has failed.
	BackWithin time.Duration
	// MarkWhole has each indexer forget, once it is done, that postings were lost.
	MarkWhole bool `json:",omitzero"`
}

// reindexTimeout bounds asking an indexer for it, which notes a wish for each of its
// publishers, and syncs.
const reindexTimeout = time.Minute

// reindexFacts are what a step of a re-index goes by.
type reindexFacts struct {
	up     bool
	silent time.Duration // it has not answered
	frozen bool
	left   *int // publishers whose ads are yet to be applied again; nil: it does not tell
	lost   float64
	paused bool // no further step is to begin
}

// Actions of a step of a re-index.
const (
	actReindex   action = iota + actCheck + 1
	actReindexed        // look whether it is done
)

// reindex is the step of a re-index after a look at the facts, and what is to be
// done. Like next it is pure, and can be asked again after any end of the process:
// the indexer has on disk what it was asked for, and asking twice does no harm.
func (s TaskStep) reindex(set ReindexSettings, f reindexFacts, now time.Time) (TaskStep, action) {
	asked := s.State == StepRunning
	switch {
	case !asked && (s.State != StepPending || f.paused):
		return s, actNothing
	case !f.up && f.silent > set.BackWithin:
		return s.to(StepFailed, now, "it has not answered for %v", set.BackWithin), actNothing
	case !f.up:
		return s.to(s.State, now, "it does not answer"), actNothing
	case f.frozen && asked:
		return s.to(StepPending, now, "it was frozen before it was done: it is asked again when it takes content"), actNothing
	case f.frozen:
		return s.to(StepPending, now, "it is frozen: nothing that was lost would come back"), actNothing
	case f.left == nil:
		return s.to(StepFailed, now, "it does not tell how far it is: it is no indexer of ours, or an older one"), actNothing
	case !asked:
		s.Lost = f.lost
		return s, actReindex
	case *f.left > 0:
		return s.to(StepRunning, now, "it applies its ads again"), actNothing
	}
	return s, actReindexed
}

// reindexStep takes one look at a step of a re-index.
func (a *Assigner) reindexStep(ctx context.Context, t Task, s TaskStep, now time.Time) TaskStep {
	f, ix := a.pool.reindexFacts(s.Indexer)
	f.silent, f.paused = a.silence.of(s.Indexer, f.up, now), t.State != TaskRunning
	s, act := s.reindex(*t.Reindex, f, now)
	switch act {
	case actReindex:
		return askReindex(ctx, ix, s, t.Reindex.BackWithin, now)
	case actReindexed:
		ctx, cancel := context.WithTimeout(ctx, a.cfg.CallTimeout)
		defer cancel()
		return endReindex(ctx, ix, s, *t.Reindex, now)
	}
	return s
}

// askReindex asks an indexer to apply all ads again.
func askReindex(ctx context.Context, ix client, s TaskStep, within time.Duration, now time.Time) TaskStep {
	ctx, cancel := context.WithTimeout(ctx, reindexTimeout)
	defer cancel()
	if s.Since.IsZero() {
		s.Since = now.UTC()
	}
	done, err := ix.Reindex(ctx)
	switch {
	case err == nil:
		s.PassedOver = done.PassedOver
		return s.to(StepRunning, now, "it applies its ads again")
	case errors.Is(err, admin.ErrUnavailable) && now.Sub(s.Since) <= within:
		return s.to(StepPending, now, "%s", plainText("it could not be asked: "+err.Error()))
	}
	return s.to(StepFailed, now, "%s", plainText("it was asked, and refused: "+err.Error()))
}

// endReindex looks whether an indexer is done, which it may have seemed to be before
// it was asked, and ends the step.
func endReindex(ctx context.Context, ix client, s TaskStep, set ReindexSettings, now time.Time) TaskStep {
	node, err := ix.Node(ctx)
	if err != nil || node.Frozen || node.Reindexing == nil || *node.Reindexing > 0 {
		return s // so the next look says
	}
	over := ""
	if s.PassedOver > 0 {
		over = fmt.Sprintf("%d publishers were passed over: what was lost of these has not come back", s.PassedOver)
	}
	switch {
	case node.LostShare > s.Lost:
		return s.to(StepFailed, now, "more was lost meanwhile: look at its disk, and have it repaired before another try")
	case !set.MarkWhole:
		return s.to(StepDone, now, "%s", over)
	case over != "":
		return s.to(StepFailed, now, "%s, so it is not marked as whole; signpost store mark-whole at that indexer does it anyway", over)
	}
	// By force: what else is synced now has nothing to do with what was lost.
	switch err := ix.MarkWhole(ctx, true); {
	case errors.Is(err, admin.ErrUnavailable):
		return s.to(s.State, now, "%s", plainText("it could not be marked as whole: "+err.Error()))
	case err != nil:
		return s.to(StepFailed, now, "%s", plainText("it could not be marked as whole: "+err.Error()))
	}
	return s.to(StepDone, now, "marked as whole")
}

// silence is since when the indexer of the step under way has not answered.
type silence struct {
	indexer peer.ID
	since   time.Time
}

// of is how long an indexer has been silent.
func (s *silence) of(id peer.ID, up bool, now time.Time) time.Duration {
	if up || s.indexer != id {
		*s = silence{id, now}
	}
	return now.Sub(s.since)
}

// reindexFacts are what is known for a step of a re-index.
func (p *pool) reindexFacts(id peer.ID) (f reindexFacts, ix client) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.byID(id)
	if n == nil || !n.up() {
		if n != nil {
			wake(n.retryNow)
		}
		return f, nil
	}
	return reindexFacts{up: true, frozen: n.facts.frozen, left: n.facts.node.Reindexing, lost: n.facts.node.LostShare}, n.indexer
}

// damaged are the members that say that they have lost postings.
func (p *pool) damaged() (ids []peer.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range p.nodes {
		if n.up() && n.facts.node.LostShare > 0 {
			ids = append(ids, n.facts.id)
		}
	}
	return ids
}

// newReindex is a re-index of the members that are named, or of those that say that
// they have lost postings.
func (a *Assigner) newReindex(set ReindexSettings, only []peer.ID, why Wish) (t Task, err error) {
	t = Task{Kind: TaskReindex, State: TaskRunning, Wish: why.plain(), Reindex: &set}
	if len(only) == 0 {
		only = a.pool.damaged()
	}
	if len(only) == 0 {
		return t, fmt.Errorf("%w: no indexer says that it has lost postings: name those that are to apply all ads again", admin.ErrBadRequest)
	}
	t.Steps, err = memberSteps(a.pool, only)
	return t, err
}

// withLeft adds to the steps of a re-index that run how much is left of them.
func (p *pool) withLeft(ts []Task) []Task {
	out := make([]Task, 0, len(ts))
	for _, t := range ts {
		if n := t.current(); t.Kind == TaskReindex && n >= 0 && t.Steps[n].State == StepRunning {
			if f, _ := p.reindexFacts(t.Steps[n].Indexer); f.left != nil && *f.left > 0 {
				s := t.Steps[n]
				s.Text = fmt.Sprintf("%d publishers are yet to be applied again", *f.left)
				t = t.with(n, s, time.Time{})
			}
		}
		out = append(out, t)
	}
	return out
}
