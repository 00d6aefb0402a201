package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/urfave/cli/v2"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/admin"
	"github.com/signpost-index/signpost/api/fanout"
	"github.com/signpost-index/signpost/api/filter"
	"github.com/signpost-index/signpost/api/find/deny"
	"github.com/signpost-index/signpost/assigner"
	"github.com/signpost-index/signpost/indexer"
)

const (
	flagIndexers       = "indexers"
	flagListenAnnounce = "listen-announce"
	flagDemo           = "demo"
	flagExit           = "exit"

	maxDevIndexers    = 64
	devStoreMemory    = 256 << 20
	devIngestMemory   = 128 << 20
	preferredFindPort = "3000"
	preferredAnnounce = "3001"
)

func devCommand() *cli.Command {
	return &cli.Command{
		Name:  "dev",
		Usage: "run a whole pool in one process: assigner, indexers, frontend",
		Description: "Example:\n" +
			"  signpost dev\n" +
			"  signpost dev --data /tmp/pool --demo .\n\n" +
			"The second one publishes the directory, finds one of its CIDs through the\n" +
			"frontend, fetches and verifies its bytes, tells how long each step took, and\n" +
			"stays up; with --exit it ends there. Every listener is on loopback: port 3000\n" +
			"for lookups and 3001 for announces if they are free, any free port else.",
		OnUsageError: usageError,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: flagData, Value: homeDir("dev"), DefaultText: "~/.signpost/dev", EnvVars: env(flagData),
				Usage: "`DIR` to keep everything in; made if absent"},
			&cli.IntFlag{Name: flagIndexers, Value: 2, EnvVars: env(flagIndexers), Usage: "`N` indexer nodes"},
			stringFlag(flagListen, "", "`ADDR` to answer lookups on (default: 127.0.0.1:3000 or any free port)"),
			stringFlag(flagListenAnnounce, "", "`ADDR` to take announces on (default: 127.0.0.1:3001 or any free port)"),
			stringFlag(flagDemo, "", "`PATH` to publish into the pool, find and fetch again"),
			boolFlag(flagExit, "with --demo: end when the demo is done"),
			cacheFlag(),
			denylistFlag(),
			freezeFlag(),
			logLevelFlag(),
		}, gossipFlags("127.0.0.1:0")...),
		Action: runDev,
	}
}

// devPool is a pool in one process whose parts talk over loopback like a real one.
type devPool struct {
	c      *cli.Context
	log    *slog.Logger
	dir    string
	secret []byte
	freeze float64
	// processors of the machine
	processors int
	denylist   *deny.List
	tasks      []task
	closers    []func() error
	members    []admin.PoolMember
	backends   []fanout.Backend
	ready      readyLine
	finder     *fanout.Finder  // the frontend's
	freezers   []func(float64) // of the indexers
}

func (p *devPool) setFreeze(percent float64) {
	for _, set := range p.freezers {
		set(percent)
	}
}

func devNumbers(c *cli.Context) error {
	if c.Bool(flagExit) && c.String(flagDemo) == "" {
		return misused("--%s goes with --%s PATH", flagExit, flagDemo)
	}
	if n := c.Int(flagIndexers); n < 1 || n > maxDevIndexers {
		return misused("--%s %d: give a number from 1 to %d", flagIndexers, n, maxDevIndexers)
	}
	return nil
}

func runDev(c *cli.Context) (err error) {
	boundMalloc()
	if err := noArgs(c); err != nil {
		return err
	}
	if err := devNumbers(c); err != nil {
		return err
	}
	p := &devPool{c: c, processors: moreThreads()}
	defer func() { err = errors.Join(err, p.close()) }()
	if c.String(flagDemo) != "" && !c.IsSet(flagLogLevel) {
		// The demo tells its own story.
		if err := c.Set(flagLogLevel, "warn"); err != nil {
			return err
		}
	}
	var level *slog.LevelVar
	if p.log, level, err = newLeveledLogger(c); err != nil {
		return err
	}
	if p.dir, err = dataDir(c); err != nil {
		return err
	}
	if p.freeze, err = freezePercent(c); err != nil {
		return err
	}
	if p.denylist, err = openDenylist(c, p.log, nil); err != nil {
		return err
	}
	p.tasks = append(p.tasks, followDenylist(p.denylist, p.log))
	if err := p.open(); err != nil {
		return err
	}
	p.tasks = append(p.tasks, onHangup(c, p.log, live{
		flagLogLevel: changeLevel(level), flagCacheFor: changeCache(p.finder.SetCacheFor), flagFreezeAt: changeFreeze(p.setFreeze),
	}))
	ctx, cancel := context.WithCancel(c.Context)
	defer cancel()
	if path := c.String(flagDemo); path != "" {
		p.tasks = append(p.tasks, func(ctx context.Context) error {
			err := p.demo(ctx, path)
			if ctx.Err() != nil {
				return nil
			}
			if err == nil && c.Bool(flagExit) {
				cancel()
			}
			return err
		})
	}
	if err := p.ready.print(c.App.Writer); err != nil {
		return err
	}
	p.tell()
	return together(p.tasks...)(ctx)
}

func (p *devPool) open() (err error) {
	if p.secret, err = loadSecret(filepath.Join(p.dir, "index-secret")); err != nil {
		return err
	}
	for n := 1; n <= p.c.Int(flagIndexers); n++ {
		if err := p.openIndexer(n); err != nil {
			return err
		}
	}
	if err := p.openAssigner(); err != nil {
		return err
	}
	return p.openFrontend()
}

