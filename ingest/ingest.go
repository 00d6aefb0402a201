// Package ingest takes a publisher's chain from an announced head to applied
// advertisements.
//
// # The way of one advertisement
//
//	Notify ──► worker (one a publisher, exists only while there is work)
//	             └► session (a time slice)
//	                  scanner:  head  signed, verified against the publisher's peer ID
//	                            walk  back along PreviousID to a known ad; CIDs,
//	                                  positions and the place of the walk go to disk;
//	                                  removals are applied at once
//	                  lanes:    one ad each: verify, fetch entries, AdWriter.Put … Commit
//
// doc/ingestion.md tells the order, the verdicts and the budgets.
//
// # Promises
//
//  1. An ad is applied only if it is the publisher's verified signed head or an
//     ancestor of it. The CID of an announce is a hint to look, never an
//     instruction: an announce by a third party changes nothing.
//  2. The outcome of a publisher's chain is that of application from oldest to
//     newest, whatever the order of work. Progress is recorded in the same batch
//     as the effect, so an ad counts as done exactly when its postings are there.
//  3. An ad whose signature, shape or entries can never become right is
//     rejected with the reason kept on disk. What may become right later is
//     tried again with back-off while the other ads go on; entries that a
//     publisher does not have, though it serves others, are given up after 6 h.
//     An ad block that is missing or does not decode is a gap: newer ads are
//     applied, the gap is shown and tried again.
//  4. No publisher waits for another: sessions are time slices, processor and
//     memory are shared, and what is hostile or away backs off.
//  5. After a restart every walk, every pending ad and every announce not looked
//     at goes on without being announced again. So it is after the store has
//     recovered from a failure, which loses what was not durable.
//
// What is left to others: where postings go (package store), how bytes travel
// (package ingest/ipnisync), who may publish (Config.Allow and
// Config.MayPublish).
package ingest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/semaphore"

	"github.com/signpost-index/signpost/ingest/ipnisync"
	"github.com/signpost-index/signpost/ingest/mirror"
	"github.com/signpost-index/signpost/ingest/schema"
	"github.com/signpost-index/signpost/store"
)

// Sentinels a caller may test for.
var (
	// ErrBusy: the bound on publishers with work waiting is reached, or the
	// publisher already has a sync in progress. Nothing was queued.
	ErrBusy = errors.New("too much work waiting")
	// ErrClosed: the ingester has stopped.
	ErrClosed = errors.New("ingester is closed")
	// ErrUnknownPublisher: no address is known and none was given.
	ErrUnknownPublisher = errors.New("no address known for publisher")
	// ErrNotRejected: only an ad that was given up can be requeued.
	ErrNotRejected = errors.New("advertisement is not rejected")
	// ErrNotPending: only what waits can be skipped.
	ErrNotPending = errors.New("advertisement is not waiting")
	// ErrNotInChain: the announced CID is neither the signed head nor an
	// ancestor of it.
	ErrNotInChain = errors.New("announced advertisement is not in the publisher's chain")
)

// Limits of one sync. Sources: advertisement.md section 8.
const (
	// maxScanAds bounds one walk: with more, the publisher backs off before it
	// goes on. The reference's AdvertisementDepthLimit is the same.
	maxScanAds = 33_554_432
	// maxEntryChunks bounds the chunks of one ad; the reference's EntriesDepthLimit.
	maxEntryChunks = 65_536
	// cursorEvery is the number of multihashes after which an ad in work leaves
	// a cursor with its next chunk: a quarter of a usual chunk, so that chunks
	// with a handful do not cost a row each.
	cursorEvery = 4096
	// positionStride is the room between two scans' positions, so that the ads
	// of a gap of unknown length fit below the head found first.
	positionStride = store.Position(1) << 32
	// minMemoryBytes is what one block at its largest takes while it is decoded.
	minMemoryBytes = 32 << 20
	// maxWaiting bounds the publishers that have work running or queued.
	maxWaiting = 100_000
	// maxSeats is how many publishers have a session at once, and slice how long
	// one lasts while others wait.
	maxSeats  = 256
	maxGuests = 64
	slice     = 5 * time.Second
	// hastenEvery bounds how often ends of sessions hasten a sync of the store.
	hastenEvery = 50 * time.Millisecond
	// flushEvery is how much work a kill of the process may undo.
	flushEvery = 5 * time.Millisecond
	// maxAllLanes bounds the lanes of all publishers besides the first of each.
	maxAllLanes = 512
)

