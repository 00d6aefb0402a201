package ipnisync

import (
	"context"
	"errors"
	"net/netip"
	"testing"
)

func TestOnlyPublicAddressesAreDialled(t *testing.T) {
	for text, public := range map[string]bool{
		"8.8.8.8": true, "1.1.1.1": true, "99.255.255.255": true, "172.15.0.1": true, "172.32.0.1": true, "223.255.255.254": true,
		"::ffff:8.8.8.8": true, "2606:4700:4700::1111": true, "2a00:1450::1": true, "2001:200::1": true,
		"0.0.0.0": false, "0.1.2.3": false, "10.1.2.3": false, "100.64.0.1": false, "100.127.255.255": false,
		"127.0.0.1": false, "127.1.2.3": false, "169.254.169.254": false, "172.16.0.1": false, "172.31.255.255": false,
		"192.0.0.8": false, "192.0.2.1": false, "192.168.1.1": false, "198.18.0.1": false, "198.51.100.1": false,
		"203.0.113.1": false, "224.0.0.1": false, "239.255.255.255": false, "240.0.0.1": false, "255.255.255.255": false,
		"::": false, "::1": false, "fe80::1": false, "fe80::1%eth0": false, "2606:4700::1%eth0": false, "fc00::1": false, "fd12:3456::1": false,
		"ff02::1": false, "fec0::1": false, "100::1": false, "5f00::1": false, "2001:db8::1": false, "3fff::1": false,
		"64:ff9b::7f00:1": false, "64:ff9b::808:808": false, "64:ff9b:1::1": false, // NAT64
		"2002:7f00:1::1": false, "2001:0:4136:e378::1": false, // 6to4, Teredo
		"::ffff:127.0.0.1": false, "::ffff:10.0.0.1": false, "::127.0.0.1": false, "::ffff:0:127.0.0.1": false,
	} {
		if got := isPublic(netip.MustParseAddr(text)); got != public {
			t.Errorf("%s: public %v, want %v", text, got, public)
		}
	}
	if isPublic(netip.Addr{}) {
		t.Error("no address at all is public")
	}
}

func TestGuardRefusesWhatIsNotTCPToAnAddress(t *testing.T) {
	for _, tc := range []struct {
		network, address string
		ok               bool
	}{
		{"tcp4", "8.8.8.8:443", true},
		{"tcp6", "[2606:4700::1]:443", true},
		{"tcp4", "127.0.0.1:80", false},
		{"unix", "/run/secret.sock", false},
		{"udp4", "8.8.8.8:53", false},
		{"tcp4", "localhost:80", false},
	} {
		err := refusePrivate(context.Background(), tc.network, tc.address, nil)
		if tc.ok != (err == nil) || err != nil && !errors.Is(err, ErrPrivateAddress) {
			t.Errorf("%s %s: %v", tc.network, tc.address, err)
		}
	}
}
