package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/urfave/cli/v2"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/admin"
	"github.com/signpost-index/signpost/api/fanout"
	"github.com/signpost-index/signpost/api/filter"
	"github.com/signpost-index/signpost/api/find"
	"github.com/signpost-index/signpost/api/find/deny"
	"github.com/signpost-index/signpost/api/routing"
	"github.com/signpost-index/signpost/api/tracing"
	"github.com/signpost-index/signpost/assigner"
	"github.com/signpost-index/signpost/store/keyset"
)

const (
	flagAssigner     = "assigner"
	flagFilterMemory = "filter-memory"
	flagCacheFor     = "cache-for"
	// defaultFilterMemory is filter.DefaultMemory.
	defaultFilterMemory = "1GiB"
	// poolRefresh is how often a frontend asks the assigner for the pool, and DNS for
	// the names in its file.
	poolRefresh = 10 * time.Second
	poolPath    = "/signpost/v1/pool"
	// holdingsWithin is how long the assigner may take to say what indexers hold.
	holdingsWithin = 2 * time.Second
	// Bounds of the assigner's answers.
	maxPoolBytes     = 16 << 20
	maxHoldingsBytes = 64 << 20
)

func frontendCommand() *cli.Command {
	return &cli.Command{
		Name:  "frontend",
		Usage: "run a query frontend: ask all indexers, merge their answers",
		Description: "Example:\n" +
			"  signpost frontend --pool pool.txt\n" +
			"  curl http://localhost:3000/cid/bafy...\n" +
			"  curl http://localhost:3000/routing/v1/providers/bafy...\n\n" +
			"The pool comes from a file, read again on SIGHUP, or from a running assigner:\n" +
			"  signpost frontend --assigner http://10.0.0.9:3001\n\n" +
			"A line of the file may name DNS records instead of one indexer, as the assigner's:\n" +
			"  dns=indexers.example.com find-port=3000 ingest-port=3001 admin-port=3002",
		OnUsageError: usageError,
		Flags: append([]cli.Flag{
			stringFlag(flagListen, ":3000", "`ADDR` to answer lookups on"),
			stringFlag(flagPool, "", "`FILE` with one indexer a line (this or --assigner is required)"),
			stringFlag(flagAssigner, "", "`URL` of an assigner to learn the pool from; adds to --pool"),
			resolverFlag(),
			stringFlag(flagIndexSecret, "", "`FILE` with the pool's index secret, so that indexers are asked for what they may have only; made if absent"),
			stringFlag(flagFilterMemory, defaultFilterMemory, "`BYTES` of memory for what tells which indexers may have a key, about 1.3 a multihash; 0 to ask every indexer in every lookup"),
			cacheFlag(),
			denylistFlag(),
			metricsFlag(),
			traceFlag(),
			logLevelFlag(),
		}, append(tlsFlags(), clientFlags(frontendDrain)...)...),
		Action: runFrontend,
	}
}

func cacheFlag() cli.Flag {
	return &cli.DurationFlag{Name: flagCacheFor, Value: fanout.DefaultCacheFor, EnvVars: env(flagCacheFor),
		Usage: "give an answer with results again for `DURATION`, 5s at most, if no indexer was missing; 0 to ask each time"}
}

func cacheFor(c *cli.Context) (time.Duration, error) {
	d := c.Duration(flagCacheFor)
	if d < 0 || d > fanout.DefaultCacheFor {
		return 0, misused("--%s %s: give a time from 0 to %s", flagCacheFor, d, fanout.DefaultCacheFor)
	}
	return d, nil
}

