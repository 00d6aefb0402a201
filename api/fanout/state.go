package fanout

import (
	"log/slog"
	"sync"
	"time"
)

// quietFor is how long a backend's changes are not logged after one was: one
// that comes and goes with every find must not fill the log.
const quietFor = 10 * time.Second

// states tells, once for each change, which backends answer.
type states struct {
	log *slog.Logger

	mu     sync.Mutex
	byName map[string]*state // guarded by mu
}

type state struct {
	down bool // as last logged
	said time.Time
}

// note takes the outcome of one question to a backend.
func (s *states) note(backend string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.byName[backend]
	if st == nil {
		if err == nil {
			return // up is what all are taken to be
		}
		if s.byName == nil {
			s.byName = make(map[string]*state)
		}
		st = &state{}
		s.byName[backend] = st
	}
	now := time.Now()
	if st.down == (err != nil) || (!st.said.IsZero() && now.Sub(st.said) < quietFor) {
		return
	}
	st.down, st.said = err != nil, now
	if err != nil {
		s.log.Warn("backend does not answer", "backend", backend, "err", err)
	} else {
		s.log.Info("backend answers again", "backend", backend)
	}
}

// forget drops what is known of all backends but those that keep names.
func (s *states) forget(keep func(backend string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.byName {
		if !keep(name) {
			delete(s.byName, name)
		}
	}
}
