package assigner

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
)

// reindexing is what a restartable does of a re-index.
type reindexing struct {
	takes   time.Duration // how long it applies ads again
	until   time.Time
	asked   int
	refuses error
	passes  int // publishers it passes over
	lost    float64
	whole   int  // times it was marked as whole
	silent  bool // it does not tell how far it is
	during  func()
}

func (r *restartable) Reindex(ctx context.Context) (done admin.Reindexed, err error) {
	if err := r.lock(ctx, true); err != nil {
		return done, err
	}
	defer r.mu.Unlock()
	if r.refuses != nil {
		return done, r.refuses
	}
	r.reindexing.asked++
	r.until = time.Now().Add(r.takes)
	return admin.Reindexed{Publishers: 2, PassedOver: r.passes}, nil
}

func (r *restartable) MarkWhole(_ context.Context, force bool) error {
	if !force {
		return admin.ErrBusy
	}
	r.whole++
	r.set(func() { r.lost = 0 })
	return nil
}

// tell adds what it tells to its status.
func (r *restartable) tell(n *admin.NodeStatus) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n.LostShare = r.lost
	if left := 0; !r.reindexing.silent {
		if time.Now().Before(r.until) {
			left = 2
		}
		n.Reindexing = &left
	}
}

// newReindexTest is an upgradeTest whose indexers apply ads again, for a while.
func newReindexTest(t *testing.T, dir string) *upgradeTest {
	u := newUpgradeTest(t, dir)
	u.unheld = true // they may be down by themselves
	for _, r := range u.nodes {
		r.takes = 5 * time.Second
	}
	return u
}

func (u *upgradeTest) beginReindex(set ReindexSettings, only ...peer.ID) {
	u.t.Helper()
	u.tick(false)
	if set.BackWithin == 0 {
		set.BackWithin = time.Minute
	}
	t, err := u.newReindex(set, only, Wish{})
	if err == nil {
		_, err = u.tasks.begin(t)
	}
	if err != nil {
		u.t.Fatal(err)
	}
}

func (u *upgradeTest) all() (ids []peer.ID) {
	for _, r := range u.nodes {
		ids = append(ids, r.id)
	}
	return ids
}

// asked are how often each indexer was asked, and busy how many are under way.
func (u *upgradeTest) asked() (n []int, busy int) {
	for _, r := range u.nodes {
		n = append(n, r.reindexing.asked)
		if time.Now().Before(r.until) {
			busy++
		}
	}
	return n, busy
}

func (u *upgradeTest) change(do func(Task) (Task, error)) {
	u.t.Helper()
	all := u.tasks.all()
	if err := u.tasks.update(all[len(all)-1].ID, do); err != nil {
		u.t.Fatal(err)
	}
}

func (u *upgradeTest) text(n int) string {
	all := u.tasks.all()
	return all[len(all)-1].Steps[n].Text
}

// TestAReindexTakesOneIndexerAfterTheOtherAfterAnyKill of the assigner: never two at
// once, each is asked, and all are done in the end.
func TestAReindexTakesOneIndexerAfterTheOtherAfterAnyKill(t *testing.T) {
	for kill := range 30 {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			u := newReindexTest(t, dir)
			defer func() { u.Close() }()
			u.beginReindex(ReindexSettings{}, u.all()...)
			for n := range 100 {
				if n == kill {
					u.launch()
				}
				u.tick(false)
				if _, busy := u.asked(); busy > 1 {
					t.Errorf("killed at tick %d: %d at once", kill, busy)
				}
				if u.states() == allDone {
					break
				}
			}
			if asked, busy := u.asked(); u.states() != allDone || busy > 0 || fmt.Sprint(asked) != "[1 1 1]" {
				t.Errorf("killed at tick %d: %s, asked %v, %d under way", kill, u.states(), asked, busy)
			}
		})
	}
}

// TestAnAnswerThatIsLostHasAnIndexerAskedAgain: it was asked, and the assigner was
// killed before that was on disk.
func TestAnAnswerThatIsLostHasAnIndexerAskedAgain(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		u := newReindexTest(t, dir)
		defer func() { u.Close() }()
		u.beginReindex(ReindexSettings{}, u.nodes[0].id)
		if _, err := u.nodes[0].Reindex(t.Context()); err != nil {
			t.Fatal(err)
		}
		u.launch()
		u.wait("done: done")
		if asked, busy := u.asked(); asked[0] != 2 || busy > 0 {
			t.Errorf("asked %v, %d under way", asked, busy)
		}
	})
}

