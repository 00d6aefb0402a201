package postings

import (
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// pacedWork does work of a cost until a time has passed, on a clock of its own,
// and returns how much was done. Between pieces it calls step.
func pacedWork(p *pacer, cost, span time.Duration, step func(now time.Time)) (done time.Duration) {
	now := time.Unix(1, 0)
	for end := now.Add(span); now.Before(end); done += cost {
		step(now)
		now = now.Add(p.wait(now, cost))
		now = now.Add(cost)
	}
	return done
}

func TestWorkIsNotHeldBackWithoutLookups(t *testing.T) {
	p := newPacer(0)
	if done := pacedWork(p, time.Millisecond, time.Second, func(time.Time) {}); done != time.Second {
		t.Errorf("did %v in a second", done)
	}
	if p.pausedSeconds() != 0 {
		t.Errorf("paused %v s", p.pausedSeconds())
	}
}

func TestWorkHasItsShareBesideLookups(t *testing.T) {
	for _, procs := range []int{1, 2, 8} {
		for _, cost := range []time.Duration{10 * time.Microsecond, 300 * time.Microsecond, time.Millisecond} {
			p := &pacer{procs: procs}
			done := pacedWork(p, cost, time.Second, func(time.Time) { p.lookup() })
			want := min(time.Second, time.Duration(float64(procs)*paceShare*float64(time.Second)))
			if done < want-10*time.Millisecond || done > want+10*time.Millisecond {
				t.Errorf("%d processors, pieces of %v: did %v in a second, want %v", procs, cost, done, want)
			}
		}
	}
}

// TestWorkersShareWhatThereIs: many workers at once are not admitted more than
// one, and none waits long.
func TestWorkersShareWhatThereIs(t *testing.T) {
	p := &pacer{procs: 2}
	p.lookup()
	now := time.Unix(1, 0)
	const workers, cost = 4, time.Millisecond
	free := [workers]time.Time{}
	for i := range free {
		free[i] = now
	}
	pieces := 0
	for ; now.Before(time.Unix(2, 0)); now = now.Add(50 * time.Microsecond) {
		p.lookup()
		for i := range free {
			if free[i].After(now) {
				continue
			}
			wait := p.wait(now, cost)
			if wait > 2*workers*cost {
				t.Fatalf("waits %v", wait)
			}
			free[i] = now.Add(wait + cost)
			pieces++
		}
	}
	if pieces < 980 || pieces > 1020 {
		t.Errorf("%d pieces of %v in a second of 2 processors", pieces, cost)
	}
}

func TestWorkGoesOnSoonAfterTheLastLookup(t *testing.T) {
	p := &pacer{procs: 2}
	now := time.Unix(1, 0)
	p.lookup()
	if p.wait(now, time.Second) == 0 {
		t.Error("not held back beside a lookup")
	}
	if p.wait(now.Add(paceMemory-1), time.Second) == 0 {
		t.Error("not held back shortly after a lookup")
	}
	if wait := p.wait(now.Add(paceMemory), time.Second); wait != 0 {
		t.Errorf("held back by %v after the last lookup", wait)
	}
	// What was done meanwhile is no debt, and what was not little credit.
	p.lookup()
	if wait := p.wait(now.Add(time.Hour), 6*time.Millisecond); wait != 6*time.Millisecond-paceBurst {
		t.Errorf("waits %v", wait)
	}
}

// TestWhatIsPaced: writes of tables and Puts are, lookups and other files are
// not.
func TestWhatIsPaced(t *testing.T) {
	x, err := Open(Config{Dir: "x", FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	}()
	x.pace.procs = 1000 // no long sleeps
	work := func() time.Time {
		x.pace.mu.Lock()
		defer x.pace.mu.Unlock()
		return x.pace.next
	}
	before := work()
	hs := testHashes(0, 10)
	if err := x.Put(1, 1, hs); err != nil {
		t.Fatal(err)
	}
	put := work()
	if !put.After(before) {
		t.Error("a Put is not paced")
	}
	if _, err := x.Find(hs[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := x.FindBatch(hs, 0); err != nil {
		t.Fatal(err)
	}
	if !x.pace.seen.Load() {
		t.Error("lookups are not seen")
	}
	if work() != put {
		t.Error("lookups are paced")
	}
	if err := x.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !work().After(put) {
		t.Error("a flush is not paced")
	}
	if x.pace.seen.Load() {
		t.Error("work did not look for lookups")
	}
}
