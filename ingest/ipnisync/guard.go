package ipnisync

import (
	"context"
	"fmt"
	"net/netip"
	"syscall"
)

// special4 are the IPv4 blocks that are not ordinary addresses of the public
// Internet. Source: IANA IPv4 Special-Purpose Address Registry, and multicast.
var special4 = prefixes(
	"0.0.0.0/8",       // this network, and unspecified
	"10.0.0.0/8",      // private
	"100.64.0.0/10",   // carrier-grade NAT
	"127.0.0.0/8",     // loopback
	"169.254.0.0/16",  // link-local, and cloud metadata services
	"172.16.0.0/12",   // private
	"192.0.0.0/24",    // protocol assignments
	"192.0.2.0/24",    // documentation
	"192.88.99.0/24",  // 6to4 relays
	"192.168.0.0/16",  // private
	"198.18.0.0/15",   // benchmarking
	"198.51.100.0/24", // documentation
	"203.0.113.0/24",  // documentation
	"224.0.0.0/4",     // multicast
	"240.0.0.0/4",     // reserved, and broadcast
)

// global6 holds all IPv6 unicast addresses of the public Internet; special6 are
// the blocks in it that are not. NAT64 (64:ff9b::/96 and 64:ff9b:1::/48), unique
// local, link-local, loopback and multicast addresses are outside global6.
// Source: IANA IPv6 Global Unicast Address Assignments, and Special-Purpose
// Address Registry.
var (
	global6  = netip.MustParsePrefix("2000::/3")
	special6 = prefixes(
		"2001::/23",     // protocol assignments, and Teredo, which embeds IPv4
		"2001:db8::/32", // documentation
		"2002::/16",     // 6to4, which embeds IPv4
		"3fff::/20",     // documentation
	)
)

func prefixes(texts ...string) []netip.Prefix {
	ps := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		ps[i] = netip.MustParsePrefix(text)
	}
	return ps
}

// isPublic reports whether ip is an ordinary unicast address of the public
// Internet. An IPv4 address mapped into IPv6 is judged as IPv4.
func isPublic(ip netip.Addr) bool {
	ip = ip.Unmap()
	special := special4
	if !ip.Is4() {
		if !global6.Contains(ip) {
			return false
		}
		special = special6
	}
	for _, p := range special {
		if p.Contains(ip) {
			return false
		}
	}
	return true
}

// refusePrivate is a net.Dialer.ControlContext. It sees every address just
// before it is connected to, after DNS and for each redirect, so a name that
// changes its meaning between check and use does not help an attacker.
func refusePrivate(_ context.Context, network, address string, _ syscall.RawConn) error {
	addr, err := netip.ParseAddrPort(address)
	if err != nil || network != "tcp4" && network != "tcp6" {
		return fmt.Errorf("%w: %s %s", ErrPrivateAddress, network, address)
	}
	if !isPublic(addr.Addr()) {
		return fmt.Errorf("%w: %s", ErrPrivateAddress, addr.Addr())
	}
	return nil
}
