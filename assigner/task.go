package assigner

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
)

// Task is something that takes long, step by step: an upgrade or a re-index, which
// an operator asked for and which is kept, or a drain or fetching of older ads, as
// the facts show it. A value is replaced, never edited.
type Task struct {
	ID    string // such as "upgrade-3"
	Kind  TaskKind
	State TaskState
	Wish
	Settings *UpgradeSettings `json:",omitempty"` // of an upgrade
	Reindex  *ReindexSettings `json:",omitempty"` // of a re-index
	Steps    []TaskStep
	Ended    time.Time `json:",omitzero"`
}

// TaskKind is what a task is about.
type TaskKind string

const (
	TaskUpgrade TaskKind = "upgrade" // indexers are restarted, one after the other
	TaskReindex TaskKind = "reindex" // indexers apply all ads again, one after the other
	TaskDrain   TaskKind = "drain"   // an indexer's publishers go to others
	TaskFill    TaskKind = "fill"    // an indexer fetches older ads
)

// TaskState is how a task stands.
type TaskState string

const (
	TaskRunning TaskState = "running"
	TaskPaused  TaskState = "paused"
	TaskFailed  TaskState = "failed" // one step has; an operator retries or skips it
	TaskDone    TaskState = "done"
	TaskEnded   TaskState = "ended" // an operator has ended it before it was done
)

// over: nothing comes of it any more.
func (s TaskState) over() bool { return s == TaskDone || s == TaskEnded }

// UpgradeSettings say how careful an upgrade is.
type UpgradeSettings struct {
	// MaxDown is how many indexers may be out of service at once, those that are
	// down by themselves included: a number, or with "%" a share of the pool.
	MaxDown string
	// MinCopies is how many whole copies of what an indexer holds have to be on
	// others that answer before it goes down; 0: any number, and lookups may be
	// partial or 503 meanwhile.
	MinCopies int
	// DownFor is how long lookups do without an indexer that is down; BackWithin
	// is when it has to answer again, and when it has to have caught up after that.
	DownFor, BackWithin time.Duration
	// Exec says that a command restarts the indexers, run by who asked for the
	// upgrade; else somebody else restarts an indexer when it is ready for it.
	Exec bool `json:",omitzero"`
}

// Defaults of UpgradeSettings.
const (
	DefaultMaxDown    = "1"
	DefaultMinCopies  = 1
	DefaultDownFor    = 30 * time.Second
	DefaultBackWithin = 4 * time.Minute
)

// StepState is how far a step of a task is. An upgrade's goes down the list.
type StepState string

const (
	StepPending  StepState = "pending"
	StepHolding  StepState = "holding"  // it is frozen, and others have yet to have all it holds
	StepSettling StepState = "settling" // frontends learn that they can do without it
	StepReady    StepState = "ready"    // it may be restarted now
	StepAway     StepState = "away"     // it is being restarted
	StepThawing  StepState = "thawing"  // it is back, and takes content again when it may
	StepDone     StepState = "done"
	StepFailed   StepState = "failed"
	StepSkipped  StepState = "skipped"
	StepRunning  StepState = "running" // of a task that is no upgrade: it is under way
)

func (s StepState) over() bool { return s == StepDone || s == StepSkipped }

// beforeDown: the indexer is in service, or can be again without a restart.
func (s StepState) beforeDown() bool {
	return s == StepHolding || s == StepSettling || s == StepReady
}

// TaskStep is one indexer's part of a task.
type TaskStep struct {
	Indexer peer.ID
	Find    string `json:",omitempty"`
	Ingest  string `json:",omitempty"`
	Admin   string `json:",omitempty"`
	State   StepState
	Since   time.Time `json:",omitzero"` // of State
	// Text is what it waits for, or why it failed or was skipped.
	Text string `json:",omitempty"`
	// Started is when the process began that is to be restarted, Commands how often
	// the command was begun for it, and Refused says that it failed.
	Started  time.Time `json:",omitzero"`
	Commands int       `json:",omitzero"`
	Refused  bool      `json:",omitzero"`
	// Lost is the part of all multihashes of which the indexer had lost postings when
	// it was asked to apply all ads again, and PassedOver how many publishers it then
	// left out.
	Lost       float64 `json:",omitzero"`
	PassedOver int     `json:",omitzero"`
}

// to is the step in another state.
func (s TaskStep) to(state StepState, now time.Time, format string, args ...any) TaskStep {
	if s.State != state {
		s.State, s.Since = state, now.UTC()
	}
	s.Text = fmt.Sprintf(format, args...)
	return s
}

