package api

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// limited is a handler whose every request is for as many lookups as ?n says,
// behind a limit.
func limited(cfg LimitConfig) http.Handler { return limitedBy(NewLimit(cfg)) }

func limitedBy(l *Limit) http.Handler {
	return l.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n, err := strconv.Atoi(r.URL.Query().Get("n")); err != nil || Charge(w, r, n) {
			w.WriteHeader(http.StatusOK)
		}
	}))
}

// ask is the answer to a request from an address, through the hops of forwarded.
func ask(h http.Handler, method, target, from string, forwarded ...string) *http.Response {
	r := httptest.NewRequest(method, target, nil)
	r.RemoteAddr = from
	r.Header["X-Forwarded-For"] = forwarded
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

// letIn is how many of n lookups are answered.
func letIn(h http.Handler, n int, from string, forwarded ...string) (in int) {
	for range n {
		if ask(h, http.MethodGet, "/cid/x", from, forwarded...).StatusCode == http.StatusOK {
			in++
		}
	}
	return in
}

func TestAClientGetsItsRateAndNoOtherPaysForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := NewLimit(LimitConfig{Rate: 20})
		h := limitedBy(limit)
		if got := letIn(h, 100, "192.0.2.1:999"); got != 40 {
			t.Errorf("%d at once, want two seconds' worth", got)
		}
		if got := letIn(h, 40, "192.0.2.2:999"); got != 40 {
			t.Errorf("another client: %d of 40", got)
		}
		a := ask(h, http.MethodGet, "/cid/x", "192.0.2.1:1000") // another port, the same client
		if a.StatusCode != http.StatusTooManyRequests || a.Header.Get("Retry-After") != "1" || a.Header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("refused with %d, %v", a.StatusCode, a.Header)
		}
		time.Sleep(time.Second)
		if got := letIn(h, 100, "192.0.2.1:999"); got != 20 {
			t.Errorf("%d after a second, want 20", got)
		}
		if got := testutil.ToFloat64(limit.refused); got != 141 {
			t.Errorf("%v refusals counted, want 141", got)
		}
	})
}

func TestHealthPreflightsAndThePoolsOwnPathsAreNeverLimited(t *testing.T) {
	h := limited(LimitConfig{Rate: 0.001})
	letIn(h, 100, "192.0.2.1:1")
	for _, target := range []string{"GET /health", "OPTIONS /cid/x", "GET /signpost/v1/line"} {
		method, path, _ := strings.Cut(target, " ")
		if a := ask(h, method, path, "192.0.2.1:1"); a.StatusCode != http.StatusOK {
			t.Errorf("%s: %d", target, a.StatusCode)
		}
	}
	if a := ask(h, http.MethodGet, "/healthy", "192.0.2.1:1"); a.StatusCode != http.StatusTooManyRequests {
		t.Errorf("another path: %d", a.StatusCode)
	}
}

// TestABatchCostsItsKeys, and one of more keys than may come at once is answered
// to who waits as Retry-After says: once if it was let in and then counted, twice
// if it was not.
func TestABatchCostsItsKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := limited(LimitConfig{Rate: 10})
		batch := func(n int) *http.Response {
			return ask(h, http.MethodPost, "/cid?n="+strconv.Itoa(n), "192.0.2.1:1")
		}
		if a := batch(15); a.StatusCode != http.StatusOK {
			t.Fatalf("15 of 20: %d", a.StatusCode)
		}
		if a := batch(1000); a.StatusCode != http.StatusTooManyRequests || a.Header.Get("Retry-After") != "2" {
			t.Fatalf("1000 keys, with 5 left: %d, wait %s", a.StatusCode, a.Header.Get("Retry-After"))
		}
		if got := letIn(h, 10, "192.0.2.1:1"); got != 4 {
			t.Errorf("%d single ones after 16 of 20, want 4", got)
		}
		for range 3 {
			tries := 0
			for a := batch(1000); a.StatusCode != http.StatusOK; a = batch(1000) {
				wait, err := strconv.Atoi(a.Header.Get("Retry-After"))
				if tries++; tries > 2 || err != nil || wait > 2 {
					t.Fatalf("1000 keys, try %d: %d, wait %d, %v", tries, a.StatusCode, wait, err)
				}
				time.Sleep(time.Duration(wait) * time.Second)
			}
		}
	})
}

