package api

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// GuardLocal wraps the handler of a listener that is open to everything on
// this machine, so that a web page in a browser on this machine is not let in
// with it. A request passes only if its Host names this machine ("localhost"
// or a loopback address, with any port), which DNS rebinding cannot fake, and
// if its Origin, when there is one, does too, which a page from elsewhere
// cannot fake. Everything else is 403.
//
// It is no authentication: any local process passes.
func GuardLocal(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !localHost(r.Host) {
			Error(w, http.StatusForbidden, "this address answers only to localhost: use http://127.0.0.1 or an authenticated listener")
			return
		}
		for _, origin := range r.Header.Values("Origin") {
			if !localOrigin(origin) {
				Error(w, http.StatusForbidden, "requests from web pages are refused here")
				return
			}
		}
		h.ServeHTTP(w, r)
	})
}

// localHost reports whether a Host header, with or without port, names this
// machine.
func localHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	} else {
		host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// localOrigin reports whether an Origin header is that of a page served from
// this machine. "null", the origin of sandboxed and local files, is not.
func localOrigin(origin string) bool {
	u, err := url.Parse(origin)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") {
		return false
	}
	return localHost(u.Host)
}
