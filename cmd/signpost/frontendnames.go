package main

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/urfave/cli/v2"

	"github.com/signpost-index/signpost/assigner"
)

// frontendNames are the names in a frontend's pool file.
type frontendNames struct {
	names    *assigner.Names
	log      *slog.Logger
	failing  map[string]bool
	failures prometheus.Counter
}

func newFrontendNames(c *cli.Context, log *slog.Logger, reg prometheus.Registerer) (*frontendNames, error) {
	if err := checkResolver(c.String(flagResolver)); err != nil {
		return nil, err
	}
	names, err := assigner.NewNames(c.String(flagResolver))
	if err != nil {
		return nil, err
	}
	n := &frontendNames{names: names, log: log, failing: make(map[string]bool), failures: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "signpost_frontend_dns_failures_total", Help: "Look-ups of names in the pool file that failed.",
	})}
	reg.MustRegister(n.failures)
	return n, nil
}

// lookUp works out who the lines of the pool file stand for, and says whether that
// has changed. It takes up to five seconds if there are names among them.
func (p *frontendPool) lookUp(ctx context.Context) (changed bool) {
	members, errs := p.names.names.Members(ctx, p.lines, p.keep())
	if ctx.Err() != nil {
		return false
	}
	p.names.noteFailures(errs)
	before := p.file
	p.file = nil
	for _, m := range members {
		p.file = append(p.file, m.Find)
	}
	return !slices.Equal(before, p.file)
}

// keep is how long an address that has vanished from DNS is asked still: its indexer
// may be down, and what it has would be missed as if nobody had it. An assigner that
// told who is in the pool knows better, once it has been asked again.
func (p *frontendPool) keep() time.Duration {
	if len(p.asked) > 0 {
		return 3 * poolRefresh
	}
	return assigner.DefaultGrace
}

// noteFailures logs when the look-up of a name begins to fail and when it ends.
func (n *frontendNames) noteFailures(errs map[string]error) {
	n.failures.Add(float64(len(errs)))
	for name, err := range errs {
		if !n.failing[name] {
			n.log.Warn("name of the pool cannot be looked up; its last addresses stay in force", "name", name, "err", err)
		}
		n.failing[name] = true
	}
	for name := range n.failing {
		if errs[name] == nil {
			delete(n.failing, name)
			n.log.Info("name of the pool is looked up again", "name", name)
		}
	}
}
