package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"os/signal"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/urfave/cli/v2"

	"github.com/signpost-index/signpost/announce"
	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/admin"
	"github.com/signpost-index/signpost/assigner"
)

const (
	flagListen      = "listen"
	flagReplication = "replication"
	flagPoll        = "poll-interval"
	flagGrace       = "grace"
	flagMoves       = "rebalance-moves"
	flagIdentity    = "identity"
	flagIntents     = "intents"
	flagEvents      = "events"
	flagResolver    = "resolver"
	defaultPoll     = 2 * time.Second
)

func assignerCommand() *cli.Command {
	return &cli.Command{
		Name:  "assigner",
		Usage: "run the assigner: hear announces, give each publisher to an indexer",
		Description: "Example:\n" +
			"  cat > pool.txt <<EOF\n" +
			"  find=http://10.0.0.1:3000 ingest=http://10.0.0.1:3001 admin=http://10.0.0.1:3002 token-file=/etc/signpost/token\n" +
			"  find=http://10.0.0.2:3000 ingest=http://10.0.0.2:3001 admin=http://10.0.0.2:3002 token-file=/etc/signpost/token\n" +
			"  EOF\n" +
			"  signpost assigner --pool pool.txt --intents intents.txt\n\n" +
			"A line may name DNS records instead of one indexer:\n" +
			"  dns=indexers.example.com find-port=3000 ingest-port=3001 admin-port=3002\n\n" +
			"The pool file is read again when it changes and on SIGHUP. The assigner keeps no\n" +
			"facts on disk: it asks the indexers at start. What its operator asks for with\n" +
			"signpost pool is kept in the --intents file. With --journal it keeps announces\n" +
			"that no indexer has taken yet.\n\n" +
			"A browser shows the pool at the admin address, with what can be done about it, and\n" +
			"at the one for announces, without.",
		OnUsageError: usageError,
		Flags: append([]cli.Flag{
			stringFlag(flagListen, ":3001", "`ADDR` to take announces on"),
			stringFlag(flagPool, "", "`FILE` with one indexer a line (required)"),
			resolverFlag(),
			stringFlag(flagIntents, "", "`FILE` to keep in what signpost pool asks for, made if absent; without it wishes end with the process"),
			stringFlag(flagEvents, "", "`FILE` to append events to, a line of JSON each; at 16 MiB it becomes FILE.old"),
			stringFlag(flagListenAdmin, "127.0.0.1:3004", "`ADDR` of the admin API, which signpost pool asks, or none"),
			&cli.IntFlag{Name: flagReplication, Value: 1, EnvVars: env(flagReplication), Usage: "`N` indexers for each publisher"},
			&cli.DurationFlag{Name: flagPoll, Value: defaultPoll, EnvVars: env(flagPoll), Usage: "`DURATION` between two looks at the pool"},
			&cli.DurationFlag{Name: flagGrace, Value: assigner.DefaultGrace, EnvVars: env(flagGrace), Usage: "`DURATION` an indexer that cannot be read keeps its publishers, and one never read holds up new ones; then they go to others, which fetch the whole chains"},
			&cli.IntFlag{Name: flagMoves, Value: assigner.DefaultMoves, EnvVars: env(flagMoves), Usage: "`N` publishers an hour are moved at most to even out load; 0 for none"},
			stringFlag(flagIdentity, "", "`FILE` with the libp2p identity key, made if absent; without it a new identity each start"),
			metricsFlag(),
			logLevelFlag(),
		}, slices.Concat(adminServerFlags(), announceFlags(), gossipFlags(":3003"))...),
		Action: runAssigner,
	}
}

// assignerNumbers refuses numbers and times the assigner cannot go by.
func assignerNumbers(c *cli.Context) error {
	if c.Int(flagReplication) < 1 {
		return misused("--%s %d: give 1 or more", flagReplication, c.Int(flagReplication))
	}
	if c.Duration(flagPoll) <= 0 {
		return misused("--%s %v: give a duration above 0, such as 2s", flagPoll, c.Duration(flagPoll))
	}
	if c.Int(flagMoves) < 0 {
		return misused("--%s %d: give a number, or 0 for none", flagMoves, c.Int(flagMoves))
	}
	if c.Duration(flagGrace) <= 0 {
		return misused("--%s %v: give a duration above 0, such as 5m", flagGrace, c.Duration(flagGrace))
	}
	return nil
}

// assignerMoves is --rebalance-moves as the assigner has it: negative is none.
func assignerMoves(c *cli.Context) int {
	if n := c.Int(flagMoves); n > 0 {
		return n
	}
	return -1
}

