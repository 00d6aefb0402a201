package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/admin"
	"github.com/signpost-index/signpost/indexer"
)

const (
	flagListenFind    = "listen-find"
	flagListenIngest  = "listen-ingest"
	flagListenAdmin   = "listen-admin"
	flagAssignedOnly  = "assigned-only"
	flagAllowPrivate  = "allow-private"
	flagFreezeAt      = "freeze-at"
	flagDiskQuota     = "disk-quota"
	flagDiskReserve   = "disk-reserve"
	flagNoFilter      = "no-filter"
	flagStoreMemory   = "store-memory"
	flagIngestMemory  = "ingest-memory"
	flagAnyPublisher  = "any-publisher"
	flagPublisherRate = "publisher-rate"
	flagPublisherAds  = "publisher-ads"
	flagPublisherByte = "publisher-bytes"
	flagMirror        = "mirror"
	flagMirrorFrom    = "mirror-from"
	flagAdminToken    = "admin-token-file"
	flagInsecureAdmin = "insecure-admin"

	defaultStoreMemory  = "1GiB"
	defaultIngestMemory = "512MiB"
	// runtimeMemoryBytes is what a process holds besides store and ingest:
	// HTTP and libp2p buffers; and outside of Go, codeBytes: the program itself,
	// and what C's malloc has and cannot use.
	runtimeMemoryBytes = 128 << 20
	codeBytes          = 64 << 20
)

func indexerCommand() *cli.Command {
	return &cli.Command{
		Name:  "indexer",
		Usage: "run an indexer node: fetch chains, store multihashes, answer lookups",
		Description: "Example:\n" +
			"  signpost indexer --data /var/lib/signpost\n" +
			"  curl -X PUT --data-binary @announce.cbor http://localhost:3001/announce\n" +
			"  signpost find bafy... --find http://localhost:3000\n\n" +
			"With --assigned-only the node takes publishers from an assigner only:\n" +
			"  signpost indexer --data /var/lib/signpost --assigned-only",
		OnUsageError: usageError,
		Flags: append([]cli.Flag{
			stringFlag(flagData, "", "`DIR` to keep the data in; made if absent (required)"),
			stringFlag(flagListenFind, ":3000", "`ADDR` to answer lookups on"),
			stringFlag(flagListenIngest, ":3001", "`ADDR` to take announces on"),
			stringFlag(flagListenAdmin, "127.0.0.1:3002", "`ADDR` of the admin API"),
			metricsFlag(),
			boolFlag(flagAssignedOnly, "take announces only for publishers an assigner assigned"),
			boolFlag(flagAllowPrivate, "fetch from publishers at private and loopback addresses"),
			boolFlag(flagAnyPublisher, "accept advertisements for a provider from any signer, in any publisher's chain, but for the policy's exceptions"),
			stringFlag(flagPublisherRate, "0", "`BYTES` a second to fetch from one publisher at most; 0 for no limit"),
			&cli.Int64Flag{Name: flagPublisherAds, EnvVars: env(flagPublisherAds),
				Usage: "new advertisements an hour, averaged, to take on from one publisher at most, `COUNT`; 0 for no limit"},
			stringFlag(flagPublisherByte, "0", "`BYTES` an hour, averaged, to fetch from one publisher at most; 0 for no limit"),
			stringFlag(flagMirror, "", "directory or s3://BUCKET/PREFIX[?endpoint=URL] `URL` to write every applied advertisement to, with its entries, as CAR"),
			stringFlag(flagMirrorFrom, "", "such a `URL` to read advertisements and entries from, before the publisher is asked"),
			denylistFlag(),
			freezeFlag(),
			stringFlag(flagDiskQuota, "0", "`BYTES` the store may have on disk (such as 500GiB): at --freeze-at percent of it the node freezes; 0 for the whole file system"),
			stringFlag(flagDiskReserve, reserveAuto, "`BYTES` to leave free on the disk for compaction: a sixteenth above, the node freezes; below, no content is taken; 0 for none, auto for 4 times --store-memory and 256MiB"),
			stringFlag(flagStoreMemory, defaultStoreMemory, "`BYTES` of memory for the store"),
			stringFlag(flagIngestMemory, defaultIngestMemory, "`BYTES` of memory for fetching and decoding"),
			&cli.StringFlag{Name: flagIndexSecret, DefaultText: "index-secret in --data", EnvVars: env(flagIndexSecret),
				Usage: "`FILE` with the pool's index secret; made if absent"},
			traceFlag(),
			boolFlag(flagNoFilter, "do not give frontends with the index secret what they need to ask for less"),
			logLevelFlag(),
		}, slices.Concat(adminServerFlags(), clientFlags(0), pollFlags(), gossipFlags(":3003"))...),
		Action: func(c *cli.Context) error {
			if err := noArgs(c); err != nil {
				return err
			}
			cfg, err := indexerConfig(c)
			if err != nil {
				return err
			}
			return runIndexer(c, cfg)
		},
	}
}