// DefaultMemoryBytes is the ingest memory when none is configured, 512 MiB.
const DefaultMemoryBytes = 512 << 20

// Publisher is one publisher as the ingester sees it: an HTTP client
// (*ipnisync.Publisher) or an in-memory chain (FromSource).
type Publisher interface {
	// ID is the peer whose signature the head must carry.
	ID() peer.ID
	// Head returns the verified signed head; ipnisync.ErrNoHead if the chain is empty.
	Head(ctx context.Context) (*schema.SignedHead, error)
	// Fetch returns a block, bounded in size but not yet checked against the
	// CID, for which memory is taken from the budget until it is released;
	// ipnisync.ErrNotFound if the publisher does not have it.
	Fetch(ctx context.Context, c cid.Cid, hint ipnisync.Hint, budget *ipnisync.Budget) (ipnisync.Block, error)
	// Addr is the address that answered last, nil if there is none.
	Addr() multiaddr.Multiaddr
}

// Config of an Ingester. Store and Dial are required.
type Config struct {
	Store *store.Store
	// Dial returns the publisher at its addresses. It does no I/O.
	Dial func(peer.AddrInfo) (Publisher, error)
	// Allow says whether this node ingests from a publisher; nil allows all.
	// Its error is returned by Notify and Sync.
	Allow func(publisher peer.ID) error
	// MayPublish says whether id, the publisher of a chain or the signer of an
	// ad, may publish for provider. Nil: only the provider itself may, so that
	// genuine ads replayed or altered in somebody else's chain change nothing
	// (a context ID is not covered by the ad's signature).
	MayPublish func(id, provider peer.ID) bool
	// Failed is told of an announce, as Notify got it, whose sync failed, so that
	// a repetition of it is not taken for a duplicate. It must not block nor
	// call the Ingester. May be nil.
	Failed func(info peer.AddrInfo, head cid.Cid)
	// Mirror, if not nil, gets every applied ad with its entries as a CAR file;
	// MirrorFrom, if not nil, is read before the publisher is asked for blocks.
	// They may be the same, and belong to the caller.
	Mirror, MirrorFrom *mirror.Mirror
	// MemoryBytes bounds what running syncs hold together; 0 means DefaultMemoryBytes.
	MemoryBytes int64
	// RetryMin and RetryMax bound the back-off after a failed sync; 0 means
	// 500 ms and 5 min.
	RetryMin, RetryMax time.Duration
	// AdRetryMin and AdRetryMax bound the back-off after a failed ad or gap of a
	// publisher that serves others; 0 means 1 min and 1 h.
	AdRetryMin, AdRetryMax time.Duration
	// GiveUpAfter is how long entries that the publisher does not have are asked
	// for, while it serves others, before the ad is rejected; 0 means 6 h.
	GiveUpAfter time.Duration
	// Allowance is what one publisher may have.
	Allowance Allowance
	// Reached is told of every fetch of a publisher's head; nil means it was
	// fetched and verified. It must not block nor call the Ingester. May be nil.
	Reached    func(publisher peer.ID, err error)
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	// Tracers make spans of sessions, heads and ads; nil makes none.
	Tracers trace.TracerProvider
}

// Ingester syncs publishers. It is safe for concurrent use.
type Ingester struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics
	tracer  trace.Tracer // nil: see span

	seats    *seats // of publishers that have shown a valid head
	guests   *seats // of the others: anybody can announce any number of them
	turns    *turns
	lanes    *semaphore.Weighted // see maxAllLanes
	memory   *ipnisync.Budget    // of blocks in work
	decoders sync.Pool           // of *schema.ChunkDecoder
	stages   *stageBook
	// allowances is what publishers have had of Config.Allowance.
	allowances *allowances
	uploads    *semaphore.Weighted // mirror files on their way
	// durable hastens that what a session has done is durable and shown to others;
	// handed, that what was committed survives a kill of the process.
	durable, handed *soon

	cursorEvery, firstLanes, maxLanes, maxWalk int // tests lower them

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex // guards the fields below; never held across I/O
	closed  bool
	workers map[peer.ID]*worker
	status  *statusBook
}