// stepFacts are what a step goes by.
type stepFacts struct {
	known, up  bool
	started    time.Time
	frozen     bool
	by         admin.FrozenBy
	heldUntil  time.Time
	behind     int    // publishers it has yet to catch up with
	blocked    string // why it must not go down; "": it may
	lacks      string // what others lack of what it holds; "": nothing
	paused     bool   // no further step is to begin
	settleTime time.Duration
}

// action is what a step wants done to its indexer.
type action int

const (
	actNothing action = iota
	actHold           // so long that it may be down for DownFor
	actCheck          // whether it answers lookups; the step is done then
)

// next is the step after a look at the facts, and what is to be done. It is pure,
// and can be asked again after any end of the process: what it goes by is on disk
// here or at the indexer.
func (s TaskStep) next(set UpgradeSettings, f stepFacts, now time.Time) (TaskStep, action) {
	held := f.heldUntil.Sub(now)
	if !f.known && s.State.beforeDown() {
		return s.to(s.State, now, "it has not been read yet"), actNothing
	}
	switch s.State {
	case StepPending:
		switch {
		case f.paused:
			return s, actNothing
		case !f.known || !f.up:
			return s.to(StepPending, now, "it does not answer"), actNothing
		case f.blocked != "":
			return s.to(StepPending, now, "%s", f.blocked), actNothing
		}
		s.Started, s.Commands, s.Refused = f.started, 0, false
		return s.to(StepHolding, now, ""), actHold
	case StepHolding, StepSettling, StepReady:
		return s.beforeDown(set, f, held, now)
	case StepAway:
		switch {
		case s.restarted(f):
			return s.to(StepThawing, now, ""), actNothing
		case now.Sub(s.Since) > set.BackWithin:
			return s.to(StepFailed, now, "it has not come back as another process within %v", set.BackWithin), actNothing
		}
		return s.to(StepAway, now, "it is being restarted"), actNothing
	case StepThawing:
		return s.thawing(set, f, held, now)
	}
	return s, actNothing
}

func (s TaskStep) beforeDown(set UpgradeSettings, f stepFacts, held time.Duration, now time.Time) (TaskStep, action) {
	waits := firstOf(f.blocked, f.lacks)
	if !f.up {
		waits = "it does not answer"
	}
	switch {
	case s.restarted(f):
		return s.to(StepThawing, now, ""), actNothing
	case !f.up && s.State == StepReady:
		return s.to(StepAway, now, "it is down"), actNothing
	case f.paused:
		return s.to(StepPending, now, ""), actNothing
	case s.State == StepHolding && now.Sub(s.Since) > set.BackWithin:
		return s.to(StepFailed, now, "after %v: %s", set.BackWithin, waits), actNothing
	case waits != "":
		s = s.to(StepHolding, now, "%s", waits)
		if held < f.settleTime {
			return s, actHold
		}
		return s, actNothing
	case s.State == StepHolding:
		return s.to(StepSettling, now, ""), actHold
	case s.State == StepSettling && now.Sub(s.Since) < f.settleTime:
		return s, actNothing
	case held < set.DownFor/2 && s.Commands == 0:
		return s.to(StepSettling, now, ""), actHold
	case s.Commands > 0:
		return s.to(StepAway, now, ""), actNothing
	}
	return s.to(StepReady, now, "it may be restarted now"), actNothing
}

func (s TaskStep) thawing(set UpgradeSettings, f stepFacts, held time.Duration, now time.Time) (TaskStep, action) {
	limit := set.BackWithin + set.DownFor
	thawed := f.up && !(f.frozen && f.by == admin.FrozenByMaintenance)
	switch {
	case thawed && f.behind == 0:
		return s.to(StepThawing, now, ""), actCheck
	case now.Sub(s.Since) <= limit && !f.up:
		return s.to(StepThawing, now, "it does not answer"), actNothing
	case now.Sub(s.Since) <= limit && !thawed && held > 0:
		return s.to(StepThawing, now, "it takes content again in %v", held.Round(time.Second)), actNothing
	case !thawed && f.up:
		if now.Sub(s.Since) <= limit {
			return s.to(StepThawing, now, "it is to take content again"), actNothing
		}
		return s.to(StepFailed, now, "it could not be unfrozen within %v; signpost pool events says why", limit), actNothing
	case now.Sub(s.Since) <= limit:
		return s.to(StepThawing, now, "it has yet to catch up with %d publishers", f.behind), actNothing
	case !f.up:
		return s.to(StepFailed, now, "it came back, and has not stayed"), actNothing
	}
	return s.to(StepFailed, now, "after %v it has yet to catch up with %d publishers", limit, f.behind), actNothing
}