// indexerConfig reads the flags, and makes or reads the keys.
func indexerConfig(c *cli.Context) (cfg indexer.Config, err error) {
	if cfg, err = indexerValues(c); err != nil {
		return cfg, err
	}
	if cfg.DataDir, err = dataDir(c); err != nil {
		return cfg, err
	}
	if cfg.Key, err = loadIdentity(filepath.Join(cfg.DataDir, "identity.key")); err != nil {
		return cfg, err
	}
	secret := c.String(flagIndexSecret)
	if secret == "" {
		secret = filepath.Join(cfg.DataDir, "index-secret")
	}
	if cfg.IndexSecret, err = loadSecret(secret); err != nil {
		return cfg, err
	}
	cfg.Gossip, err = gossipConfig(c, cfg.Key, cfg.Logger)
	return cfg, err
}

// indexerValues reads the flags and makes nothing.
func indexerValues(c *cli.Context) (cfg indexer.Config, err error) {
	if cfg.Logger, cfg.LogLevel, err = newLeveledLogger(c); err != nil {
		return cfg, err
	}
	if cfg.Polling, err = pollConfig(c); err != nil {
		return cfg, err
	}
	if cfg.ClientLimit, cfg.Draining, err = clientConfig(c); err != nil {
		return cfg, err
	}
	if err = dataGiven(c); err != nil {
		return cfg, err
	}
	cfg.Version = version
	cfg.AssignedOnly = c.Bool(flagAssignedOnly)
	cfg.AllowPrivate = c.Bool(flagAllowPrivate)
	cfg.AnyPublisher = c.Bool(flagAnyPublisher)
	cfg.MirrorTo, cfg.MirrorFrom = c.String(flagMirror), c.String(flagMirrorFrom)
	if cfg.FreezePercent, err = freezePercent(c); err != nil {
		return cfg, err
	}
	for flag, to := range map[string]*int64{flagDiskQuota: &cfg.DiskQuotaBytes, flagStoreMemory: &cfg.StoreMemory, flagIngestMemory: &cfg.IngestMemory, flagPublisherRate: &cfg.PublisherRate,
		flagPublisherByte: &cfg.PublisherAllowance.BytesAnHour} {
		if *to, err = byteSize(c, flag); err != nil {
			return cfg, err
		}
	}
	if cfg.PublisherAllowance.AdsAnHour = c.Int64(flagPublisherAds); cfg.PublisherAllowance.AdsAnHour < 0 {
		return cfg, misused("--%s %d: give a number of advertisements an hour, or 0 for no limit", flagPublisherAds, cfg.PublisherAllowance.AdsAnHour)
	}
	if c.String(flagDiskReserve) != reserveAuto {
		if cfg.DiskReserveBytes, err = byteSize(c, flagDiskReserve); err != nil {
			return cfg, err
		}
		if cfg.DiskReserveBytes == 0 {
			cfg.DiskReserveBytes = -1
		}
	}
	if cfg.StoreMemory < minStoreMemory || cfg.IngestMemory < minIngestMemory {
		return cfg, misused("--%s needs at least 64MiB and --%s at least 32MiB", flagStoreMemory, flagIngestMemory)
	}
	cfg.NoFilter = c.Bool(flagNoFilter)
	return cfg, checkSecurity(c)
}

func freezeFlag() cli.Flag {
	return &cli.Float64Flag{Name: flagFreezeAt, Value: indexer.DefaultFreezePercent, EnvVars: env(flagFreezeAt),
		Usage: "disk usage `PERCENT` at which a node freezes, which is to take no new content; negative: never by itself"}
}

func freezePercent(c *cli.Context) (float64, error) {
	p := c.Float64(flagFreezeAt)
	if p == 0 || p > 100 || math.IsNaN(p) {
		return 0, misused("--%s %v: give a percentage above 0 and up to 100, or a negative number for never", flagFreezeAt, p)
	}
	return p, nil
}

