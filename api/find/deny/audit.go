package deny

import (
	"log/slog"
	"sync"
)

// namedAtMost is how many denied lookups are in the log by themselves between two
// sums.
const namedAtMost = 10

// audit tells the log of denied lookups, without letting clients fill it.
type audit struct {
	log *slog.Logger

	mu    sync.Mutex
	since counts // the last sum
	named int
}

// note tells of one denied lookup.
func (a *audit) note(m *match) {
	a.mu.Lock()
	a.since[m.kind]++
	say := a.named < namedAtMost
	if say {
		a.named++
	}
	a.mu.Unlock()
	if say {
		a.log.Info("lookup denied", "kind", kindNames[m.kind], "denied", m.text, "reason", m.reason)
	}
}

// sum tells how many were denied since the last sum, if any were.
func (a *audit) sum() {
	a.mu.Lock()
	c := a.since
	a.since, a.named = counts{}, 0
	a.mu.Unlock()
	if c != (counts{}) {
		a.log.Info("lookups denied since the last sum", slog.Any("lookups", c))
	}
}
