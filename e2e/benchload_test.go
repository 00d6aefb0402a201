package e2e

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/api/find"
)

// maxAnswer bounds the body of an answer that a load generator reads.
const maxAnswer = 64 << 10

// stock is what one provider has.
type stock struct {
	provider peer.ID
	mhs      []multihash.Multihash
}

// load is what a load generator asks one server for: by as many keep-alive
// connections as it has, the next question as soon as the last one is answered.
type load struct {
	addr   string // host:port
	conns  int
	hits   float64 // share of questions about what is held, 0 to 1
	stocks []stock // what is held, asked for in turn
	miss   string  // path of questions about what nobody has; "" is that of hits
	seed   string  // another one asks for other keys
}

// loadFigures are those of a load.
type loadFigures struct {
	took      []time.Duration // of each answer, sorted
	undecided int             // answered 503, or in part: allowed, but to be told
	elapsed   time.Duration
}

func (f loadFigures) at(share float64) time.Duration {
	return f.took[int(share*float64(len(f.took)-1))]
}

// run asks for a while. An answer that is wrong is an error.
func (l load) run(during time.Duration) (loadFigures, error) {
	var mu sync.Mutex
	var all loadFigures
	var failed error
	var wg sync.WaitGroup
	start := time.Now()
	for n := range l.conns {
		wg.Go(func() {
			f, err := l.ask(n, start, during)
			mu.Lock()
			defer mu.Unlock()
			all.took, all.undecided = append(all.took, f.took...), all.undecided+f.undecided
			failed = errors.Join(failed, err)
		})
	}
	wg.Wait()
	all.elapsed = time.Since(start)
	slices.Sort(all.took)
	if failed == nil && len(all.took) == 0 {
		failed = errors.New("not one answer")
	}
	return all, failed
}

// ask is connection number n.
func (l load) ask(n int, start time.Time, during time.Duration) (f loadFigures, err error) {
	c, err := dialLoad(l.addr)
	if err != nil {
		return f, err
	}
	defer c.conn.Close()
	rnd := rand.NewChaCha8(sha256.Sum256(fmt.Appendf(nil, "nobody has this %s %d", l.seed, n)))
	wants := make([][]byte, len(l.stocks))
	for i, s := range l.stocks {
		wants[i] = []byte(`"ID":"` + s.provider.String() + `"`)
	}
	f.took = make([]time.Duration, 0, 1<<16)
	nobodys := multihash.Multihash(make([]byte, 2+sha256.Size))
	nobodys[0], nobodys[1] = multihash.SHA2_256, sha256.Size
	hits, due := n, l.hits*float64(n)/float64(l.conns) // connections do not ask in step
	for time.Since(start) < during {
		mh, path, want := nobodys, l.miss, []byte(nil)
		if due += l.hits; due >= 1 {
			due--
			hits++
			s := hits % len(l.stocks)
			mhs := l.stocks[s].mhs
			mh, path, want = mhs[rnd.Uint64()%uint64(len(mhs))], "", wants[s]
		} else {
			for at := 2; at < len(nobodys); at += 8 {
				binary.LittleEndian.PutUint64(nobodys[at:], rnd.Uint64())
			}
		}
		began := time.Now()
		decided, err := c.find(path, mh, want)
		if err != nil {
			return f, fmt.Errorf("%s: %w", raw(mh), err)
		}
		f.took = append(f.took, time.Since(began))
		if !decided {
			f.undecided++
		}
	}
	return f, nil
}

// loadConn is a keep-alive connection of a load generator. It costs much less
// than a client of net/http, with which the machine would be busy.
type loadConn struct {
	conn net.Conn
	in   *bufio.Reader
	out  []byte
	head int // length of what is the same in all requests, before the path
	tail []byte
	body []byte
}

func dialLoad(addr string) (*loadConn, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &loadConn{
		conn: conn, in: bufio.NewReader(conn), out: []byte("GET "), head: len("GET "), body: make([]byte, maxAnswer),
		tail: []byte(" HTTP/1.1\r\nHost: " + addr + "\r\nAccept: " + asJSON + "\r\n\r\n"),
	}, nil
}

// find asks for a multihash, as a CID, and checks the answer: with want, it is
// 200 and has these bytes, without, it is 404. One that says itself that it is
// not whole is not decided.
func (c *loadConn) find(path string, mh multihash.Multihash, want []byte) (decided bool, err error) {
	if path == "" {
		path = "/cid/"
	}
	c.out = append(c.out[:c.head], path...)
	c.out = append(appendCID(c.out, mh), c.tail...)
	if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return false, err
	}
	if _, err := c.conn.Write(c.out); err != nil {
		return false, err
	}
	status, partial, body, err := c.read()
	switch {
	case err != nil:
		return false, err
	case status == 503 || partial && status == 200:
		return false, nil
	case want == nil && status == 404 && !partial, want != nil && status == 200 && bytes.Contains(body, want):
		return true, nil
	default:
		return false, fmt.Errorf("answer %d %s, want %s", status, body, want)
	}
}

// appendCID appends the CIDv1 of raw bytes with this multihash, in base 32.
func appendCID(dst []byte, mh multihash.Multihash) []byte {
	var b [64]byte
	whole := append(append(b[:0], 1, cid.Raw), mh...)
	return loadBase32.AppendEncode(append(dst, 'b'), whole)
}

var loadBase32 = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

var (
	lengthName  = []byte("Content-Length")
	partialName = []byte(find.HeaderPartial)
)

// read reads an answer. The body stands until the next one.
func (c *loadConn) read() (status int, partial bool, body []byte, err error) {
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return 0, false, nil, err
	}
	if len(line) < len("HTTP/1.1 200") {
		return 0, false, nil, fmt.Errorf("status line %q", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, false, nil, fmt.Errorf("status line %q", line)
	}
	length := -1
	for {
		if line, err = c.in.ReadSlice('\n'); err != nil {
			return 0, false, nil, err
		}
		if line = bytes.TrimRight(line, "\r\n"); len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case bytes.EqualFold(name, lengthName):
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return 0, false, nil, err
			}
		case bytes.EqualFold(name, partialName):
			partial = true
		}
	}
	if length < 0 || length > len(c.body) {
		return 0, false, nil, fmt.Errorf("status %d with a body of length %d", status, length)
	}
	_, err = io.ReadFull(c.in, c.body[:length])
	return status, partial, c.body[:length], err
}
