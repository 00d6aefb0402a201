package assigner

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/signpost-index/signpost/api/admin"
)

const (
	// lookUpTimeout bounds one look-up of all names of a pool.
	lookUpTimeout = 5 * time.Second
	// lookUpEvery is the time between two of them.
	lookUpEvery = 10 * time.Second
	// lookUpsAtOnce is how many names are asked for at once.
	lookUpsAtOnce = 16
)

// resolver is what of a [net.Resolver] is used.
type resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
}

// newResolver asks the DNS server at addr, host:port, or with addr empty those
// of the system.
func newResolver(addr string) (resolver, error) {
	if addr == "" {
		return net.DefaultResolver, nil
	}
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return nil, fmt.Errorf("resolver %q: want host:port of a DNS server: %w", addr, err)
	}
	return &serverResolver{addr: addr, r: &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, addr)
	}}}, nil
}

// serverResolver asks one DNS server. Its errors name that one, where package net
// would name the system's.
type serverResolver struct {
	addr string
	r    *net.Resolver
}

func (s *serverResolver) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	addrs, err := s.r.LookupNetIP(ctx, network, host)
	return addrs, s.named(err)
}

func (s *serverResolver) LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error) {
	cname, records, err := s.r.LookupSRV(ctx, service, proto, name)
	return cname, records, s.named(err)
}

func (s *serverResolver) named(err error) error {
	var e *net.DNSError
	if !errors.As(err, &e) {
		return err
	}
	own := *e // others that asked the same have this error too
	own.Server = s.addr
	return &own
}

// lookUp asks for every name of lines, and for the hosts of the others if there
// is a name, for up to five seconds. A name whose look-up failed is left out of
// the answers, and its error is among errs.
func lookUp(ctx context.Context, r resolver, lines []admin.PoolLine) (a answers, errs map[string]error) {
	ctx, cancel := context.WithTimeout(ctx, lookUpTimeout)
	defer cancel()
	l := &looking{resolver: r, a: answers{names: make(map[string][]endpoint), hosts: make(map[string][]netip.Addr)}, errs: make(map[string]error)}
	if !slices.ContainsFunc(lines, func(l admin.PoolLine) bool { return l.Name() != "" }) {
		return l.a, l.errs
	}
	var g errgroup.Group
	g.SetLimit(lookUpsAtOnce)
	asked := make(map[string]bool)
	for _, line := range lines {
		name := line.Name()
		if name == "" {
			name = "host " + adminHost(line.Admin)
		}
		if asked[name] {
			continue
		}
		asked[name] = true
		g.Go(func() error {
			l.line(ctx, line)
			return nil
		})
	}
	_ = g.Wait() // nothing in it returns an error
	return l.a, l.errs
}

// looking is a look-up under way.
type looking struct {
	resolver resolver
	mu       sync.Mutex // guards what is below
	a        answers
	errs     map[string]error
}

func (l *looking) line(ctx context.Context, line admin.PoolLine) {
	switch {
	case line.DNS != "":
		addrs, err := l.addrs(ctx, line.DNS)
		var es []endpoint
		for _, addr := range addrs {
			es = append(es, endpoint{addr: addr})
		}
		l.note(line.DNS, es, err)
	case line.SRV != "":
		es, err := l.targets(ctx, line.SRV)
		l.note(line.SRV, es, err)
	default:
		host := adminHost(line.Admin)
		if addrs, err := l.addrs(ctx, host); err == nil { // else it is only not known again
			l.mu.Lock()
			defer l.mu.Unlock()
			l.a.hosts[host] = addrs
		}
	}
}

func (l *looking) note(name string, es []endpoint, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.errs[name] = err
		return
	}
	l.a.names[name] = es
}

// addrs returns at least one address, and at most maxAddresses.
func (l *looking) addrs(ctx context.Context, host string) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr}, nil
	}
	addrs, err := l.resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	if addrs = usable(addrs); len(addrs) == 0 {
		return nil, errors.New("no address")
	}
	return addrs[:min(len(addrs), maxAddresses)], nil
}

// targets returns an endpoint for each target of the SRV records of name. One
// target that cannot be resolved costs the others nothing; if none can, that is
// an error.
func (l *looking) targets(ctx context.Context, name string) ([]endpoint, error) {
	_, records, err := l.resolver.LookupSRV(ctx, "", "", name)
	if len(records) == 0 {
		return nil, errors.Join(err, fmt.Errorf("no SRV record of %s", name))
	}
	records = records[:min(len(records), maxAddresses)]
	found, failed := make([]endpoint, len(records)), make([]error, len(records))
	var g errgroup.Group
	g.SetLimit(lookUpsAtOnce)
	for i, rec := range records {
		g.Go(func() error {
			addrs, err := l.addrs(ctx, strings.TrimSuffix(rec.Target, "."))
			if failed[i] = err; err == nil && rec.Port != 0 {
				found[i] = endpoint{addr: lowest(addrs), port: rec.Port}
			}
			return nil
		})
	}
	_ = g.Wait() // nothing in it returns an error
	found = slices.DeleteFunc(found, func(e endpoint) bool { return !e.addr.IsValid() })
	if len(found) == 0 {
		return nil, errors.Join(append(failed, fmt.Errorf("no target of %s has an address", name))...)
	}
	slices.SortFunc(found, func(a, b endpoint) int {
		return netip.AddrPortFrom(a.addr, a.port).Compare(netip.AddrPortFrom(b.addr, b.port))
	})
	return slices.Compact(found), nil
}
