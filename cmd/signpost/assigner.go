package main

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
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
	flagIdentity    = "identity"
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
			"  signpost assigner --pool pool.txt\n\n" +
			"The pool file is read again on SIGHUP. The assigner keeps no facts on disk:\n" +
			"it asks the indexers at start. With --journal it keeps announces that no indexer\n" +
			"has taken yet.",
		OnUsageError: usageError,
		Flags: append([]cli.Flag{
			stringFlag(flagListen, ":3001", "`ADDR` to take announces on"),
			stringFlag(flagPool, "", "`FILE` with one indexer a line (required)"),
			&cli.IntFlag{Name: flagReplication, Value: 1, EnvVars: env(flagReplication), Usage: "`N` indexers for each publisher"},
			&cli.DurationFlag{Name: flagPoll, Value: defaultPoll, EnvVars: env(flagPoll), Usage: "`DURATION` between two looks at the pool"},
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
	members, err := readPool(c)
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
	if listeners.err != nil {
		return errors.Join(listeners.err, closeGossip(gossip))
	}
	if ln == nil {
		listeners.close()
		return errors.Join(misused("--%s none: the assigner needs a listener to take announces on", flagListen), closeGossip(gossip))
	}
	a, err := assigner.Open(assigner.Config{
		Key: key, Listener: ln, Gossip: gossip, Members: members,
		Replication: c.Int(flagReplication), PollInterval: c.Duration(flagPoll),
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
	tasks := []task{a.Run, reloadOnHangup(log, "pool", func() error {
		members, err := readPool(c)
		if err != nil {
			return err
		}
		return a.SetPool(members)
	})}
	if metricsLn != nil {
		ready.Metrics = baseURL(metricsLn)
		tasks = append(tasks, func(ctx context.Context) error {
			return api.Serve(ctx, metricsLn, promhttp.HandlerFor(reg, promhttp.HandlerOpts{}), log)
		})
	}
	return serveThen(c, ready, together(tasks...), func() error { a.Close(); return closeGossip(gossip) })
}

func newRegistry() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return reg
}

func readPool(c *cli.Context) ([]admin.PoolMember, error) {
	file := c.String(flagPool)
	if file == "" {
		return nil, misused("--%s is required: a file with one line per indexer: find=URL ingest=URL admin=URL", flagPool)
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
