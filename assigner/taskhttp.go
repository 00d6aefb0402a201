package assigner

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
)

// tasksPath lists and begins tasks; below it is what is done about one.
const tasksPath = PoolPath + "/tasks"

// TasksPage is the answer of GET /signpost/v1/pool/tasks.
type TasksPage struct {
	Kept  bool // upgrades and re-indexes are, in a file
	Tasks []Task
}

// maxTimes bounds the times of a task.
const maxTimes = admin.MaxHold / 2

func (a *Assigner) askTasks(*http.Request) (any, error) {
	p := TasksPage{Kept: a.intents.Kept(), Tasks: []Task{}}
	p.Tasks = append(p.Tasks, a.pool.withLeft(a.tasks.all())...)
	p.Tasks = append(p.Tasks, a.pool.tasks(time.Now())...)
	return p, nil
}

// beginTask begins an upgrade, or a re-index, of the indexers that are named, or of
// all that it is for.
func (a *Assigner) beginTask(r *request) (Done, error) {
	only, err := a.pinned(r.value("indexer"))
	if err != nil {
		return Done{}, err
	}
	var t Task
	done := "restarted"
	switch kind := r.value("kind"); kind {
	case "", string(TaskUpgrade):
		t, err = a.wishedUpgrade(r, only)
	case string(TaskReindex):
		t, err = a.wishedReindex(r, only)
		done = "re-indexed"
	default:
		err = fmt.Errorf("%w: kind=%.100q: want %s or %s", admin.ErrBadRequest, kind, TaskUpgrade, TaskReindex)
	}
	if err != nil {
		return Done{}, err
	}
	r.wish = true
	if t, err = a.tasks.begin(t); err != nil {
		return Done{}, err
	}
	return Done{Text: fmt.Sprintf("%s: %d indexers are %s, one after the other", t.ID, len(t.Steps), done)}, nil
}

func (a *Assigner) wishedUpgrade(r *request, only []peer.ID) (t Task, err error) {
	set := UpgradeSettings{MaxDown: cmp.Or(r.value("max-down"), DefaultMaxDown), MinCopies: DefaultMinCopies, Exec: r.value("exec") == "true"}
	if text := r.value("min-copies"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 || n > maxCopies {
			return t, fmt.Errorf("%w: min-copies=%q: want a number from 0 to %d", admin.ErrBadRequest, text, maxCopies)
		}
		set.MinCopies = n
	}
	if set.DownFor, err = r.time("down-for", DefaultDownFor); err != nil {
		return t, err
	}
	if set.BackWithin, err = r.time("back-within", DefaultBackWithin); err != nil {
		return t, err
	}
	return a.newUpgrade(set, only, r.why())
}

func (a *Assigner) wishedReindex(r *request, only []peer.ID) (t Task, err error) {
	set := ReindexSettings{MarkWhole: r.value("mark-whole") == "true"}
	if set.BackWithin, err = r.time("back-within", DefaultBackWithin); err != nil {
		return t, err
	}
	return a.newReindex(set, only, r.why())
}