// TestTheFirstFailureStopsAReindex, whatever it is; then it is tried again, or
// skipped for a reason.
func TestTheFirstFailureStopsAReindex(t *testing.T) {
	for _, c := range []struct {
		what          string
		breaks, mends func(r *restartable)
		says          string
	}{
		{"it refuses", func(r *restartable) { r.refuses = admin.ErrNotAllowed }, func(r *restartable) { r.refuses = nil }, "refused"},
		{"it cannot be asked", func(r *restartable) { r.mode = hungSteps }, func(r *restartable) { r.mode = up }, "refused"},
		{"it does not answer", func(r *restartable) { r.mode = isDown }, func(r *restartable) { r.mode = up }, "not answered for 1m"},
		{"it is an older one", func(r *restartable) { r.reindexing.silent = true }, func(r *restartable) { r.reindexing.silent = false }, "older"},
		{"it goes down meanwhile", func(r *restartable) { r.during = func() { r.mode = isDown } },
			func(r *restartable) { r.mode = up }, "not answered for 1m"},
		{"more is lost", func(r *restartable) { r.lost, r.during = 0.1, func() { r.lost = 0.2 } }, func(*restartable) {}, "more was lost"},
	} {
		for _, do := range []string{"retry", "skip"} {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				u := newReindexTest(t, dir)
				defer func() { u.Close() }()
				u.beginReindex(ReindexSettings{}, u.all()...)
				u.wait("running: done pending pending")
				bad := u.nodes[1]
				bad.set(func() { c.breaks(bad) })
				if bad.during != nil {
					u.wait("running: done running pending")
					bad.set(bad.during)
				}
				u.wait("failed: done failed pending")
				if !strings.Contains(u.text(1), c.says) {
					t.Errorf("%s: it says %q", c.what, u.text(1))
				}
				for range 30 {
					u.tick(false)
				}
				if asked, _ := u.asked(); asked[2] != 0 || u.states() != "failed: done failed pending" {
					t.Errorf("%s: %s, asked %v", c.what, u.states(), asked)
				}
				bad.set(func() { c.mends(bad) })
				u.tick(false)
				if do == "retry" {
					u.change(func(t Task) (Task, error) { return t.retry(1, stepFacts{}, time.Now()) })
					u.wait(allDone)
					return
				}
				if err := u.tasks.update("reindex-1", func(t Task) (Task, error) { return t.skip(1, " ", time.Now()) }); !errors.Is(err, admin.ErrBadRequest) {
					t.Errorf("%s: skipped for no reason: %v", c.what, err)
				}
				u.change(func(t Task) (Task, error) { return t.skip(1, "it is broken", time.Now()) })
				u.wait("done: done skipped done")
			})
		}
	}
}

// TestAPausedReindexAsksNobodyElse: the indexer that was asked comes to its end.
func TestAPausedReindexAsksNobodyElse(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		u := newReindexTest(t, dir)
		defer func() { u.Close() }()
		u.beginReindex(ReindexSettings{}, u.all()...)
		u.wait("running: running pending pending")
		u.change(func(t Task) (Task, error) { t.State = TaskPaused; return t, nil })
		u.launch()
		u.wait("paused: done pending pending")
		for range 30 {
			u.tick(false)
		}
		if asked, _ := u.asked(); fmt.Sprint(asked) != "[1 0 0]" {
			t.Errorf("asked %v while it is paused", asked)
		}
		u.change(func(t Task) (Task, error) { t.State = TaskRunning; return t, nil })
		u.wait(allDone)
	})
}

// TestAnIndexerThatIsFrozenIsAskedWhenItTakesContent: nothing would come back before,
// and what was applied again while it was frozen is not counted.
func TestAnIndexerThatIsFrozenIsAskedWhenItTakesContent(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		u := newReindexTest(t, dir)
		defer func() { u.Close() }()
		x := u.nodes[0]
		x.set(func() { x.frozen = true })
		u.beginReindex(ReindexSettings{}, x.id)
		for range 30 {
			u.tick(false)
		}
		if u.states() != "running: pending" || !strings.Contains(u.text(0), "frozen") || x.reindexing.asked != 0 {
			t.Errorf("%s, %q, asked %d", u.states(), u.text(0), x.reindexing.asked)
		}
		x.set(func() { x.frozen = false })
		u.wait("running: running")
		x.set(func() { x.frozen = true })
		u.wait("running: pending")
		x.set(func() { x.frozen = false })
		u.wait("done: done")
		if x.reindexing.asked != 2 {
			t.Errorf("asked %d times, want 2", x.reindexing.asked)
		}
	})
}

// TestAReindexOfTheDamagedMarksThemWhole if that is wished, when each is done, and
// nobody of whom something stays lost.
func TestAReindexOfTheDamagedMarksThemWhole(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		u := newReindexTest(t, dir)
		defer func() { u.Close() }()
		u.tick(false)
		if _, err := u.newReindex(ReindexSettings{}, nil, Wish{}); !errors.Is(err, admin.ErrBadRequest) {
			t.Errorf("none is damaged: %v", err)
		}
		for _, r := range u.nodes[1:] {
			r.set(func() { r.lost = 0.01 })
		}
		u.nodes[2].passes = 3
		u.beginReindex(ReindexSettings{MarkWhole: true})
		if task, _ := u.tasks.active(); len(task.Steps) != 2 || task.Steps[0].Indexer != u.nodes[1].id {
			t.Fatalf("steps %+v, want the two that are damaged", task.Steps)
		}
		u.wait("failed: done failed")
		if !strings.Contains(u.text(1), "3 publishers were passed over") {
			t.Errorf("it says %q", u.text(1))
		}
		if got := fmt.Sprint(u.nodes[0].whole, u.nodes[1].whole, u.nodes[2].whole); got != "0 1 0" {
			t.Errorf("marked as whole: %s", got)
		}
	})
}
