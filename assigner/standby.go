package assigner

import (
	"context"
	"sync"
	"time"
)

const (
	// healthInterval is the time between two checks of the assigner stood by
	// for, healthTimeout how long one may take.
	healthInterval = time.Second
	healthTimeout  = time.Second
	// takeOverAfter is how many checks in a row have to fail before a passive
	// assigner becomes active, and yieldAfter how many have to succeed before it
	// becomes passive again.
	takeOverAfter = 3
	yieldAfter    = 3
)

// watch is the state of standing by, after any number of checks.
type watch struct {
	active bool
	streak int // checks in a row that speak against the state
}

// next is the state after one more check.
func (w watch) next(answered bool) watch {
	against, needed := !answered, takeOverAfter
	if w.active {
		against, needed = answered, yieldAfter
	}
	switch {
	case !against:
		w.streak = 0
	case w.streak+1 >= needed:
		w = watch{active: !w.active}
	default:
		w.streak++
	}
	return w
}

// standby tells whether an assigner acts. It begins passive: the other one is
// taken for well until it is not. A nil *standby is always active. Safe for
// concurrent use.
type standby struct {
	mu      sync.Mutex
	watch   watch
	changed chan struct{} // closed, and replaced, when active changes
}

func newStandby() *standby { return &standby{changed: make(chan struct{})} }

// active reports whether the assigner acts now.
func (s *standby) active() bool {
	active, _ := s.state()
	return active
}

// state returns the same and a channel that is closed when it changes.
func (s *standby) state() (active bool, changed <-chan struct{}) {
	if s == nil {
		return true, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.watch.active, s.changed
}

// checked records a check and reports whether the state has changed by it.
func (s *standby) checked(answered bool) (changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.watch.active
	s.watch = s.watch.next(answered)
	if s.watch.active == was {
		return false
	}
	close(s.changed)
	s.changed = make(chan struct{})
	return true
}

// untilActive waits while the assigner is passive, and reports whether ctx still
// goes on.
func (s *standby) untilActive(ctx context.Context) bool {
	for {
		active, changed := s.state()
		if active {
			return ctx.Err() == nil
		}
		select {
		case <-ctx.Done():
			return false
		case <-changed:
		}
	}
}

// watchPrimary checks the assigner stood by for until ctx ends.
func (a *Assigner) watchPrimary(ctx context.Context) {
	primary := a.cfg.Announces.StandbyFor
	a.log.Info("assigner stands by: it acts when the other one does not answer", "primary", redacted(primary))
	a.metrics.passive.Set(1)
	ticker := time.NewTicker(healthInterval)
	defer ticker.Stop()
	for {
		check, cancel := context.WithTimeout(ctx, healthTimeout)
		err := a.links.healthy(check, primary)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if a.standby.checked(err == nil) {
			a.noteState(err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (a *Assigner) noteState(err error) {
	primary := redacted(a.cfg.Announces.StandbyFor)
	passive := !a.standby.active()
	a.pool.notePassive(passive)
	if passive {
		a.metrics.passive.Set(1)
		a.log.Info("assigner becomes passive: the other one answers again", "primary", primary)
		return
	}
	a.metrics.passive.Set(0)
	a.log.Warn("assigner becomes active: the other one does not answer", "primary", primary, "err", err)
}