// Open returns an Ingester that is ready for Notify. Run or Close ends it.
func Open(cfg Config) (*Ingester, error) {
	if cfg.Store == nil || cfg.Dial == nil {
		return nil, errors.New("open ingester: Store and Dial are required")
	}
	if cfg.MemoryBytes == 0 {
		cfg.MemoryBytes = DefaultMemoryBytes
	}
	if cfg.MemoryBytes < minMemoryBytes {
		return nil, fmt.Errorf("open ingester: ingest memory of %d bytes is below the %d one block can take", cfg.MemoryBytes, minMemoryBytes)
	}
	cfg.RetryMin = cmp.Or(cfg.RetryMin, 500*time.Millisecond)
	cfg.RetryMax = cmp.Or(cfg.RetryMax, 5*time.Minute)
	cfg.AdRetryMin = cmp.Or(cfg.AdRetryMin, time.Minute)
	cfg.AdRetryMax = cmp.Or(cfg.AdRetryMax, time.Hour)
	cfg.GiveUpAfter = cmp.Or(cfg.GiveUpAfter, 6*time.Hour)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.MayPublish == nil {
		cfg.MayPublish = func(id, provider peer.ID) bool { return id == provider }
	}
	ctx, cancel := context.WithCancel(context.Background())
	m := newMetrics(cfg.Registerer)
	i := &Ingester{
		cfg:     cfg,
		log:     cfg.Logger,
		metrics: m,
		tracer:  tracerOf(cfg.Tracers),
		seats:   newSeats(maxSeats, slice),
		guests:  newSeats(maxGuests, slice),
		turns:   newTurns(max(runtime.NumCPU(), 2)),
		lanes:   semaphore.NewWeighted(maxAllLanes),
		memory:  ipnisync.NewBudget(cfg.MemoryBytes / 4),
		stages:  newStageBook(m.stageSeconds),
		uploads: semaphore.NewWeighted(maxUploads),
		decoders: sync.Pool{New: func() any {
			return schema.NewChunkDecoder(schema.DefaultLimits)
		}},
		allowances: newAllowances(cfg.Allowance),

		ctx:     ctx,
		cancel:  cancel,
		workers: make(map[peer.ID]*worker),
		status:  newStatusBook(),

		cursorEvery: cursorEvery, firstLanes: firstLanes, maxLanes: maxLanes, maxWalk: maxScanAds,
	}
	i.durable = newSoon(i, hastenEvery, cfg.Store.SyncSoon)
	i.handed = newSoon(i, flushEvery, func() { _ = cfg.Store.Flush() }) // a store that failed says so at the next write
	return i, nil
}

// Run resumes every known publisher, now and each time the store has recovered
// from a failure, and returns nil once ctx has ended and all work has stopped.
func (i *Ingester) Run(ctx context.Context) error {
	for {
		recovered := i.cfg.Store.Recovered()
		i.resume()
		select {
		case <-recovered:
			i.log.Info("store has recovered, all publishers are synced again")
		case <-ctx.Done():
			return i.Close()
		}
	}
}

func (i *Ingester) resume() {
	announced, err := i.cfg.Store.Announced()
	if err != nil {
		i.log.Error("announces not resumed", "err", err)
	}
	for _, a := range announced {
		if err := i.Notify(peer.AddrInfo{ID: a.Publisher, Addrs: parseAddrs(a.Addrs)}, a.Head); err != nil {
			i.log.Debug("announce not resumed", "publisher", a.Publisher, "err", err)
			i.forgetAnnounce(a.Publisher, a.Head)
		}
	}
	for _, publisher := range i.cfg.Store.Publishers() {
		err := i.enqueue(publisher, target{})
		if err != nil && !errors.Is(err, ErrUnknownPublisher) && !errors.Is(err, ErrBusy) {
			i.log.Debug("publisher not resumed", "publisher", publisher, "err", err)
		}
	}
}

// Close stops all syncs and waits for them. It is safe to call twice.
func (i *Ingester) Close() error {
	i.mu.Lock()
	i.closed = true
	i.mu.Unlock()
	i.cancel()
	i.wg.Wait()
	return nil
}

// Notify says that publisher may have a new head, reachable at info.Addrs. It
// returns at once; calls that wait are merged into one sync. Errors: what
// Config.Allow said, ErrBusy, ErrClosed.
func (i *Ingester) Notify(info peer.AddrInfo, head cid.Cid) error {
	t := target{addrs: info.Addrs[:min(len(info.Addrs), maxAnnouncedAddrs)]}
	if head.Defined() {
		t.notices = []notice{{info.Addrs, head}}
	}
	return i.enqueue(info.ID, t)
}

