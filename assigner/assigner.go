package assigner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/signpost-index/signpost/announce"
	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/admin"
	"github.com/signpost-index/signpost/api/health"
)

// Defaults of Config.
const (
	DefaultPollInterval = 2 * time.Second
	DefaultCallTimeout  = 5 * time.Second
	DefaultGrace        = 5 * time.Minute
	DefaultMoves        = 600
)

const (
	// seenAnnounces is how many announces are remembered so as to drop
	// repetitions. The reference remembers 64, for one indexer's publishers;
	// this is for a pool's, and costs about a hundred bytes each.
	seenAnnounces = 4096
	// planPause keeps planning below a fifth of one core when facts change
	// all the time: after a plan that took t, the next waits for 4t.
	planPause = 4
)

// Config of an assigner.
type Config struct {
	// Key is the assigner's identity, shown on the pool page. It may be nil.
	Key crypto.PrivKey
	// Listener is where announces and the read-only pages are served. Run
	// closes it.
	Listener net.Listener
	// Gossip is where announces are heard besides, or nil. The caller closes
	// it, after Run has returned.
	Gossip *announce.Gossip
	// Members are the pool, at least one, unless Operating names a pool file.
	Members []admin.PoolMember
	// Operating is what an operator has to do with it.
	Operating Operating
	// Replication is how many active indexers each publisher gets, at least 1.
	Replication int
	// PollInterval is the time between two looks at one indexer; 0 means
	// DefaultPollInterval.
	PollInterval time.Duration
	// CallTimeout bounds each look, step and forward; 0 means
	// DefaultCallTimeout. More than 30 seconds without the beginning of an
	// answer are never waited for ([api.NewHTTPClient]).
	CallTimeout time.Duration
	// Grace is how long a member that cannot be read keeps its publishers, and one
	// of which nothing is known holds up new assignments; 0 means DefaultGrace.
	Grace time.Duration
	// Moves is how many publishers an hour are moved to even out load; 0 means
	// DefaultMoves, negative none.
	Moves int
	// ReadToken returns the admin token in a member's TokenFile. It is needed
	// only if a member has one, and is called by Open and SetPool.
	ReadToken func(file string) (string, error)
	// Announces says what becomes of announces.
	Announces AnnounceConfig
	// Logger may be nil.
	Logger *slog.Logger
	// Registerer gets the metrics; it may be nil.
	Registerer prometheus.Registerer
}

// Validate says what is wrong with the configuration, if anything.
func (c Config) Validate() error {
	switch {
	case c.Listener == nil:
		return errors.New("assigner: no listener")
	case c.Replication < 1:
		return fmt.Errorf("assigner: replication %d, want at least 1", c.Replication)
	case c.PollInterval < 0, c.CallTimeout < 0, c.Grace < 0:
		return errors.New("assigner: negative interval")
	}
	if err := c.Announces.validate(c.Gossip != nil); err != nil {
		return err
	}
	if c.Operating.PoolFile != "" && len(c.Members) == 0 {
		return nil
	}
	return validateMembers(c.Members)
}

// Assigner is the role. Its methods are safe for concurrent use.
type Assigner struct {
	cfg     Config
	id      peer.ID
	log     *slog.Logger
	metrics *metrics
	seen    *announce.Seen
	pool    *pool
	http    *http.Client
	links   links
	outlets []*outlet
	standby *standby // nil: it stands by for nobody
	journal *journal // nil without one
	close   sync.Once
	intents *intentStore
	events  *events
	roster  *roster
	covered coverageCache
	board   *health.Board
	pages   *pages
	tasks   *taskStore
	settle  time.Duration // see settleTime
	silence silence       // of the step under way; runTasks's
}

// links are the ways out of the assigner, which tests replace.
type links struct {
	connect func(m admin.PoolMember, token string) (client, error)
	send    func(ctx context.Context, ingestURL string, a announce.Announce) error
	healthy func(ctx context.Context, baseURL string) error
}

