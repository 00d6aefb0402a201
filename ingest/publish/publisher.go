package publish

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/signpost-index/signpost/ingest/ipnisync"
	"github.com/signpost-index/signpost/ingest/metadata"
	"github.com/signpost-index/signpost/ingest/schema"
)

var (
	// ErrLocked: another process has the state directory open.
	ErrLocked = errors.New("state directory is in use")
	// ErrOtherIdentity: the chain in the state directory is another publisher's
	// or for another provider. What it advertised can only be taken back as them.
	ErrOtherIdentity = errors.New("chain has another identity")
	// ErrClosed: the publisher has been closed.
	ErrClosed = errors.New("publisher is closed")
	// ErrBadCAR: a file that begins like a CAR is not a whole and true one.
	ErrBadCAR = errors.New("bad CAR")
	// ErrEmpty: a CAR has no block to advertise.
	ErrEmpty = errors.New("no blocks to advertise")
	// ErrNotPublished: no content has the path, context ID or root.
	ErrNotPublished = errors.New("not published")
	// ErrAmbiguous: several contents have the root; name a context ID or path.
	ErrAmbiguous = errors.New("more than one content")
	// ErrNoAddress: there is no provider address to advertise, and indexers
	// refuse a provider without one.
	ErrNoAddress = errors.New("no provider address")
)

const (
	// DefaultChunkSize is the multihashes in an entry chunk: what other
	// publishers write, 1.1 MB in dag-json.
	DefaultChunkSize = 16384
	// MaxChunkSize keeps a chunk of 64-byte digests below the 4 MB that the
	// specification suggests as the limit (IPNI.md, Entries).
	MaxChunkSize = 32768
	// DefaultMaxAdChunks is the chunks of an advertisement (IPNI.md, Entries).
	DefaultMaxAdChunks = 400
)

// Config says what to publish as whom. The zero value of a field means its default.
type Config struct {
	// Dir is the state directory; it is made if need be. Required.
	Dir string
	// Key signs advertisements and heads; its peer ID is the publisher. Required.
	Key crypto.PrivKey
	// Topic goes into the signed head; empty leaves it out, which means the main one.
	Topic string
	// Codec of new blocks: schema.DagJSON, the default, or schema.DagCBOR.
	Codec schema.Codec
	// ChunkSize is the multihashes in an entry chunk, 1 to MaxChunkSize;
	// DefaultChunkSize.
	ChunkSize int
	// MaxAdEntries is the multihashes of one advertisement; a content with more
	// is spread over several with the same context ID. DefaultMaxAdChunks full
	// chunks.
	MaxAdEntries int
	// ProviderID is who serves the content; the publisher itself.
	ProviderID peer.ID
	// Addrs are the provider's addresses, in every advertisement from now on;
	// those of the newest advertisement. To tell indexers of a change before
	// there is other news, call SetAddrs.
	Addrs []multiaddr.Multiaddr
	// Metadata of new contexts; what UpdateMetadata last set, or
	// transport-ipfs-gateway-http.
	Metadata []byte
	// Hidden includes files whose name begins with a dot.
	Hidden bool
	// Skip are directories that are never published, besides Dir.
	Skip []string
	// Logger; nothing is logged without.
	Logger *slog.Logger
	// Registerer for the gateway's metrics; they go nowhere without.
	Registerer prometheus.Registerer
}

// Validate reports what is wrong with the configuration.
func (c Config) Validate() error {
	switch {
	case c.Dir == "":
		return errors.New("publish: no state directory")
	case c.Key == nil:
		return errors.New("publish: no key")
	case c.Codec != 0 && c.Codec != schema.DagJSON && c.Codec != schema.DagCBOR:
		return fmt.Errorf("publish: codec %s, want %s or %s", c.Codec, schema.DagJSON, schema.DagCBOR)
	case c.ChunkSize < 0 || c.ChunkSize > MaxChunkSize:
		return fmt.Errorf("publish: chunk size %d, want 1 to %d", c.ChunkSize, MaxChunkSize)
	case c.MaxAdEntries < 0:
		return fmt.Errorf("publish: %d entries an advertisement", c.MaxAdEntries)
	case len(c.Metadata) > schema.MaxMetadataBytes:
		return fmt.Errorf("publish: metadata of %d bytes, at most %d", len(c.Metadata), schema.MaxMetadataBytes)
	}
	return nil
}

