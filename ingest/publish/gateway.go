package publish

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/exchange/offline"
	"github.com/ipfs/boxo/gateway"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	format "github.com/ipfs/go-ipld-format"

	"github.com/signpost-index/signpost/ingest/ipnisync"
)

const (
	// gatewayRequests bounds the gateway's requests at one time; more are
	// answered 429. A request holds one block, or for a CAR one block and the
	// places of those already sent.
	gatewayRequests = 512
	// gatewayDuration bounds one request, long enough for a large CAR.
	gatewayDuration = 24 * time.Hour
	// writeIdle is how long a client may take for one write; it replaces the
	// server's time-out for a whole answer, which a CAR would run into.
	writeIdle = time.Minute
	// listed bounds the contents named on the index page.
	listed = 1000
)

// Handler serves everything the publisher has:
//
//	/ipni/v1/ad/head, /ipni/v1/ad/{cid}   the chain, for indexers
//	/.well-known/libp2p/protocols         where the chain is (also .../libp2p)
//	/ipfs/{cid}?format=raw|car            a trustless gateway, for everyone
//	/                                     what is here, as text
//
// The gateway is boxo's with deserialized responses off: it answers raw blocks
// and CARs, asked for by ?format or Accept, of exactly the blocks that are in
// the publisher's CARs. 404 for others, 500 for a block whose CAR has changed.
func (p *Publisher) Handler() http.Handler {
	mux := http.NewServeMux()
	chain := ipnisync.NewHandler(p)
	mux.Handle("/ipni/v1/ad/", chain)
	mux.Handle("/.well-known/libp2p/", chain)
	mux.Handle("/.well-known/libp2p", chain)
	mux.Handle("/ipfs/", patient(p.gateway))
	mux.HandleFunc("GET /{$}", p.serveIndex)
	return mux
}

func newGateway(p *Publisher) (http.Handler, error) {
	store := blockstore.NewIdStore(blockReader{p})
	backend, err := gateway.NewBlocksBackend(blockservice.New(store, offline.Exchange(store)))
	if err != nil {
		return nil, fmt.Errorf("publish: gateway: %w", err)
	}
	h := gateway.NewHandler(gateway.Config{
		DeserializedResponses: false,
		NoDNSLink:             true,
		DisableHTMLErrors:     true,
		MaxConcurrentRequests: gatewayRequests,
		MaxRequestDuration:    gatewayDuration,
		MetricsRegistry:       p.cfg.Registerer,
	}, backend)
	return gateway.NewHeaders(nil).ApplyCors().Wrap(h), nil // browsers fetch and verify too
}

// serveIndex says what is here. It names roots, which anyone may fetch, not paths.
func (p *Publisher) serveIndex(w http.ResponseWriter, r *http.Request) {
	s := p.now.Load()
	var b strings.Builder
	fmt.Fprintf(&b, "signpost publisher %s\nprovider %s\n", p.id, p.provider)
	fmt.Fprintf(&b, "head %s, %d advertisements\n", orNone(s.head), s.ads)
	fmt.Fprintf(&b, "chain /ipni/v1/ad/head\nblocks /ipfs/{cid}?format=raw and ?format=car\n\n%d contents\n", len(s.contents))
	for i, k := range s.keys() {
		if i == listed {
			fmt.Fprintf(&b, "and %d more\n", len(s.contents)-listed)
			break
		}
		d := s.contents[k].rec
		fmt.Fprintf(&b, "%d multihashes, %d bytes", d.Multihashes, d.Bytes)
		for _, root := range s.contents[k].sources[0].rec.Roots {
			fmt.Fprintf(&b, " /ipfs/%s", root)
		}
		b.WriteString("\n")
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-cache")
	_, _ = w.Write([]byte(b.String()))
}

func orNone(c cid.Cid) string {
	if !c.Defined() {
		return "none"
	}
	return c.String()
}

// patient lets an answer take as long as its client keeps reading.
func patient(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(&patientWriter{w, http.NewResponseController(w)}, r)
	})
}

type patientWriter struct {
	http.ResponseWriter
	control *http.ResponseController
}

func (w *patientWriter) Write(b []byte) (int, error) {
	// Writers without deadlines, as in tests, need none.
	_ = w.control.SetWriteDeadline(time.Now().Add(writeIdle))
	return w.ResponseWriter.Write(b)
}

func (w *patientWriter) Flush()                      { _ = w.control.Flush() }
func (w *patientWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// ReadBlock returns a block of the published content, compared with its CID. The
// error is one for which format.IsNotFound holds if no content has it.
func (p *Publisher) ReadBlock(ctx context.Context, k cid.Cid) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var failed error
	for _, c := range p.now.Load().contents {
		for _, s := range c.sources {
			data, err := s.block(k)
			if err == nil {
				return data, nil
			}
			if !format.IsNotFound(err) {
				failed = err
				p.unreadable(s, err)
			}
		}
	}
	if failed != nil {
		return nil, fmt.Errorf("read block %s: %w", k, failed)
	}
	return nil, format.ErrNotFound{Cid: k}
}

// unreadable counts a block that should have been there, and logs the first of a source.
func (p *Publisher) unreadable(s *source, err error) {
	p.unreadableBlocks.Inc()
	if s.reported.CompareAndSwap(false, true) {
		p.cfg.Logger.Warn("published blocks cannot be read", "path", s.rec.Path, "err", err)
	}
}

// blockReader is the published blocks as a blockstore that takes none.
type blockReader struct{ p *Publisher }

var errReadOnly = errors.New("published blocks cannot be changed")

func (r blockReader) Has(ctx context.Context, k cid.Cid) (bool, error) {
	var failed error
	for _, c := range r.p.now.Load().contents {
		for _, s := range c.sources {
			found, err := s.has(k)
			if found {
				return true, nil
			}
			failed = errors.Join(failed, err)
		}
	}
	return false, failed
}

func (r blockReader) Get(ctx context.Context, k cid.Cid) (blocks.Block, error) {
	data, err := r.p.ReadBlock(ctx, k)
	if err != nil {
		return nil, err
	}
	return blocks.NewBlockWithCid(data, k)
}

func (r blockReader) GetSize(ctx context.Context, k cid.Cid) (int, error) {
	data, err := r.p.ReadBlock(ctx, k)
	return len(data), err
}

func (blockReader) Put(context.Context, blocks.Block) error       { return errReadOnly }
func (blockReader) PutMany(context.Context, []blocks.Block) error { return errReadOnly }
func (blockReader) DeleteBlock(context.Context, cid.Cid) error    { return errReadOnly }
func (blockReader) AllKeysChan(context.Context) (<-chan cid.Cid, error) {
	return nil, errors.New("published blocks are not listed")
}
