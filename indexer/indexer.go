// Package indexer is the indexer role: it opens and joins the parts of one
// node and runs them together.
//
//	announces ──► ingest ──► store ◄── find (clients, frontends)
//	(HTTP, gossip)             ▲
//	                         admin (assigner, operators)
//
// It decides what only a whole node can: whose announces are taken
// (assignments), when the node freezes, and how a handoff is accepted. What is
// stored and how belongs to package store; how chains are walked to package
// ingest.
//
// Listeners are passed in open, so that the caller can name the flag when an
// address cannot be had. Run serves until its context ends; everything it
// started has ended when it returns. Close releases the store.
package indexer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"github.com/signpost-index/signpost/announce"
	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/admin"
	"github.com/signpost-index/signpost/api/find"
	"github.com/signpost-index/signpost/api/find/deny"
	"github.com/signpost-index/signpost/api/health"
	"github.com/signpost-index/signpost/api/tracing"
	"github.com/signpost-index/signpost/ingest"
	"github.com/signpost-index/signpost/ingest/ipnisync"
	"github.com/signpost-index/signpost/ingest/mirror"
	"github.com/signpost-index/signpost/store"
)

// DefaultFreezePercent is the disk usage at which a node freezes, percent.
// This is the one place it is written.
const DefaultFreezePercent = 95

// Config of an indexer node. DataDir, Key and the three listeners are required.
type Config struct {
	DataDir             string
	Key                 crypto.PrivKey
	Find, Ingest, Admin net.Listener
	Metrics             net.Listener           // nil: metrics on the admin listener only
	Gossip              *announce.GossipConfig // nil: no gossip

	// AssignedOnly takes announces only for publishers an assigner assigned.
	AssignedOnly bool
	// AllowPrivate lets publishers be dialled at private and loopback addresses.
	AllowPrivate bool
	// AnyPublisher makes Publish true in the policy: ads for a provider are
	// accepted from any signer, in any chain, but for the policy's exceptions.
	AnyPublisher bool
	// Polling is about publishers that are silent.
	Polling PollConfig
	// PublisherRate bounds what is read of one publisher, bytes a second; 0: not.
	PublisherRate int64
	// PublisherAllowance is what one publisher may have of this node.
	PublisherAllowance ingest.Allowance
	// MirrorTo is where applied ads are written as CAR files, MirrorFrom where
	// blocks are read before a publisher is asked: URLs as package mirror takes
	// them. Empty: nowhere.
	MirrorTo, MirrorFrom string
	// FreezePercent is the usage, 0 to 100, of a file system the node writes to, or
	// of the quota, at which the node freezes; negative never freezes by itself; 0
	// means DefaultFreezePercent.
	FreezePercent float64
	// DiskQuotaBytes bounds what the store has on disk; 0 for none.
	DiskQuotaBytes int64
	// DiskReserveBytes is what stays free on the disk of the store: a sixteenth
	// above it the node freezes, unless FreezePercent is negative, and below no
	// content is taken. 0 for the store's default, negative for none.
	DiskReserveBytes int64
	Processors       int   // see store.Config
	StoreMemory      int64 // bytes, 0 for the store's default
	IngestMemory     int64 // bytes, 0 for ingest.DefaultMemoryBytes
	// IndexSecret is the pool's secret, which keys the hashes of the index. The
	// store is bound to it on first use and refuses another.
	IndexSecret []byte
	// NoFilter: frontends are not given keys, and ask for everything.
	NoFilter bool
	// Denylist is what lookups are not answered for; nil denies nothing. Whoever
	// gives it keeps it as its file is.
	Denylist *deny.List
	// ClientLimit is how many lookups each client may ask for. Its Registerer is
	// not used.
	ClientLimit api.LimitConfig
	// Draining is closed when clients that look up are to leave, a while before the
	// context of Run ends; nil: they are not told.
	Draining <-chan struct{}
	// Access says who gets in at the admin listener.
	Access  admin.Access
	Version string
	Logger  *slog.Logger
	// Tracers make spans of lookups and syncs; nil makes none.
	Tracers trace.TracerProvider
	// LogLevel is that of Logger, if it can be set at run time; else nil.
	LogLevel *slog.LevelVar
}

