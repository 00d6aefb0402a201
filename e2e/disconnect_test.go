package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/multiformats/go-multihash"
	"golang.org/x/sync/errgroup"
)

const (
	popularAds     = 2000
	popularPadding = 700 // bytes of metadata, so that a stream is longer than what kernels buffer
	leavers        = 50  // clients at once
	// What may be left over, besides idle connections between frontend and indexers:
	// a connection that is being closed, a poll that is under way.
	spareGoroutines = 20
	// A frontend may have more memory after many clients that left than after some
	// that stayed, garbage not collected yet; an indexer has what it was given.
	grownAtMost = 64 << 20
	givenMemory = (128 + 128 + 128) << 20
)

// popular is a chain with a multihash in so many records, each with other metadata.
func popular(t testing.TB, n, padding int) (*chain, multihash.Multihash) {
	t.Helper()
	c := newChain(t, "popular")
	mh := multihashes("popular", 1)
	links := c.entries(mh, 1)
	for i := range n {
		ad := c.ad(fmt.Sprintf("popular %d", i), links[0])
		ad.Metadata = append(append([]byte{}, bitswap...), fmt.Sprintf("%0*d", padding, i)...)
		c.push(ad)
	}
	return c, mh[0]
}

// TestDisconnectsFreeEverything: clients that leave before an answer, within a
// header, in the middle of a stream or after it leave nothing behind at a frontend
// and the indexers behind it: no goroutine, no connection, no memory. A thousand
// of them; a hundred thousand in the long form.
func TestDisconnectsFreeEverything(t *testing.T) {
	t.Parallel()
	clients := 1000
	if os.Getenv("SIGNPOST_SOAK") == "1" {
		clients = 100_000
	}
	dir := workDir(t)
	secret := filepath.Join(dir, "secret")
	flags := []string{"--index-secret", secret, "--listen-metrics", anyPort}
	knows, other := startIndexer(t, dir, "knows", flags...), startIndexer(t, dir, "other", flags...)
	c, mh := popular(t, popularAds, popularPadding)
	began := time.Now()
	c.announce(knows.Ingest)
	untilDone(t, knows.Ingest, c)
	few := newChain(t, "few")
	mhs := multihashes("few", 1000)
	few.add("few", mhs)
	few.announce(other.Ingest)
	untilDone(t, other.Ingest, few)
	fe := spawn(t, dir, "frontend", append([]string{"frontend", "--listen", anyPort, "--pool", writePool(t, dir, knows, other)}, flags...)...)
	at := fe.ready()
	whole := func() error {
		got, err := findNDJSON(at.HTTP, raw(mh))
		if err == nil && len(got) != popularAds {
			err = fmt.Errorf("%d records of %d", len(got), popularAds)
		}
		return err
	}
	eventually(t, "all records", whole)
	t.Logf("%d records were indexed in %v", popularAds, time.Since(began).Round(time.Millisecond))
	watched := []*footprint{{name: "frontend", p: fe, metrics: at.Metrics}, {name: "indexer that knows", p: knows.process, metrics: knows.Metrics},
		{name: "other indexer", p: other.process, metrics: other.Metrics}}
	l := leaving{addr: hostport(at.HTTP), popular: mh, few: mhs, often: 10, whole: whole, refused: new(atomic.Bool), begun: new(atomic.Int64)}
	if clients > 1000 {
		l.often = 50
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)

	l.waves(t, seed, min(clients, 200), true)
	eventually(t, "all records after clients that stayed", whole)
	for _, f := range watched {
		f.before = f.settled(t, nil)
	}
	l.begun.Store(0)
	began = time.Now()
	l.waves(t, seed+1, clients, false)
	t.Logf("%d clients, of whom %d left a long answer that had begun, in %v", clients, l.begun.Load(), time.Since(began).Round(time.Millisecond))
	for _, f := range watched {
		after := f.settled(t, &f.before)
		t.Logf("%s: before %v; after %v", f.name, f.before, after)
		if most := f.memory(); after.memory > most {
			t.Errorf("%s has %d MiB, want %d at most", f.name, after.memory>>20, most>>20)
		}
	}
	if n := l.begun.Load(); n < int64(clients/l.often)/8 {
		t.Errorf("%d clients left a long answer that had begun: this test tests too little", n)
	}
	eventually(t, "all records afterwards", whole)
}

// use is what a process has.
type use struct {
	goroutines, files float64
	memory            int64 // bytes, resident
}

func (u use) String() string {
	return fmt.Sprintf("%v goroutines, %v files, %d MiB", u.goroutines, u.files, u.memory>>20)
}

// footprint watches a process.
type footprint struct {
	name    string
	p       *process
	metrics string
	before  use
}

// memory is how much it may have.
func (f *footprint) memory() int64 {
	if f.name == "frontend" {
		return f.before.memory + grownAtMost
	}
	return givenMemory
}

func (f *footprint) now(t *testing.T) use {
	t.Helper()
	page := mustGet(t, f.metrics+"/metrics", "").body
	return use{metric(t, page, "go_goroutines "), metric(t, page, "process_open_fds "), procNumber(t, f.p, "status", "VmRSS:") << 10}
}

