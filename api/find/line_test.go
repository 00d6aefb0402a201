package find

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/multiformats/go-multihash"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/signpost-index/signpost/api"
)

// lineTo is a client that asks f on a line, which stands already.
func lineTo(t *testing.T, f Finder, reg prometheus.Registerer) *Client {
	t.Helper()
	c := answers(t, NewHandler(f, Config{LineToken: "secret", Registerer: reg}).ServeHTTP)
	c.UseLine("secret")
	untilLine(t, c)
	return c
}

func untilLine(t *testing.T, c *Client) *line {
	t.Helper()
	for limit := time.Now().Add(10 * time.Second); time.Now().Before(limit); {
		if l := c.line.get(); l != nil {
			return l
		}
	}
	t.Fatal("no line")
	return nil
}

// counts counts finds that came by HTTP and on lines.
func counts(t *testing.T, reg *prometheus.Registry) (byHTTP, onLine int) {
	t.Helper()
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		if m.GetName() != "signpost_find_request_seconds" {
			continue
		}
		for _, s := range m.GetMetric() {
			switch n := int(s.GetHistogram().GetSampleCount()); s.GetLabel()[0].GetValue() {
			case "multihash":
				byHTTP = n
			case "line":
				onLine = n
			}
		}
	}
	return byHTTP, onLine
}

// TestALineAnswersAsHTTPDoes: results of all kinds, none, errors, denials, and
// answers too long for a line.
func TestALineAnswersAsHTTPDoes(t *testing.T) {
	var many []ProviderResult
	for n := range 2000 {
		many = append(many, result(fmt.Sprint("context ", n), bitswap, provider))
	}
	for name, c := range map[string]struct {
		f      Finder
		byHTTP int
	}{
		"results": {&static{results: extendedResults}, 0},
		"none":    {&static{}, 0},
		"many":    {&static{results: many}, 1},
		"denied":  {&static{err: &DeniedError{Kind: "multihash", Reason: "court order"}}, 1},
		"failing": {&static{err: errors.New("disk")}, 1},
		"panics":  {&panics{}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			reg := prometheus.NewRegistry()
			onLine := lineTo(t, c.f, reg)
			byHTTP := answers(t, NewHandler(c.f, Config{}).ServeHTTP)
			got, gotErr := collectFind(onLine.Find(t.Context(), mhA))
			want, wantErr := collectFind(byHTTP.Find(t.Context(), mhA))
			if diff := cmp.Diff(want, got, compare); diff != "" {
				t.Errorf("(-http +line)\n%s", diff)
			}
			text := func(err error) string { // but for the address
				if err == nil {
					return ""
				}
				_, s, _ := strings.Cut(err.Error(), "/multihash/")
				return s
			}
			if text(gotErr) != text(wantErr) || errors.Is(gotErr, ErrUnavailable) != errors.Is(wantErr, ErrUnavailable) {
				t.Errorf("%v on a line, %v by HTTP", gotErr, wantErr)
			}
			if h, l := counts(t, reg); h != c.byHTTP || l != 1 {
				t.Errorf("%d finds by HTTP, %d on the line", h, l)
			}
			if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
				t.Error(problems, err)
			}
		})
	}
}

type panics struct{ static }

func (*panics) Find(context.Context, multihash.Multihash) iter.Seq2[ProviderResult, error] {
	panic("a bug")
}

func collectFind(seq iter.Seq2[ProviderResult, error]) (results []ProviderResult, err error) {
	for r, e := range seq {
		if e != nil {
			return results, e
		}
		results = append(results, r)
	}
	return results, nil
}

// TestALineGivesEachFindItsOwnAnswer: of thousands at once, some of which give up.
func TestALineGivesEachFindItsOwnAnswer(t *testing.T) {
	c := lineTo(t, &echo{}, nil)
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Go(func() {
			for n := range 300 {
				mh, _ := multihash.Sum(fmt.Append(nil, g, n), multihash.SHA2_256, -1)
				ctx, cancel := context.WithCancel(t.Context())
				if n%7 == 0 {
					cancel()
				}
				results, err := collectFind(c.Find(ctx, mh))
				if n%7 != 0 && (err != nil || len(results) != 1 || string(results[0].ContextID) != string(mh)) {
					t.Errorf("%x: %v, %v", mh, results, err)
				}
				cancel()
			}
		})
	}
	wg.Wait()
}

// echo knows every multihash, under itself.
type echo struct{ static }

func (*echo) Find(_ context.Context, mh multihash.Multihash) iter.Seq2[ProviderResult, error] {
	return func(yield func(ProviderResult, error) bool) {
		yield(ProviderResult{ContextID: mh, Provider: extendedResults[0].Provider}, nil)
	}
}

// TestALineThatBreaksCostsNobodyAnAnswer: whoever waits on it asks by HTTP, and
// later there is another line.
func TestALineThatBreaksCostsNobodyAnAnswer(t *testing.T) {
	var lines atomic.Int32
	inner := NewHandler(&static{results: extendedResults[:1]}, Config{LineToken: "secret"})
	broken := func(conn io.ReadWriteCloser, how int32) {
		head := make([]byte, findHeader)
		_, _ = io.ReadFull(conn, head)
		switch how {
		case 1: // closed
		case 2: // an answer far too long
			_, _ = conn.Write(binary.BigEndian.AppendUint32(head[:4:4], 1<<31))
		case 3: // cut off
			_, _ = conn.Write(append(head[:4:4], 0, 0, 0, 9, kindResults, 1))
		case 4: // malformed
			_, _ = conn.Write(append(head[:4:4], 0, 0, 0, 2, kindResults, 200, 200))
			_, _ = io.Copy(io.Discard, conn)
		case 5: // to nobody
			_, _ = conn.Write([]byte{9, 9, 9, 9, 0, 0, 0, 1, kindResults, 0})
		}
	}
	c := answers(t, func(w http.ResponseWriter, r *http.Request) {
		if n := lines.Load() + 1; r.URL.Path == linePath && n < 6 {
			lines.Add(1)
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+lineProtocol+"\r\n\r\n")
			broken(conn, n)
			return
		}
		inner.ServeHTTP(w, r)
	})
	c.UseLine("secret")
	for n := range 8 {
		l := untilLine(t, c)
		results, err := collectFind(c.Find(t.Context(), mhA))
		if err != nil || len(results) != 1 {
			t.Fatalf("line %d: %d results, %v", n, len(results), err)
		}
		if n < 5 {
			l.end(errByHTTP)
		}
	}
	if lines.Load() != 5 {
		t.Errorf("%d lines broke", lines.Load())
	}
}