// restarted: another process answers than the one that was to be restarted.
func (s TaskStep) restarted(f stepFacts) bool {
	return f.known && f.up && !s.Started.IsZero() && !f.started.Equal(s.Started)
}

func firstOf(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}

// current is the step a task is at, or -1.
func (t Task) current() int {
	return slices.IndexFunc(t.Steps, func(s TaskStep) bool { return !s.State.over() })
}

// with is the task with a step in its place, and the state that follows.
func (t Task) with(n int, s TaskStep, now time.Time) Task {
	t.Steps = slices.Clone(t.Steps)
	t.Steps[n] = s
	switch {
	case s.State == StepFailed && t.State == TaskRunning:
		t.State = TaskFailed
	case t.current() < 0 && !t.State.over():
		t.State, t.Ended = TaskDone, now.UTC()
	}
	return t
}

// stepOf finds the step of an indexer; an empty one is the current step.
func (t Task) stepOf(indexer peer.ID) (int, error) {
	n := t.current()
	if indexer != "" {
		n = slices.IndexFunc(t.Steps, func(s TaskStep) bool { return s.Indexer == indexer })
	}
	if n < 0 {
		return n, fmt.Errorf("%w: %s has no such step", admin.ErrNotFound, t.ID)
	}
	return n, nil
}

// retry has a failed step begin anew. One whose indexer has been restarted is not
// restarted again, unless that is what failed.
func (t Task) retry(n int, f stepFacts, now time.Time) (Task, error) {
	s := t.Steps[n]
	if s.State != StepFailed {
		return t, fmt.Errorf("%w: the step of %s has not failed, it is %s", admin.ErrRefused, s.Indexer, s.State)
	}
	if s.restarted(f) && !s.Refused {
		s = s.to(StepThawing, now, "")
	} else {
		s = s.to(StepPending, now, "")
	}
	t = t.with(n, s, now)
	if t.State == TaskFailed {
		t.State = TaskRunning
	}
	return t, nil
}

// skip passes a step over, for a reason.
func (t Task) skip(n int, reason string, now time.Time) (Task, error) {
	s := t.Steps[n]
	reason = strings.TrimSpace(plainText(reason))
	switch {
	case reason == "":
		return t, fmt.Errorf("%w: say why the step is skipped", admin.ErrBadRequest)
	case s.State.over():
		return t, fmt.Errorf("%w: the step of %s is %s", admin.ErrRefused, s.Indexer, s.State)
	case s.State == StepAway || s.State == StepThawing:
		return t, fmt.Errorf("%w: indexer %s is being restarted: wait until it is back, or the step has failed", admin.ErrRefused, s.Indexer)
	}
	if t.State == TaskFailed {
		t.State = TaskRunning
	}
	return t.with(n, s.to(StepSkipped, now, "%s", reason), now), nil
}

// command notes that the command was begun for a step, or how it ended.
func (t Task) command(n int, result, text string, now time.Time) (Task, error) {
	s := t.Steps[n]
	switch result {
	case CommandBegun:
		if t.State != TaskRunning {
			return t, fmt.Errorf("%w: %s is %s", admin.ErrRefused, t.ID, t.State)
		}
		if s.State != StepReady {
			return t, fmt.Errorf("%w: indexer %s must not be restarted now: it is %s", admin.ErrRefused, s.Indexer, s.State)
		}
		s.Commands++
		s.Since = now.UTC()
		return t.with(n, s.to(StepAway, now, "the command runs"), now), nil
	case CommandLost:
		if s.State != StepAway || s.Commands == 0 {
			return t, fmt.Errorf("%w: no command was begun for indexer %s", admin.ErrRefused, s.Indexer)
		}
		s.Commands = 0
		return t.with(n, s.to(StepHolding, now, "nobody knows what became of the command"), now), nil
	case CommandFailed:
		if s.State.over() || s.Commands == 0 {
			return t, fmt.Errorf("%w: no command runs for indexer %s", admin.ErrRefused, s.Indexer)
		}
		s.Refused = true
		return t.with(n, s.to(StepFailed, now, "%s", plainText("the command failed: "+text)), now), nil
	}
	return t, fmt.Errorf("%w: result=%q: want %s, %s or %s", admin.ErrBadRequest, result, CommandBegun, CommandFailed, CommandLost)
}

// What becomes of a command.
const (
	CommandBegun  = "begun" // it will be: the indexer may go down
	CommandFailed = "failed"
	// CommandLost: who ran it has ended. If nothing came of it, the indexer gets
	// ready again.
	CommandLost = "lost"
)
