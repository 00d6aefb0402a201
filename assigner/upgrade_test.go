package assigner

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
)

// TestAnIndexerGoesDownOnlyIfOthersHaveWhatItHas: whole, up to its last ad, on
// indexers that answer and stay.
func TestAnIndexerGoesDownOnlyIfOthersHaveWhatItHas(t *testing.T) {
	height := func(n uint64) func(*Indexer) {
		return func(ix *Indexer) { ix.Held[0].Height = n }
	}
	for _, c := range []struct {
		what   string
		x      Indexer
		others []Indexer
		copies int
		want   string // short of, loosely and exactly
	}{
		{"two copies", ours("x", "p"), []Indexer{ours("y", "p")}, 1, "[] []"},
		{"one copy", ours("x", "p"), []Indexer{ours("y", "")}, 1, "[p] [p]"},
		{"one copy will do", ours("x", "p"), []Indexer{ours("y", "")}, 0, "[] []"},
		{"two others are wanted", ours("x", "p"), []Indexer{ours("y", "p")}, 2, "[p] [p]"},
		{"the other does not answer", ours("x", "p"), []Indexer{down(ours("y", "p"))}, 1, "[p] [p]"},
		{"the other is drained", ours("x", "p"), []Indexer{but(ours("y", "p"), func(ix *Indexer) { ix.Draining = true })}, 1, "[p] [p]"},
		{"the other is behind", ours("x", "p"), []Indexer{but(ours("y", "p"), height(4))}, 1, "[] [p]"},
		{"it has more than up to its mark", but(ours("x", "p"), func(ix *Indexer) { ix.Held[0].Top = 6 }), []Indexer{ours("y", "p")}, 1, "[] [p]"},
		{"what it has is not known", but(ours("x", "p"), func(ix *Indexer) { ix.Held[0].Unsure = true }), []Indexer{ours("y", "p")}, 1, "[] [p]"},
		{"the others have a part each", ours("x", "p"), []Indexer{ours("y", "p:-4"), ours("z", "p:4")}, 1, "[] []"},
		{"another one leans on it", ours("x", "p"), []Indexer{but(ours("y", "p"), func(ix *Indexer) { ix.Held[0].LeansOn = ids("x") })}, 1, "[p] [p]"},
		{"it has nothing", ours("x", ""), []Indexer{ours("y", "p")}, 1, "[] []"},
	} {
		v := View{Indexers: append([]Indexer{c.x}, c.others...), Replication: 2}
		if got := fmt.Sprintf("%s %s", rawIDs(short(v, "x", c.copies, false)), rawIDs(short(v, "x", c.copies, true))); got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
}

// rawIDs are the words that ids made IDs of.
func rawIDs(ids []peer.ID) (words []string) {
	for _, id := range ids {
		words = append(words, string(id))
	}
	return words
}

func TestHowManyMayBeDown(t *testing.T) {
	for text, want := range map[string]int{"1": 1, "3": 3, "25%": 2, "100%": 8, "10%": 0, "0": 0, "-1": 0, "101%": 0, "x": 0, "": 0, "-20%": 0} {
		if got, err := maxDownOf(text, 8); got != want || (err != nil) != (want == 0) || err != nil && !errors.Is(err, admin.ErrBadRequest) {
			t.Errorf("%q of 8: %d, %v; want %d", text, got, err, want)
		}
	}
}

// TestAnIndexerThatIsHeldKeepsItsPublishers: as one that is down; it gets none.
func TestAnIndexerThatIsHeldKeepsItsPublishers(t *testing.T) {
	resting := but(ours("x", "p q"), func(ix *Indexer) { ix.Reachable, ix.Resting = false, true })
	v := View{Indexers: []Indexer{resting, ours("y", "p q"), ours("z", "")}, Wanted: ids("new"), Replication: 2, Moves: -1}
	if got := text(Plan(v)); got != "new>y new>z" && got != "new>z new>y" {
		t.Errorf("plan %q, want only what is new placed, at the others", got)
	}
	v.Indexers[0].Frozen, v.Indexers[0].Reachable = true, true
	if got := text(Plan(v)); !strings.Contains(got, "p>z<x") {
		t.Errorf("plan %q of one that is frozen, want handoffs", got)
	}
}

// TestAPausedDrainMovesNothing, and nothing comes to the indexer.
func TestAPausedDrainMovesNothing(t *testing.T) {
	paused := but(ours("x", "p"), func(ix *Indexer) { ix.NoNew = true })
	v := View{Indexers: []Indexer{paused, ours("y", "")}, Wanted: ids("new"), Replication: 1}
	if got := text(Plan(v)); got != "new>y" {
		t.Errorf("plan %q", got)
	}
}

const allDone = "done: done done done"

// TestAnUpgradeGoesOnAfterAnyKill of the assigner, and of who gives commands: each
// indexer is restarted once, one at a time, held while it is down, and takes
// content in the end.
func TestAnUpgradeGoesOnAfterAnyKill(t *testing.T) {
	for kill := range 70 {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			u := newUpgradeTest(t, dir)
			defer func() { u.Close() }()
			u.begin()
			for n := range 400 {
				if n == kill {
					u.launch()
					clear(u.ran)
				}
				u.tick(true)
				if u.states() == allDone {
					break
				}
			}
			if got := fmt.Sprint(u.states(), u.restarts(), u.most); got != allDone+"[1 1 1] 1" && got != allDone+" [1 1 1] 1" {
				t.Errorf("killed at tick %d: %s", kill, got)
			}
			for _, r := range u.nodes {
				if r.frozen {
					t.Errorf("killed at tick %d: indexer %s is still frozen", kill, r.id)
				}
			}
		})
	}
}

