package find

import (
	"bufio"
	"context"
	"crypto/subtle"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/api"
)

const (
	maxLines       = 1024 // at once
	maxOnLine      = 128  // finds of a line at once
	lineIdle       = 2 * time.Minute
	lineWriteLimit = 10 * time.Second
	maxLineBacklog = 8 << 20 // bytes of answers that wait for a peer to read
	// After a find that took so long, as it read from disk, the next ones are not
	// to wait for one another.
	lineSlow  = time.Millisecond
	lineAside = 256
)

// serveLine answers the finds of a frontend on one connection.
func (h *handler) serveLine(w http.ResponseWriter, r *http.Request) {
	if !api.Method(w, r, http.MethodGet) {
		return
	}
	if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), []byte("Bearer "+h.cfg.LineToken)) != 1 {
		api.Error(w, http.StatusUnauthorized, "a line is for frontends with this pool's index secret: start them with --index-secret FILE")
		return
	}
	if r.Header.Get("Upgrade") != lineProtocol {
		api.Error(w, http.StatusUpgradeRequired, "want Upgrade: "+lineProtocol)
		return
	}
	select {
	case h.lines <- struct{}{}:
		defer func() { <-h.lines }()
	default:
		w.Header().Set("Retry-After", "5")
		api.Error(w, http.StatusServiceUnavailable, "too many lines")
		return
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		api.Error(w, http.StatusInternalServerError, "this connection cannot be a line")
		return
	}
	defer conn.Close()
	l := &servedLine{h: h, conn: conn, slots: make(chan struct{}, maxOnLine)}
	const hello = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + lineProtocol + "\r\n\r\n"
	_ = conn.SetDeadline(time.Now().Add(lineWriteLimit))
	if _, err := io.WriteString(conn, hello); err != nil {
		return
	}
	// At the end of serving nothing more is read, and what was is answered.
	defer context.AfterFunc(r.Context(), func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })()
	l.serve(r.Context(), buffered.Reader)
}

// servedLine is a line at the indexer.
type servedLine struct {
	h     *handler
	conn  net.Conn
	slots chan struct{} // one element for each find under way
	finds sync.WaitGroup

	mu      sync.Mutex
	out     []byte // what is to be written
	spare   []byte
	writing bool // by somebody, who goes on as long as there is something
	broken  bool
}

func (l *servedLine) serve(ctx context.Context, r *bufio.Reader) {
	// Finds that were read are answered whatever ctx says.
	ended := ctx
	ctx = context.WithoutCancel(ctx)
	defer l.finds.Wait()
	var head [findHeader]byte
	aside := 0 // so many finds more are answered by goroutines of their own
	for {
		_ = l.conn.SetReadDeadline(time.Now().Add(lineIdle))
		if ended.Err() != nil { // that deadline has replaced the one of the end
			_ = l.conn.SetReadDeadline(time.Unix(1, 0))
		}
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return
		}
		id, n := binary.BigEndian.Uint32(head[:]), int(binary.BigEndian.Uint16(head[4:]))
		if n > maxLineKey {
			return
		}
		key := make([]byte, n)
		if _, err := io.ReadFull(r, key); err != nil {
			return
		}
		if aside > 0 || r.Buffered() > 0 {
			aside = max(aside-1, 0)
			l.slots <- struct{}{}
			l.finds.Go(func() {
				defer func() { <-l.slots }()
				l.write(l.h.answerLine(ctx, id, key))
			})
			continue
		}
		// Nobody waits behind this one: it costs less here than aside.
		start := time.Now()
		l.write(l.h.answerLine(ctx, id, key))
		if time.Since(start) > lineSlow {
			aside = lineAside
		}
	}
}

// answerLine is the answer to one find.
func (h *handler) answerLine(ctx context.Context, id uint32, key []byte) (b []byte) {
	start := time.Now()
	defer func() { h.metrics.line.Observe(time.Since(start).Seconds()) }()
	byHTTP := lineAnswer(nil, id, kindByHTTP)
	defer func() {
		if v := recover(); v != nil {
			h.log.Error("find panicked", "panic", v, "stack", string(debug.Stack()))
			b = byHTTP
		}
	}()
	mh, err := multihash.Cast(key)
	if err != nil {
		return byHTTP
	}
	var results []ProviderResult
	for r, err := range h.finder.Find(ctx, mh) {
		if err != nil || len(results) == maxLineAnswer/64 {
			return byHTTP
		}
		results = append(results, r)
	}
	b = binary.AppendUvarint(lineAnswer(make([]byte, 0, 256), id, kindResults), uint64(len(results)))
	for i := range results {
		if b = appendBinary(b, &results[i]); len(b) > maxLineAnswer {
			return byHTTP
		}
	}
	binary.BigEndian.PutUint32(b[4:], uint32(len(b)-answerHeader))
	h.metrics.results.Add(float64(len(results)))
	if len(results) == 0 {
		h.metrics.missed.Inc()
	}
	return b
}

// lineAnswer is the beginning of an answer, of length 0.
func lineAnswer(b []byte, id uint32, kind byte) []byte {
	b = binary.BigEndian.AppendUint32(b, id)
	return append(b, 0, 0, 0, 0, kind)
}

// write adds an answer to what is written, and writes if nobody does.
func (l *servedLine) write(b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken {
		return
	}
	l.out = append(l.out, b...)
	if l.writing {
		if len(l.out) > maxLineBacklog {
			l.broken = true // it asks and does not read
			_ = l.conn.Close()
		}
		return
	}
	l.writing = true
	for len(l.out) > 0 && !l.broken {
		now := l.out
		l.out, l.spare = l.spare[:0], nil
		l.mu.Unlock()
		_ = l.conn.SetWriteDeadline(time.Now().Add(lineWriteLimit))
		_, err := l.conn.Write(now)
		l.mu.Lock()
		l.spare = now
		if err != nil {
			l.broken = true
			_ = l.conn.Close() // the reader ends too
		}
	}
	l.writing = false
}