// settled waits until the process has no more than before, but for idle connections
// to its indexers or from its frontend, of which there are as many as clients at once
// at most, with two goroutines each.
func (f *footprint) settled(t *testing.T, before *use) (now use) {
	t.Helper()
	client.CloseIdleConnections()
	last := use{}
	eventually(t, f.name+" has let go of everything", func() error {
		last, now = now, f.now(t)
		if before == nil {
			if last.goroutines != now.goroutines || last.files != now.files {
				return errors.New("not at rest")
			}
			return nil
		}
		idle := max(0, now.files-before.files)
		if idle > leavers || now.goroutines > before.goroutines+2*idle+spareGoroutines {
			return fmt.Errorf("before %v, now %v", *before, now)
		}
		return nil
	})
	return now
}

// leaving makes clients that do not stay.
type leaving struct {
	addr    string
	popular multihash.Multihash
	few     []multihash.Multihash
	often   int           // one of so many asks for the popular one, which costs as thousands of others
	whole   func() error  // asks for the popular one
	refused *atomic.Bool  // somebody was not answered about it
	begun   *atomic.Int64 // long answers that were left after their beginning
}

// waves has n clients ask, so many at once; if they stay, to the end of the answer.
// Some long answers at once may make an indexer too slow for a frontend, which then
// leaves it alone for a second: the next wave waits for that.
func (l leaving) waves(t *testing.T, seed uint64, n int, stay bool) {
	t.Helper()
	for at := 0; at < n; at += leavers {
		g := new(errgroup.Group)
		for i := at; i < min(at+leavers, n); i++ {
			g.Go(func() error {
				if err := l.ask(rand.New(rand.NewPCG(seed, uint64(i))), stay); err != nil {
					return fmt.Errorf("client %d: %w", i, err)
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		if l.refused.Swap(false) {
			eventually(t, "all records after so many clients at once", l.whole)
		}
	}
}

// request is a random question.
func (l leaving) request(random *rand.Rand) string {
	mh := l.popular
	if random.IntN(l.often) > 0 {
		mh = l.few[random.IntN(len(l.few))]
	}
	path, accept := "/multihash/"+mh.B58String(), asNDJSON
	switch random.IntN(8) {
	case 0:
		accept = asJSON
	case 1:
		path = "/multihash/" + multihashes(fmt.Sprint("unknown ", random.Uint64()), 1)[0].B58String()
	case 2, 3:
		path = "/routing/v1/providers/" + raw(mh).String()
	case 4:
		body := `{"Cids":["` + raw(mh).String() + `","` + raw(l.few[0]).String() + `"]}`
		return fmt.Sprintf("POST /cid HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	}
	return "GET " + path + " HTTP/1.1\r\nHost: x\r\nAccept: " + accept + "\r\n\r\n"
}

// ask is one client. What it is answered is no matter, unless it stays; that it can
// connect is.
func (l leaving) ask(random *rand.Rand, stay bool) error {
	conn, err := net.DialTimeout("tcp", l.addr, patience)
	if err != nil {
		return err
	}
	defer conn.Close()
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return errors.New("no TCP")
	}
	if err := errors.Join(tcp.SetDeadline(time.Now().Add(patience)), tcp.SetReadBuffer(64<<10)); err != nil {
		return err
	}
	if random.IntN(2) == 0 && !stay {
		_ = tcp.SetLinger(0) // leaves with a reset
	}
	question := l.request(random)
	how := random.IntN(6)
	if how == 5 { // the answer may be shorter than what is read of it
		question = strings.Replace(question, "\r\n", "\r\nConnection: close\r\n", 1)
	}
	if how == 0 && !stay { // in the middle of the header, or of the body
		_, err := io.WriteString(conn, question[:random.IntN(len(question))])
		return err
	}
	if _, err := io.WriteString(conn, question); err != nil {
		return err
	}
	switch {
	case stay || how == 1: // after the answer
		return readAnswer(conn)
	case how == 2: // before it
		return nil
	case how == 3: // in the middle of its header
		return l.read(conn, question, 1+random.Int64N(100))
	case how == 4: // it asks again at once, and then leaves
		if err := l.read(conn, question, 100); err != nil {
			return err
		}
		_, _ = io.WriteString(conn, l.request(random))
		return nil
	default: // in the middle of the answer, if it is that long
		err := l.read(conn, question, 1<<random.IntN(21))
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return err
	}
}

// read reads n bytes of the answer to a question.
func (l leaving) read(conn net.Conn, question string, n int64) error {
	const found = "HTTP/1.1 200"
	begin := make([]byte, min(n, int64(len(found))))
	if _, err := io.ReadFull(conn, begin); err != nil {
		return err
	}
	if long := strings.Contains(question, l.popular.B58String()) || strings.Contains(question, raw(l.popular).String()); long && len(begin) == len(found) {
		if string(begin) == found {
			l.begun.Add(1)
		} else {
			l.refused.Store(true)
		}
	}
	_, err := io.CopyN(io.Discard, conn, n-int64(len(begin)))
	return err
}

// readAnswer reads an answer to its end. So many long streams at once may make an
// indexer too slow for the frontend to wait for it, which is a 503.
func readAnswer(conn net.Conn) error {
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	switch resp.StatusCode {
	case http.StatusOK, http.StatusNotFound, http.StatusServiceUnavailable:
		return err
	default:
		return errors.New(resp.Status)
	}
}
