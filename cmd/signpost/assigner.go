package main

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
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
			"that no indexer has taken yet.",
		OnUsageError: usageError,
		Flags: append([]cli.Flag{
			stringFlag(flagListen, ":3001", "`ADDR` to take announces on"),
			stringFlag(flagPool, "", "`FILE` with one indexer a line (required)"),
			stringFlag(flagResolver, "", "`ADDR` (host:port) of the DNS server to ask for names in the pool; those of the system if not given"),
			stringFlag(flagIntents, "", "`FILE` to keep in what signpost pool asks for, made if absent; without it wishes end with the process"),
			stringFlag(flagEvents, "", "`FILE` to append events to, a line of JSON each; at 16 MiB it becomes FILE.old"),
			stringFlag(flagListenAdmin, "127.0.0.1:3004", "`ADDR` of the admin API, which signpost pool asks, or none"),
			stringFlag(flagAdminToken, "", "`FILE` with the token admin callers must show"),
			boolFlag(flagInsecureAdmin, "serve the admin API without a token even beyond loopback"),
			&cli.IntFlag{Name: flagReplication, Value: 1, EnvVars: env(flagReplication), Usage: "`N` indexers for each publisher"},
			&cli.DurationFlag{Name: flagPoll, Value: defaultPoll, EnvVars: env(flagPoll), Usage: "`DURATION` between two looks at the pool"},
			&cli.DurationFlag{Name: flagGrace, Value: assigner.DefaultGrace, EnvVars: env(flagGrace), Usage: "`DURATION` an indexer that cannot be read keeps its publishers, and one never read holds up new ones; then they go to others, which fetch the whole chains"},
			&cli.IntFlag{Name: flagMoves, Value: assigner.DefaultMoves, EnvVars: env(flagMoves), Usage: "`N` publishers an hour are moved at most to even out load; 0 for none"},
			stringFlag(flagIdentity, "", "`FILE` with the libp2p identity key, made if absent; without it a new identity each start"),
			metricsFlag(),
			logLevelFlag(),
		}, append(announceFlags(), gossipFlags(":3003")...)...),
		Action: runAssigner,
	}
}

func runAssigner(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	log, err := newLogger(c)
	if err != nil {
		return err
	}
	if c.Int(flagReplication) < 1 {
		return misused("--%s %d: give 1 or more", flagReplication, c.Int(flagReplication))
	}
	if c.Duration(flagPoll) <= 0 {
		return misused("--%s %v: give a duration above 0, such as 2s", flagPoll, c.Duration(flagPoll))
	}
	moves := c.Int(flagMoves)
	if moves < 0 {
		return misused("--%s %d: give a number, or 0 for none", flagMoves, moves)
	}
	if moves == 0 {
		moves = -1
	}
	if c.Duration(flagGrace) <= 0 {
		return misused("--%s %v: give a duration above 0, such as 5m", flagGrace, c.Duration(flagGrace))
	}
	operating, err := operatingConfig(c)
	if err != nil {
		return err
	}
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
	listeners := listenerSet{c: c}
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
		Replication: c.Int(flagReplication), PollInterval: c.Duration(flagPoll), Grace: c.Duration(flagGrace), Moves: moves,
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
	tasks := []task{a.Run, reloadOnHangup(log, "pool", a.Reload)}
	if metricsLn != nil {
		ready.Metrics = baseURL(metricsLn)
		tasks = append(tasks, func(ctx context.Context) error {
			return api.Serve(ctx, metricsLn, promhttp.HandlerFor(reg, promhttp.HandlerOpts{}), log)
		})
	}
	return serveThen(c, ready, together(tasks...), func() error { a.Close(); return closeGossip(gossip) })
}

// operatingConfig reads what the assigner's operator has to do with it, but for
// the listener. A pool file that is wrong is the operator's error.
func operatingConfig(c *cli.Context) (o assigner.Operating, err error) {
	o = assigner.Operating{
		Insecure: c.Bool(flagInsecureAdmin), PoolFile: c.String(flagPool), Resolver: c.String(flagResolver),
		IntentsFile: c.String(flagIntents), EventsFile: c.String(flagEvents),
	}
	if o.PoolFile == "" {
		return o, errNoPool()
	}
	if _, err := admin.ReadPoolLines(o.PoolFile); err != nil {
		return o, misused("--%s: %v", flagPool, err)
	}
	if o.Resolver != "" {
		if _, _, err := net.SplitHostPort(o.Resolver); err != nil {
			return o, misused("--%s %q: give host:port of a DNS server, such as 127.0.0.1:53", flagResolver, o.Resolver)
		}
	}
	if o.Token, err = readToken(c.String(flagAdminToken)); err != nil {
		return o, err
	}
	if c.String(flagListenAdmin) == none {
		return o, nil
	}
	if err := admin.CheckListen(c.String(flagListenAdmin), o.Token != "", o.Insecure); err != nil {
		return o, misused("--%s: %v", flagListenAdmin, err)
	}
	return o, nil
}

func errNoPool() error {
	return misused("--%s is required: a file with one line per indexer: find=URL ingest=URL admin=URL", flagPool)
}

func newRegistry() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return reg
}

func readPool(c *cli.Context) ([]admin.PoolMember, error) {
	file := c.String(flagPool)
	if file == "" {
		return nil, errNoPool()
	}
	members, err := admin.ReadPoolFile(file)
	if err != nil {
		return nil, misused("--%s: %v", flagPool, err)
	}
	return members, nil
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

// reloadOnHangup calls reload at each SIGHUP until ctx ends; a failed reload
// keeps what was there.
func reloadOnHangup(log *slog.Logger, what string, reload func() error) task {
	return func(ctx context.Context) error {
		hup := make(chan os.Signal, 1)
		signal.Notify(hup, syscall.SIGHUP)
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
