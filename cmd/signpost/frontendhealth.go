package main

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/signpost-index/signpost/api/find/deny"
	"github.com/signpost-index/signpost/api/health"
)

const (
	// firstAnswers is how long a frontend that starts waits for its indexers.
	firstAnswers = 15 * time.Second
	// maxSkew is how far two clocks may be apart.
	maxSkew = 30 * time.Second
	// silentNamed is how many indexers a condition names.
	silentNamed = 5
)

// frontendBoard joins what a frontend looks at.
func frontendBoard(fe *frontend, pool *frontendPool, list *deny.List, log *slog.Logger, reg prometheus.Registerer) *health.Board {
	started := time.Now()
	silent := func(now time.Time, least func(silent, all int) bool) string {
		names, all := fe.finder.Silent()
		if !least(len(names), all) || now.Sub(started) < firstAnswers {
			return ""
		}
		return fmt.Sprintf("%d of %d did not answer: %s", len(names), all, strings.Join(names[:min(len(names), silentNamed)], ", "))
	}
	checks := []health.Check{
		{Code: health.BackendDown, Look: func(now time.Time) string {
			return silent(now, func(n, _ int) bool { return n > 0 })
		}},
		{Code: health.NoQuorum, Look: func(now time.Time) string {
			return silent(now, func(n, all int) bool { return 2*n >= all })
		}},
	}
	if fe.filters != nil {
		checks = append(checks, health.Check{Code: health.FilterBehind, Look: func(time.Time) string {
			n, all := fe.filters.Behind()
			if n == 0 {
				return ""
			}
			return fmt.Sprintf("%d of %d", n, all)
		}})
	}
	if pool.c.String(flagAssigner) != "" {
		checks = append(checks,
			health.Check{Code: health.AssignerSilent, Look: func(time.Time) string { return pool.its.trouble() }},
			health.Check{Code: health.ClockSkew, Look: func(time.Time) string { return pool.its.skewed() }})
	}
	if list != nil {
		checks = append(checks, health.Check{Code: health.DenylistStale, Look: func(time.Time) string { return list.Stale() }})
	}
	return health.New(health.Config{Checks: checks, Logger: log, Registerer: reg})
}

// assignerHeard is how the last call to the assigner went. It is safe for
// concurrent use.
type assignerHeard struct {
	mu   sync.Mutex
	err  error
	skew time.Duration // its clock is ahead by that
}

// note takes what the clocks said, its cut to seconds, and how the call went.
func (h *assignerHeard) note(its, ours time.Time, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.err = err
	if err == nil {
		h.skew = its.Sub(ours)
	}
}

func (h *assignerHeard) trouble() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err == nil {
		return ""
	}
	return h.err.Error()
}

func (h *assignerHeard) skewed() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.skew.Abs() <= maxSkew {
		return ""
	}
	return fmt.Sprintf("the assigner's clock is at %s of this machine's", h.skew.Round(time.Second))
}