// TestALineThatIsSilentIsGivenUp: a find ends with its context, and the line with it.
func TestALineThatIsSilentIsGivenUp(t *testing.T) {
	s := &silent{until: make(chan struct{})}
	defer close(s.until)
	c := lineTo(t, s, nil)
	l := untilLine(t, c)
	ctx, cancel := context.WithTimeout(t.Context(), lineSilent+100*time.Millisecond)
	defer cancel()
	if _, err := collectFind(c.Find(ctx, mhA)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if !l.ended() {
		t.Error("a silent line goes on")
	}
}

type silent struct {
	static
	until chan struct{}
}

func (s *silent) Find(_ context.Context, _ multihash.Multihash) iter.Seq2[ProviderResult, error] {
	return func(func(ProviderResult, error) bool) { <-s.until }
}

// TestLinesAreForThoseWithTheToken: and a server without lines is asked by HTTP.
func TestLinesAreForThoseWithTheToken(t *testing.T) {
	for token, server := range map[string]http.Handler{
		"wrong":  NewHandler(&static{results: extendedResults}, Config{LineToken: "secret"}),
		"secret": NewHandler(&static{results: extendedResults}, Config{}),
	} {
		asked := make(chan int, 10)
		c := answers(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != linePath {
				server.ServeHTTP(w, r)
				return
			}
			rec := httptest.NewRecorder()
			server.ServeHTTP(rec, r)
			w.WriteHeader(rec.Code)
			asked <- rec.Code
		})
		c.UseLine(token)
		for range 3 {
			if results, err := collectFind(c.Find(t.Context(), mhA)); err != nil || len(results) != len(extendedResults) {
				t.Fatalf("%d results, %v", len(results), err)
			}
		}
		if code := <-asked; code != http.StatusUnauthorized && code != http.StatusNotFound {
			t.Errorf("token %s: %d", token, code)
		}
	}
}

// TestLinesEndWithTheServer: what was asked is answered, and no handler is left.
func TestLinesEndWithTheServer(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	entered, leave := make(chan struct{}), make(chan struct{})
	f := &gated{entered: entered, leave: leave}
	go func() { served <- api.Serve(ctx, ln, NewHandler(f, Config{LineToken: "secret"}), nil) }()
	c, err := NewClient("http://"+ln.Addr().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.UseLine("secret")
	l := untilLine(t, c)
	answer := make(chan int, 1)
	go func() {
		results, err := l.find(t.Context(), mhA)
		if err != nil {
			t.Error(err)
		}
		answer <- len(results)
	}()
	<-entered
	cancel()
	close(leave)
	if n := <-answer; n != 1 {
		t.Errorf("%d results of a find under way", n)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	<-l.done
}

// TestALineThatIsNotReadIsEnded: before what waits for it takes much memory.
func TestALineThatIsNotReadIsEnded(t *testing.T) {
	var many []ProviderResult
	for n := range 300 {
		many = append(many, result(fmt.Sprint("context ", n), bitswap, provider))
	}
	peer, conn := net.Pipe() // nothing is buffered
	defer peer.Close()
	l := &servedLine{h: &handler{finder: &static{results: many}, log: slog.New(slog.DiscardHandler), metrics: newMetrics(nil)}, conn: conn, slots: make(chan struct{}, maxOnLine)}
	answer := l.h.answerLine(t.Context(), 1, mhA)
	first := make(chan struct{})
	go func() { l.write(answer); close(first) }()
	for n := 0; ; n++ {
		l.mu.Lock()
		broken, backlog, writing := l.broken, len(l.out), l.writing
		l.mu.Unlock()
		if backlog > maxLineBacklog+len(answer) || n > 1_000_000 {
			t.Fatalf("%d bytes wait", backlog)
		}
		if broken {
			break
		}
		if writing {
			l.write(answer)
		}
	}
	<-first
}

type gated struct {
	static
	entered, leave chan struct{}
}

func (g *gated) Find(context.Context, multihash.Multihash) iter.Seq2[ProviderResult, error] {
	return func(yield func(ProviderResult, error) bool) {
		close(g.entered)
		<-g.leave
		yield(extendedResults[0], nil)
	}
}

// FuzzReadBinary: whatever bytes come, reading them ends, and what is read is
// written as it was.
func FuzzReadBinary(f *testing.F) {
	good := binary.AppendUvarint(nil, uint64(len(extendedResults)))
	for i := range extendedResults {
		good = appendBinary(good, &extendedResults[i])
	}
	f.Add(good)
	f.Add([]byte{0})
	f.Add([]byte{255, 255, 255, 255, 255, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		results, err := readBinary(slices.Clone(b))
		if err != nil {
			return
		}
		out := binary.AppendUvarint(nil, uint64(len(results)))
		for i := range results {
			out = appendBinary(out, &results[i])
		}
		again, err := readBinary(out)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(results, again, compare); diff != "" {
			t.Fatal(diff)
		}
	})
}