// TestACommandThatIsLostIsRunAgain, if the indexer is as it was, and held again by
// then; not if it has been restarted after all, however late that is seen.
func TestACommandThatIsLostIsRunAgain(t *testing.T) {
	for _, happened := range []bool{false, true} {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			u := newUpgradeTest(t, dir)
			defer func() { u.Close() }()
			u.begin()
			u.wait("running: ready pending pending")
			first := u.nodes[0]
			first.stays = !happened
			u.commands()
			clear(u.ran) // it is killed
			first.stays = false
			if happened { // and nobody looks for a while
				time.Sleep(20 * time.Second)
				first.set(func() { first.mode = up })
				first.started, first.upAt = time.Now(), time.Time{}
				u.commands()
			}
			u.until(allDone)
			if got := fmt.Sprint(u.restarts()); got != "[1 1 1]" {
				t.Errorf("it had happened: %v; restarts %s", happened, got)
			}
		})
	}
}

// TestTheFirstFailureStopsAnUpgrade, whatever it is: no other indexer is restarted,
// one that is up takes content again; then it is tried again, or skipped.
func TestTheFirstFailureStopsAnUpgrade(t *testing.T) {
	const failed = "failed: done failed pending"
	for _, c := range []struct {
		what     string
		breaks   func(r *restartable)
		mends    func(r *restartable)
		says     string
		restarts string // after the retry
	}{
		{"the command fails", func(r *restartable) { r.fails = true }, func(r *restartable) { r.fails = false }, "no such version", "[1 1 1]"},
		{"it does not restart", func(r *restartable) { r.stays = true }, func(r *restartable) { r.stays = false }, "not come back", "[1 1 1]"},
		{"it does not come back", func(r *restartable) { r.downFor = 3 * time.Minute },
			func(r *restartable) { r.upAt = time.Now().Add(-1) }, "not come back", "[1 1 1]"},
		{"it does not answer lookups", func(r *restartable) { r.sick = true }, func(r *restartable) { r.sick = false }, "503", "[1 1 1]"},
	} {
		for _, do := range []string{"retry", "skip"} {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				u := newUpgradeTest(t, dir)
				defer func() { u.Close() }()
				u.begin()
				u.until("running: done pending pending")
				bad := u.nodes[1]
				c.breaks(bad)
				u.unheld = true // it may be down for longer than it is held
				for range 200 {
					u.tick(true)
				}
				task, _ := u.tasks.active()
				if u.states() != failed || !strings.Contains(task.Steps[1].Text, c.says) {
					t.Fatalf("%s: %s, %q", c.what, u.states(), task.Steps[1].Text)
				}
				if bad.mode == up && bad.frozen {
					t.Errorf("%s: it is still frozen", c.what)
				}
				_, err := u.tasks.begin(task)
				if !errors.Is(err, admin.ErrRefused) {
					t.Errorf("%s: another upgrade: %v", c.what, err)
				}
				c.mends(bad)
				u.tick(false)
				change := func(do func(Task) (Task, error)) {
					if err := u.tasks.update(task.ID, do); err != nil {
						t.Fatal(err)
					}
				}
				clear(u.ran)
				if do == "skip" {
					if err := u.tasks.update(task.ID, func(t Task) (Task, error) { return t.skip(1, " ", time.Now()) }); !errors.Is(err, admin.ErrBadRequest) {
						t.Errorf("skipped for no reason: %v", err)
					}
					change(func(t Task) (Task, error) { return t.skip(1, "it is broken", time.Now()) })
					u.until("done: done skipped done")
					return
				}
				f, _ := u.pool.stepFacts(bad.id, *task.Settings, time.Now())
				change(func(t Task) (Task, error) { return t.retry(1, f, time.Now()) })
				u.until(allDone)
				if got := fmt.Sprint(u.restarts()); got != c.restarts {
					t.Errorf("%s: restarts %s, want %s", c.what, got, c.restarts)
				}
			})
		}
	}
}

