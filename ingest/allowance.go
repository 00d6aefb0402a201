package ingest

import (
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"

	"github.com/signpost-index/signpost/ingest/schema"
)

const (
	// allowancesKept bounds the publishers whose use is remembered, those used
	// least recently go first.
	allowancesKept = 20_000
	// leastHold is how long a publisher over its allowance is left alone at least,
	// so that it does not come back for every ad.
	leastHold = 10 * time.Second
)

// Allowance is what one publisher may have of a node, averaged over an hour; 0:
// no limit. A minute's worth may be used at once.
type Allowance struct {
	AdsAnHour   int64 // new ads taken on
	BytesAnHour int64 // of blocks fetched
}

// overAllowance ends a session with a publisher that has used its allowance.
type overAllowance struct {
	of    int64
	what  string
	until time.Time
}

func (o *overAllowance) Error() string {
	return fmt.Sprintf("%v of %d %s an hour, it goes on at %s", errOverBudget, o.of, o.what, o.until.UTC().Format(time.RFC3339))
}

func (o *overAllowance) Unwrap() error { return errOverBudget }

// allowances counts what publishers use. Safe for concurrent use.
type allowances struct {
	limit Allowance
	mu    sync.Mutex // makes get-or-add one step
	of    *lru.Cache[peer.ID, *allowance]
}

// allowance is that of one publisher. A limiter is nil if there is no limit.
type allowance struct{ ads, bytes *rate.Limiter }

func newAllowances(limit Allowance) *allowances {
	of, err := lru.New[peer.ID, *allowance](allowancesKept)
	if err != nil {
		panic(err) // only for a size below 1
	}
	return &allowances{limit: limit, of: of}
}

// use counts ads and bytes, and returns why the publisher has to pause, if so.
func (a *allowances) use(publisher peer.ID, ads, bytes int64) error {
	if a.limit == (Allowance{}) {
		return nil
	}
	p := a.publisher(publisher)
	now := time.Now()
	for _, u := range []struct {
		limiter  *rate.Limiter
		n, limit int64
		what     string
	}{{p.ads, ads, a.limit.AdsAnHour, "ads"}, {p.bytes, bytes, a.limit.BytesAnHour, "bytes"}} {
		if u.limiter == nil || u.n == 0 {
			continue
		}
		r := u.limiter.ReserveN(now, int(min(u.n, int64(u.limiter.Burst()))))
		if d := r.DelayFrom(now); d > 0 {
			return &overAllowance{u.limit, u.what, now.Add(max(d, leastHold))}
		}
	}
	return nil
}

func (a *allowances) publisher(id peer.ID) *allowance {
	a.mu.Lock()
	defer a.mu.Unlock()
	p, ok := a.of.Get(id)
	if !ok {
		p = &allowance{ads: hourly(a.limit.AdsAnHour, 1), bytes: hourly(a.limit.BytesAnHour, schema.MaxBlockBytes)}
		a.of.Add(id, p)
	}
	return p
}

// hourly is a limiter of n an hour that lets a minute's worth, and not less than
// one, be used at once.
func hourly(n, one int64) *rate.Limiter {
	if n <= 0 {
		return nil
	}
	const burst = int64(time.Hour / time.Minute)
	return rate.NewLimiter(rate.Limit(float64(n)/time.Hour.Seconds()), int(max(n/burst, one)))
}
