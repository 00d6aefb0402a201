package assigner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
)

// restartable is an indexer of ours that can be held and restarted.
type restartable struct {
	*oursIndexer
	reindexing
	started   time.Time
	heldUntil time.Time
	by        admin.FrozenBy
	restarts  int
	sick      bool // its find port does not answer
	fails     bool // a restart fails
	stays     bool // a restart does nothing
	downFor   time.Duration
	upAt      time.Time
}

func (r *restartable) Hold(_ context.Context, d time.Duration, _ string) error {
	r.set(func() {
		if !r.frozen {
			r.frozen, r.by = true, admin.FrozenByMaintenance
			for p, role := range r.roles {
				r.frozenAt[p] = role.Mark
			}
		}
		r.heldUntil = time.Now().Add(d)
	})
	return nil
}

func (r *restartable) Unfreeze(context.Context) error {
	if time.Now().Before(r.heldUntil) {
		return admin.ErrHeld
	}
	r.set(func() { r.frozen, r.by = false, "" })
	return nil
}

func (r *restartable) Node(ctx context.Context) (admin.NodeStatus, error) {
	n, err := r.oursIndexer.Node(ctx)
	n.Started, n.FrozenBy = r.started, r.by
	n.HeldSeconds = max(time.Until(r.heldUntil), 0).Seconds()
	r.tell(&n)
	return n, err
}

// restart is what an operator's command does.
func (r *restartable) restart() error {
	if r.fails {
		return errors.New("no such version")
	}
	if !r.stays {
		r.restarts++
		r.set(func() { r.mode = isDown })
		r.upAt = time.Now().Add(r.downFor)
	}
	return nil
}

// upgradeTest is a pool of three, which has two copies of everything, and an
// assigner that can be killed. It runs in virtual time.
type upgradeTest struct {
	*Assigner
	t     *testing.T
	file  string
	nodes []*restartable
	ran   map[string]bool // command was run by this life of who gives commands
	most  int             // how many were out of service at once
	// unheld: indexers may be down that are not held, and publishers move.
	unheld bool
}

func newUpgradeTest(t *testing.T, dir string) *upgradeTest {
	u := &upgradeTest{t: t, file: filepath.Join(dir, "intents"), ran: make(map[string]bool)}
	for n := range 3 {
		r := &restartable{oursIndexer: newOurs(newFake(realID(t, int64(n+1)))), started: time.Now(), downFor: 5 * time.Second}
		for k := range 3 {
			if k != n {
				p := realID(t, int64(k+11))
				r.roles[p] = &admin.PublisherRole{Publisher: p, Role: admin.RoleOwner, Ranges: []admin.Range{{}}, Mark: "m", Height: 5}
			}
		}
		u.nodes = append(u.nodes, r)
	}
	u.launch()
	return u
}

// launch opens the assigner, anew if there was one.
func (u *upgradeTest) launch() {
	u.t.Helper()
	if u.Assigner != nil {
		u.Close()
	}
	cfg := Config{Listener: newIdleListener(), Replication: 2, Operating: Operating{IntentsFile: u.file}, Logger: slog.New(slog.DiscardHandler)}
	by := make(map[string]client)
	find := make(map[string]*restartable)
	for n, r := range u.nodes {
		name := fmt.Sprint("n", n)
		cfg.Members = append(cfg.Members, admin.PoolMember{Find: url("find", name), Ingest: url("ingest", name), Admin: url("admin", name)})
		by[url("admin", name)], find[url("find", name)] = r, r
	}
	var err error
	u.Assigner, err = open(cfg, links{
		connect: func(m admin.PoolMember, _ string) (client, error) { return by[m.Admin], nil },
		healthy: func(_ context.Context, base string) error {
			if find[base].sick {
				return errors.New("503")
			}
			return nil
		},
	})
	if err != nil {
		u.t.Fatal(err)
	}
	u.pool.starting()
}

