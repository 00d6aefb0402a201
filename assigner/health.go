package assigner

import (
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/signpost-index/signpost/api/health"
)

const (
	// lately is how long ago what happened is still worth a condition; of the
	// journal, which is tried every second, not as long.
	lately        = 10 * time.Minute
	journalLately = time.Minute
	// silentNamed is how many indexers a condition names.
	silentNamed = 5
)

// newBoard joins what this assigner looks at.
func (a *Assigner) newBoard() *health.Board {
	m := a.metrics
	refused := []prometheus.Collector{m.expired}
	for _, e := range []*unavailableError{errNoRoom, errJournalFull, errNotTaken} {
		refused = append(refused, m.unavailable.WithLabelValues(e.reason))
	}
	checks := []health.Check{
		{Code: health.PoolNodeSilent, Look: a.pool.silent},
		{Code: health.AssignerNoRoom, Look: a.pool.noRoom},
		{Code: health.DrainStuck, Look: a.pool.stuck},
	}
	if a.cfg.Gossip != nil {
		refused = append(refused, a.cfg.Gossip.Dropped())
		checks = append(checks, health.Check{Code: health.GossipAlone, Look: func(time.Time) string { return health.Alone(a.cfg.Gossip.Peers()) }})
	}
	dropped := &health.Growth{Within: lately, Counters: refused}
	checks = append(checks, health.Check{Code: health.AnnouncesDropped, Look: dropped.Said("%.0f announces, by HTTP answered 503 or given up, or by gossip")})
	if a.journal != nil {
		failed := &health.Growth{Within: journalLately, Counters: []prometheus.Collector{m.journalFailures}}
		checks = append(checks, health.Check{Code: health.JournalFailed, Look: failed.Said("%.0f writes failed within a minute")})
	}
	if a.standby != nil {
		checks = append(checks, health.Check{Code: health.StandingBy, Look: func(time.Time) string {
			if a.standby.active() {
				return ""
			}
			return "for " + a.cfg.Announces.StandbyFor
		}})
	}
	return health.New(health.Config{Checks: checks, Logger: a.log, Registerer: a.cfg.Registerer})
}

// Health says what is wrong with the pool as this assigner sees it.
func (a *Assigner) Health() *health.Board { return a.board }

// silent says in words which members cannot be read, or only between two crashes.
func (p *pool) silent(now time.Time) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var names []string
	for _, n := range p.nodes {
		switch s := p.state(n, now); {
		case s == StateDown, s == StateCrashing, s == StateLost, s == StateUnknown && n.asked:
			names = append(names, fmt.Sprintf("%s is %s", n.member.Admin, s))
		}
	}
	if len(names) == 0 {
		return ""
	}
	more := ""
	if n := len(names) - silentNamed; n > 0 {
		names, more = names[:silentNamed], fmt.Sprintf(", and %d others", n)
	}
	return strings.Join(names, ", ") + more
}

// noRoom says in words how many publishers no indexer can take.
func (p *pool) noRoom(time.Time) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last.unplaced == 0 {
		return ""
	}
	return fmt.Sprintf("%d publishers", p.last.unplaced)
}

// stuck says in words which drains cannot end.
func (p *pool) stuck(time.Time) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	publishers, some := 0, ""
	for id, n := range p.last.stuck {
		publishers += n
		some = max(some, id.String())
	}
	if publishers == 0 {
		return ""
	}
	return fmt.Sprintf("%d publishers at %d indexers, such as %s", publishers, len(p.last.stuck), some)
}