func runFrontend(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	log, level, err := newLeveledLogger(c)
	if err != nil {
		return err
	}
	cacheFor, err := cacheFor(c)
	if err != nil {
		return err
	}
	reg := newRegistry()
	secret, err := frontendSecret(c)
	if err != nil {
		return err
	}
	filters, err := newFilters(c, secret, log, reg)
	if err != nil {
		return err
	}
	var list *deny.List
	setMemory := func() { setFrontendMemory(filters, list) }
	list, err = openDenylist(c, log, setMemory)
	if err != nil {
		return err
	}
	setMemory()
	limit, draining, err := clientConfig(c)
	if err != nil {
		return err
	}
	limit.Registerer = reg
	secure, err := openTLS(c, log)
	if err != nil {
		return err
	}
	traces, err := openTracing(c, c.String(flagListen), log)
	if err != nil {
		return err
	}
	names, err := newFrontendNames(c, log, reg)
	if err != nil {
		return err
	}
	pool := &frontendPool{c: c, log: log, hc: api.NewHTTPClient(), secret: secret, names: names}
	if by := traces.Tracers(); by != nil {
		tracing.Client(pool.hc, by)
		pool.byHTTP = tracing.Sampled // a line has no headers
	}
	if err := pool.init(c.Context); err != nil {
		return err
	}
	listeners := listenerSet{c: c, tls: secure}
	ln, metricsLn := listeners.open(flagListen), listeners.open(flagMetrics)
	if listeners.err != nil {
		return listeners.err
	}
	if ln == nil {
		listeners.close()
		return misused("--%s none: the frontend needs a listener to answer on", flagListen)
	}
	fe := newFrontend(pool.backends(), cacheFor, filters, list, log, reg)
	clients := api.NewLimit(limit)
	fe.handler, fe.draining = clients.Handler(tracing.Handler(fe.handler, traces.Tracers(), true, tracing.Lookups)), draining
	reload := onHangup(c, log, live{
		flagLogLevel: changeLevel(level), flagCacheFor: changeCache(fe.finder.SetCacheFor),
		flagClientRate: changeLimit(clients.Set), flagTrustedProxies: changeLimit(clients.Set),
	})
	pool.apply, pool.hup = fe.setBackends, hangups()
	board := frontendBoard(fe, pool, list, log, reg)
	ready := readyLine{ID: fe.id, HTTP: baseURL(ln)}
	tasks := []task{fe.serve(ln), reload, pool.follow, board.Run, followDenylist(list, log), func(ctx context.Context) error { return fe.finder.FollowHoldings(ctx, pool.holdings) }}
	if filters != nil {
		tasks = append(tasks, filters.Run)
	}
	if metricsLn != nil {
		ready.Metrics = baseURL(metricsLn)
		tasks = append(tasks, func(ctx context.Context) error {
			return api.Serve(ctx, metricsLn, board.Beside(promhttp.HandlerFor(reg, promhttp.HandlerOpts{})), log)
		})
	}
	return serveThen(c, ready, together(tasks...), traces.Close)
}

// frontend is fan-out behind the find and delegated-routing handlers.
type frontend struct {
	id       string // of this run only: a frontend keeps nothing
	log      *slog.Logger
	finder   *fanout.Finder
	filters  *filter.Pool // nil: every backend is asked everything
	handler  http.Handler
	draining <-chan struct{} // see api.ServeDraining
}

func newFrontend(backends []fanout.Backend, cacheFor time.Duration, filters *filter.Pool, list *deny.List, log *slog.Logger, reg prometheus.Registerer) *frontend {
	cfg := fanout.Config{CacheFor: cacheFor, Logger: log, Registerer: reg}
	if filters != nil {
		cfg.Filters = poolFilters{filters}
	}
	f := fanout.New(cfg)
	if list != nil && reg != nil {
		reg.MustRegister(list)
	}
	told := list.Finder(f, true)
	handler := api.Below("/routing/", routing.NewHandler(told, routing.Config{Logger: log, Registerer: reg}),
		find.NewHandler(told, find.Config{Frontend: true, Health: f.Ready, Logger: log, Registerer: reg, Version: version}))
	id := ""
	if key, _, err := crypto.GenerateEd25519Key(rand.Reader); err == nil {
		if p, err := peer.IDFromPrivateKey(key); err == nil {
			id = p.String()
		}
	}
	fe := &frontend{id: id, log: log, finder: f, filters: filters, handler: handler}
	fe.setBackends(backends)
	return fe
}

// setBackends has them followed before they are asked.
func (f *frontend) setBackends(backends []fanout.Backend) {
	if f.filters != nil {
		var urls []string
		for _, b := range backends {
			urls = append(urls, b.Name)
		}
		f.filters.Set(urls)
	}
	f.finder.SetBackends(backends)
}

// poolFilters is a filter.Pool as fanout.Filters.
type poolFilters struct{ *filter.Pool }

