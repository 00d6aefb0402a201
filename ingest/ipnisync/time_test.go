package ipnisync

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/signpost-index/signpost/ingest/schema"
)

// pipeListener is a server's end of a network without time and sockets of its
// own, so that it can stand in a synctest bubble.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(8, 8, 8, 8), Port: 80} }

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case l.conns <- there:
		return here, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// pipeClient is a client all of whose connections go to h, for use in a bubble.
// stop has to be called before its end.
func pipeClient(cfg ClientConfig, h http.HandlerFunc) (c *Client, stop func()) {
	l := &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
	srv := &http.Server{Handler: h, ErrorLog: discardLog}
	var served sync.WaitGroup
	served.Go(func() { srv.Serve(l) })
	c = NewClient(cfg)
	c.http.Transport.(*http.Transport).DialContext = l.dial
	return c, func() {
		c.Close()
		srv.Close()
		served.Wait()
		synctest.Wait()
	}
}

const pipeURL = "http://pub.example.com"

// send writes so many zeros in pieces, with a pause after each, until the
// client is gone.
func send(w http.ResponseWriter, r *http.Request, total, piece int, pause time.Duration) {
	for total > 0 {
		n := min(total, piece)
		if _, err := w.Write(make([]byte, n)); err != nil {
			return
		}
		w.(http.Flusher).Flush()
		if total -= n; total > 0 && sleep(r.Context(), pause) != nil {
			return
		}
	}
}

func fetchZeros(t *testing.T, p *Publisher) (n int, took time.Duration, err error) {
	t.Helper()
	start := time.Now()
	e := p.current()
	e.form.Store(formLong) // zeros are no block; what they are is not looked at here
	b, err := p.Block(t.Context(), schema.LinkOf(schema.DagJSON, nil), "")
	return len(b), time.Since(start), err
}

func TestTricklingBodyIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, stop := pipeClient(ClientConfig{}, func(w http.ResponseWriter, r *http.Request) { send(w, r, 1<<20, 1, time.Second) })
		defer stop()
		p := atWith(t, c, newMemory(t).ID(), pipeURL)
		n, took, err := fetchZeros(t, p)
		if !errors.Is(err, ErrStalled) || took < 9*time.Second || took > 15*time.Second {
			t.Errorf("%d bytes after %v: %v", n, took, err)
		}
		if text := err.Error(); !strings.Contains(text, " bytes in the last 10s, ") || !strings.Contains(text, pipeURL) {
			t.Errorf("it says %q", text)
		}
		if s := p.Stats(); s.Stalls != 1 || s.Requests != 1 || s.Timeouts != 0 || s.InFlight != 0 || s.Bytes < 10 || s.Bytes > 11 {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestBodyThatStopsInTheMiddleIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, stop := pipeClient(ClientConfig{}, func(w http.ResponseWriter, r *http.Request) { send(w, r, 4<<20, 2<<20, time.Hour) })
		defer stop()
		_, took, err := fetchZeros(t, atWith(t, c, newMemory(t).ID(), pipeURL))
		if !errors.Is(err, ErrStalled) || took > 21*time.Second {
			t.Errorf("after %v: %v", took, err)
		}
	})
}

func TestSlowButSteadyBodyIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, stop := pipeClient(ClientConfig{}, func(w http.ResponseWriter, r *http.Request) { send(w, r, 480<<10, 2<<10, time.Second) })
		defer stop()
		n, took, err := fetchZeros(t, atWith(t, c, newMemory(t).ID(), pipeURL))
		if err != nil || n != 480<<10 || took < 3*time.Minute {
			t.Errorf("%d bytes after %v: %v", n, took, err)
		}
	})
}

func TestBodyHasFiveMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, stop := pipeClient(ClientConfig{}, func(w http.ResponseWriter, r *http.Request) { send(w, r, 8<<20, 2<<10, time.Second) })
		defer stop()
		_, took, err := fetchZeros(t, atWith(t, c, newMemory(t).ID(), pipeURL))
		if !errors.Is(err, ErrStalled) || took.Round(time.Second) != maxBodyDuration {
			t.Errorf("after %v: %v", took, err)
		}
	})
}