// Open makes an assigner. It calls no indexer yet; Run does.
func Open(cfg Config) (*Assigner, error) {
	hc := api.NewHTTPClient()
	a, err := open(cfg, links{
		connect: func(m admin.PoolMember, token string) (client, error) {
			return admin.NewClient(m.Admin, hc, token)
		},
		send:    announce.NewSender(hc).Send,
		healthy: askHealth(hc),
	})
	if err != nil {
		return nil, err
	}
	a.http = hc
	return a, nil
}

func open(cfg Config, l links) (*Assigner, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	setDefault(&cfg.PollInterval, DefaultPollInterval)
	setDefault(&cfg.CallTimeout, DefaultCallTimeout)
	setDefault(&cfg.Grace, DefaultGrace)
	if cfg.Moves == 0 {
		cfg.Moves = DefaultMoves
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	a := &Assigner{
		cfg:     cfg,
		log:     cfg.Logger,
		metrics: newMetrics(cfg.Registerer),
		seen:    announce.NewSeen(seenAnnounces),
		links:   l,
		settle:  settleTime,
	}
	if cfg.Key != nil {
		id, err := peer.IDFromPrivateKey(cfg.Key)
		if err != nil {
			return nil, fmt.Errorf("assigner: identity: %w", err)
		}
		a.id = id
	}
	a.pool = newPool(poolConfig{
		replication:  cfg.Replication,
		pollInterval: cfg.PollInterval,
		callTimeout:  cfg.CallTimeout,
		grace:        cfg.Grace,
		log:          cfg.Logger,
		metrics:      a.metrics,
		remember:     a.seen.Add,
		forget:       a.seen.Forget,
		movesAnHour:  max(cfg.Moves, 0),
		intents:      func() Intents { return a.intents.Current() },
		event:        func(e Event) { a.events.add(e) },
	})
	if err := a.openOperating(); err != nil {
		return nil, err
	}
	if err := a.openAnnounces(); err != nil {
		return a, err
	}
	a.board = a.newBoard()
	a.pages = &pages{a: a}
	return a, nil
}

func setDefault(d *time.Duration, to time.Duration) {
	if *d == 0 {
		*d = to
	}
}

// URL is where the assigner serves, without a path.
func (a *Assigner) URL() string { return "http://" + a.cfg.Listener.Addr().String() }

// SetPool replaces the pool. A member is known by its admin URL: one that stays
// keeps what was learned of it and gets the new settings and a token read
// afresh, one that is new is read at once and until then holds up new
// assignments as at start, one that is gone is forgotten together with its
// assignments: publishers with a kept announce then go to others. After an
// error the pool is as before. Members that the operator added are in the pool
// besides, and those he removed are not.
func (a *Assigner) SetPool(members []admin.PoolMember) error {
	if err := validateMembers(members); err != nil {
		return err
	}
	var lines []admin.PoolLine
	for _, m := range members {
		lines = append(lines, admin.PoolLine{PoolMember: m})
	}
	return a.roster.setLines(lines)
}

// apply makes members the pool's.
func (a *Assigner) apply(members []admin.PoolMember) error {
	if len(members) > 0 { // names may have no address yet
		if err := validateMembers(members); err != nil {
			return err
		}
	}
	connected := make([]connectedMember, 0, len(members))
	for _, m := range members {
		ix, err := a.connect(m)
		if err != nil {
			return fmt.Errorf("pool member %s: %w", m.Admin, err)
		}
		connected = append(connected, connectedMember{m, ix})
	}
	a.pool.setMembers(connected, time.Now())
	return nil
}

func (a *Assigner) connect(m admin.PoolMember) (client, error) {
	if m.TokenFile == "" {
		return a.links.connect(m, "")
	}
	if a.cfg.ReadToken == nil {
		return nil, fmt.Errorf("token file %s: no way to read it was configured", m.TokenFile)
	}
	token, err := a.cfg.ReadToken(m.TokenFile)
	if err != nil {
		return nil, err
	}
	return a.links.connect(m, token)
}

// validateMembers wants at least one member, each with its three URLs, and no
// admin URL twice.
func validateMembers(members []admin.PoolMember) error {
	if len(members) == 0 {
		return errors.New("pool has no indexers: name at least one")
	}
	seen := make(map[string]bool, len(members))
	for _, m := range members {
		for _, u := range []string{m.Find, m.Ingest, m.Admin} {
			base, err := api.ParseBaseURL(u)
			if err != nil {
				return fmt.Errorf("pool member %s: %w", m.Find, err)
			}
			if base.User != nil { // they would end up in logs and on the pool page
				return fmt.Errorf("pool member %s: no user or password in URLs, use a token file", base.Host)
			}
		}
		if seen[m.Admin] {
			return fmt.Errorf("pool member %s: admin URL listed twice", m.Admin)
		}
		seen[m.Admin] = true
	}
	return nil
}

// Run serves, listens and assigns until ctx ends or the listener or gossip
// fails. When it returns, all it started has ended. It may be called once.
func (a *Assigner) Run(ctx context.Context) error {
	parent := ctx
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	var wg sync.WaitGroup
	start := func(what string, run func(context.Context) error) {
		wg.Go(func() {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("assigner: %s: %w", what, err))
			}
		})
	}
	start("announces", a.runAnnounces)
	start("serve", func(ctx context.Context) error {
		return api.Serve(ctx, a.cfg.Listener, a.handler(), a.log)
	})
	if a.cfg.Gossip != nil {
		start("gossip", func(ctx context.Context) error { return a.cfg.Gossip.Run(ctx, a.hear) })
	}
	start("health", a.board.Run)
	a.operate(start)
	start("pool map", a.leaveHints)
	a.log.Info("assigner started", "id", a.id, "url", a.URL(), "members", a.pool.size())
	a.plan(ctx, &wg)
	wg.Wait()
	a.Close()
	if parent.Err() != nil {
		return nil
	}
	return context.Cause(ctx)
}