// tick lets a second pass: indexers come back, are looked at, and the upgrade and
// whoever gives commands look once.
func (u *upgradeTest) tick(command bool) {
	out := 0
	for _, r := range u.nodes {
		if r.mode == isDown && !r.upAt.IsZero() && !time.Now().Before(r.upAt) {
			r.set(func() { r.mode = up })
			r.started, r.upAt = time.Now(), time.Time{}
		}
		if r.mode == isDown {
			out++
			if !u.unheld && (!r.frozen || time.Now().After(r.heldUntil)) {
				u.t.Errorf("indexer %s is down and not held", r.id)
			}
		}
	}
	u.most = max(u.most, out)
	for _, n := range u.pool.nodes {
		look, ix, old, _ := u.pool.startLook(n)
		f, err := u.read(u.t.Context(), ix, old)
		u.pool.finishLook(n, look, f, err, time.Now())
	}
	if steps := Plan(u.pool.view(time.Now())); len(steps) > 0 && !u.unheld {
		u.t.Errorf("publishers would move: %v", steps)
	}
	u.carryOn(u.t.Context(), time.Now())
	if command {
		u.commands()
	}
	time.Sleep(time.Second)
}

// commands does what signpost pool upgrade --exec does.
func (u *upgradeTest) commands() {
	t, ok := u.tasks.active()
	if !ok {
		return
	}
	for n, s := range t.Steps {
		tell := func(result, text string) error {
			return u.tasks.update(t.ID, func(t Task) (Task, error) { return t.command(n, result, text, time.Now()) })
		}
		lost := s.State == StepAway && s.Commands > 0 && !u.ran[string(s.Indexer)] && time.Since(s.Since) > t.Settings.DownFor
		if lost {
			if err := tell(CommandLost, ""); err != nil {
				u.t.Error(err)
			}
		}
		if s.State != StepReady || t.State != TaskRunning {
			continue
		}
		if err := tell(CommandBegun, ""); err != nil {
			u.t.Error(err)
			continue
		}
		u.ran[string(s.Indexer)] = true
		if err := u.nodeOf(s.Indexer).restart(); err != nil {
			if err := tell(CommandFailed, err.Error()); err != nil {
				u.t.Error(err)
			}
		}
	}
}

func (u *upgradeTest) nodeOf(id peer.ID) *restartable {
	return u.nodes[slices.IndexFunc(u.nodes, func(r *restartable) bool { return r.id == id })]
}

func (u *upgradeTest) begin() {
	u.t.Helper()
	u.tick(false)
	t, err := u.newUpgrade(UpgradeSettings{MaxDown: "1", MinCopies: 1, DownFor: 10 * time.Second, BackWithin: time.Minute}, nil, Wish{})
	if err == nil {
		_, err = u.tasks.begin(t)
	}
	if err != nil {
		u.t.Fatal(err)
	}
}

// states are the steps of the newest task, in a word each.
func (u *upgradeTest) states() string {
	all := u.tasks.all()
	if len(all) == 0 {
		return ""
	}
	t := all[len(all)-1]
	words := []string{string(t.State) + ":"}
	for _, s := range t.Steps {
		words = append(words, string(s.State))
	}
	return strings.Join(words, " ")
}

func (u *upgradeTest) until(state string) {
	u.t.Helper()
	for range 400 {
		if u.states() == state {
			return
		}
		u.tick(true)
	}
	u.t.Fatalf("it is %q, want %q", u.states(), state)
}

// wait is until without anybody who gives commands.
func (u *upgradeTest) wait(state string) {
	u.t.Helper()
	for range 100 {
		if u.tick(false); u.states() == state {
			return
		}
	}
	u.t.Fatalf("it is %q, want %q", u.states(), state)
}

func (u *upgradeTest) restarts() (n []int) {
	for _, r := range u.nodes {
		n = append(n, r.restarts)
	}
	return n
}