// TestAnUpgradeWaitsForTheGate: as long as another indexer is down by itself, or
// has less than this one, nobody is restarted; and nobody while it is paused.
func TestAnUpgradeWaitsForTheGate(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		u := newUpgradeTest(t, dir)
		defer func() { u.Close() }()
		u.begin()
		other := u.nodes[2]
		other.frozen, other.heldUntil, other.mode = true, time.Now().Add(time.Hour), isDown // it is no matter why
		for range 100 {
			u.tick(true)
		}
		if task, _ := u.tasks.active(); u.states() != "running: pending pending pending" || !strings.Contains(task.Steps[0].Text, "out of service") {
			t.Errorf("while another is down: %s, %q", u.states(), task.Steps[0].Text)
		}
		other.set(func() { other.mode, other.frozen = up, false })
		other.heldUntil = time.Time{}
		p := realID(t, 12) // of 0 and 2
		other.set(func() { other.roles[p].Height, other.version = 4, other.version+1 })
		for range 30 {
			u.tick(true)
		}
		if u.states() != "running: holding pending pending" || u.restarts()[0] != 0 {
			t.Errorf("while another is behind: %s, %v", u.states(), u.restarts())
		}
		other.set(func() { other.roles[p].Height, other.version = 5, other.version+1 })
		u.wait("running: ready pending pending")
		if err := u.tasks.update("upgrade-1", func(t Task) (Task, error) { t.State = TaskPaused; return t, nil }); err != nil {
			t.Fatal(err)
		}
		for range 60 {
			u.tick(true)
		}
		if u.states() != "paused: pending pending pending" || u.nodes[0].frozen || u.restarts()[0] != 0 {
			t.Errorf("paused: %s, frozen %v, %v", u.states(), u.nodes[0].frozen, u.restarts())
		}
		if err := u.tasks.update("upgrade-1", func(t Task) (Task, error) { t.State = TaskRunning; return t, nil }); err != nil {
			t.Fatal(err)
		}
		u.until(allDone)
	})
}

// TestFrontendsAreToldOfAHeldIndexerThatIsDown what it has, as of the last look, and
// for how long from then nothing comes to it.
func TestFrontendsAreToldOfAHeldIndexerThatIsDown(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		u := newUpgradeTest(t, dir)
		defer func() { u.Close() }()
		u.tick(false)
		bad := u.nodes[0]
		if err := bad.Hold(t.Context(), 30*time.Second, ""); err != nil {
			t.Fatal(err)
		}
		u.tick(false)
		looked := time.Now().Add(-time.Second)
		bad.set(func() { bad.mode = isDown })
		for range 10 {
			u.tick(false)
		}
		m := u.pool.coverage(time.Now()).Members[0]
		if m.State != StateDown || !m.Frozen || m.HeldSeconds != 30 || !m.AsOf.Equal(looked) || len(m.Publishers) != 2 {
			t.Errorf("%+v; want held for 30 s from %v", m, looked)
		}
		bad.set(func() { bad.mode = up })
		for range 25 {
			u.tick(false)
		}
		if m := u.pool.coverage(time.Now()).Members[0]; m.Frozen || m.HeldSeconds != 0 || bad.frozen {
			t.Errorf("%+v after the hold; want an indexer that takes content again", m)
		}
	})
}

// TestUnderAnOrchestratorSomebodyElseRestarts: an indexer stays ready, and held,
// until it happens.
func TestUnderAnOrchestratorSomebodyElseRestarts(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		u := newUpgradeTest(t, dir)
		defer func() { u.Close() }()
		u.begin()
		for n, before := range []string{"running: ready pending pending", "running: done ready pending", "running: done done ready"} {
			u.wait(before)
			for range 50 {
				u.tick(false)
			}
			u.wait(before)
			_ = u.nodes[n].restart()
		}
		u.wait(allDone)
	})
}

// TestATasksFileThatIsDamagedStopsTheStart and says what to do.
func TestATasksFileThatIsDamagedStopsTheStart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "intents")
	if err := os.WriteFile(file+tasksSuffix, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openTasks(file); err == nil || !strings.Contains(err.Error(), "move the file away") {
		t.Errorf("%v", err)
	}
}
