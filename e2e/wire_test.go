package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/signpost-index/signpost/announce"
	"github.com/signpost-index/signpost/ingest/ipnisync"
	"github.com/signpost-index/signpost/ingest/schema"
)

// wire is a publisher that costs next to nothing: HTTP/1.1 with connections
// that stay open, whose answers are ready in memory and are written with one
// system call. What is measured through it is the daemon.
type wire struct {
	ln    net.Listener
	delay time.Duration // from the request to its answer
	quit  chan struct{}
	wg    sync.WaitGroup

	head atomic.Pointer[rendered]

	content sync.RWMutex
	blocks  map[string]*rendered // by CID
	archive *archive             // of more blocks; may be nil, and does not change

	// served, if not nil, is told of each answer that was written to the end,
	// on a connection accepted in this life.
	served func(life int64, resource string)
	life   atomic.Int64

	mu    sync.Mutex
	conns map[net.Conn]struct{} // nil once closed
}

// rendered is an answer as it goes over the wire.
type rendered struct{ header, body []byte }

// notThere is the answer for whatever the publisher does not have.
var notThere = &rendered{header: []byte("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")}

func render(body []byte) *rendered {
	return &rendered{fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(body)), body}
}

// newWire is a publisher of c at an address of its own, which announces of c
// name from now on: with what was put into c so far, and its head. It serves
// from when start is called until the test ends.
func newWire(c *chain, delay time.Duration) *wire {
	c.t.Helper()
	w := &wire{
		delay: delay, quit: make(chan struct{}), conns: make(map[net.Conn]struct{}),
		blocks: make(map[string]*rendered, len(c.made)),
	}
	w.publish(c)
	var err error
	if w.ln, err = net.Listen("tcp", anyPort); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(w.close)
	c.addr = addrOf(c.t, "http://"+w.ln.Addr().String())
	return w
}

// publish takes over what was put into c since the last time, and its head.
func (w *wire) publish(c *chain) {
	c.t.Helper()
	w.content.Lock()
	for _, link := range c.made {
		block, err := c.mem.Block(c.t.Context(), link)
		if err != nil {
			w.content.Unlock()
			c.t.Fatal(err)
		}
		w.blocks[link.String()] = render(block)
	}
	w.content.Unlock()
	c.made = c.made[:0]
	w.setHead(renderHead(c.t, c, c.head))
}

// renderHead is the answer with ad as c's signed head.
func renderHead(t testing.TB, c *chain, ad cid.Cid) *rendered {
	t.Helper()
	head, err := schema.SignHead(ad, announce.DefaultTopic, c.key)
	if err != nil {
		t.Fatal(err)
	}
	body, err := head.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return render(body)
}

// setHead changes what is served as the head, also while w serves.
func (w *wire) setHead(r *rendered) { w.head.Store(r) }

// start begins to serve.
func (w *wire) start() *wire {
	w.wg.Go(func() {
		for {
			conn, err := w.ln.Accept()
			if err != nil {
				return
			}
			w.mu.Lock()
			if w.conns == nil {
				w.mu.Unlock()
				conn.Close()
				return
			}
			w.conns[conn] = struct{}{}
			w.wg.Add(1)
			w.mu.Unlock()
			go func() {
				defer w.wg.Done()
				w.serve(conn)
			}()
		}
	})
	return w
}

func (w *wire) close() {
	w.ln.Close()
	close(w.quit)
	w.mu.Lock()
	for conn := range w.conns {
		conn.Close()
	}
	w.conns = nil
	w.mu.Unlock()
	w.wg.Wait()
}

// serve answers the requests of one connection, one after the other.
func (w *wire) serve(conn net.Conn) {
	defer func() {
		conn.Close()
		w.mu.Lock()
		delete(w.conns, conn)
		w.mu.Unlock()
	}()
	life := w.life.Load()
	in := bufio.NewReader(conn)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		resource, err := readRequest(in)
		if err != nil {
			return
		}
		if w.delay > 0 {
			timer.Reset(w.delay)
			select {
			case <-timer.C:
			case <-w.quit:
				return
			}
		}
		r := w.answer(resource)
		out := net.Buffers{r.header, r.body}
		if _, err := out.WriteTo(conn); err != nil {
			return
		}
		if w.served != nil {
			w.served(life, resource)
		}
	}
}

func (w *wire) answer(resource string) *rendered {
	if resource == "head" {
		return w.head.Load()
	}
	w.content.RLock()
	defer w.content.RUnlock()
	if r := w.blocks[resource]; r != nil {
		return r
	}
	if b, ok := w.archive.get(resource); ok {
		return render(b)
	}
	return notThere
}

// readRequest reads a request without a body and returns what it asks for
// below the protocol's path, or "" for any other path.
func readRequest(in *bufio.Reader) (resource string, err error) {
	line, err := in.ReadSlice('\n')
	if err != nil {
		return "", err
	}
	if fields := bytes.Fields(line); len(fields) > 1 {
		if after, ok := strings.CutPrefix(string(fields[1]), ipnisync.Path+"/"); ok {
			resource = after
		}
	}
	for len(line) > len("\r\n") {
		if line, err = in.ReadSlice('\n'); err != nil {
			return "", err
		}
	}
	return resource, nil
}
