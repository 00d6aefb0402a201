package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// serving runs Serve on a listener of its own and returns its address and a
// function that ends it and returns its result.
func serving(t *testing.T, h http.Handler, log *slog.Logger) (addr string, stop func() error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { result <- Serve(ctx, ln, h, log) }()
	once := sync.OnceValue(func() error {
		cancel()
		return <-result
	})
	t.Cleanup(func() { _ = once() })
	return ln.Addr().String(), once
}

func TestServeLetsRunningRequestsFinish(t *testing.T) {
	begun, release := make(chan struct{}), make(chan struct{})
	addr, stop := serving(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(begun)
		<-release
		if r.Context().Err() != nil {
			t.Error("request's context ended before the grace period")
		}
		_, _ = io.WriteString(w, "done")
	}), nil)
	got := make(chan string, 1)
	go func() {
		resp, err := http.Get("http://" + addr)
		if err != nil {
			got <- err.Error()
			return
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		got <- string(b)
	}()
	<-begun
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	// The listener closes at once, while the request is still running.
	for {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			break
		}
		conn.Close()
	}
	close(release)
	if s := <-got; s != "done" {
		t.Errorf("got %q", s)
	}
	if err := <-stopped; err != nil {
		t.Errorf("Serve: %v", err)
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestServeReturnsTheListenersError(t *testing.T) {
	broken := errors.New("broken")
	err := Serve(t.Context(), failingListener{broken}, http.NotFoundHandler(), nil)
	if !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

type failingListener struct{ err error }

func (l failingListener) Accept() (net.Conn, error) { return nil, l.err }
func (l failingListener) Close() error              { return nil }
func (l failingListener) Addr() net.Addr            { return &net.TCPAddr{} }

func TestServeLogsAPanicAndCutsItsAnswerOff(t *testing.T) {
	var out bytes.Buffer
	var mu sync.Mutex
	log := slog.New(slog.NewTextHandler(writerFunc(func(b []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return out.Write(b)
	}), nil))
	addr, stop := serving(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/abort" {
			panic(http.ErrAbortHandler)
		}
		panic("a bug")
	}), log)
	for _, path := range []string{"/bug", "/abort"} {
		if resp, err := http.Get("http://" + addr + path); err == nil {
			resp.Body.Close()
			t.Errorf("%s: got %d, want a broken connection", path, resp.StatusCode)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	text := out.String()
	if strings.Count(text, "handler panicked") != 1 || !strings.Contains(text, "path=/bug") || !strings.Contains(text, `panic="a bug"`) {
		t.Errorf("log: %s", text)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// TestServeCutsOffAtTheEndOfTheGracePeriod runs in a bubble of fake time, over
// connections in memory.
func TestServeCutsOffAtTheEndOfTheGracePeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipeListener()
		ctx, cancel := context.WithCancel(t.Context())
		result := make(chan error, 1)
		ended := make(chan struct{})
		go func() {
			result <- Serve(ctx, ln, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				<-r.Context().Done()
				close(ended)
			}), nil)
		}()
		conn := ln.dial()
		go func() { _, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: h\r\n\r\n") }()
		go func() { _, _ = io.Copy(io.Discard, conn) }()
		synctest.Wait()
		start := time.Now()
		cancel()
		if err := <-result; err != nil {
			t.Errorf("Serve: %v", err)
		}
		<-ended
		if elapsed := time.Since(start); elapsed != shutdownTimeout {
			t.Errorf("stopped after %v, want %v", elapsed, shutdownTimeout)
		}
		conn.Close()
	})
}

// TestGateAcceptsNoMoreThanItsSlots opens more connections than a gate has
// slots and counts those let in.
func TestGateAcceptsNoMoreThanItsSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipeListener()
		g := newGate(ln, 2)
		accepted := make(chan net.Conn, 3)
		go func() {
			for {
				conn, err := g.Accept()
				if err != nil {
					close(accepted)
					return
				}
				accepted <- conn
			}
		}()
		for range 3 {
			go ln.dial()
		}
		synctest.Wait()
		if len(accepted) != 2 {
			t.Fatalf("%d accepted, want 2", len(accepted))
		}
		if g.drain(time.Second) {
			t.Fatal("drained with two connections open")
		}
		g.connState(nil, http.StateActive) // changes nothing
		g.connState(nil, http.StateClosed)
		synctest.Wait()
		if len(accepted) != 3 {
			t.Fatalf("%d accepted after one closed, want 3", len(accepted))
		}
		g.Close()
		g.connState(nil, http.StateClosed)
		g.connState(nil, http.StateHijacked)
		synctest.Wait()
		for range accepted {
		}
		if !g.drain(time.Second) {
			t.Fatal("not drained with no connection open")
		}
	})
}

// pipeListener is a listener whose connections are pipes.
type pipeListener struct {
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *pipeListener) dial() net.Conn {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
	case <-l.closed:
	}
	return client
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }
