package api

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"time"
)

// Limits of every server. The times and the number of connections are those of
// the reference indexer, except where noted.
const (
	readHeaderTimeout = 10 * time.Second // ours: a slow header is an attack
	readTimeout       = 30 * time.Second // of a request with a body
	// WriteTimeout is how long an answer may take from the end of the
	// request's header. A handler that streams extends it for each piece it
	// sends, with [http.ResponseController.SetWriteDeadline].
	WriteTimeout    = 30 * time.Second
	idleTimeout     = 2 * time.Minute
	maxHeaderBytes  = 64 << 10
	maxConns        = 8000
	shutdownTimeout = 5 * time.Second
	// stragglerTimeout is how long handlers may take to notice that their
	// connection was closed under them.
	stragglerTimeout = time.Second
)

// Serve answers requests on ln with h until ctx ends, and closes ln. It then
// lets running requests finish for up to five seconds, closes what is left and
// cancels their contexts. When it returns, no handler is running, but for one
// that ignores its context, which is logged.
//
// Connections beyond 8000 wait in the kernel's queue until one closes. A
// handler that panics costs its own connection only. The result is nil if ctx
// ended, and the listener's error otherwise.
func Serve(ctx context.Context, ln net.Listener, h http.Handler, log *slog.Logger) error {
	return ServeDraining(ctx, nil, ln, h, log)
}

// ServeDraining is Serve for a listener that clients are to leave before it closes.
// From when draining is closed until ctx ends, requests are answered as before,
// with Connection: close, and [Draining] is true for them. A nil draining never
// is.
func ServeDraining(ctx context.Context, draining <-chan struct{}, ln net.Listener, h http.Handler, log *slog.Logger) error {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	// Requests outlive ctx by the grace period, so theirs is another context.
	requests, cancelRequests := context.WithCancel(context.WithValue(context.WithoutCancel(ctx), drainKey{}, draining))
	defer cancelRequests()
	gate := newGate(ln, maxConns)
	var running sync.WaitGroup // handlers, also of connections that were hijacked
	srv := &http.Server{
		Handler:           counted(logPanics(lettingGo(h, draining), log), &running),
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readHeaderTimeout, // a body gets more: see counted
		WriteTimeout:      WriteTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		BaseContext:       func(net.Listener) context.Context { return requests },
		ConnState:         gate.connState,
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(gate) }()

	var err error
	select {
	case err = <-failed:
	case <-ctx.Done():
		grace, cancel := context.WithTimeout(requests, shutdownTimeout)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			log.Info("requests cut off at shutdown", "elapsed", shutdownTimeout)
		}
		<-failed
	}
	_ = srv.Close() // the listener's own error, if any, was returned by Serve
	cancelRequests()
	if !gate.drain(stragglerTimeout) || !waitFor(&running, stragglerTimeout) {
		log.Error("request handler still running after shutdown")
	}
	return err
}

// counted counts requests while they are handled, and gives those with a body the time
// it may take. The others, nearly all, are spared a deadline of their own.
func counted(h http.Handler, running *sync.WaitGroup) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		running.Add(1)
		defer running.Done()
		if r.ContentLength != 0 {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(readTimeout))
		}
		h.ServeHTTP(w, r)
	})
}

// waitFor reports whether all have ended within d.
func waitFor(running *sync.WaitGroup, d time.Duration) bool {
	ended := make(chan struct{})
	go func() { running.Wait(); close(ended) }()
	select {
	case <-ended:
		return true
	case <-time.After(d):
		return false
	}
}

// logPanics tells a person about a panic in h and aborts that answer, so that
// the client sees a broken connection and not a short success.
func logPanics(h http.Handler, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			if err, ok := v.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
				log.Error("request handler panicked", "method", r.Method, "path", r.URL.Path,
					"panic", v, "stack", string(debug.Stack()))
			}
			panic(http.ErrAbortHandler)
		}()
		h.ServeHTTP(w, r)
	})
}

// gate is a listener that lets in only as many connections as it has slots.
// A slot is taken before a connection is accepted and given back by connState
// when the server has done with it, handler included. The connections are
// handed on as they are, so that the server still recognises TLS.
type gate struct {
	net.Listener
	slots  chan struct{} // one element per open connection
	once   sync.Once
	closed chan struct{}
}

func newGate(ln net.Listener, n int) *gate {
	return &gate{Listener: ln, slots: make(chan struct{}, n), closed: make(chan struct{})}
}

func (g *gate) Accept() (net.Conn, error) {
	select {
	case g.slots <- struct{}{}:
	case <-g.closed:
		return nil, net.ErrClosed
	}
	conn, err := g.Listener.Accept()
	if err != nil {
		<-g.slots
	}
	return conn, err
}

func (g *gate) Close() error {
	g.once.Do(func() { close(g.closed) })
	return g.Listener.Close()
}

// connState gives a slot back when a connection reaches one of its two last
// states, of which the server reports exactly one.
func (g *gate) connState(_ net.Conn, state http.ConnState) {
	if state == http.StateClosed || state == http.StateHijacked {
		<-g.slots
	}
}

// drain takes all slots of a closed gate and reports whether that was possible
// within d, that is, whether every connection has ended.
func (g *gate) drain(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for range cap(g.slots) {
		select {
		case g.slots <- struct{}{}:
		case <-timer.C:
			return false
		}
	}
	return true
}