func (c Config) withDefaults() Config {
	if c.Codec == 0 {
		c.Codec = schema.DagJSON
	}
	if c.ChunkSize == 0 {
		c.ChunkSize = DefaultChunkSize
	}
	if c.MaxAdEntries == 0 {
		c.MaxAdEntries = DefaultMaxAdChunks * c.ChunkSize
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Registerer == nil {
		c.Registerer = prometheus.NewRegistry()
	}
	return c
}

// A Publisher holds a state directory: a chain of advertisements and the CARs
// of what they advertise. It is safe for concurrent use: several Adds read their
// content at the same time and take turns at the chain; reading the chain and
// the blocks never waits for a change. It implements ipnisync.Source.
type Publisher struct {
	cfg              Config
	id               peer.ID // of the key
	provider         peer.ID
	chain            chain
	cars             string
	tmp              string
	never            []os.FileInfo // directories that are not content
	lock             *os.File
	gateway          http.Handler
	unreadableBlocks prometheus.Counter
	step             func(name string) // tests: called between the writes of a change

	life   sync.RWMutex // held for reading by every operation, by Close for writing
	closed bool         // guarded by life

	changing sync.Mutex // held by the one operation that changes the chain
	manifest *manifest  // guarded by changing
	addrs    []string   // for new advertisements; guarded by changing
	metadata []byte     // for new contexts; guarded by changing

	now atomic.Pointer[state]
}

// Open opens the state directory, making it if need be, and goes on with the
// chain that is in it. ErrLocked if another process, or another Publisher, has
// it; ErrOtherIdentity if the chain is not the key's and provider's.
func Open(cfg Config) (*Publisher, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	id, err := peer.IDFromPrivateKey(cfg.Key)
	if err != nil {
		return nil, fmt.Errorf("publish: identity: %w", err)
	}
	cfg = cfg.withDefaults()
	p := &Publisher{cfg: cfg, id: id, provider: cfg.ProviderID, step: func(string) {}}
	if p.provider == "" {
		p.provider = id
	}
	if p.gateway, err = newGateway(p); err != nil {
		return nil, err
	}
	if p.unreadableBlocks, err = unreadableBlocks(cfg.Registerer); err != nil {
		return nil, err
	}
	if p.cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return nil, err
	}
	if err := p.openDir(p.cfg.Dir); err != nil {
		return nil, err
	}
	if err := p.load(p.cfg.Dir); err != nil {
		p.unlock()
		return nil, err
	}
	return p, nil
}

func (p *Publisher) openDir(dir string) (err error) {
	p.chain = chain{filepath.Join(dir, "chain")}
	p.cars = filepath.Join(dir, "cars")
	p.tmp = filepath.Join(dir, "tmp")
	for _, d := range []string{p.chain.dir, p.cars, p.tmp} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	for _, d := range append([]string{dir}, p.cfg.Skip...) {
		info, err := os.Stat(d)
		if err != nil {
			return err
		}
		p.never = append(p.never, info)
	}
	p.lock, err = lockDir(dir)
	return err
}

// load brings back the state of the last completed change and removes what an
// uncompleted one left behind.
func (p *Publisher) load(dir string) error {
	m, changes, err := openManifest(filepath.Join(dir, "manifest"))
	if err != nil {
		return err
	}
	p.manifest = m
	var last change
	records := make(map[string]contentRecord)
	for _, c := range changes {
		for _, k := range c.Drop {
			delete(records, string(k))
		}
		for _, r := range c.Put {
			records[string(r.ContextID)] = r
		}
		last = c
	}
	s := &state{head: last.Head, ads: last.Ads, addrs: last.Addrs, metadata: last.Metadata}
	s.contents = make(map[string]*content, len(records))
	for k, r := range records {
		s.contents[k] = p.openContent(r)
	}
	err = p.start(s, last, len(changes))
	if err == nil {
		err = p.sweep(s)
	}
	if err != nil {
		m.close()
	}
	return err
}

// start makes s current, once its head is known to be on disk and ours.
func (p *Publisher) start(s *state, last change, lines int) error {
	if s.head.Defined() {
		if _, err := p.chain.block(s.head); err != nil {
			return fmt.Errorf("publish: head of the chain: %w", err)
		}
		if last.Publisher != p.id.String() || last.Provider != p.provider.String() {
			return fmt.Errorf("publish: %w: it is of publisher %s for provider %s, this is %s for %s",
				ErrOtherIdentity, last.Publisher, last.Provider, p.id, p.provider)
		}
	}
	if err := s.sign(p.cfg.Topic, p.cfg.Key); err != nil {
		return err
	}
	p.metadata = p.cfg.Metadata
	if len(p.metadata) == 0 {
		p.metadata = s.metadata
	}
	if len(p.metadata) == 0 {
		md, err := metadata.Encode(metadata.IPFSGatewayHTTP)
		if err != nil {
			return err
		}
		p.metadata = md
	}
	if p.addrs = addrStrings(p.cfg.Addrs); len(p.addrs) == 0 {
		p.addrs = s.addrs
	}
	if lines > 1000 && lines > 4*len(s.contents) {
		c := s.change(p, nil)
		for _, k := range s.keys() {
			c.Put = append(c.Put, s.contents[k].record())
		}
		if err := p.manifest.replace(c); err != nil {
			return fmt.Errorf("publish: shorten manifest: %w", err)
		}
	}
	p.now.Store(s)
	return nil
}

func (p *Publisher) openContent(r contentRecord) *content {
	c := &content{rec: r}
	for _, sr := range r.Sources {
		src := openSource(p.cars, sr)
		if src.broken != nil {
			p.cfg.Logger.Warn("content cannot be served", "path", sr.Path, "err", src.broken)
		}
		c.sources = append(c.sources, src)
	}
	return c
}

// sweep empties tmp and removes files in cars that s does not refer to.
func (p *Publisher) sweep(s *state) error {
	if err := os.RemoveAll(p.tmp); err != nil {
		return err
	}
	if err := os.Mkdir(p.tmp, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(p.cars)
	if err != nil {
		return err
	}
	used := s.files()
	for _, e := range entries {
		if !used[e.Name()] {
			if err := os.Remove(filepath.Join(p.cars, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// Close waits for operations that are under way, whose contexts the caller may
// cancel, and releases the directory. Closing twice is harmless.
func (p *Publisher) Close() error {
	p.life.Lock()
	defer p.life.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	err := p.manifest.close()
	return errors.Join(err, p.unlock())
}

// enter begins an operation; the caller calls leave if it returns nil.
func (p *Publisher) enter() error {
	p.life.RLock()
	if p.closed {
		p.life.RUnlock()
		return ErrClosed
	}
	return nil
}

func (p *Publisher) leave() { p.life.RUnlock() }

// ID is the publisher's peer ID, that of the key.
func (p *Publisher) ID() peer.ID { return p.id }

// ProviderID is the peer ID that advertisements name as provider.
func (p *Publisher) ProviderID() peer.ID { return p.provider }

// Head returns the signed head of the chain, ipnisync.ErrNoHead before the
// first advertisement. The caller must not change it.
func (p *Publisher) Head(ctx context.Context) (*schema.SignedHead, error) {
	s := p.now.Load()
	if s.signed == nil {
		return nil, ipnisync.ErrNoHead
	}
	return s.signed, nil
}

// Block returns a block of the chain as it is on disk; ipnisync.ErrNotFound if
// it is none of ours.
func (p *Publisher) Block(ctx context.Context, c cid.Cid) ([]byte, error) {
	b, err := p.chain.block(c)
	if err != nil && !errors.Is(err, ipnisync.ErrNotFound) {
		p.cfg.Logger.Error("block of the chain cannot be read", "err", err)
	}
	return b, err
}

// Contents lists what is published, by path.
func (p *Publisher) Contents() []Content {
	s := p.now.Load()
	out := make([]Content, 0, len(s.contents))
	for _, k := range s.keys() {
		out = append(out, s.contents[k].describe())
	}
	slices.SortFunc(out, func(a, b Content) int { return strings.Compare(a.Paths[0], b.Paths[0]) })
	return out
}

func addrStrings(addrs []multiaddr.Multiaddr) []string {
	out := make([]string, 0, len(addrs))
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return out
}

// unreadableBlocks registers the counter; publishers on one registerer share it.
func unreadableBlocks(reg prometheus.Registerer) (prometheus.Counter, error) {
	c := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "signpost_publish_unreadable_blocks_total",
		Help: "Requests for published blocks whose CAR is gone or has changed.",
	})
	err := reg.Register(c)
	var already prometheus.AlreadyRegisteredError
	if errors.As(err, &already) {
		if shared, ok := already.ExistingCollector.(prometheus.Counter); ok {
			return shared, nil
		}
	}
	return c, err
}