func (p poolFilters) Of(backend string) fanout.Filter {
	if f := p.Pool.Of(backend); f != nil {
		return f
	}
	return nil
}

// frontendSecret is the pool's index secret, nil if it is not given.
func frontendSecret(c *cli.Context) ([]byte, error) {
	file := c.String(flagIndexSecret)
	if file == "" {
		return nil, nil
	}
	return loadSecret(file)
}

// frontendMemory is what a frontend needs beside filters and denylist, at most.
const frontendMemory = 512 << 20

// setFrontendMemory has the collector keep to what was given, instead of waiting
// until a heap that is mostly filters has doubled, and run seldom while it is small.
func setFrontendMemory(filters *filter.Pool, list *deny.List) {
	limit := int64(frontendMemory) + 2*list.MemoryBytes()
	if filters != nil {
		limit += filters.MemoryBytes()
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(limit)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

// newFilters is nil if they are switched off, or there is no secret.
func newFilters(c *cli.Context, secret []byte, log *slog.Logger, reg prometheus.Registerer) (*filter.Pool, error) {
	memory, err := byteSize(c, flagFilterMemory)
	if err != nil || memory == 0 || secret == nil {
		return nil, err
	}
	return filter.NewPool(filter.Config{Secret: secret, MemoryBytes: memory, Logger: log, Registerer: reg}), nil
}

func (f *frontend) serve(ln net.Listener) task {
	return func(ctx context.Context) error { return api.ServeDraining(ctx, f.draining, ln, f.handler, f.log) }
}

// frontendPool keeps the list of find URLs: from the file, from the assigner,
// or both. One goroutine uses it at a time.
type frontendPool struct {
	c      *cli.Context
	log    *slog.Logger
	hc     *http.Client
	secret []byte                     // the pool's index secret, if it is known
	byHTTP func(context.Context) bool // see find.Client.LeaveLine; nil: nothing is traced
	lines  []admin.PoolLine
	names  *frontendNames
	file   []string // who the lines stand for
	asked  []string
	now    []string
	apply  func([]fanout.Backend)
	hup    chan os.Signal
	its    assignerHeard
}

// check finds what is wrong with flags and file, and reads it.
func (p *frontendPool) check() error {
	if p.c.String(flagPool) == "" && p.c.String(flagAssigner) == "" {
		return misused("--%s or --%s is required: the frontend must know its indexers", flagPool, flagAssigner)
	}
	if p.c.String(flagPool) == "" {
		return nil
	}
	return p.readFile()
}

func (p *frontendPool) init(ctx context.Context) error {
	if err := p.check(); err != nil {
		return err
	}
	p.lookUp(ctx)
	if p.c.String(flagAssigner) != "" {
		if err := p.ask(ctx); err != nil {
			if len(p.lines) == 0 {
				return fmt.Errorf("--%s: %w", flagAssigner, err)
			}
			p.log.Warn("assigner not reached; the pool file is used until it is", "err", err)
		}
	}
	return nil
}

func (p *frontendPool) readFile() error {
	lines, err := readPool(p.c)
	if err != nil {
		return err
	}
	p.lines = lines
	return nil
}

// ask reads the pool from the assigner's GET /signpost/v1/pool.
func (p *frontendPool) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, poolRefresh)
	defer cancel()
	var answer struct{ Members []struct{ Find string } }
	its, err := p.get(ctx, poolPath, maxPoolBytes, &answer)
	p.its.note(its, time.Now(), err)
	if err != nil {
		return err
	}
	if len(answer.Members) == 0 {
		return fmt.Errorf("%s%s: the pool is empty", strings.TrimRight(p.c.String(flagAssigner), "/"), poolPath)
	}
	p.asked = nil
	for _, m := range answer.Members {
		p.asked = append(p.asked, m.Find)
	}
	return nil
}

func (p *frontendPool) backends() []fanout.Backend {
	var urls []string
	for _, u := range append(slices.Clone(p.file), p.asked...) {
		if u = strings.TrimRight(u, "/"); !slices.Contains(urls, u) {
			urls = append(urls, u)
		}
	}
	var out []fanout.Backend
	for _, u := range urls {
		b, err := backendAt(u, p.hc, p.secret)
		if err != nil {
			p.log.Error("backend left out", "backend", u, "err", err)
			continue
		}
		if client, ok := b.Finder.(*find.Client); ok {
			client.LeaveLine(p.byHTTP)
		}
		out = append(out, b)
	}
	p.now = urls
	return out
}

