package assigner

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/signpost-index/signpost/api/admin"
)

// TestTasksOverHTTP: an upgrade is begun, paused, goes on, has steps skipped, and
// is ended; what makes no sense is refused, and all of it is in the file.
func TestTasksOverHTTP(t *testing.T) {
	file := filepath.Join(t.TempDir(), "intents")
	ot := newOperatorTest(t, Operating{IntentsFile: file})
	ctx, c := t.Context(), ot.client
	x, y := ot.x.id.String(), ot.y.id.String()
	set := UpgradeSettings{MaxDown: "2", MinCopies: 1, DownFor: 20 * time.Second, BackWithin: time.Minute, Exec: true}
	why := Wish{By: "root", Reason: "version 2"}
	upgrade := func(change func(*UpgradeSettings), indexers ...string) error {
		s := set
		change(&s)
		_, err := c.Upgrade(ctx, s, indexers, why)
		return err
	}
	keep := func(*UpgradeSettings) {}
	for _, c := range []struct {
		what      string
		got, want error
	}{
		{"nobody may be down", upgrade(func(s *UpgradeSettings) { s.MaxDown = "10%" }, x), admin.ErrBadRequest},
		{"more copies than can be", upgrade(func(s *UpgradeSettings) { s.MinCopies = 65 }, x), admin.ErrBadRequest},
		{"down for days", upgrade(func(s *UpgradeSettings) { s.DownFor = 48 * time.Hour }, x), admin.ErrBadRequest},
		{"back at once", upgrade(func(s *UpgradeSettings) { s.BackWithin = 0 }, x), admin.ErrBadRequest},
		{"an indexer nobody knows", upgrade(keep, realID(t, 77).String()), admin.ErrNotFound},
		{"all, and one is not read", upgrade(keep), admin.ErrUnavailable},
		{"one", upgrade(keep, x), nil},
	} {
		if !errors.Is(c.got, c.want) {
			t.Errorf("%s: %v, want %v", c.what, c.got, c.want)
		}
	}
	if _, err := c.ChangeTask(ctx, "upgrade-1", "end", "", why); err != nil {
		t.Fatal(err)
	}
	done, err := c.Upgrade(ctx, set, []string{y, url("admin", "x")}, why)
	if err != nil || done.Text != "upgrade-2: 2 indexers are restarted, one after the other" {
		t.Fatalf("%+v, %v", done, err)
	}
	if err := upgrade(keep, x); !errors.Is(err, admin.ErrRefused) || !strings.Contains(err.Error(), "upgrade-2 is running") {
		t.Errorf("another one: %v", err)
	}
	newest := func() Task {
		t.Helper()
		p, err := c.Tasks(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return p.Tasks[len(p.Tasks)-1]
	}
	if got := newest(); got.Steps[0].Indexer != ot.x.id || got.Steps[1].Indexer != ot.y.id || got.By != "root" || *got.Settings != set {
		t.Errorf("task %+v", got)
	}
	change := func(do, indexer, reason string) error {
		_, err := c.ChangeTask(ctx, "upgrade-2", do, indexer, Wish{Reason: reason})
		return err
	}
	for _, step := range []struct {
		what string
		got  func() error
		want error
	}{
		{"retry of what has not failed", func() error { return change("retry", x, "") }, admin.ErrRefused},
		{"skip for no reason", func() error { return change("skip", x, " ") }, admin.ErrBadRequest},
		{"something else", func() error { return change("dance", x, "") }, admin.ErrBadRequest},
		{"resume of what runs", func() error { return change("resume", "", "") }, admin.ErrRefused},
		{"a command too early", func() error { return c.Command(ctx, "upgrade-2", x, CommandBegun, "") }, admin.ErrRefused},
		{"a failure of none", func() error { return c.Command(ctx, "upgrade-2", x, CommandFailed, "why") }, admin.ErrRefused},
		{"an unknown task", func() error { _, err := c.ChangeTask(ctx, "upgrade-9", "pause", "", Wish{}); return err }, admin.ErrNotFound},
		{"pause", func() error { return change("pause", "", "") }, nil},
		{"pause again", func() error { return change("pause", "", "") }, admin.ErrRefused},
		{"resume", func() error { return change("resume", "", "") }, nil},
		{"skip of the second", func() error { return change("skip", y, "a new disk") }, nil},
		{"skip again", func() error { return change("skip", y, "a new disk") }, admin.ErrRefused},
		{"skip of the current", func() error { return change("skip", "", "out of order") }, nil},
		{"when it is over", func() error { return change("pause", "", "") }, admin.ErrRefused},
	} {
		if err := step.got(); !errors.Is(err, step.want) {
			t.Errorf("%s: %v, want %v", step.what, err, step.want)
		}
	}
	got := newest()
	if got.State != TaskDone || got.Steps[0].Text != "out of order" || got.Steps[1].Text != "a new disk" {
		t.Errorf("task %+v", got)
	}
	kept, err := openTasks(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got, kept.all()[1]); diff != "" {
		t.Errorf("in the file:\n%s", diff)
	}
}

// TestAReindexOverHTTP is begun, paused, retried, skipped and ended as an upgrade is,
// by the same requests, and only if no task is under way.
func TestAReindexOverHTTP(t *testing.T) {
	file := filepath.Join(t.TempDir(), "intents")
	ot := newOperatorTest(t, Operating{IntentsFile: file})
	ctx, c := t.Context(), ot.client
	x, y := ot.x.id.String(), ot.y.id.String()
	set := ReindexSettings{BackWithin: time.Minute, MarkWhole: true}
	begin := func(s ReindexSettings, indexers ...string) error {
		_, err := c.Reindex(ctx, s, indexers, Wish{By: "root", Reason: "damage"})
		return err
	}
	change := func(do, reason string) func() error {
		return func() error {
			_, err := c.ChangeTask(ctx, "reindex-1", do, "", Wish{Reason: reason})
			return err
		}
	}
	fail := func() error {
		return ot.tasks.update("reindex-1", func(t Task) (Task, error) {
			return t.with(0, t.Steps[0].to(StepFailed, time.Now(), "it refused"), time.Now()), nil
		})
	}
	for _, step := range []struct {
		what string
		got  func() error
		want error
	}{
		{"none is damaged", func() error { return begin(set) }, admin.ErrBadRequest},
		{"no time at all", func() error { return begin(ReindexSettings{}, x) }, admin.ErrBadRequest},
		{"an indexer nobody knows", func() error { return begin(set, realID(t, 77).String()) }, admin.ErrNotFound},
		{"two", func() error { return begin(set, x, y) }, nil},
		{"another one", func() error { return begin(set, x) }, admin.ErrRefused},
		{"a command", func() error { return c.Command(ctx, "reindex-1", x, CommandBegun, "") }, admin.ErrRefused},
		{"a command that failed", func() error { return c.Command(ctx, "reindex-1", x, CommandFailed, "") }, admin.ErrRefused},
		{"pause", change("pause", ""), nil},
		{"resume", change("resume", ""), nil},
		{"retry of what has not failed", change("retry", ""), admin.ErrRefused},
		{"failure", fail, nil},
		{"retry", change("retry", ""), nil},
		{"failure", fail, nil},
		{"skip for no reason", change("skip", " "), admin.ErrBadRequest},
		{"skip", change("skip", "a new disk"), nil},
		{"end", change("end", ""), nil},
		{"retry when it is over", change("retry", ""), admin.ErrRefused},
	} {
		if err := step.got(); !errors.Is(err, step.want) {
			t.Errorf("%s: %v, want %v", step.what, err, step.want)
		}
	}
	kept, err := openTasks(file)
	if err != nil {
		t.Fatal(err)
	}
	got := kept.all()[0]
	if got.Kind != TaskReindex || got.State != TaskEnded || *got.Reindex != set || got.Settings != nil || got.Steps[0].Text != "a new disk" ||
		got.Steps[1].Indexer != ot.y.id || got.Steps[1].State != StepPending || got.Reason != "damage" {
		t.Errorf("kept %+v", got)
	}
}

// TestThePageShowsTheTaskUnderWay, with what can be asked for; to anybody not why,
// nor what a command or an indexer has said.
func TestThePageShowsTheTaskUnderWay(t *testing.T) {
	ot := newOperatorTest(t, Operating{Access: admin.Access{Token: pageToken}})
	set := ReindexSettings{BackWithin: time.Minute}
	if _, err := ot.client.Reindex(t.Context(), set, []string{ot.x.id.String(), ot.y.id.String()}, Wish{Reason: "a private reason"}); err != nil {
		t.Fatal(err)
	}
	if err := ot.tasks.update("reindex-1", func(t Task) (Task, error) {
		return t.with(0, t.Steps[0].to(StepPending, time.Now(), "asked at a private address"), time.Now()), nil
	}); err != nil {
		t.Fatal(err)
	}
	_, operate := ask(t, ot.operatorHandler(), "GET", "/?part=live", "pool.example", pageToken)
	_, public := ask(t, ot.handler(), "GET", "/?part=live", "pool.example", "")
	for _, want := range []string{"reindex-1 is running: a private reason", "asked at a private address", "0 of 2 indexers are done", "pending", "id=reindex-1&amp;do=pause"} {
		if !strings.Contains(operate, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if !strings.Contains(public, "reindex-1 is running") || strings.Contains(public, "private") || strings.Contains(public, "do=pause") {
		t.Errorf("the page for anybody:\n%s", public)
	}
}

// TestDrainsAreTasks, with what is left, and can be paused, which is kept.
func TestDrainsAreTasks(t *testing.T) {
	file := filepath.Join(t.TempDir(), "intents")
	ot := newOperatorTest(t, Operating{IntentsFile: file})
	ctx, c := t.Context(), ot.client
	if _, err := c.Drain(ctx, ot.x.id.String(), Wish{By: "root"}); err != nil {
		t.Fatal(err)
	}
	id := "drain-" + ot.x.id.String()
	for _, step := range []struct {
		do    string
		state TaskState
	}{{"pause", TaskPaused}, {"resume", TaskRunning}} {
		do, state := step.do, step.state
		if _, err := c.ChangeTask(ctx, id, do, "", Wish{}); err != nil {
			t.Fatal(err)
		}
		p, err := c.Tasks(ctx)
		if err != nil || len(p.Tasks) != 1 || p.Tasks[0].ID != id || p.Tasks[0].State != state || p.Tasks[0].Steps[0].Text != "it still owns 1 publishers and holds something of 0" {
			t.Errorf("%s: %+v, %v", do, p, err)
		}
		s, err := openIntents(file)
		if err != nil || s.Current().drainPaused(ot.x.id) != (state == TaskPaused) || s.Current().Drains[0].By != "root" {
			t.Errorf("%s: kept %+v, %v", do, s, err)
		}
	}
	for _, v := range ot.pool.viewNow(time.Now()).Indexers {
		if v.ID == ot.x.id && (!v.Draining || v.NoNew) {
			t.Errorf("drained: %+v", v)
		}
	}
	if _, err := c.ChangeTask(ctx, "drain-"+ot.y.id.String(), "pause", "", Wish{}); !errors.Is(err, admin.ErrNotFound) {
		t.Errorf("pause of no drain: %v", err)
	}
	if _, err := c.ChangeTask(ctx, id, "skip", "", Wish{Reason: "r"}); !errors.Is(err, admin.ErrRefused) {
		t.Errorf("skip of a drain: %v", err)
	}
}
