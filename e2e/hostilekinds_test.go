package e2e

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/signpost-index/signpost/announce"
	"github.com/signpost-index/signpost/ingest/ipnisync"
	"github.com/signpost-index/signpost/ingest/schema"
)

const (
	hostileChainAds = 3000 // of a long chain
	// hostileChains bounds the long chains made of one publisher. Then it shows
	// the first again.
	hostileChains  = 10
	hostileNothing = 4 // ads with a large empty block, each second
)

// hostile is a publisher that harms.
type hostile struct {
	c     *chain
	heads []*rendered // shown one a second, if any
	w     *wire
}

// hostileKinds are the ways to do harm.
var hostileKinds = []func(t testing.TB, h *hostile, seconds int){
	hangsAfterAccept, hangsAfterHeaders, trickles, endlessHead, endlessBlock, answers500, entriesMissing,
	redirectsForEver, largeHeaders, gzipBomb, anothersHead, undecodableAd, longChains, largeNothing, entriesLoop,
}

// newHostiles makes publishers of all kinds in turn.
func newHostiles(t testing.TB, n, seconds int) []*hostile {
	var out []*hostile
	for k := range n {
		h := &hostile{c: newChain(t, fmt.Sprintf("hostile %d", k))}
		hostileKinds[k%len(hostileKinds)](t, h, seconds)
		out = append(out, h)
	}
	return out
}

// run announces until ctx ends. That an announce is refused does not matter.
func (h *hostile) run(ctx context.Context, ingest string, first time.Duration) {
	sender := announce.NewSender(client)
	start := time.Now()
	for ok := pause(ctx, first); ok; ok = pause(ctx, hostilePause) {
		if len(h.heads) > 0 {
			h.w.setHead(h.heads[int(time.Since(start)/time.Second)%len(h.heads)])
		}
		_ = sender.Send(ctx, ingest, h.c.announced())
	}
}

// one publishes a single ad of one chunk.
func (h *hostile) one() { h.c.add("one", multihashes(h.c.id.String(), 10)) }

// serve serves until the test ends; the channel handed to f is closed then.
func (h *hostile) serve(f func(w http.ResponseWriter, r *http.Request, quit <-chan struct{})) {
	quit := make(chan struct{})
	h.c.addr = h.c.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f(w, r, quit) }))
	h.c.t.Cleanup(func() { close(quit) })
}

// blocks serves the head as it is, and blocks by f.
func (h *hostile) blocks(f func(w http.ResponseWriter, r *http.Request, quit <-chan struct{})) {
	h.one()
	good := ipnisync.NewHandler(h.c.mem)
	h.serve(func(w http.ResponseWriter, r *http.Request, quit <-chan struct{}) {
		if path.Base(r.URL.Path) == "head" {
			good.ServeHTTP(w, r)
			return
		}
		f(w, r, quit)
	})
}

func hangsAfterAccept(t testing.TB, h *hostile, _ int) {
	h.one()
	ln, err := net.Listen("tcp", anyPort)
	if err != nil {
		t.Fatal(err)
	}
	h.c.addr = addrOf(t, "http://"+ln.Addr().String())
	var wg sync.WaitGroup
	wg.Go(func() {
		var conns []net.Conn
		for {
			conn, err := ln.Accept()
			if err != nil {
				break
			}
			conns = append(conns, conn)
		}
		for _, conn := range conns {
			conn.Close()
		}
	})
	t.Cleanup(func() { ln.Close(); wg.Wait() })
}

func hangsAfterHeaders(_ testing.TB, h *hostile, _ int) {
	h.one()
	h.serve(func(w http.ResponseWriter, r *http.Request, quit <-chan struct{}) {
		w.Header().Set("Content-Length", "1000")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-quit:
		case <-r.Context().Done():
		}
	})
}

func trickles(_ testing.TB, h *hostile, _ int) {
	h.blocks(func(w http.ResponseWriter, r *http.Request, quit <-chan struct{}) {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			if _, err := io.WriteString(w, " "); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
			select {
			case <-tick.C:
			case <-quit:
				return
			case <-r.Context().Done():
				return
			}
		}
	})
}

// endless writes until the client or the test has had enough.
func endless(w http.ResponseWriter, _ *http.Request, quit <-chan struct{}) {
	piece := bytes.Repeat([]byte(" "), 64<<10)
	for {
		select {
		case <-quit:
			return
		default:
		}
		if _, err := w.Write(piece); err != nil {
			return
		}
	}
}

