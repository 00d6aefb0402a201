package api

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"golang.org/x/time/rate"
)

const (
	// maxClients bounds the table of clients, some 20 MiB when it is full. The
	// client that asked longest ago goes first, and begins anew if it comes back.
	maxClients = 1 << 16
	// What a client may ask for at once: this many seconds' worth, or at least a
	// page's worth.
	burstSeconds = 2
	leastBurst   = 10
	// clientBits is how much of an IPv6 address tells clients apart: a host has
	// all of the last 64 bits to itself.
	clientBits = 64
)

// LimitConfig is how much each client may ask for. The zero value is no limit.
type LimitConfig struct {
	// Rate is in lookups a second, for each IPv4 address and each /64 of IPv6. Two
	// seconds' worth, but at least ten, may come at once. 0 for no limit.
	Rate float64
	// TrustedProxies are those whose X-Forwarded-For is believed: the client is the
	// last address in it that is not one of theirs.
	TrustedProxies []netip.Prefix
	// Registerer may be nil.
	Registerer prometheus.Registerer
}

// LimitClients is NewLimit(cfg).Handler(h).
func LimitClients(h http.Handler, cfg LimitConfig) http.Handler {
	return NewLimit(cfg).Handler(h)
}

// Limit is how much each client may ask for at the moment. It is safe for
// concurrent use.
type Limit struct {
	now     atomic.Pointer[clientLimit] // nil: no limit
	refused prometheus.Counter
}

// NewLimit registers the limit's metric with cfg.Registerer.
func NewLimit(cfg LimitConfig) *Limit {
	l := &Limit{refused: promauto.With(cfg.Registerer).NewCounter(prometheus.CounterOpts{
		Name: "signpost_client_refused_total",
		Help: "Requests answered 429, as their client asked for more than it may.",
	})}
	l.Set(cfg)
	return l
}

// Set replaces the limit, but for the Registerer. All clients begin anew.
func (l *Limit) Set(cfg LimitConfig) {
	if cfg.Rate <= 0 {
		l.now.Store(nil)
		return
	}
	buckets, err := lru.New[netip.Addr, *rate.Limiter](maxClients)
	if err != nil {
		panic(err) // of a size that is not positive
	}
	l.now.Store(&clientLimit{
		cfg: cfg, buckets: buckets, refused: l.refused,
		burst: max(leastBurst, int(math.Ceil(burstSeconds*cfg.Rate))),
	})
}

// Handler answers 429 in place of h to clients that ask for more than they
// may. A request costs one lookup, and what its handler takes with [Charge]
// besides. GET /health and preflights cost nothing, nor does what is under
// /signpost/v1/, which has its own token or is for nodes of the pool.
func (l *Limit) Handler(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if now := l.now.Load(); now != nil {
			now.serve(w, r, h)
		} else {
			h.ServeHTTP(w, r)
		}
	})
}

// clientLimit is a limit and what its clients have asked for under it.
type clientLimit struct {
	cfg     LimitConfig
	burst   int
	buckets *lru.Cache[netip.Addr, *rate.Limiter]
	refused prometheus.Counter
}

// account is what the client of a request may still ask for. It goes with the
// request's context.
type account struct {
	limit  *clientLimit
	client netip.Addr
	bucket *rate.Limiter
}

type accountKey struct{}

func (l *clientLimit) serve(w http.ResponseWriter, r *http.Request, next http.Handler) {
	if r.Method == http.MethodOptions || r.URL.Path == "/health" || strings.HasPrefix(r.URL.Path, "/signpost/v1/") {
		next.ServeHTTP(w, r)
		return
	}
	client := l.client(r)
	a := &account{limit: l, client: client, bucket: l.bucket(client)}
	if a.take(w, 1, 0) {
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), accountKey{}, a)))
	}
}

// Charge takes what a request for n lookups costs besides the one it was let in
// for: together n, but no more than a client may ask for at once, so that every
// request is possible. It is false if that is too much, and has answered 429
// then. Without a limit it is true.
func Charge(w http.ResponseWriter, r *http.Request, n int) bool {
	a, limited := r.Context().Value(accountKey{}).(*account)
	return !limited || a.take(w, min(n, a.limit.burst)-1, 1)
}

// take takes n lookups, or answers 429. again is what the request has cost
// already, and costs once more when it is repeated.
func (a *account) take(w http.ResponseWriter, n, again int) bool {
	now := time.Now()
	if n <= 0 || a.bucket.AllowN(now, n) {
		return true
	}
	lacking := float64(n+again) - a.bucket.TokensAt(now)
	wait := max(1, int(math.Ceil(lacking/a.limit.cfg.Rate)))
	a.limit.refused.Inc()
	header := w.Header()
	header.Set("Access-Control-Allow-Origin", "*")
	header.Set("Access-Control-Expose-Headers", "Retry-After")
	header.Set("Cache-Control", "no-store")
	header.Set("Retry-After", strconv.Itoa(wait))
	Error(w, http.StatusTooManyRequests, fmt.Sprintf("too many lookups from %s: at most %v a second, and %d at once, are answered; try again in %d s",
		a.client, a.limit.cfg.Rate, a.limit.burst, wait))
	return false
}

func (l *clientLimit) bucket(client netip.Addr) *rate.Limiter {
	if b, known := l.buckets.Get(client); known {
		return b
	}
	b := rate.NewLimiter(rate.Limit(l.cfg.Rate), l.burst)
	if before, known, _ := l.buckets.PeekOrAdd(client, b); known {
		return before
	}
	return b
}

// client is whom a request counts for: an IPv4 address, or the first of a /64.
// All that come over something without addresses are one.
func (l *clientLimit) client(r *http.Request) netip.Addr {
	from, _ := hop(r.RemoteAddr)
	if l.trusted(from) {
		from = l.forwarded(from, r.Header.Values("X-Forwarded-For"))
	}
	if from.Is6() {
		if p, err := from.WithZone("").Prefix(clientBits); err == nil {
			return p.Addr()
		}
	}
	return from
}

// forwarded goes back along the hops of a trusted proxy to the first that is not
// trusted. What stands before that hop is its own claim; if a hop is not an
// address, the proxy that wrote it is as far as is known.
func (l *clientLimit) forwarded(from netip.Addr, headers []string) netip.Addr {
	for _, header := range slices.Backward(headers) {
		for more := true; more; {
			var text string
			if at := strings.LastIndexByte(header, ','); at < 0 {
				text, more = header, false
			} else {
				header, text = header[:at], header[at+1:]
			}
			addr, ok := hop(strings.TrimSpace(text))
			if !ok {
				return from
			}
			if from = addr; !l.trusted(addr) {
				return from
			}
		}
	}
	return from
}

func (l *clientLimit) trusted(addr netip.Addr) bool {
	return slices.ContainsFunc(l.cfg.TrustedProxies, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// hop reads an address, with a port or without, in brackets or without.
func hop(text string) (netip.Addr, bool) {
	if ap, err := netip.ParseAddrPort(text); err == nil {
		return ap.Addr().Unmap().WithZone(""), true
	}
	addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(text, "["), "]"))
	return addr.Unmap().WithZone(""), err == nil
}
