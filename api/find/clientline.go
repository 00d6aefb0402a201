package find

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/api"
)

const (
	// lineRetry is how long a server that takes no line is not asked for one.
	lineRetry  = 10 * time.Second
	lineDial   = 5 * time.Second
	lineUnused = time.Minute
	// lineSilent is how long a line on which somebody waits in vain may be silent.
	lineSilent = 2 * time.Second
)

// errByHTTP: a find has to be asked by HTTP.
var errByHTTP = errors.New("ask by HTTP")

// UseLine has finds asked on one connection, if the server takes one that shows
// this token. Long answers and errors come by HTTP as before. To be called before
// the first find.
func (c *Client) UseLine(token string) { c.line = &lineKeeper{c: c, token: token} }

// lineKeeper holds the line to a server.
type lineKeeper struct {
	c     *Client
	token string

	mu      sync.Mutex
	now     *line
	dialing bool
	after   time.Time // when to try again
	closed  bool
}

// get is the line, nil if there is none now. It never waits.
func (k *lineKeeper) get() *line {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.now != nil && !k.now.ended() {
		return k.now
	}
	if k.dialing || k.closed || time.Now().Before(k.after) {
		return nil
	}
	k.dialing = true
	go k.dial()
	return nil
}

func (k *lineKeeper) dial() {
	l, err := k.open()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dialing = false
	if err != nil {
		k.after = time.Now().Add(lineRetry)
		return
	}
	if k.closed {
		l.end(errByHTTP)
		return
	}
	k.now = l
}

func (k *lineKeeper) open() (*line, error) {
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, k.c.base.JoinPath(linePath).String(), nil)
	if err != nil {
		cancel()
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+k.token)
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", lineProtocol)
	late := time.AfterFunc(lineDial, cancel)
	// The client's limit on a whole exchange is not for this one.
	resp, err := (&http.Client{Transport: k.c.http.Transport}).Do(req)
	if err != nil {
		cancel()
		return nil, err
	}
	conn, ok := resp.Body.(io.ReadWriteCloser)
	if !late.Stop() || resp.StatusCode != http.StatusSwitchingProtocols || !ok {
		err := api.ReadStatusError(resp)
		_ = resp.Body.Close()
		cancel()
		return nil, err
	}
	l := &line{conn: conn, cancel: cancel, waiting: make(map[uint32]chan []byte), done: make(chan struct{}), heard: time.Now(), used: time.Now()}
	l.idle = time.AfterFunc(lineUnused, l.endIfUnused)
	go l.read()
	return l, nil
}

// close ends the line, for good.
func (k *lineKeeper) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	if k.now != nil {
		k.now.end(errByHTTP)
		<-k.now.done
	}
}

// line is a line at the frontend.
type line struct {
	conn   io.ReadWriteCloser
	cancel context.CancelFunc
	idle   *time.Timer
	done   chan struct{} // closed when nothing is read any more

	mu      sync.Mutex
	next    uint32
	waiting map[uint32]chan []byte // each with room for its answer
	out     []byte
	spare   []byte
	writing bool
	err     error
	heard   time.Time // the last answer
	used    time.Time // the last find
}

func (l *line) ended() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err != nil
}

// end closes the line; whoever waits asks by HTTP.
func (l *line) end(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return
	}
	l.err = err
	l.idle.Stop()
	l.cancel()
	_ = l.conn.Close()
	for id, ch := range l.waiting {
		close(ch)
		delete(l.waiting, id)
	}
}

func (l *line) endIfUnused() {
	l.mu.Lock()
	unused := time.Since(l.used) >= lineUnused && len(l.waiting) == 0
	if !unused && l.err == nil {
		l.idle.Reset(lineUnused)
	}
	l.mu.Unlock()
	if unused {
		l.end(errByHTTP)
	}
}

// find asks, and waits for the answer. errByHTTP if it is to be had otherwise.
func (l *line) find(ctx context.Context, mh multihash.Multihash) ([]ProviderResult, error) {
	if len(mh) > maxLineKey {
		return nil, errByHTTP
	}
	came := make(chan []byte, 1)
	id, ok := l.ask(mh, came)
	if !ok {
		return nil, errByHTTP
	}
	select {
	case b, ok := <-came:
		if !ok || b[0] != kindResults {
			return nil, errByHTTP
		}
		return readBinary(b[1:])
	case <-ctx.Done():
		l.giveUp(id)
		return nil, context.Cause(ctx)
	}
}

// giveUp waits no longer for an answer. A line that is silent is ended: the next
// one is to be tried on another connection.
func (l *line) giveUp(id uint32) {
	l.mu.Lock()
	delete(l.waiting, id)
	silent := time.Since(l.heard) > lineSilent
	l.mu.Unlock()
	if silent {
		l.end(errByHTTP)
	}
}

// ask sends a find, together with those of others that are sent meanwhile.
func (l *line) ask(mh multihash.Multihash, came chan []byte) (id uint32, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return 0, false
	}
	for l.next++; l.waiting[l.next] != nil; l.next++ {
	}
	id = l.next
	l.used = time.Now()
	if len(l.waiting) == 0 {
		l.heard = l.used // silence is counted from here
	}
	l.waiting[id] = came
	l.out = binary.BigEndian.AppendUint32(l.out, id)
	l.out = binary.BigEndian.AppendUint16(l.out, uint16(len(mh)))
	l.out = append(l.out, mh...)
	if l.writing {
		return id, true
	}
	l.writing = true
	for len(l.out) > 0 && l.err == nil {
		now := l.out
		l.out, l.spare = l.spare[:0], nil
		l.mu.Unlock()
		stuck := time.AfterFunc(lineWriteLimit, func() { l.end(errByHTTP) })
		_, err := l.conn.Write(now)
		stuck.Stop()
		if err != nil {
			l.end(err)
		}
		l.mu.Lock()
		l.spare = now
	}
	l.writing = false
	return id, true
}

// read hands answers to who waits for them.
func (l *line) read() {
	defer close(l.done)
	r := bufio.NewReaderSize(l.conn, 16<<10)
	var head [answerHeader - 1]byte
	for {
		_, err := io.ReadFull(r, head[:])
		n := binary.BigEndian.Uint32(head[4:])
		if err == nil && n > maxLineAnswer {
			err = fmt.Errorf("%w: an answer of %d bytes", ErrMalformed, n)
		}
		var b []byte
		if err == nil {
			b = make([]byte, 1+n)
			_, err = io.ReadFull(r, b)
		}
		if err != nil {
			l.end(err)
			return
		}
		id := binary.BigEndian.Uint32(head[:])
		l.mu.Lock()
		came := l.waiting[id]
		delete(l.waiting, id)
		l.heard = time.Now()
		l.mu.Unlock()
		if came != nil {
			came <- b
		}
	}
}