func TestAnswerTimeoutFollowsThePublisher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t)
		cids := chain(t, m, 1)
		h := NewHandler(m)
		var delay atomic.Int64
		c, stop := pipeClient(ClientConfig{}, func(w http.ResponseWriter, r *http.Request) {
			if sleep(r.Context(), time.Duration(delay.Load())) == nil {
				h.ServeHTTP(w, r)
			}
		})
		defer stop()
		p := atWith(t, c, m.ID(), pipeURL)
		ask := func(wait time.Duration) (time.Duration, error) {
			delay.Store(int64(wait))
			start := time.Now()
			_, err := p.Block(t.Context(), cids[0], "")
			return time.Since(start), err
		}
		if took, err := ask(time.Hour); !errors.Is(err, ErrTimeout) || took != 10*time.Second {
			t.Fatalf("unknown publisher: after %v: %v", took, err)
		}
		for range 30 {
			if took, err := ask(100 * time.Millisecond); err != nil {
				t.Fatalf("after %v: %v", took, err)
			}
		}
		if s := p.Stats(); s.RTT != 100*time.Millisecond || s.AnswerTimeout != minAnswerTimeout {
			t.Errorf("fast publisher: %+v", s)
		}
		for _, want := range []time.Duration{2, 4, 8, 16, 32, 60, 60} {
			if took, err := ask(time.Hour); !errors.Is(err, ErrTimeout) || took != want*time.Second {
				t.Errorf("after %v, want %v s: %v", took, int(want), err)
			}
		}
		// A new object of the same publisher knows it; another address does not.
		if s := atWith(t, c, m.ID(), pipeURL).Stats(); s.AnswerTimeout != maxDoubledTimeout {
			t.Errorf("second object: %+v", s)
		}
		if s := atWith(t, c, m.ID(), "http://other.example.com").Stats(); s.AnswerTimeout != unknownAnswerTimeout || s.Timeouts != 8 {
			t.Errorf("other address: %+v", s)
		}
		if _, err := ask(100 * time.Millisecond); err != nil || p.Stats().AnswerTimeout != minAnswerTimeout {
			t.Errorf("back again: %v, %+v", err, p.Stats())
		}
	})
}

func TestTimeoutsOfOneMomentDoubleOnce(t *testing.T) {
	p := &pace{}
	waited := p.timeout()
	for range 32 {
		p.timedOut(waited)
	}
	if d := p.timeout(); d != 2*unknownAnswerTimeout {
		t.Errorf("time-out %v", d)
	}
	for range 100 {
		p.answered(20 * time.Second)
	}
	if d := p.timeout(); d < 20*time.Second || d > maxAnswerTimeout {
		t.Errorf("slow publisher: time-out %v", d)
	}
}

func TestRateIsSharedByAllObjectsOfAPublisher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, stop := pipeClient(ClientConfig{RateBytes: 1 << 20}, func(w http.ResponseWriter, r *http.Request) { send(w, r, 1<<20, 1<<20, 0) })
		defer stop()
		id, start := newMemory(t).ID(), time.Now()
		var all sync.WaitGroup
		for range 4 {
			p := atWith(t, c, id, pipeURL)
			all.Go(func() {
				if n, _, err := fetchZeros(t, p); err != nil || n != 1<<20 {
					t.Errorf("%d bytes, %v", n, err)
				}
			})
		}
		all.Wait()
		// The first second's worth comes at once.
		if took := time.Since(start); took < 2900*time.Millisecond || took > 3100*time.Millisecond {
			t.Errorf("4 MiB at 1 MiB/s took %v", took)
		}
		// Another publisher has a rate of its own.
		if _, took, err := fetchZeros(t, atWith(t, c, newMemory(t).ID(), pipeURL)); err != nil || took > 100*time.Millisecond {
			t.Errorf("another publisher: %v, %v", took, err)
		}
	})
}

