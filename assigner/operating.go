package assigner

import (
	"context"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/admin"
)

// Operating is how an operator reaches an assigner, and where his wishes come
// from and are kept. All of it may be left out.
type Operating struct {
	// Admin is where the operator's API is served; Run closes it. Access
	// says who gets in.
	Admin  net.Listener
	Access admin.Access
	// PoolFile has the members, besides Config.Members; Open reads it and Run
	// follows it.
	PoolFile string
	// Resolver is the DNS server, host:port, that is asked for the names in the
	// pool; empty: those of the system.
	Resolver string
	// IntentsFile keeps the operator's wishes; empty: they end with the process.
	IntentsFile string
	// EventsFile gets a line of JSON for each event; empty: none.
	EventsFile string
}

// openOperating opens what belongs to the operator, and makes the pool. Names
// are looked up, for five seconds at most.
func (a *Assigner) openOperating() (err error) {
	cfg := a.cfg.Operating
	ask, err := newResolver(cfg.Resolver)
	if err != nil {
		return err
	}
	if a.intents, err = openIntents(cfg.IntentsFile); err != nil {
		return err
	}
	if a.tasks, err = openTasks(cfg.IntentsFile); err != nil {
		return err
	}
	if a.events, err = openEvents(cfg.EventsFile, a.metrics, a.log); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			a.events.close()
		}
	}()
	a.roster = newRoster(rosterConfig{
		file: cfg.PoolFile, ask: ask, intents: a.intents, apply: a.apply, events: a.events, log: a.log,
		failures: a.metrics.lookUpFailures,
		known: func(adminURL string) (id peer.ID, waited bool) {
			return a.pool.knownID(adminURL, time.Now())
		},
	})
	a.pool.cfg.absent = func(now time.Time) int { return a.roster.absent(now, a.cfg.Grace) }
	lines, err := a.firstLines()
	if err != nil {
		return err
	}
	a.roster.lines = lines
	if slices.ContainsFunc(a.roster.all(), func(l admin.PoolLine) bool { return l.Name() != "" }) {
		a.roster.resolve(context.Background()) // bounded by itself
	}
	return a.roster.setLines(lines)
}

func (a *Assigner) firstLines() (lines []admin.PoolLine, err error) {
	for _, m := range a.cfg.Members {
		lines = append(lines, admin.PoolLine{PoolMember: m})
	}
	if file := a.cfg.Operating.PoolFile; file != "" {
		if a.roster.stamp, err = stampOf(file); err != nil {
			return nil, fmt.Errorf("pool file: %w", err)
		}
		a.roster.odd = a.roster.stamp
		read, err := admin.ReadPoolLines(file)
		if err != nil {
			return nil, err
		}
		lines = append(lines, read...)
	}
	return lines, nil
}

// operate starts what serves the operator.
func (a *Assigner) operate(start func(what string, run func(context.Context) error)) {
	cfg := a.cfg.Operating
	start("pool", a.roster.run)
	start("wishes", a.wakeOnWishes)
	start("tasks", a.runTasks)
	if a.events.file != nil {
		start("events", a.events.file.run)
	}
	if cfg.Admin != nil {
		start("serve admin", func(ctx context.Context) error {
			return api.Serve(ctx, cfg.Admin, a.operatorHandler(), a.log)
		})
	}
}

// wakeOnWishes has the pool planned anew when wishes change.
func (a *Assigner) wakeOnWishes(ctx context.Context) error {
	for {
		changed := a.intents.Changed()
		a.pool.wished()
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// Reload reads the pool file and the tokens again, changed or not. After an error
// the pool is as before.
func (a *Assigner) Reload() error { return a.roster.reload() }
