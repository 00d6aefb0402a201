package ipnisync

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/p2p/net/gostream"
)

// Bounds of one request that is served on a stream. A block of 8 MiB within
// serveTimeout is 28 KB/s.
const (
	serveHeaderTimeout = 10 * time.Second
	serveTimeout       = 5 * time.Minute
	serveHeaderBytes   = 16 << 10
)

// ListenStreams accepts the streams of HTTP requests that peers of h open from
// now on, for [ServeStreams]. h should have the publisher's identity, as that is
// who its peers dial. It stays the caller's, to be closed after the listener.
func ListenStreams(h host.Host) (net.Listener, error) {
	// A client that has sent its request may close its side; that is no reason
	// to stop answering.
	ln, err := gostream.Listen(h, streamProtocol, gostream.IgnoreEOF())
	if err != nil {
		return nil, fmt.Errorf("listen on libp2p streams: %w", err)
	}
	return ln, nil
}

// ServeStreams serves handler, such as that of [NewHandler], over the streams
// of a [ListenStreams] until ctx ends; then it returns nil. It closes ln. Requests
// that are under way at the end are cut off.
func ServeStreams(ctx context.Context, ln net.Listener, handler http.Handler) error {
	srv := &http.Server{
		Handler:           oneRequest(handler),
		ReadHeaderTimeout: serveHeaderTimeout,
		WriteTimeout:      serveTimeout,
		MaxHeaderBytes:    serveHeaderBytes,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	err := srv.Serve(ln)
	srv.Close()
	if ctx.Err() != nil || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve on libp2p streams: %w", err)
}

// oneRequest ends a stream after its answer: clients open one for each.
func oneRequest(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		next.ServeHTTP(w, r)
	})
}