func TestRateHoldsForSmallBodies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, stop := pipeClient(ClientConfig{RateBytes: 64 << 10}, func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, 1<<10)) })
		defer stop()
		p, start := atWith(t, c, newMemory(t).ID(), pipeURL), time.Now()
		for range 640 {
			if n, _, err := fetchZeros(t, p); err != nil || n != 1<<10 {
				t.Fatalf("%d bytes, %v", n, err)
			}
		}
		if took := time.Since(start); took.Round(time.Second) != 9*time.Second { // and the first second's worth at once
			t.Errorf("640 KiB at 64 KiB/s took %v", took)
		}
	})
}

func TestWaitingForTheRateIsNoStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, stop := pipeClient(ClientConfig{RateBytes: 1 << 10}, func(w http.ResponseWriter, r *http.Request) { send(w, r, 512<<10, 64<<10, 0) })
		defer stop()
		n, took, err := fetchZeros(t, atWith(t, c, newMemory(t).ID(), pipeURL))
		if err != nil || n != 512<<10 || took < 7*time.Minute {
			t.Errorf("%d bytes after %v: %v", n, took, err)
		}
	})
}

func TestSlowBodyHoldsLittleOfTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(64 << 20)
		var sent, most atomic.Int64
		c, stop := pipeClient(ClientConfig{}, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "8388608") // it may well say so
			for range 150 {
				send(w, r, 16<<10, 16<<10, 0)
				sent.Add(16 << 10)
				_ = sleep(r.Context(), 5*time.Second)
				if used := b.Used(); used > max(2*sent.Load()-freeBytes, 0) {
					most.Store(used)
				}
			}
		})
		defer stop()
		p := atWith(t, c, newMemory(t).ID(), pipeURL)
		p.current().form.Store(formLong)
		if _, err := p.Fetch(t.Context(), schema.LinkOf(schema.DagJSON, nil), "", b); !errors.Is(err, ErrStalled) {
			t.Errorf("got %v", err)
		}
		if most.Load() > 0 {
			t.Errorf("%d bytes were held after %d had come", most.Load(), sent.Load())
		}
		if b.Used() != 0 {
			t.Errorf("%d bytes are still held", b.Used())
		}
	})
}

func TestWaitingForMemoryIsNoStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(0) // the lane alone
		c, stop := pipeClient(ClientConfig{}, func(w http.ResponseWriter, r *http.Request) { send(w, r, 1<<20, 1<<20, 0) })
		defer stop()
		p := atWith(t, c, newMemory(t).ID(), pipeURL)
		p.current().form.Store(formLong)
		first, err := p.Fetch(t.Context(), schema.LinkOf(schema.DagJSON, nil), "", b)
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Hour, first.Release)
		start := time.Now()
		second, err := p.Fetch(t.Context(), schema.LinkOf(schema.DagJSON, nil), "", b)
		if err != nil || len(second.Bytes) != 1<<20 || time.Since(start) < time.Hour {
			t.Errorf("%d bytes after %v: %v", len(second.Bytes), time.Since(start), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := p.Fetch(ctx, schema.LinkOf(schema.DagJSON, nil), "", b); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with a full budget: %v", err)
		}
		second.Release()
		second.Release()
		first.Release()
		if b.Used() != 0 {
			t.Errorf("%d bytes are still held", b.Used())
		}
	})
}

func TestBodiesThatWaitForEachOtherAllEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(10 << 20)
		c, stop := pipeClient(ClientConfig{}, func(w http.ResponseWriter, r *http.Request) {
			send(w, r, 5<<20, 256<<10, time.Millisecond)
		})
		defer stop()
		var all sync.WaitGroup
		var most atomic.Int64
		for range 40 {
			p := atWith(t, c, newMemory(t).ID(), pipeURL)
			p.current().form.Store(formLong)
			all.Go(func() {
				block, err := p.Fetch(t.Context(), schema.LinkOf(schema.DagJSON, nil), "", b)
				if err != nil || len(block.Bytes) != 5<<20 {
					t.Errorf("%d bytes, %v", len(block.Bytes), err)
				}
				if used := b.Used(); used > most.Load() {
					most.Store(used)
				}
				block.Release()
			})
		}
		all.Wait()
		if most.Load() > 10<<20 || b.Used() != 0 {
			t.Errorf("%d bytes held at most, %d in the end", most.Load(), b.Used())
		}
	})
}

func TestRetryAfterIsHonoured(t *testing.T) {
	m := newMemory(t)
	cids := chain(t, m, 1)
	for _, tc := range []struct {
		header   string
		requests int32
		took     time.Duration // at least
	}{{"20", 2, 20 * time.Second}, {"31", 1, 0}, {"", 2, 0}, {"soon", 2, 0}} {
		synctest.Test(t, func(t *testing.T) {
			var asked atomic.Int32
			h := NewHandler(m)
			c, stop := pipeClient(ClientConfig{}, func(w http.ResponseWriter, r *http.Request) {
				if asked.Add(1) == 1 {
					w.Header().Set("Retry-After", tc.header)
					w.WriteHeader(http.StatusServiceUnavailable)
					return
				}
				h.ServeHTTP(w, r)
			})
			defer stop()
			start := time.Now()
			b, err := atWith(t, c, m.ID(), pipeURL).Block(t.Context(), cids[0], "")
			took := time.Since(start)
			if n := asked.Load(); n != tc.requests || took < tc.took || took > tc.took+time.Second || (err == nil) != (n == 2) {
				t.Errorf("%q: %d requests in %v: %q, %v", tc.header, n, took, b, err)
			}
			var status *StatusError
			if err != nil && (!errors.As(err, &status) || status.RetryAfter != 31*time.Second) {
				t.Errorf("%q: %v", tc.header, err)
			}
		})
	}
}

func TestNoPauseOutlastsTheCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, stop := pipeClient(ClientConfig{}, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "20")
			w.WriteHeader(http.StatusTooManyRequests)
		})
		defer stop()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		start := time.Now()
		_, err := atWith(t, c, newMemory(t).ID(), pipeURL).Block(ctx, cid.NewCidV1(cid.Raw, schema.LinkOf(schema.DagJSON, nil).Hash()), "")
		if !hasStatus(err, http.StatusTooManyRequests) || time.Since(start) > time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
}

func TestBudgetIsFirstComeFirstServed(t *testing.T) {
	b := NewBudget(schema.MaxBlockBytes + 100)
	rs := make([]*reservation, 5)
	for i := range rs {
		rs[i] = &reservation{b: b}
	}
	still := func(bool) {}
	if rs[0].grow(t.Context(), 80, still) != nil || b.Used() != 80 {
		t.Fatalf("%d bytes used", b.Used())
	}
	if rs[1].grow(t.Context(), 80, still) != nil || !rs[1].lane {
		t.Fatal("the lane was not given")
	}
	second, third, fourth := rs[2].ask(50), rs[3].ask(10), rs[4].ask(10)
	if second == nil || third == nil || fourth == nil {
		t.Fatal("a small one overtook")
	}
	b.withdraw(second)
	<-third.ready
	<-fourth.ready
	rs[1].settle(10) // too much for what is left: it stays in the lane
	if !rs[1].lane || b.Used() != 100+schema.MaxBlockBytes {
		t.Errorf("%d bytes used", b.Used())
	}
	rs[0].release()
	rs[1].settle(10)
	if rs[1].lane || b.Used() != 30 {
		t.Errorf("%d bytes used", b.Used())
	}
	for _, r := range rs {
		r.release()
	}
	if b.Used() != 0 {
		t.Errorf("%d bytes used", b.Used())
	}
	Block{}.Release()
}
