package assigner

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// TestAnIndexerThatCrashesAgainAndAgainIsLostInTheEnd, although it answers most of
// the time: it gets nothing new, after the grace its publishers go to another, and
// it is well when it has run for long.
func TestAnIndexerThatCrashesAgainAndAgainIsLostInTheEnd(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		u := newUpgradeTest(t, dir)
		defer func() { u.Close() }()
		u.tick(false)
		bad := u.nodes[0]
		view := func() (ix Indexer, steps []Step) {
			v := u.pool.view(time.Now())
			for _, x := range v.Indexers {
				if x.ID == bad.id {
					ix = x
				}
			}
			return ix, Plan(v)
		}
		crash := func() {
			bad.started = time.Now()
			for range 60 {
				u.tick(false)
			}
		}
		for range crashLimit - 1 {
			crash()
		}
		if ix, steps := view(); !ix.Reachable || ix.Crashing || len(steps) > 0 {
			t.Errorf("after %d restarts: %+v, %v", crashLimit-1, ix, steps)
		}
		crash()
		if ix, steps := view(); ix.Reachable || !ix.Crashing || ix.Lost || len(steps) > 0 {
			t.Errorf("after %d restarts: %+v, %v", crashLimit, ix, steps)
		}
		said := u.events.page(EventQuery{Limit: 100}).Events
		if last := said[len(said)-1]; last.Indexer != bad.id || !strings.Contains(last.Text, "it has restarted 5 times within 10m") {
			t.Errorf("the last event is %+v", last)
		}
		if m, _, _ := u.pool.members(time.Now()); m[0].State != StateCrashing || !strings.Contains(m[0].Error, "5 times") {
			t.Errorf("it is shown as %+v", m[0])
		}
		if why := u.pool.silent(time.Now()); !strings.Contains(why, "is crashing") {
			t.Errorf("health says %q", why)
		}
		x := Explain(u.pool.view(time.Now()), realID(t, 12))
		if x.Places[0].State != StateCrashing && x.Places[1].State != StateCrashing {
			t.Errorf("explained as %+v", x.Places)
		}
		u.unheld = true
		for range 4 {
			crash()
		}
		ix, steps := view()
		var gets []peer.ID
		for _, s := range steps {
			if s.Kind == Assign {
				gets = append(gets, s.Indexer)
			}
		}
		if !ix.Lost || len(gets) != 2 {
			t.Errorf("after the grace: lost %v, steps %v; want what it had at another", ix.Lost, steps)
		}
		bad.set(func() { bad.mode = isDown })
		u.tick(false)
		if ix, steps := view(); !ix.Lost || len(steps) != 2 {
			t.Errorf("between two lives, after the grace: lost %v, steps %v; want what it had at another", ix.Lost, steps)
		}
		bad.set(func() { bad.mode, bad.started = up, time.Now() })
		for range 600 + 2 {
			u.tick(false)
		}
		if ix, _ := view(); !ix.Reachable || ix.Crashing || ix.Lost {
			t.Errorf("when it has run for ten minutes: %+v", ix)
		}
	})
}

// TestRestartsFarApartAreNoCrashes: an indexer may be restarted now and then.
func TestRestartsFarApartAreNoCrashes(t *testing.T) {
	var c crashes
	now := time.Now()
	for n := range 20 {
		now = now.Add(crashWindow/(crashLimit-1) + time.Second)
		if c.restarted(now) || c.looping(now) {
			t.Errorf("restart %d is one too many", n)
		}
	}
}
