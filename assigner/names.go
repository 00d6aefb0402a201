package assigner

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/admin"
)

// maxAddresses is how many addresses the names of a pool may have together,
// those that have vanished included.
const maxAddresses = 1000

// endpoint is an address, and the port of an SRV record or 0.
type endpoint struct {
	addr netip.Addr
	port uint16
}

// answers are what names in pool lines stand for. A value is replaced, never
// edited.
type answers struct {
	// names are the members of each name of a line.
	names map[string][]endpoint
	// hosts are the addresses of the hosts in lines with URLs, by which a member
	// is known again that has a line and is among the addresses of a name.
	hosts map[string][]netip.Addr
}

// with is what is remembered after the answers of another look-up: an endpoint
// that was there stays in its place, one that is new comes behind, as far as
// there is room for limit of them, and what host stands for what is the newest
// answer. left is how many found no room. Names that are no longer asked for are
// forgotten.
func (a answers) with(fresh answers, asked []admin.PoolLine, limit int) (all answers, left int) {
	all = answers{names: make(map[string][]endpoint), hosts: make(map[string][]netip.Addr)}
	room := limit
	for _, l := range asked {
		if name := l.Name(); name != "" && all.names[name] == nil && len(a.names[name]) > 0 {
			all.names[name] = slices.Clone(a.names[name])
			room -= len(a.names[name])
		} else if host := adminHost(l.Admin); name == "" && a.hosts[host] != nil {
			all.hosts[host] = a.hosts[host]
		}
	}
	for _, l := range asked {
		name := l.Name()
		for _, e := range fresh.names[name] {
			switch {
			case slices.Contains(all.names[name], e):
			case room <= 0:
				left++
			default:
				all.names[name] = append(all.names[name], e)
				room--
			}
		}
		if host := adminHost(l.Admin); name == "" && fresh.hosts[host] != nil {
			all.hosts[host] = fresh.hosts[host]
		}
	}
	return all, left
}

// without is a without the endpoints of names that drop reports.
func (a answers) without(drop func(name string, e endpoint) bool) answers {
	all := answers{names: make(map[string][]endpoint, len(a.names)), hosts: a.hosts}
	for name, es := range a.names {
		all.names[name] = slices.DeleteFunc(slices.Clone(es), func(e endpoint) bool { return drop(name, e) })
	}
	return all
}

// resolve is who is in the pool, in the order of lines: each line with URLs, and
// for each other line a member for each endpoint of its name. Of members with one
// admin URL, or with one address and port of the admin API, there is one: that of
// the first line with URLs, or else of the first name.
func resolve(lines []admin.PoolLine, a answers) []admin.PoolMember {
	taken := make(map[string]bool) // admin URLs, and host:port of addresses
	own := make([]bool, len(lines))
	for i, l := range lines {
		if l.Name() != "" || taken[l.Admin] {
			continue
		}
		own[i], taken[l.Admin] = true, true
		host, port := adminHost(l.Admin), adminPort(l.Admin)
		taken[net.JoinHostPort(host, port)] = true
		for _, addr := range a.hosts[host] {
			taken[net.JoinHostPort(addr.String(), port)] = true
		}
	}
	var members []admin.PoolMember
	for i, l := range lines {
		if own[i] {
			members = append(members, l.PoolMember)
			continue
		}
		if l.Name() == "" {
			continue
		}
		for _, e := range a.names[l.Name()] {
			m := memberAt(l, e)
			at := net.JoinHostPort(e.addr.String(), adminPort(m.Admin))
			if !taken[at] {
				taken[at] = true
				members = append(members, m)
			}
		}
	}
	return members
}

// memberAt is the member of a line with a name that is reached at e.
func memberAt(l admin.PoolLine, e endpoint) admin.PoolMember {
	m := l.PoolMember
	at := func(port uint16) string { return "http://" + netip.AddrPortFrom(e.addr, port).String() }
	adminPort := l.AdminPort
	if adminPort == 0 {
		adminPort = e.port
	}
	m.Find, m.Ingest, m.Admin = at(l.FindPort), at(l.IngestPort), at(adminPort)
	return m
}

func adminHost(base string) string {
	u, err := api.ParseBaseURL(base)
	if err != nil {
		return ""
	}
	if addr, err := netip.ParseAddr(u.Hostname()); err == nil {
		return addr.Unmap().String()
	}
	return u.Hostname()
}

func adminPort(base string) string {
	u, err := api.ParseBaseURL(base)
	switch {
	case err != nil:
		return ""
	case u.Port() != "":
		return u.Port()
	case u.Scheme == "https":
		return "443"
	}
	return "80"
}

// lowest is the address of an SRV target: one target is one indexer, whatever
// number of addresses it has. IPv4 comes first.
func lowest(addrs []netip.Addr) netip.Addr {
	return slices.MinFunc(addrs, func(a, b netip.Addr) int {
		if a.Is4() != b.Is4() {
			if a.Is4() {
				return -1
			}
			return 1
		}
		return a.Compare(b)
	})
}

// usable returns addrs in one form each, without those nobody can be reached at.
func usable(addrs []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, a := range addrs {
		if a = a.Unmap().WithZone(""); a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

func (e endpoint) String() string {
	if e.port == 0 {
		return e.addr.String()
	}
	return fmt.Sprintf("%s port %s", e.addr, strconv.Itoa(int(e.port)))
}