// OffHeapBytes is how much of StoreMemory is used outside of Go's heap.
func (c Config) OffHeapBytes() int64 { return store.OffHeapBytes(c.StoreMemory) }

// Indexer is one node. It is safe for concurrent use.
type Indexer struct {
	cfg      Config
	log      *slog.Logger
	id       peer.ID
	store    *store.Store
	ingester *ingest.Ingester
	streams  *ipnisync.Streams // to publishers on libp2p; not gossip's host, see there
	client   *ipnisync.Client
	gossip   *announce.Gossip
	seen     *announce.Seen
	registry *prometheus.Registry
	disk     *diskWatch
	clients  *api.Limit // of those who look up
	survey   *surveyor
	board    *health.Board
	heard    *prometheus.CounterVec // announces by way, result
	rate     *ingestRate
	rates    publisherRates
	started  string     // tells versions of this run from others
	since    time.Time  // of this run
	mapping  sync.Mutex // the pool map's file
	covered  coverageCache
	// seenProviders are those that lookups met lately.
	seenProviders *lru.Cache[peer.ID, seenProvider]
	jobs          *storeJobs
	checkpoints   *checkpoints
	book          *publisherBook
	policy        atomic.Pointer[policy] // never nil once opened
	policing      sync.Mutex             // one change of the policy at a time, until it is on disk
	probes        chan struct{}          // one element for each that runs
	// mirror is written, mirrorFrom read; nil without. They may be the same.
	mirror, mirrorFrom *mirror.Mirror

	mu         sync.Mutex       // guards unassigned
	unassigned map[peer.ID]bool // given up in this run; not preferred until restart

	closeOnce sync.Once
	closeErr  error
}

// Open opens the data directory and joins the parts; nothing is served yet.
// The listeners belong to the Indexer once Open has returned without error.
func Open(cfg Config) (*Indexer, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.FreezePercent == 0 {
		cfg.FreezePercent = DefaultFreezePercent
	}
	id, err := peer.IDFromPrivateKey(cfg.Key)
	if err != nil {
		return nil, fmt.Errorf("open indexer: %w", err)
	}
	streams, err := ipnisync.OpenStreams(cfg.AllowPrivate)
	if err != nil {
		return nil, fmt.Errorf("open indexer: %w", err)
	}
	seenProviders, err := lru.New[peer.ID, seenProvider](maxSeenProviders)
	if err != nil {
		return nil, fmt.Errorf("open indexer: %w", err)
	}
	ix := &Indexer{
		cfg: cfg, log: cfg.Logger.With("indexer", id), id: id,
		seenProviders: seenProviders,
		seen:          announce.NewSeen(announce.DefaultSeen),
		registry:      prometheus.NewRegistry(),
		streams:       streams,
		client:        ipnisync.NewClient(ipnisync.ClientConfig{AllowPrivate: cfg.AllowPrivate, RateBytes: cfg.PublisherRate, Streams: streams}),
		unassigned:    make(map[peer.ID]bool),
		probes:        make(chan struct{}, maxProbes),
		started:       strconv.FormatInt(time.Now().UnixNano(), 36),
		since:         time.Now().UTC(),
	}
	ix.heard = newAnnounceMetrics(ix.registry)
	ix.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	limit := cfg.ClientLimit
	limit.Registerer = ix.registry
	ix.clients = api.NewLimit(limit)
	if cfg.Denylist != nil {
		ix.registry.MustRegister(cfg.Denylist)
	}
	if err := ix.open(); err != nil {
		return nil, errors.Join(err, ix.Close())
	}
	return ix, nil
}