func TestWhoTheClientIs(t *testing.T) {
	l := NewLimit(LimitConfig{Rate: 1, TrustedProxies: []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8"),
	}}).now.Load()
	for name, c := range map[string]struct {
		from      string
		forwarded []string
		want      string
	}{
		"an address":                        {"192.0.2.1:1", nil, "192.0.2.1"},
		"an address of IPv4 in IPv6":        {"[::ffff:192.0.2.1]:1", nil, "192.0.2.1"},
		"a network of IPv6":                 {"[2001:db8:1:2:3:4:5:6]:1", nil, "2001:db8:1:2::"},
		"a claim that nobody trusts":        {"192.0.2.1:1", []string{"198.51.100.1"}, "192.0.2.1"},
		"through a proxy":                   {"10.0.0.1:1", []string{"198.51.100.1"}, "198.51.100.1"},
		"through a proxy of IPv6":           {"[fd00::1]:1", []string{"2001:db8::1"}, "2001:db8::"},
		"what a client put in front":        {"10.0.0.1:1", []string{"203.0.113.1, 198.51.100.1"}, "198.51.100.1"},
		"in front, in a header of its own":  {"10.0.0.1:1", []string{"203.0.113.1", "198.51.100.1"}, "198.51.100.1"},
		"through two proxies":               {"10.0.0.1:1", []string{"203.0.113.1, 198.51.100.1,10.9.9.9"}, "198.51.100.1"},
		"through two, one header each":      {"10.0.0.1:1", []string{"198.51.100.1", "10.9.9.9"}, "198.51.100.1"},
		"with a port":                       {"10.0.0.1:1", []string{"198.51.100.1:4711"}, "198.51.100.1"},
		"with brackets":                     {"10.0.0.1:1", []string{"[2001:db8::1]"}, "2001:db8::"},
		"with brackets and a port":          {"10.0.0.1:1", []string{"[2001:db8::1]:80"}, "2001:db8::"},
		"a proxy itself":                    {"10.0.0.1:1", nil, "10.0.0.1"},
		"a proxy that asks through another": {"10.0.0.1:1", []string{"10.9.9.9"}, "10.9.9.9"},
		"a proxy that wrote nonsense":       {"10.0.0.1:1", []string{"198.51.100.1, unknown"}, "10.0.0.1"},
		"nonsense before a proxy":           {"10.0.0.1:1", []string{"unknown, 10.9.9.9"}, "10.9.9.9"},
		"an empty header":                   {"10.0.0.1:1", []string{""}, "10.0.0.1"},
		"something without an address":      {"@", nil, "invalid IP"},
	} {
		r := &http.Request{RemoteAddr: c.from, Header: http.Header{"X-Forwarded-For": c.forwarded}}
		if got := l.client(r).String(); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestTheTableOfClientsIsBounded(t *testing.T) {
	l := NewLimit(LimitConfig{Rate: 1}).now.Load()
	for n := range maxClients + 1000 {
		l.bucket(netip.AddrFrom4([4]byte{1, byte(n >> 16), byte(n >> 8), byte(n)}))
	}
	if got := l.buckets.Len(); got != maxClients {
		t.Errorf("%d clients are kept, want %d", got, maxClients)
	}
}

// TestALimitChangesUnderItsHandler, and all clients begin anew.
func TestALimitChangesUnderItsHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimit(LimitConfig{})
		h := limitedBy(l)
		for _, c := range []struct{ rate, want float64 }{{0, 1000}, {10, 20}, {20, 40}, {0, 1000}, {10, 20}} {
			l.Set(LimitConfig{Rate: c.rate})
			if got := letIn(h, 1000, "192.0.2.1:1"); float64(got) != c.want {
				t.Errorf("at %v a second: %d of 1000, want %v", c.rate, got, c.want)
			}
		}
	})
}

// TestWithoutARateThereIsNoLimit, and nothing in the way.
func TestWithoutARateThereIsNoLimit(t *testing.T) {
	if got := letIn(limited(LimitConfig{}), 10_000, "192.0.2.1:1"); got != 10_000 {
		t.Errorf("%d of 10000", got)
	}
}