// Announce is Notify for an announce whose sender waits for an answer: when it
// returns nil the announce is on disk and survives a crash. ctx bounds waiting
// for that. Errors: those of Notify, store.ErrFull as ErrBusy, the store's, ctx's.
func (i *Ingester) Announce(ctx context.Context, info peer.AddrInfo, head cid.Cid) error {
	if i.cfg.Allow != nil {
		if err := i.cfg.Allow(info.ID); err != nil {
			return err
		}
	}
	a := store.Announced{Publisher: info.ID, Head: head, Time: time.Now()}
	for _, m := range info.Addrs {
		if text := m.String(); len(text) <= store.MaxAnnouncedAddrBytes && len(a.Addrs) < maxAnnouncedAddrs {
			a.Addrs = append(a.Addrs, text)
		}
	}
	seq, err := i.cfg.Store.SetAnnounced(a)
	if errors.Is(err, store.ErrFull) {
		return fmt.Errorf("%w: %w", ErrBusy, err)
	}
	if err != nil {
		return err
	}
	if err := i.Notify(info, head); err != nil {
		i.forgetAnnounce(info.ID, head)
		return err
	}
	i.cfg.Store.SyncSoon()
	return i.cfg.Store.WaitDurable(ctx, seq)
}

// toMirror is block if ads are mirrored, else nil: it need not be kept.
func (i *Ingester) toMirror(block []byte) []byte {
	if i.cfg.Mirror == nil {
		return nil
	}
	return block
}

// SyncOptions of an explicit sync, as POST /ingest/sync/{publisher} takes them.
type SyncOptions struct {
	Addrs []multiaddr.Multiaddr
	// Depth limits the walk to so many ads from the head; older ads then count
	// as done. 0 or negative: no limit.
	Depth int
	// Resync applies ads again that were applied before: the newest Depth, or all.
	// It goes on after a restart.
	Resync bool
}

// Sync starts a sync of publisher, in the background. ErrBusy if an explicit one
// is running.
func (i *Ingester) Sync(publisher peer.ID, o SyncOptions) error {
	if len(o.Addrs) == 0 && len(i.cfg.Store.PublisherAddrs(publisher)) == 0 {
		return ErrUnknownPublisher
	}
	t := target{addrs: o.Addrs, depth: max(o.Depth, 0), explicit: true}
	if !o.Resync {
		return i.enqueue(publisher, t)
	}
	if i.explicit(publisher) {
		return ErrBusy
	}
	if i.cfg.Allow != nil {
		if err := i.cfg.Allow(publisher); err != nil {
			return err
		}
	}
	if err := i.revisit(publisher, store.Revisit{All: true, Depth: t.depth}); err != nil {
		return err
	}
	return i.enqueue(publisher, t)
}

// explicit says whether an explicit sync of a publisher is queued or running.
func (i *Ingester) explicit(publisher peer.ID) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	w := i.workers[publisher]
	return w != nil && w.explicit
}

// Syncing lists the publishers with an explicit sync running or queued, or ads to
// be looked at again.
func (i *Ingester) Syncing() []peer.ID {
	ids, err := i.cfg.Store.Revisits()
	if err != nil {
		i.log.Error("what is to be looked at again is not known", "err", err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for id, w := range i.workers {
		if w.explicit && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// Forget drops what is queued for publisher and ends its running sync, for
// instance because it was unassigned. What is on disk stays.
func (i *Ingester) Forget(publisher peer.ID) {
	i.mu.Lock()
	w := i.workers[publisher]
	i.mu.Unlock()
	if w != nil {
		w.stop()
	}
}

func (i *Ingester) enqueue(publisher peer.ID, t target) error {
	if i.cfg.Allow != nil {
		if err := i.cfg.Allow(publisher); err != nil {
			return err
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return ErrClosed
	}
	w := i.workers[publisher]
	if w == nil {
		if len(i.workers) >= maxWaiting {
			return ErrBusy
		}
		w = newWorker(i, publisher)
		i.workers[publisher] = w
		i.wg.Add(1)
		go func() {
			defer i.wg.Done()
			w.run()
		}()
	}
	if t.explicit {
		if w.explicit {
			return ErrBusy
		}
		w.explicit = true
	}
	i.failed(publisher, w.put(t))
	return nil
}

// failed reports announces whose sync failed or never came.
func (i *Ingester) failed(publisher peer.ID, notices []notice) {
	if i.cfg.Failed == nil {
		return
	}
	for _, n := range notices {
		i.cfg.Failed(peer.AddrInfo{ID: publisher, Addrs: n.addrs}, n.head)
	}
}
