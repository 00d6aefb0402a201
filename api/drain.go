package api

import (
	"context"
	"net/http"
)

type drainKey struct{}

// Draining reports whether the server of a request is about to close, and is to be
// left by those who have another; ctx is the request's. Health checks say so.
func Draining(ctx context.Context) bool {
	draining, _ := ctx.Value(drainKey{}).(<-chan struct{})
	return closed(draining)
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// lettingGo has clients come with a new connection each time while the server is
// draining, so that they find another. Idle connections stay as they are: to
// close one might meet a request that is on its way.
func lettingGo(h http.Handler, draining <-chan struct{}) http.Handler {
	if draining == nil {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if closed(draining) {
			w.Header().Set("Connection", "close")
		}
		h.ServeHTTP(w, r)
	})
}
