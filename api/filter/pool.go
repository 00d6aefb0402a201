package filter

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/multiformats/go-multihash"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/store/keyset"
)

// maxLease is the longest lease that is believed.
const maxLease = 2 * time.Second

// DefaultMemory is what sets may take in all.
const DefaultMemory = 1 << 30

// Config is what a Pool is made of.
type Config struct {
	Secret []byte // the pool's index secret; required
	HTTP   *http.Client
	// MemoryBytes bounds all sets together; 0: DefaultMemory. Nodes whose sets
	// find no room are asked themselves.
	MemoryBytes int64
	Logger      *slog.Logger
	Registerer  prometheus.Registerer
}

// Pool follows the keys of nodes. It is safe for concurrent use.
type Pool struct {
	cfg     Config
	secret  keyset.Secret
	token   string
	metrics *metrics

	mu      sync.Mutex
	ctx     context.Context // of Run; nil before
	nodes   map[string]*Filter
	running sync.WaitGroup
	used    int64 // bytes promised to sets
}

// NewPool returns a Pool that knows no nodes.
func NewPool(cfg Config) *Pool {
	if cfg.HTTP == nil {
		cfg.HTTP = api.NewHTTPClient()
	}
	if cfg.MemoryBytes == 0 {
		cfg.MemoryBytes = DefaultMemory
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	p := &Pool{cfg: cfg, secret: keyset.SecretOf(cfg.Secret), token: keyset.Token(cfg.Secret), nodes: make(map[string]*Filter)}
	p.metrics = newMetrics(cfg.Registerer, p)
	return p
}

// MemoryBytes is what all sets may take together.
func (p *Pool) MemoryBytes() int64 { return p.cfg.MemoryBytes }

// Key is the key of a multihash, which Lacks of all Filters of the pool takes.
func (p *Pool) Key(mh multihash.Multihash) uint64 { return p.secret.Key(mh) }

// Set says which nodes to follow, by the URLs of their find listeners. Those
// that were followed before go on.
func (p *Pool) Set(urls []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	gone := make(map[string]*Filter)
	for u, f := range p.nodes {
		gone[u] = f
	}
	for _, u := range urls {
		if _, ok := p.nodes[u]; ok {
			delete(gone, u)
			continue
		}
		base, err := api.ParseBaseURL(u)
		if err != nil {
			continue // it is not asked either
		}
		f := &Filter{pool: p, client: client{base: base, http: p.cfg.HTTP, token: p.token}, log: p.cfg.Logger.With("backend", base.Redacted())}
		p.nodes[u] = f
		p.start(f)
	}
	for u, f := range gone {
		if f.stop != nil {
			f.stop()
		}
		f.held.Store(nil)
		delete(p.nodes, u)
	}
}

// start follows a node once the pool runs. The caller holds mu.
func (p *Pool) start(f *Filter) {
	if p.ctx == nil || p.ctx.Err() != nil {
		return
	}
	ctx, stop := context.WithCancel(p.ctx)
	f.stop = stop
	p.running.Go(func() { f.run(ctx) })
}

// Of is the filter of a node, nil if it is not followed.
func (p *Pool) Of(u string) *Filter {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.nodes[u]
}

// Run follows the nodes until ctx ends.
func (p *Pool) Run(ctx context.Context) error {
	p.mu.Lock()
	p.ctx = ctx
	for _, f := range p.nodes {
		p.start(f)
	}
	p.mu.Unlock()
	<-ctx.Done()
	p.running.Wait()
	return nil
}

// reserve takes room for a set.
func (p *Pool) reserve(bytes int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.used+bytes > p.cfg.MemoryBytes {
		return false
	}
	p.used += bytes
	return true
}

// sums are of all nodes: those that need not be asked for what they lack now, keys
// and bytes of their sets.
func (p *Pool) sums() (followed, keys, bytes float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.nodes {
		h := f.held.Load()
		if h == nil {
			continue
		}
		keys += float64(h.set.Len())
		bytes += float64(h.set.Bytes())
		if clock() < h.until {
			followed++
		}
	}
	return followed, keys, bytes
}

// Filter is what is known of the keys of one node.
type Filter struct {
	pool   *Pool
	client client
	log    *slog.Logger
	stop   context.CancelFunc
	held   atomic.Pointer[held]
	wary   bool // a failure was logged
}

// held is a set and how long it stands. It is replaced, never changed.
type held struct {
	set   *keyset.Set
	until time.Duration // by clock
}

var started = time.Now()

// clock only goes forwards.
func clock() time.Duration { return time.Since(started) }

// Lacks tells that the node has nothing of a key. False: it may have something.
func (f *Filter) Lacks(key uint64) bool {
	h := f.held.Load()
	return h != nil && clock() < h.until && !h.set.Has(key)
}

// How long a node is left alone that does not offer its keys, whose set finds no
// room, or that failed.
const (
	notOffered = 30 * time.Second
	noRoom     = time.Minute
	retryFirst = time.Second
	retryMost  = 15 * time.Second
)

var (
	errNoRoom = errors.New("no room for its set: raise --filter-memory")
	errGrown  = errors.New("its set has become too full")
)

// run follows a node until ctx ends. While a set is read, for the first time or
// anew, the node is asked itself.
func (f *Filter) run(ctx context.Context) {
	wait := retryFirst
	for ctx.Err() == nil {
		began := time.Now()
		err := f.session(ctx)
		f.held.Store(nil)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > time.Minute {
			wait = retryFirst
		}
		pause := wait
		wait = min(2*wait, retryMost)
		var status *api.StatusError
		switch {
		case errors.Is(err, errGrown), errors.Is(err, ErrGone):
			f.log.Debug("keys are read anew", "why", err)
		case errors.Is(err, errNoRoom):
			pause = noRoom
			f.warn("this indexer is asked in every lookup", err)
		case errors.As(err, &status) && (status.Status == http.StatusNotFound || status.Status == http.StatusMethodNotAllowed):
			pause = notOffered
		default:
			f.warn("this indexer is asked in every lookup", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

func (f *Filter) warn(what string, err error) {
	if !f.wary {
		f.wary = true
		f.log.Warn(what, "err", err)
	}
}

// session reads all keys of a node, and follows it until that fails.
func (f *Filter) session(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	follower := rand.Text()
	opened, err := f.client.open(ctx, follower)
	if err != nil {
		return err
	}
	if opened.Entries > math.MaxInt64/(2*Ratio) {
		return fmt.Errorf("%d keys: unreadable answer", opened.Entries)
	}
	space := keyset.SpaceFor(opened.Entries, Ratio)
	room := int64(uint64(space)/Ratio)*5/4 + 1<<20 // bytes
	if !f.pool.reserve(room) {
		return fmt.Errorf("%w: %d keys", errNoRoom, opened.Entries)
	}
	s := &session{Filter: f, opened: opened, follower: follower, set: keyset.New(space), room: room}
	defer func() { f.pool.reserve(-s.room) }()
	read := make(chan error, 1)
	go func() { read <- s.read(ctx, room) }()
	err = s.follow(ctx)
	cancel()
	if readErr := <-read; readErr != nil && !errors.Is(readErr, context.Canceled) {
		err = readErr
	}
	return err
}

type session struct {
	*Filter
	opened   Opened
	follower string
	set      *keyset.Set
	whole    atomic.Bool // all regions are in
	failed   atomic.Bool // or cannot be had

	mu   sync.Mutex
	room int64 // promised to the set; guarded by mu
}

// fits has the set keep within what was promised to it, which grows with it.
func (s *session) fits() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	over := int64(s.set.Bytes()) - s.room
	if over <= 0 {
		return nil
	}
	over += s.room / 8
	if !s.pool.reserve(over) {
		return errNoRoom
	}
	s.room += over
	return nil
}

// read reads all regions.
func (s *session) read(ctx context.Context, limit int64) error {
	for region := range keyset.Regions {
		p, err := s.client.region(ctx, s.set.Space(), region, limit/64+1<<20)
		if err != nil {
			s.failed.Store(true)
			return fmt.Errorf("read keys: %w", err)
		}
		s.set.AddPart(region, p)
		if err := s.fits(); err != nil {
			s.failed.Store(true)
			return err
		}
	}
	s.whole.Store(true)
	return nil
}

// follow takes what is put, and says how long the set stands.
func (s *session) follow(ctx context.Context) error {
	from := s.opened.From
	for {
		if s.failed.Load() {
			return errors.New("its keys could not be read")
		}
		asked := clock()
		keys, lease, err := s.client.tail(ctx, s.opened, s.follower, from)
		if err != nil {
			return fmt.Errorf("follow keys: %w", err)
		}
		s.set.Add(keys)
		from += uint64(len(keys))
		s.pool.metrics.received.Add(float64(8 * len(keys)))
		if lease > 0 && s.whole.Load() {
			s.held.Store(&held{s.set, asked + min(lease, maxLease)})
			if s.wary {
				s.wary = false
				s.log.Info("this indexer is asked for what it may have only")
			}
		}
		if len(keys) == 0 {
			continue
		}
		if err := s.fits(); err != nil {
			return err
		}
		if s.set.Len() > uint64(s.set.Space())/worstRatio {
			return errGrown
		}
	}
}