func endlessHead(_ testing.TB, h *hostile, _ int)  { h.one(); h.serve(endless) }
func endlessBlock(_ testing.TB, h *hostile, _ int) { h.blocks(endless) }

func answers500(_ testing.TB, h *hostile, _ int) {
	h.one()
	h.serve(func(w http.ResponseWriter, _ *http.Request, _ <-chan struct{}) {
		http.Error(w, "no", http.StatusInternalServerError)
	})
}

// entriesMissing has a hundred ads whose entries are nowhere.
func entriesMissing(_ testing.TB, h *hostile, _ int) {
	for n := range 100 {
		missing := schema.LinkOf(schema.DagJSON, fmt.Appendf(nil, "%s %d", h.c.id, n))
		h.c.push(h.c.ad(fmt.Sprintf("missing %d", n), missing))
	}
}

func redirectsForEver(_ testing.TB, h *hostile, _ int) {
	h.one()
	h.serve(func(w http.ResponseWriter, r *http.Request, _ <-chan struct{}) {
		http.Redirect(w, r, r.URL.Path, http.StatusFound)
	})
}

func largeHeaders(_ testing.TB, h *hostile, _ int) {
	h.one()
	large := strings.Repeat("x", 1<<20)
	h.serve(func(w http.ResponseWriter, _ *http.Request, _ <-chan struct{}) { w.Header().Set("X-Large", large) })
}

// bomb is 512 MiB of spaces, compressed.
var bomb = sync.OnceValue(func() []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write(bytes.Repeat([]byte(" "), 8<<20)) // to memory: neither fails
	_ = z.Close()
	return bytes.Repeat(b.Bytes(), 64)
})

func gzipBomb(_ testing.TB, h *hostile, _ int) {
	h.blocks(func(w http.ResponseWriter, _ *http.Request, _ <-chan struct{}) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(bomb()) // the client leaves early
	})
}

func anothersHead(t testing.TB, h *hostile, _ int) {
	h.one()
	other := newChain(t, h.c.id.String()+" other")
	other.add("other", multihashes(other.id.String(), 10))
	h.c.addr = other.addr
}

func undecodableAd(_ testing.TB, h *hostile, _ int) {
	h.c.setHead(h.c.mem.Put([]byte(`{"this is":"no ad of `+h.c.id.String()+`"}`), schema.DagJSON))
}

// longChains shows another long chain of tiny ads each second.
func longChains(t testing.TB, h *hostile, seconds int) {
	entries := h.c.entries(multihashes(h.c.id.String(), 1), 1)[0]
	for n := range min(seconds, hostileChains) {
		h.c.head = cid.Undef
		for k := range hostileChainAds {
			ad := h.c.ad(fmt.Sprintf("chain %d %d", n, k), entries)
			h.link(t, &ad)
		}
		h.heads = append(h.heads, renderHead(t, h.c, h.c.head))
	}
	h.w = newWire(h.c, 0).start()
}

// link puts an ad behind the others, without showing it.
func (h *hostile) link(t testing.TB, ad *schema.Advertisement) {
	ad.PreviousID = h.c.head
	if err := ad.Sign(h.c.key); err != nil {
		t.Fatal(err)
	}
	h.c.head = h.c.block(ad.Encode(h.c.codec))
}

// largeNothing has ads whose entries are as large as a block may be, and empty.
func largeNothing(t testing.TB, h *hostile, seconds int) {
	block := []byte(`{"Entries":[]}`)
	block = append(block, bytes.Repeat([]byte(" "), schema.MaxBlockBytes-len(block))...)
	entries := h.c.block(block, nil)
	for n := range seconds {
		for k := range hostileNothing {
			ad := h.c.ad(fmt.Sprintf("nothing %d %d", n, k), entries)
			h.link(t, &ad)
		}
		h.heads = append(h.heads, renderHead(t, h.c, h.c.head))
	}
	h.w = newWire(h.c, 0).start()
}

// entriesLoop has a chunk that names itself, which only a lie makes possible.
func entriesLoop(t testing.TB, h *hostile, _ int) {
	loop := schema.LinkOf(schema.DagJSON, []byte(h.c.id))
	chunk, err := (&schema.EntryChunk{Entries: multihashes(h.c.id.String(), 10), Next: loop}).Encode(schema.DagJSON)
	if err != nil {
		t.Fatal(err)
	}
	h.c.mem.PutCID(loop, chunk)
	h.c.push(h.c.ad("loop", loop))
}
