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
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/urfave/cli/v2"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/admin"
	"github.com/signpost-index/signpost/api/fanout"
	"github.com/signpost-index/signpost/api/find"
	"github.com/signpost-index/signpost/api/routing"
	"github.com/signpost-index/signpost/assigner"
)

const (
	flagAssigner = "assigner"
	// poolRefresh is how often a frontend asks the assigner for the pool.
	poolRefresh = 10 * time.Second
	poolPath    = "/signpost/v1/pool"
	// holdingsWithin is how long the assigner may take to say what indexers hold.
	holdingsWithin = 2 * time.Second
	// Bounds of the assigner's answers.
	maxPoolBytes     = 16 << 20
	maxHoldingsBytes = 1 << 30
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
			"  signpost frontend --assigner http://10.0.0.9:3001",
		OnUsageError: usageError,
		Flags: []cli.Flag{
			stringFlag(flagListen, ":3000", "`ADDR` to answer lookups on"),
			stringFlag(flagPool, "", "`FILE` with one indexer a line (this or --assigner is required)"),
			stringFlag(flagAssigner, "", "`URL` of an assigner to learn the pool from; adds to --pool"),
			stringFlag(flagIndexSecret, "", "`FILE` with the pool's index secret; made if absent"),
			metricsFlag(),
			logLevelFlag(),
		},
		Action: runFrontend,
	}
}

func runFrontend(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	log, err := newLogger(c)
	if err != nil {
		return err
	}
	if file := c.String(flagIndexSecret); file != "" {
		if _, err := loadSecret(file); err != nil {
			return err
		}
	}
	pool := &frontendPool{c: c, log: log, hc: api.NewHTTPClient()}
	if err := pool.init(c.Context); err != nil {
		return err
	}
	listeners := listenerSet{c: c}
	ln, metricsLn := listeners.open(flagListen), listeners.open(flagMetrics)
	if listeners.err != nil {
		return listeners.err
	}
	if ln == nil {
		listeners.close()
		return misused("--%s none: the frontend needs a listener to answer on", flagListen)
	}
	reg := newRegistry()
	fe := newFrontend(pool.backends(), log, reg)
	pool.apply = fe.finder.SetBackends
	ready := readyLine{ID: fe.id, HTTP: baseURL(ln)}
	tasks := []task{fe.serve(ln), pool.follow, func(ctx context.Context) error { return fe.finder.FollowHoldings(ctx, pool.holdings) }}
	if metricsLn != nil {
		ready.Metrics = baseURL(metricsLn)
		tasks = append(tasks, func(ctx context.Context) error {
			return api.Serve(ctx, metricsLn, promhttp.HandlerFor(reg, promhttp.HandlerOpts{}), log)
		})
	}
	return serveThen(c, ready, together(tasks...), func() error { return nil })
}

// frontend is fan-out behind the find and delegated-routing handlers.
type frontend struct {
	id      string // of this run only: a frontend keeps nothing
	log     *slog.Logger
	finder  *fanout.Finder
	handler http.Handler
}

func newFrontend(backends []fanout.Backend, log *slog.Logger, reg prometheus.Registerer) *frontend {
	f := fanout.New(fanout.Config{Backends: backends, Logger: log, Registerer: reg})
	mux := http.NewServeMux()
	mux.Handle("/routing/", routing.NewHandler(f, routing.Config{Logger: log, Registerer: reg}))
	mux.Handle("/", find.NewHandler(f, find.Config{Frontend: true, Health: f.Ready, Logger: log, Registerer: reg, Version: version}))
	id := ""
	if key, _, err := crypto.GenerateEd25519Key(rand.Reader); err == nil {
		if p, err := peer.IDFromPrivateKey(key); err == nil {
			id = p.String()
		}
	}
	return &frontend{id: id, log: log, finder: f, handler: mux}
}

func (f *frontend) serve(ln net.Listener) task {
	return func(ctx context.Context) error { return api.Serve(ctx, ln, f.handler, f.log) }
}

// frontendPool keeps the list of find URLs: from the file, from the assigner,
// or both. One goroutine uses it at a time.
type frontendPool struct {
	c     *cli.Context
	log   *slog.Logger
	hc    *http.Client
	file  []string
	asked []string
	now   []string
	apply func([]fanout.Backend)
}

func (p *frontendPool) init(ctx context.Context) error {
	if p.c.String(flagPool) == "" && p.c.String(flagAssigner) == "" {
		return misused("--%s or --%s is required: the frontend must know its indexers", flagPool, flagAssigner)
	}
	if p.c.String(flagPool) != "" {
		if err := p.readFile(); err != nil {
			return err
		}
	}
	if p.c.String(flagAssigner) != "" {
		if err := p.ask(ctx); err != nil {
			if len(p.file) == 0 {
				return fmt.Errorf("--%s: %w", flagAssigner, err)
			}
			p.log.Warn("assigner not reached; the pool file is used until it is", "err", err)
		}
	}
	return nil
}

func (p *frontendPool) readFile() error {
	members, err := readPool(p.c)
	if err != nil {
		return err
	}
	p.file = nil
	for _, m := range members {
		p.file = append(p.file, m.Find)
	}
	return nil
}

// ask reads the pool from the assigner's GET /signpost/v1/pool.
func (p *frontendPool) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, poolRefresh)
	defer cancel()
	var answer struct{ Members []struct{ Find string } }
	if _, err := p.get(ctx, poolPath, maxPoolBytes, &answer); err != nil {
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
		b, err := backendAt(u, p.hc)
		if err != nil {
			p.log.Error("backend left out", "backend", u, "err", err)
			continue
		}
		out = append(out, b)
	}
	p.now = urls
	return out
}

// backendAt is an indexer by its find URL.
func backendAt(u string, hc *http.Client) (fanout.Backend, error) {
	client, err := find.NewClient(u, hc)
	if err != nil {
		return fanout.Backend{}, err
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
				Coverage: admin.Coverage{ID: m.ID, Frozen: m.State == assigner.StateFrozen, Publishers: m.Publishers},
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

// follow re-reads the pool file at SIGHUP and asks the assigner again and
// again, until ctx ends. What was known before stays in force after a failure.
func (p *frontendPool) follow(ctx context.Context) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	var tick <-chan time.Time
	if p.c.String(flagAssigner) != "" {
		t := time.NewTicker(poolRefresh)
		defer t.Stop()
		tick = t.C
	}
	failed := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hup:
			p.reload()
		case <-tick:
			err := p.askAgain(ctx)
			if err != nil && !failed && ctx.Err() == nil {
				p.log.Warn("assigner not reached; the pool known before is used", "err", err)
			}
			failed = err != nil
		}
	}
}

func (p *frontendPool) reload() {
	if p.c.String(flagPool) == "" {
		p.log.Warn("nothing to reload: there is no --pool file")
		return
	}
	if err := p.readFile(); err != nil {
		p.log.Error("reload; the pool read before stays in force", "err", err)
		return
	}
	p.apply(p.backends())
	p.log.Info("reloaded", "indexers", len(p.now))
}

func (p *frontendPool) askAgain(ctx context.Context) error {
	before := p.asked
	if err := p.ask(ctx); err != nil {
		return err
	}
	if !slices.Equal(before, p.asked) {
		p.apply(p.backends())
		p.log.Info("pool changed", "indexers", len(p.now))
	}
	return nil
}
