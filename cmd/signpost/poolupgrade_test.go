package main

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/assigner"
)

func upgradeStep(t *testing.T, state assigner.StepState) (assigner.Task, assigner.TaskStep) {
	t.Helper()
	id, err := peer.Decode(idA)
	if err != nil {
		t.Fatal(err)
	}
	s := assigner.TaskStep{Indexer: id, Find: "http://h:1", Ingest: "http://h:2", Admin: "http://h:3", State: state}
	return assigner.Task{ID: "upgrade-1", Kind: assigner.TaskUpgrade, State: assigner.TaskRunning, Steps: []assigner.TaskStep{s},
		Settings: &assigner.UpgradeSettings{DownFor: time.Minute, BackWithin: time.Minute}}, s
}

// TestTheCommandOfAnUpgradeKnowsItsIndexer, by its arguments and its environment,
// and what it says last is why it failed.
func TestTheCommandOfAnUpgradeKnowsItsIndexer(t *testing.T) {
	for _, name := range []string{"printenv", "echo", "ls"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Fatal(err)
		}
	}
	task, s := upgradeStep(t, assigner.StepReady)
	for _, c := range []struct{ command, says, fails string }{
		{"printenv UPGRADE_ID UPGRADE_HOST UPGRADE_ADMIN UPGRADE_TASK", idA + "\nh\nhttp://h:3\nupgrade-1\n", ""},
		{"echo {id} {host}:22 {find} {ingest} {admin} {nothing}", idA + " h:22 http://h:1 http://h:2 http://h:3 {nothing}\n", ""},
		{"ls /no/such/{host}", "", "/no/such/h"},
		{"no-such-command-here {id}", "", "no-such-command-here"},
	} {
		var out bytes.Buffer
		u := &upgrade{follower: &follower{out: &out}, words: strings.Fields(c.command)}
		err := u.run(t.Context(), task, s)
		if (err != nil) != (c.fails != "") || err != nil && !strings.Contains(err.Error(), c.fails) || c.fails == "" && out.String() != c.says {
			t.Errorf("%s: %q, %v", c.command, out.String(), err)
		}
	}
	task.Settings.BackWithin = 20 * time.Millisecond
	var out bytes.Buffer
	began := time.Now()
	if err := (&upgrade{follower: &follower{out: &out}, words: strings.Fields("sleep 100")}).run(t.Context(), task, s); err == nil || time.Since(began) > 30*time.Second {
		t.Errorf("a command that hangs: %v after %v", err, time.Since(began))
	}
}

// TestACommandThatNobodyRunsAnyMoreIsLost: after a while, as it may still do
// something.
func TestACommandThatNobodyRunsAnyMoreIsLost(t *testing.T) {
	for _, c := range []struct {
		what   string
		state  assigner.StepState
		change func(*assigner.Task, *assigner.TaskStep, *upgrade)
		want   bool
	}{
		{"pending", assigner.StepPending, nil, false},
		{"ready", assigner.StepReady, nil, false},
		{"begun long ago", assigner.StepAway, func(_ *assigner.Task, s *assigner.TaskStep, _ *upgrade) { s.Commands = 1 }, true},
		{"begun just now", assigner.StepAway, func(_ *assigner.Task, s *assigner.TaskStep, _ *upgrade) { s.Commands, s.Since = 1, time.Now() }, false},
		{"begun by itself", assigner.StepAway, func(_ *assigner.Task, s *assigner.TaskStep, u *upgrade) { s.Commands, u.ran[s.Indexer] = 1, true }, false},
		{"down by somebody else", assigner.StepAway, nil, false},
		{"back", assigner.StepThawing, func(_ *assigner.Task, s *assigner.TaskStep, _ *upgrade) { s.Commands = 1 }, false},
	} {
		task, s := upgradeStep(t, c.state)
		u := &upgrade{ran: make(map[peer.ID]bool)}
		if c.change != nil {
			c.change(&task, &s, u)
		}
		if got := u.lost(task, s); got != c.want {
			t.Errorf("%s: %v", c.what, got)
		}
	}
}

// TestTasksAreShown with their steps, and no text of an answer reaches the terminal
// as anything but text.
func TestTasksAreShown(t *testing.T) {
	task, _ := upgradeStep(t, assigner.StepHolding)
	task.Steps[0].Text = "others lack\x1b[31m much"
	task.Reason = "version 2"
	got := taskLines(assigner.TasksPage{Kept: true, Tasks: []assigner.Task{task}}, time.Now())
	if want := "upgrade-1  running: version 2\n  " + idA + "  holding  others lack"; !strings.HasPrefix(got, want) || strings.Contains(got, "\x1b") {
		t.Errorf("%q, want %q first", got, want)
	}
	if got := taskLines(assigner.TasksPage{}, time.Now()); !strings.Contains(got, "no upgrade") || !strings.Contains(got, "--intents") {
		t.Errorf("%q", got)
	}
}

// TestAReindexThatStopsSaysHowToGoOn, each step once before, and with the command
// that began it.
func TestAReindexThatStopsSaysHowToGoOn(t *testing.T) {
	task, _ := upgradeStep(t, assigner.StepRunning)
	task.ID, task.Kind = "reindex-1", assigner.TaskReindex
	var out bytes.Buffer
	f := &follower{kind: task.Kind, out: &out, said: make(map[peer.ID]assigner.StepState)}
	for range 2 {
		if over, err := f.look(t.Context(), task); over || err != nil {
			t.Fatalf("while it runs: %v, %v", over, err)
		}
	}
	if got, want := out.String(), idA+"  running  \n"; got != want {
		t.Errorf("says %q, want %q", got, want)
	}
	task.State, task.Steps[0].State, task.Steps[0].Text = assigner.TaskFailed, assigner.StepFailed, "it refused"
	over, err := f.look(t.Context(), task)
	if !over || err == nil || !strings.Contains(err.Error(), "it refused; signpost pool reindex --resume tries it again") {
		t.Errorf("when it has failed: %v, %v", over, err)
	}
}