// time is a time of a task that was given, or its default.
func (r *request) time(key string, or time.Duration) (time.Duration, error) {
	text := r.value(key)
	if text == "" {
		return or, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < time.Second || d > maxTimes {
		return 0, fmt.Errorf("%w: %s=%q: want a time from 1s to %v", admin.ErrBadRequest, key, text, maxTimes)
	}
	return d, nil
}

// changeTask pauses, resumes, ends or retries a task, skips a step of it, or notes
// what became of its command.
func (a *Assigner) changeTask(r *request) (Done, error) {
	id, do := r.value("id"), r.value("do")
	if indexer, ok := strings.CutPrefix(id, string(TaskDrain)+"-"); ok {
		return a.pauseDrain(r, indexer, do)
	}
	var step peer.ID
	if text := r.value("indexer"); text != "" {
		m, err := a.knownMember(text)
		if err != nil {
			return Done{}, err
		}
		step, r.event.Indexer = m.id, m.id
	}
	if do == "command" && r.value("result") == CommandBegun {
		if err := a.sameProcess(r.Context(), id, step); err != nil {
			return Done{}, err
		}
	}
	r.wish = true
	done := Done{}
	err := a.tasks.update(id, func(t Task) (Task, error) {
		if t.State.over() {
			return t, fmt.Errorf("%w: %s is %s", admin.ErrRefused, t.ID, t.State)
		}
		next, text, err := a.changed(t, step, do, r)
		done.Text = text
		return next, err
	})
	return done, err
}

// sameProcess asks an indexer whether it has been restarted since the last look: then
// it need not be once more.
func (a *Assigner) sameProcess(ctx context.Context, id string, step peer.ID) error {
	t, _ := a.tasks.active()
	n, err := t.stepOf(step)
	if err != nil || t.ID != id {
		return fmt.Errorf("%w: no step of %.100q is under way", admin.ErrRefused, id)
	}
	s := t.Steps[n]
	m, ok := a.pool.find("", s.Indexer)
	if !ok {
		return fmt.Errorf("%w: indexer %s is in the pool no more", admin.ErrRefused, s.Indexer)
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.CallTimeout)
	defer cancel()
	status, err := m.indexer.Node(ctx)
	if err != nil {
		return fmt.Errorf("%w: indexer %s does not answer: %w", admin.ErrRefused, s.Indexer, err)
	}
	if !status.Started.Equal(s.Started) || !status.Frozen {
		a.pool.lookAgain(s.Indexer)
		return fmt.Errorf("%w: indexer %s has changed since it was looked at", admin.ErrRefused, s.Indexer)
	}
	return nil
}

func (a *Assigner) changed(t Task, step peer.ID, do string, r *request) (next Task, text string, err error) {
	now := time.Now()
	reindex := t.Kind == TaskReindex
	switch {
	case do == "pause" && t.State == TaskRunning:
		t.State = TaskPaused
		return t, t.ID + " is paused: " + map[bool]string{true: "no other indexer is asked to apply its ads again", false: "no other indexer goes out of service"}[reindex], nil
	case do == "resume" && t.State == TaskPaused:
		t.State = TaskRunning
		if n := t.current(); n >= 0 && t.Steps[n].State == StepFailed {
			t.State = TaskFailed
		}
		return t, t.ID + " goes on", nil
	case do == "end":
		t.State, t.Ended = TaskEnded, now.UTC()
		return t, t.ID + " has ended: " + map[bool]string{true: "what an indexer was asked for it finishes by itself", false: "indexers held for it take content again when they may"}[reindex], nil
	case do == "pause" || do == "resume":
		return t, "", fmt.Errorf("%w: %s is %s", admin.ErrRefused, t.ID, t.State)
	}
	n, err := t.stepOf(step)
	if err != nil {
		return t, "", err
	}
	name := t.Steps[n].Indexer
	switch do {
	case "retry":
		var f stepFacts
		if !reindex {
			f, _ = a.pool.stepFacts(name, *t.Settings, now)
		}
		next, err = t.retry(n, f, now)
		text = fmt.Sprintf("%s: indexer %s is tried again", t.ID, name)
	case "skip":
		next, err = t.skip(n, r.value("reason"), now)
		text = fmt.Sprintf("%s: indexer %s is skipped", t.ID, name)
	case "command":
		next, err = t.command(n, r.value("result"), r.value("text"), now)
		text = fmt.Sprintf("%s: the command for indexer %s: %s", t.ID, name, r.value("result"))
	default:
		return t, "", fmt.Errorf("%w: do=%q: want pause, resume, retry, skip, end or command", admin.ErrBadRequest, do)
	}
	return next, text, err
}

// pauseDrain has a drain stop for a while, or go on.
func (a *Assigner) pauseDrain(r *request, indexer, do string) (Done, error) {
	id, err := decodePeer(indexer)
	if err != nil {
		return Done{}, fmt.Errorf("%w: %w", admin.ErrBadRequest, err)
	}
	if do != "pause" && do != "resume" {
		return Done{}, fmt.Errorf("%w: a drain can be paused and resumed; signpost pool undrain ends it", admin.ErrRefused)
	}
	r.event.Indexer = id
	err = a.want(r, func(in Intents) (Intents, error) { return in.pauseDrain(id, do == "pause") })
	return Done{Text: fmt.Sprintf("the drain of indexer %s: %s", id, do)}, err
}
