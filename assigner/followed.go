package assigner

import (
	"cmp"
	"context"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/signpost-index/signpost/api/admin"
)

// Names follows the names in pool lines for somebody who only wants to know who is
// in the pool, such as a frontend. An assigner knows more: which indexer is at an
// address. One goroutine uses it at a time.
type Names struct {
	ask resolver
	// last is when each endpoint of a name was among its answers.
	last map[string]map[endpoint]time.Time
	// hosts are those of the newest answers.
	hosts map[string][]netip.Addr
}

// NewNames asks the DNS server at addr, host:port, or with addr empty those of the
// system.
func NewNames(addr string) (*Names, error) {
	ask, err := newResolver(addr)
	if err != nil {
		return nil, err
	}
	return &Names{ask: ask, last: make(map[string]map[endpoint]time.Time)}, nil
}

// Members is who the lines stand for, as in a pool: each line with URLs, and for each
// name a member for each of its addresses. Names are looked up for five seconds at
// most; without a name nobody is asked. A look-up that fails, whose error is then in
// errs by its name, changes nothing. An address that has vanished is left out once it
// has been away for keep. All names together have at most 1,000 addresses.
func (n *Names) Members(ctx context.Context, lines []admin.PoolLine, keep time.Duration) (members []admin.PoolMember, errs map[string]error) {
	fresh, errs := lookUp(ctx, n.ask, lines)
	now := time.Now()
	all := answers{names: make(map[string][]endpoint), hosts: make(map[string][]netip.Addr)}
	last := make(map[string]map[endpoint]time.Time)
	room := maxAddresses
	for _, l := range lines {
		name := l.Name()
		if name == "" {
			host := adminHost(l.Admin)
			if all.hosts[host] = fresh.hosts[host]; all.hosts[host] == nil {
				all.hosts[host] = n.hosts[host]
			}
			continue
		}
		last[name] = since(n.last[name], fresh.names[name], errs[name] != nil, now, keep)
		all.names[name] = upTo(room, last[name])
		room -= len(all.names[name])
	}
	n.last, n.hosts = last, all.hosts
	return resolve(lines, all), errs
}

// since is when each endpoint was there last, after another look-up at now. While
// look-ups fail, nothing grows older.
func since(last map[endpoint]time.Time, found []endpoint, failed bool, now time.Time, keep time.Duration) map[endpoint]time.Time {
	out := make(map[endpoint]time.Time)
	for e, t := range last {
		if failed {
			out[e] = now
		} else if now.Sub(t) < keep {
			out[e] = t
		}
	}
	for _, e := range found {
		out[e] = now
	}
	return out
}

// upTo has up to room of the endpoints, in order. What vanished makes room first.
func upTo(room int, last map[endpoint]time.Time) []endpoint {
	byAddress := func(a, b endpoint) int {
		return netip.AddrPortFrom(a.addr, a.port).Compare(netip.AddrPortFrom(b.addr, b.port))
	}
	es := slices.SortedFunc(maps.Keys(last), func(a, b endpoint) int {
		return cmp.Or(last[b].Compare(last[a]), byAddress(a, b))
	})
	es = es[:min(len(es), room)]
	slices.SortFunc(es, byAddress)
	return es
}