// reserveAuto leaves the reserve to the store.
const reserveAuto = "auto"

const (
	minStoreMemory  = 64 << 20
	minIngestMemory = 32 << 20
)

// readToken reads a token file; "" for no file.
func readToken(file string) (string, error) {
	if file == "" {
		return "", nil
	}
	token, err := admin.ReadTokenFile(file)
	if err != nil {
		return "", misused("--%s: %v", flagAdminToken, err)
	}
	return token, nil
}

func runIndexer(c *cli.Context, cfg indexer.Config) error {
	var err error
	setMemory := func() { debug.SetMemoryLimit(goMemory(cfg)) }
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if cfg.Denylist, err = openDenylist(c, cfg.Logger, setMemory); err != nil {
		return err
	}
	secure, err := openTLS(c, cfg.Logger)
	if err != nil {
		return err
	}
	if cfg.Access, err = adminAccess(c, cfg.Logger); err != nil {
		return err
	}
	defer cfg.Access.Audit.Close()
	traces, err := openTracing(c, cfg.DataDir, cfg.Logger)
	if err != nil {
		return err
	}
	cfg.Tracers = traces.Tracers()
	listeners := listenerSet{c: c, tls: secure}
	cfg.Find = listeners.open(flagListenFind)
	cfg.Ingest = listeners.open(flagListenIngest)
	cfg.Admin = listeners.open(flagListenAdmin)
	cfg.Metrics = listeners.open(flagMetrics)
	if listeners.err != nil {
		return listeners.err
	}
	cfg.Processors = moreThreads()
	boundMalloc()
	setMemory()
	ix, err := indexer.Open(cfg)
	if err != nil {
		listeners.close()
		return err
	}
	ready := readyIndexer(ix, cfg)
	reload := onHangup(c, cfg.Logger, live{
		flagLogLevel: changeLevel(cfg.LogLevel), flagFreezeAt: changeFreeze(ix.SetFreezePercent),
		flagClientRate: changeLimit(ix.SetClientLimit), flagTrustedProxies: changeLimit(ix.SetClientLimit),
	})
	return serveThen(c, ready, together(ix.Run, reload, followDenylist(cfg.Denylist, cfg.Logger)), func() error { return errors.Join(ix.Close(), traces.Close()) })
}

// gcPercent has the collector run a few times a second under lookups, instead of
// thirty, while the heap is small. When it is large the memory limit decides.
const gcPercent = 400

// goMemory is the part of a process's memory that Go manages. The collector
// then works harder instead of letting the sum pass what was given.
func goMemory(cfg indexer.Config) int64 {
	return cfg.StoreMemory + cfg.IngestMemory - cfg.OffHeapBytes() + runtimeMemoryBytes - codeBytes + 2*cfg.Denylist.MemoryBytes()
}

func readyIndexer(ix *indexer.Indexer, cfg indexer.Config) readyLine {
	r := readyLine{
		Ready: true, ID: ix.ID().String(), P2P: addrTexts(ix.P2PAddrs()),
		Find: baseURL(cfg.Find), Ingest: baseURL(cfg.Ingest), Admin: baseURL(cfg.Admin),
	}
	if cfg.Metrics != nil {
		r.Metrics = baseURL(cfg.Metrics)
	}
	return r
}

// listenerSet opens the listeners of several flags, all or none.
type listenerSet struct {
	c      *cli.Context
	tls    *api.TLS
	opened []net.Listener
	err    error
}

// open returns the flag's listener; nil for "none" or after an error.
func (s *listenerSet) open(flag string) net.Listener {
	if s.err != nil || s.c.String(flag) == none {
		return nil
	}
	ln, err := listen(s.c, flag)
	if err != nil {
		s.err = err
		s.close()
		return nil
	}
	ln = secured(s.tls, flag, ln)
	s.opened = append(s.opened, ln)
	return ln
}

func (s *listenerSet) close() {
	for _, ln := range s.opened {
		_ = ln.Close()
	}
}

// serveThen prints the ready line, runs until the context ends and has been drained,
// and closes.
func serveThen(c *cli.Context, ready readyLine, run func(context.Context) error, closeAll func() error) error {
	ctx, stop := lingering(c.Context, c.Duration(flagDrainFor))
	defer stop()
	if err := ready.print(c.App.Writer); err != nil {
		return errors.Join(fmt.Errorf("print ready line: %w", err), closeAll())
	}
	err := run(ctx)
	return errors.Join(err, closeAll())
}
