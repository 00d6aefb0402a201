// Package ingest takes a publisher's chain from an announced head to applied
// advertisements.
//
// # The way of one advertisement
//
//	Notify ──► worker (one per publisher, exists only while there is work)
//	             │  head    signed head, verified against the publisher's peer ID
//	             │  scan    back along PreviousID until a known ad; CIDs and
//	             │          positions go to the store as pending
//	             │  close   gaps an interrupted scan left behind
//	             └► apply   pending ads, oldest first: verify, fetch entries,
//	                        AdWriter.Put … Commit
//
// # Promises
//
//  1. An ad is applied only if it is the publisher's verified signed head or an
//     ancestor of it. The CID of an announce is a hint to look, never an
//     instruction: an announce by a third party changes nothing.
//  2. The outcome of a publisher's chain is that of application from oldest to
//     newest. Progress is recorded in the same batch as the effect, so an ad
//     counts as done exactly when its postings are there.
//  3. An ad whose signature, shape or entries can never become right is
//     rejected with the reason kept on disk, and the chain goes on. What may
//     become right later (network, 5xx, a wrong hash; a disk without room, or
//     that fails) stops the publisher at that ad and is retried with back-off;
//     no other publisher waits for it.
//  4. After a restart every publisher with pending ads, and every publisher
//     with a known address, is synced without being announced again. So it is
//     after the store has recovered from a failure, which loses what was not
//     durable; a sync under way then is begun again.
//
// What is left to others: where postings go (package store), how bytes travel
// (package ingest/ipnisync), who may publish (Config.Allow and
// Config.MayPublish).
package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/signpost-index/signpost/ingest/ipnisync"
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
	// ErrNotInChain: the announced CID is neither the signed head nor an
	// ancestor of it.
	ErrNotInChain = errors.New("announced advertisement is not in the publisher's chain")
)

// Limits of one sync. Sources: advertisement.md section 8.
const (
	// maxScanAds bounds one walk; the reference's AdvertisementDepthLimit.
	maxScanAds = 33_554_432
	// maxEntryChunks bounds the chunks of one ad; the reference's EntriesDepthLimit.
	maxEntryChunks = 65_536
	// cursorEvery is the number of multihashes after which an ad in work leaves
	// a cursor with its next chunk: a quarter of a usual chunk, so that chunks
	// with a handful do not cost a row each.
	cursorEvery = 4096
	// maxResyncAds bounds a resync, whose list of ads is held in memory.
	maxResyncAds = 1_000_000
	// adCacheAds is how many decoded ads one sync keeps between scan and apply.
	adCacheAds = 4_096
	// positionStride is the room between two scans' positions, so that the ads
	// of a gap of unknown length fit below the head found first.
	positionStride = store.Position(1) << 32
	// syncMemoryBytes is what one running sync may hold: a block, its decoded
	// multihashes, and the ad cache.
	syncMemoryBytes = 32 << 20
	// maxWaiting bounds the publishers that have work running or queued.
	maxWaiting = 10_000
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
	// Block returns a block's bytes, bounded in size but not yet checked
	// against the CID; ipnisync.ErrNotFound if the publisher does not have it.
	Block(ctx context.Context, c cid.Cid, hint ipnisync.Hint) ([]byte, error)
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
	// MemoryBytes bounds what running syncs hold together; 0 means DefaultMemoryBytes.
	MemoryBytes int64
	// RetryMin and RetryMax bound the back-off after a failed sync; 0 means
	// 500 ms and 5 min.
	RetryMin, RetryMax time.Duration
	Logger             *slog.Logger
	Registerer         prometheus.Registerer
}

// Ingester syncs publishers. It is safe for concurrent use.
type Ingester struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics
	slots   chan struct{} // one per sync that may run at once

	cursorEvery int // tests lower it

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
	if cfg.MemoryBytes < syncMemoryBytes {
		return nil, fmt.Errorf("open ingester: ingest memory of %d bytes is below the %d one sync needs", cfg.MemoryBytes, syncMemoryBytes)
	}
	if cfg.RetryMin == 0 {
		cfg.RetryMin = 500 * time.Millisecond
	}
	if cfg.RetryMax == 0 {
		cfg.RetryMax = 5 * time.Minute
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.MayPublish == nil {
		cfg.MayPublish = func(id, provider peer.ID) bool { return id == provider }
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Ingester{
		cfg:     cfg,
		log:     cfg.Logger,
		metrics: newMetrics(cfg.Registerer),
		slots:   make(chan struct{}, min(cfg.MemoryBytes/syncMemoryBytes, 64)),
		ctx:     ctx,
		cancel:  cancel,
		workers: make(map[peer.ID]*worker),
		status:  newStatusBook(),

		cursorEvery: cursorEvery,
	}, nil
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

// SyncOptions of an explicit sync, as POST /ingest/sync/{publisher} takes them.
type SyncOptions struct {
	Addrs []multiaddr.Multiaddr
	// Depth limits the walk to so many ads from the head; older ads then count
	// as done. 0 or negative: no limit.
	Depth int
	// Resync applies ads again that were applied before.
	Resync bool
}

// Sync starts a sync of publisher, in the background. ErrBusy if one is running.
func (i *Ingester) Sync(publisher peer.ID, o SyncOptions) error {
	if len(o.Addrs) == 0 && len(i.cfg.Store.PublisherAddrs(publisher)) == 0 {
		return ErrUnknownPublisher
	}
	return i.enqueue(publisher, target{addrs: o.Addrs, depth: max(o.Depth, 0), resync: o.Resync, explicit: true})
}

// Syncing lists the publishers with an explicit sync running or queued.
func (i *Ingester) Syncing() []peer.ID {
	i.mu.Lock()
	defer i.mu.Unlock()
	var ids []peer.ID
	for id, w := range i.workers {
		if w.explicit {
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