func (ix *Indexer) open() error {
	start := time.Now()
	st, err := store.Open(store.Config{
		Dir: filepath.Join(ix.cfg.DataDir, "store"), MemoryBytes: ix.cfg.StoreMemory, Processors: ix.cfg.Processors, ReserveBytes: ix.cfg.DiskReserveBytes,
		Secret: ix.cfg.IndexSecret,
		Logger: ix.log, Registerer: ix.registry,
	})
	if errors.Is(err, store.ErrOtherSecret) {
		return fmt.Errorf("%w; give the pool's --index-secret file", err)
	}
	if err != nil {
		return err
	}
	ix.store = st
	ix.jobs = newStoreJobs(st, ix.log)
	if ix.checkpoints, err = openCheckpoints(ix); err != nil {
		return err
	}
	if err := ix.loadPolicy(); err != nil {
		return err
	}
	if ix.book, err = openBook(st, ingestSyncs{ix}, ix.allow, ix.cfg.Polling, ix.log, time.Now); err != nil {
		return err
	}
	ix.book.metrics.register(ix.registry)
	if err := ix.openMirrors(); err != nil {
		return err
	}
	if ix.disk, err = newDiskWatch(ix); err != nil {
		return err
	}
	ix.ingester, err = ingest.Open(ingest.Config{
		Store: st,
		Dial: func(ai peer.AddrInfo) (ingest.Publisher, error) {
			p, err := ix.client.Publisher(ai)
			if err != nil {
				return nil, err
			}
			return p, nil
		},
		Allowance:   ix.cfg.PublisherAllowance,
		Allow:       ix.allow,
		MayPublish:  func(id, provider peer.ID) bool { return ix.policy.Load().mayPublish(id, provider) },
		Failed:      func(at peer.AddrInfo, head cid.Cid) { ix.seen.Forget(announce.KeyOf(at, head)) },
		Reached:     ix.reached,
		Mirror:      ix.mirror,
		MirrorFrom:  ix.mirrorFrom,
		MemoryBytes: ix.cfg.IngestMemory,
		Logger:      ix.log, Registerer: ix.registry, Tracers: ix.cfg.Tracers,
	})
	if err != nil {
		return err
	}
	ix.rate = &ingestRate{count: ix.ingester.Multihashes}
	ix.survey = newSurveyor(st.Publishers, st.Progress)
	ix.registry.MustRegister(ix.survey)
	if ix.cfg.Gossip != nil {
		gossip := *ix.cfg.Gossip
		gossip.Registerer = ix.registry
		if ix.gossip, err = announce.OpenGossip(gossip); err != nil {
			return fmt.Errorf("open gossip: %w", err)
		}
	}
	ix.board = ix.newBoard()
	ix.log.Info("opened", "data", ix.cfg.DataDir, "frozen", st.Frozen(), "publishers", len(st.Publishers()), "elapsed", time.Since(start))
	return nil
}

// ID is the node's peer ID.
func (ix *Indexer) ID() peer.ID { return ix.id }

// P2PAddrs are the addresses of the gossip host, with /p2p/; nil without gossip.
func (ix *Indexer) P2PAddrs() []multiaddr.Multiaddr {
	if ix.gossip == nil {
		return nil
	}
	return ix.gossip.Addrs()
}