// backendAt is an indexer by its find URL.
func backendAt(u string, hc *http.Client, secret []byte) (fanout.Backend, error) {
	client, err := find.NewClient(u, hc)
	if err != nil {
		return fanout.Backend{}, err
	}
	if len(secret) > 0 {
		client.UseLine(keyset.Token(secret))
	}
	teller, err := admin.NewClient(u, hc, "")
	return fanout.Backend{Name: u, Finder: client, Teller: teller}, err
}

// holdings is what the assigner says of what indexers hold: nothing if there is
// none, or it does not answer. When it looked at them is told by its clock.
func (p *frontendPool) holdings(ctx context.Context) []fanout.Holdings {
	if p.c.String(flagAssigner) == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, holdingsWithin)
	defer cancel()
	var c assigner.PoolCoverage
	asked := time.Now()
	its, err := p.get(ctx, admin.CoveragePath, maxHoldingsBytes, &c)
	if err != nil {
		p.log.Debug("assigner did not tell what indexers hold", "err", err)
		return nil
	}
	var out []fanout.Holdings
	for _, m := range c.Members {
		if m.Known && !m.Plain && !m.AsOf.IsZero() {
			age := max(its.Add(time.Second).Sub(m.AsOf), 0) // its clock, cut to seconds
			out = append(out, fanout.Holdings{
				Backend: strings.TrimRight(m.Find, "/"), AsOf: asked.Add(-age), Rough: true,
				HeldFor:  time.Duration(min(m.HeldSeconds, admin.MaxHold.Seconds()) * float64(time.Second)),
				Coverage: admin.Coverage{ID: m.ID, Frozen: m.Frozen, Publishers: m.Publishers},
			})
		}
	}
	return out
}

// get reads an answer of the assigner, and the time by its clock.
func (p *frontendPool) get(ctx context.Context, path string, limit int64, v any) (date time.Time, err error) {
	u := strings.TrimRight(p.c.String(flagAssigner), "/") + path
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return date, err
	}
	resp, err := p.hc.Do(req)
	if err != nil {
		return date, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return date, fmt.Errorf("%s: %s", u, resp.Status)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, limit)).Decode(v); err != nil {
		return date, fmt.Errorf("%s: %w", u, err)
	}
	if date, err = http.ParseTime(resp.Header.Get("Date")); err != nil {
		date = time.Now()
	}
	return date, nil
}

// follow re-reads the pool file at SIGHUP and asks DNS and the assigner again and
// again, until ctx ends. What was known before stays in force after a failure.
func (p *frontendPool) follow(ctx context.Context) error {
	defer signal.Stop(p.hup)
	tick := time.NewTicker(poolRefresh)
	defer tick.Stop()
	failed := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.hup:
			p.reload(ctx)
		case <-tick.C:
			if p.lookUp(ctx) {
				p.changed()
			}
			if p.c.String(flagAssigner) == "" {
				continue
			}
			err := p.askAgain(ctx)
			if err != nil && !failed && ctx.Err() == nil {
				p.log.Warn("assigner not reached; the pool known before is used", "err", err)
			}
			failed = err != nil
		}
	}
}

func (p *frontendPool) reload(ctx context.Context) {
	if p.c.String(flagPool) == "" {
		p.log.Warn("nothing to reload: there is no --pool file")
		return
	}
	if err := p.readFile(); err != nil {
		p.log.Error("reload; the pool read before stays in force", "err", err)
		return
	}
	p.lookUp(ctx)
	p.apply(p.backends())
	p.log.Info("reloaded", "indexers", len(p.now))
}

func (p *frontendPool) askAgain(ctx context.Context) error {
	before := p.asked
	if err := p.ask(ctx); err != nil {
		return err
	}
	if !slices.Equal(before, p.asked) {
		p.changed()
	}
	return nil
}

func (p *frontendPool) changed() {
	p.apply(p.backends())
	p.log.Info("pool changed", "indexers", len(p.now))
}