func runAssigner(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	log, level, err := newLeveledLogger(c)
	if err != nil {
		return err
	}
	if err := assignerNumbers(c); err != nil {
		return err
	}
	reload := onHangup(c, log, live{flagLogLevel: changeLevel(level)})
	operating, err := operatingConfig(c)
	if err != nil {
		return err
	}
	secure, err := openTLS(c, log)
	if err != nil {
		return err
	}
	if operating.Access, err = adminAccess(c, log); err != nil {
		return err
	}
	defer operating.Access.Audit.Close()
	key, err := optionalIdentity(c.String(flagIdentity))
	if err != nil {
		return err
	}
	reg := newRegistry()
	gossip, err := openGossip(c, key, log, reg)
	if err != nil {
		return err
	}
	announces, err := announceConfig(c, gossip != nil)
	if err != nil {
		return errors.Join(err, closeGossip(gossip))
	}
	listeners := listenerSet{c: c, tls: secure}
	ln, metricsLn := listeners.open(flagListen), listeners.open(flagMetrics)
	if c.String(flagListenAdmin) != none {
		operating.Admin = listeners.open(flagListenAdmin)
	}
	if listeners.err != nil {
		return errors.Join(listeners.err, closeGossip(gossip))
	}
	if ln == nil {
		listeners.close()
		return errors.Join(misused("--%s none: the assigner needs a listener to take announces on", flagListen), closeGossip(gossip))
	}
	a, err := assigner.Open(assigner.Config{
		Key: key, Listener: ln, Gossip: gossip, Operating: operating,
		Replication: c.Int(flagReplication), PollInterval: c.Duration(flagPoll), Grace: c.Duration(flagGrace), Moves: assignerMoves(c),
		ReadToken: admin.ReadTokenFile, Logger: log, Registerer: reg, Announces: announces,
	})
	if err != nil {
		listeners.close()
		return errors.Join(err, closeGossip(gossip))
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return err
	}
	ready := readyLine{ID: id.String(), HTTP: baseURL(ln)}
	if gossip != nil {
		ready.P2P = addrTexts(gossip.Addrs())
	}
	if operating.Admin != nil {
		ready.Admin = baseURL(operating.Admin)
	}
	ready.Page = cmp.Or(ready.Admin, ready.HTTP) + "/"
	tasks := []task{a.Run, reload, reloadOnHangup(log, "pool", a.Reload)}
	if metricsLn != nil {
		ready.Metrics = baseURL(metricsLn)
		tasks = append(tasks, func(ctx context.Context) error {
			return api.Serve(ctx, metricsLn, a.Health().Beside(promhttp.HandlerFor(reg, promhttp.HandlerOpts{})), log)
		})
	}
	return serveThen(c, ready, together(tasks...), func() error { a.Close(); return closeGossip(gossip) })
}

// operatingConfig reads what the assigner's operator has to do with it, but for
// the listener. A pool file that is wrong is the operator's error.
func operatingConfig(c *cli.Context) (o assigner.Operating, err error) {
	o = assigner.Operating{
		PoolFile: c.String(flagPool), Resolver: c.String(flagResolver),
		IntentsFile: c.String(flagIntents), EventsFile: c.String(flagEvents),
	}
	if o.PoolFile == "" {
		return o, errNoPool()
	}
	if _, err := admin.ReadPoolLines(o.PoolFile); err != nil {
		return o, misused("--%s: %v", flagPool, err)
	}
	if err := checkResolver(o.Resolver); err != nil {
		return o, err
	}
	return o, checkSecurity(c)
}

func resolverFlag() cli.Flag {
	return stringFlag(flagResolver, "", "`ADDR` (host:port) of the DNS server to ask for names in the pool; those of the system if not given")
}

func checkResolver(addr string) error {
	if addr == "" {
		return nil
	}
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return misused("--%s %q: give host:port of a DNS server, such as 127.0.0.1:53", flagResolver, addr)
	}
	return nil
}

func errNoPool() error {
	return misused("--%s is required: a file with one line per indexer: find=URL ingest=URL admin=URL", flagPool)
}

func newRegistry() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return reg
}

func readPool(c *cli.Context) ([]admin.PoolLine, error) {
	file := c.String(flagPool)
	if file == "" {
		return nil, errNoPool()
	}
	lines, err := admin.ReadPoolLines(file)
	if err != nil {
		return nil, misused("--%s: %v", flagPool, err)
	}
	return lines, nil
}

// optionalIdentity loads the key file, or makes a key for this run only.
func optionalIdentity(file string) (crypto.PrivKey, error) {
	if file != "" {
		return loadIdentity(file)
	}
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	return key, err
}

func openGossip(c *cli.Context, key crypto.PrivKey, log *slog.Logger, reg prometheus.Registerer) (*announce.Gossip, error) {
	cfg, err := gossipConfig(c, key, log)
	if err != nil || cfg == nil {
		return nil, err
	}
	cfg.Registerer = reg
	g, err := announce.OpenGossip(*cfg)
	if err != nil {
		return nil, err
	}
	return g, nil
}

func closeGossip(g *announce.Gossip) error {
	if g == nil {
		return nil
	}
	return g.Close()
}

// reloadOnHangup calls reload at each SIGHUP, from now on, until the task it
// returns has ended; a failed reload keeps what was there.
func reloadOnHangup(log *slog.Logger, what string, reload func() error) task {
	hup := hangups()
	return func(ctx context.Context) error {
		defer signal.Stop(hup)
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-hup:
				if err := reload(); err != nil {
					log.Error("reload; what was read before stays in force", "what", what, "err", err)
				} else {
					log.Info("reloaded", "what", what)
				}
			}
		}
	}
}