// Run serves until ctx ends or a part fails, and returns when all has stopped.
// The order of stopping: listeners drain, ingest ends, the store stays open
// until Close.
func (ix *Indexer) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	serve := func(ln net.Listener, h http.Handler) {
		if ln != nil {
			g.Go(func() error { return api.Serve(ctx, ln, h, ix.log) })
		}
	}
	metrics := promhttp.HandlerFor(ix.registry, promhttp.HandlerOpts{})
	g.Go(func() error { return api.ServeDraining(ctx, ix.cfg.Draining, ix.cfg.Find, ix.findHandler(), ix.log) })
	serve(ix.cfg.Ingest, ix.ingestHandler())
	serve(ix.cfg.Admin, admin.NewHandler(ix.Admin(), admin.HandlerConfig{
		Token: ix.cfg.Access.Token, Callers: ix.cfg.Access.Callers, Insecure: ix.cfg.Access.Insecure, Audit: ix.cfg.Access.Audit,
		Check:    func(context.Context) error { return ix.store.Probe() },
		Operator: ix.Operator(), Registry: ix.Registry(), LogLevel: ix.cfg.LogLevel, Ingest: ix.IngestOperator(), Node: ix.Node(), Roles: ix.Roles(),
		Snapshots: ix.Snapshots(), Health: ix.board,
		Metrics: metrics, Pprof: true, Logger: ix.log,
	}))
	serve(ix.cfg.Metrics, ix.board.Beside(metrics))
	g.Go(func() error { return ix.ingester.Run(ctx) })
	g.Go(func() error { return ix.disk.run(ctx) })
	g.Go(func() error { return ix.rate.run(ctx) })
	g.Go(func() error { return ix.survey.run(ctx) })
	g.Go(func() error { return ix.board.Run(ctx) })
	g.Go(func() error { return ix.rates.run(ctx, ix.store.PutCounts) })
	g.Go(func() error { return ix.book.run(ctx) })
	if ix.gossip != nil {
		g.Go(func() error { return ix.gossip.Run(ctx, ix.hear) })
	}
	return g.Wait()
}

// findHandler is what is served to those who look up.
func (ix *Indexer) findHandler() http.Handler {
	h := find.NewHandler(ix.cfg.Denylist.Finder(ix.Finder(), false), find.Config{
		LineToken: ix.keysToken(), Logger: ix.log, Registerer: ix.registry, Version: ix.cfg.Version,
	})
	traced := tracing.Handler(h, ix.cfg.Tracers, false, tracing.Lookups)
	return ix.clients.Handler(ix.withKeys(ix.withCoverage(traced)))
}

// SetClientLimit replaces Config.ClientLimit.
func (ix *Indexer) SetClientLimit(limit api.LimitConfig) { ix.clients.Set(limit) }

// SetFreezePercent replaces Config.FreezePercent, within ten seconds; not 0. A
// node that is frozen stays so.
func (ix *Indexer) SetFreezePercent(percent float64) { ix.disk.setLimit(percent) }

// Close ends what Run left open. It is safe to call twice and without Run.
func (ix *Indexer) Close() error {
	ix.closeOnce.Do(func() {
		var errs []error
		if ix.gossip != nil {
			errs = append(errs, ix.gossip.Close())
		}
		if ix.ingester != nil {
			errs = append(errs, ix.ingester.Close())
		}
		ix.client.Close()
		errs = append(errs, ix.closeMirrors())
		errs = append(errs, ix.streams.Close())
		if ix.store != nil {
			ix.jobs.close()
			if ix.checkpoints != nil {
				errs = append(errs, ix.checkpoints.close())
			}
			start := time.Now()
			errs = append(errs, ix.store.Close())
			ix.log.Info("closed", "elapsed", time.Since(start))
		}
		ix.closeErr = errors.Join(errs...)
	})
	return ix.closeErr
}

// allow decides whose chains this node follows.
func (ix *Indexer) allow(publisher peer.ID) error {
	if !ix.policy.Load().allowed(publisher) {
		return announce.ErrNotAllowed
	}
	if !ix.cfg.AssignedOnly || ix.isAssigned(publisher) {
		return nil
	}
	return announce.ErrNotAllowed
}

func (ix *Indexer) isAssigned(publisher peer.ID) bool {
	_, ok := ix.store.Assignment(publisher)
	return ok
}

// reached is told by ingest of each try to fetch a publisher's head.
func (ix *Indexer) reached(publisher peer.ID, err error) { ix.book.reached(publisher, err) }