// Close lets go of what Open took, for an assigner that was never run; after
// Run it does nothing.
func (a *Assigner) Close() {
	a.close.Do(func() {
		_ = a.cfg.Listener.Close() // Run has closed it already, or nobody waits on it
		if ln := a.cfg.Operating.Admin; ln != nil {
			_ = ln.Close() // as the other
		}
		a.events.close()
		if a.journal != nil {
			a.journal.close()
		}
		if a.http != nil {
			a.http.CloseIdleConnections()
		}
	})
}

// plan starts the goroutines of members as they join the pool, and plans and
// hands out steps whenever something changed, until ctx ends. The ticker is for
// changes that only time brings: the end of a grace, of a refusal, of a doubt.
func (a *Assigner) plan(ctx context.Context, wg *sync.WaitGroup) {
	ticker := time.NewTicker(a.cfg.PollInterval)
	defer ticker.Stop()
	first := time.After(firstLooks)
	for {
		for _, n := range a.pool.starting() {
			a.startNode(ctx, wg, n)
		}
		if first != nil && !a.pool.allLooked() {
			select {
			case <-ctx.Done():
				return
			case <-a.pool.looked:
			case <-first:
				first = nil
			}
			continue
		}
		first = nil
		active, changed := a.standby.state()
		var elapsed time.Duration
		if active {
			started := time.Now()
			v := a.pool.view(started)
			d := decide(v)
			a.pool.surplus(v, &d)
			a.pool.handOut(d, time.Now())
			elapsed = time.Since(started)
			a.metrics.planSeconds.Observe(elapsed.Seconds())
		}
		if !sleep(ctx, planPause*elapsed) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-a.pool.changed:
		case <-changed:
		case <-ticker.C:
		}
	}
}

// firstLooks is how long the first plan waits for every member to have been
// looked at once: else those that answer first would get everything.
const firstLooks = time.Second

// sleep waits for d and reports whether ctx still goes on.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