func (p *devPool) openIndexer(n int) error {
	dir := filepath.Join(p.dir, "indexer-"+strconv.Itoa(n))
	key, err := loadIdentity(filepath.Join(dir, "identity.key"))
	if err != nil {
		return err
	}
	cfg := indexer.Config{
		DataDir: dir, Key: key, AssignedOnly: true, AllowPrivate: true,
		StoreMemory: devStoreMemory, IngestMemory: devIngestMemory,
		Processors: p.processors, FreezePercent: p.freeze, IndexSecret: p.secret, Denylist: p.denylist, Version: version, Logger: p.log,
	}
	var lns [3]net.Listener
	for k := range lns {
		if lns[k], err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return err
		}
	}
	cfg.Find, cfg.Ingest, cfg.Admin = lns[0], lns[1], lns[2]
	ix, err := indexer.Open(cfg)
	if err != nil {
		for _, ln := range lns {
			_ = ln.Close()
		}
		return err
	}
	p.tasks = append(p.tasks, ix.Run)
	p.freezers = append(p.freezers, ix.SetFreezePercent)
	p.closers = append(p.closers, ix.Close)
	r := readyIndexer(ix, cfg)
	p.ready.Indexers = append(p.ready.Indexers, r)
	p.members = append(p.members, admin.PoolMember{Find: r.Find, Ingest: r.Ingest, Admin: r.Admin})
	b, err := backendAt(r.Find, api.NewHTTPClient(), p.secret)
	p.backends = append(p.backends, b)
	return err
}

func (p *devPool) openAssigner() error {
	key, err := loadIdentity(filepath.Join(p.dir, "assigner", "identity.key"))
	if err != nil {
		return err
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return err
	}
	gossip, err := openGossip(p.c, key, p.log, nil)
	if err != nil {
		return err
	}
	p.closers = append(p.closers, func() error { return closeGossip(gossip) })
	ln, err := listenPreferred(p.c, flagListenAnnounce, preferredAnnounce)
	if err != nil {
		return err
	}
	adminLn, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		_ = ln.Close()
		return err
	}
	a, err := assigner.Open(assigner.Config{
		Key: key, Listener: ln, Gossip: gossip, Members: p.members,
		Replication: 1, PollInterval: defaultPoll, Logger: p.log,
		Announces: assigner.AnnounceConfig{Journal: filepath.Join(p.dir, "assigner", "journal")},
		Operating: assigner.Operating{Admin: adminLn, IntentsFile: filepath.Join(p.dir, "assigner", "intents")},
	})
	if err != nil {
		_, _ = ln.Close(), adminLn.Close()
		return err
	}
	p.tasks = append(p.tasks, a.Run)
	p.closers = append(p.closers, func() error { a.Close(); return nil })
	r := readyLine{Ready: true, ID: id.String(), HTTP: baseURL(ln), Admin: baseURL(adminLn), Page: baseURL(adminLn) + "/"}
	if gossip != nil {
		r.P2P = addrTexts(gossip.Addrs())
	}
	p.ready.Assigner = &r
	p.ready.ID = r.ID
	return nil
}

func (p *devPool) openFrontend() error {
	ln, err := listenPreferred(p.c, flagListen, preferredFindPort)
	if err != nil {
		return err
	}
	filters := filter.NewPool(filter.Config{Secret: p.secret, Logger: p.log})
	cacheFor, err := cacheFor(p.c)
	if err != nil {
		_ = ln.Close()
		return err
	}
	fe := newFrontend(p.backends, cacheFor, filters, p.denylist, p.log, nil)
	p.finder = fe.finder
	p.tasks = append(p.tasks, fe.serve(ln), filters.Run, func(ctx context.Context) error { return fe.finder.FollowHoldings(ctx, nil) })
	p.ready.Frontend = &readyLine{Ready: true, ID: fe.id, HTTP: baseURL(ln)}
	return nil
}

// listenPreferred opens the flag's address or, when it was not given, the
// preferred port on loopback, or any free one if that is taken.
func listenPreferred(c *cli.Context, flag, port string) (net.Listener, error) {
	if c.String(flag) != "" {
		return listen(c, flag)
	}
	ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		ln, err = net.Listen("tcp", "127.0.0.1:0")
	}
	return ln, err
}

// tell prints every URL for people.
func (p *devPool) tell() {
	out := p.c.App.ErrWriter
	fmt.Fprintf(out, "\nsignpost dev: a pool of %d indexers, data in %s\n", len(p.ready.Indexers), p.dir)
	fmt.Fprintf(out, "  lookups    %s   (signpost find CID --find %s)\n", p.ready.Frontend.HTTP, p.ready.Frontend.HTTP)
	fmt.Fprintf(out, "  announces  %s   (signpost publish PATH --announce %s --find %s)\n", p.ready.Assigner.HTTP, p.ready.Assigner.HTTP, p.ready.Frontend.HTTP)
	fmt.Fprintf(out, "  pool       %s   (signpost pool list --admin %s)\n", p.ready.Assigner.Admin, p.ready.Assigner.Admin)
	fmt.Fprintf(out, "  pool page  %s   (in a browser)\n", p.ready.Assigner.Page)
	for n, ix := range p.ready.Indexers {
		fmt.Fprintf(out, "  indexer-%d  find %s  ingest %s  admin %s\n", n+1, ix.Find, ix.Ingest, ix.Admin)
	}
	for _, a := range p.ready.Assigner.P2P {
		fmt.Fprintf(out, "  gossip     %s   (topic %s)\n", a, p.c.String(flagTopic))
	}
	fmt.Fprintln(out)
}

// close ends the parts in reverse order of opening.
func (p *devPool) close() error {
	var errs []error
	for n := len(p.closers) - 1; n >= 0; n-- {
		errs = append(errs, p.closers[n]())
	}
	return errors.Join(errs...)
}
