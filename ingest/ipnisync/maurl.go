package ipnisync

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"

	"github.com/multiformats/go-multiaddr"
)

// maxHostBytes is the longest DNS name (RFC 1035, section 2.3.4).
const maxHostBytes = 253

// ToURL is the URL that a multiaddr stands for: host and port of its leading
// ip or dns and tcp or udp components, scheme and path from what follows.
// Without a port the URL has none. Every other component is ignored, /p2p and
// /sni among them. A multiaddr without scheme component gives an http URL; to
// be fetched from, an address must say /http or /https.
// Source: sync.md, section 4.
func ToURL(a multiaddr.Multiaddr) (*url.URL, error) {
	host, rest, err := hostOf(a)
	if err != nil {
		return nil, fmt.Errorf("multiaddr %s to URL: %w", a, err)
	}
	path, err := pathOf(rest)
	if err != nil {
		return nil, fmt.Errorf("multiaddr %s to URL: %w", a, err)
	}
	return &url.URL{Scheme: schemeOf(rest), Host: host, Path: path}, nil
}

// hostOf returns the host, with brackets and port as a URL has it, and the
// components after it.
func hostOf(a multiaddr.Multiaddr) (host string, rest multiaddr.Multiaddr, err error) {
	zone := ""
	if len(a) > 0 && a[0].Code() == multiaddr.P_IP6ZONE {
		zone, a = "%"+a[0].Value(), a[1:]
	}
	if len(a) == 0 {
		return "", nil, errors.New("it names no host")
	}
	first, rest := &a[0], a[1:]
	host = first.Value()
	switch first.Code() {
	case multiaddr.P_IP4:
	case multiaddr.P_IP6:
		host += zone
	case multiaddr.P_DNS, multiaddr.P_DNS4, multiaddr.P_DNS6:
		if !validHost(host) {
			return "", nil, fmt.Errorf("%q is not a host name", host)
		}
	default:
		return "", nil, errors.New("it does not begin with ip4, ip6, dns, dns4 or dns6")
	}
	if len(rest) > 0 && (rest[0].Code() == multiaddr.P_TCP || rest[0].Code() == multiaddr.P_UDP) {
		return net.JoinHostPort(host, rest[0].Value()), rest[1:], nil
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return host, rest, nil
}

// validHost keeps out names that would be read differently inside a URL.
func validHost(name string) bool {
	if name == "" || len(name) > maxHostBytes {
		return false
	}
	for _, c := range []byte(name) {
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return true
}

func schemeOf(rest multiaddr.Multiaddr) string {
	has := func(code int) bool {
		_, err := rest.ValueForProtocol(code)
		return err == nil
	}
	switch {
	case has(multiaddr.P_HTTPS):
		return "https"
	case has(multiaddr.P_HTTP):
		if has(multiaddr.P_TLS) {
			return "https"
		}
		return "http"
	case has(multiaddr.P_WSS), has(multiaddr.P_WS) && has(multiaddr.P_TLS):
		return "wss"
	case has(multiaddr.P_WS):
		return "ws"
	}
	return "http"
}

// pathOf returns the decoded path with a leading slash, or "".
func pathOf(rest multiaddr.Multiaddr) (string, error) {
	for i := range rest {
		path := ""
		switch rest[i].Code() {
		case multiaddr.P_HTTP_PATH:
			path = string(rest[i].RawValue())
		case codeHTTPath:
			var err error
			if path, err = url.PathUnescape(rest[i].Value()); err != nil {
				return "", err
			}
		default:
			continue
		}
		if !strings.HasPrefix(path, "/") {
			path = "/" + path
		}
		return path, nil
	}
	return "", nil
}

// FromURL is the multiaddr of an http or https URL: ip4, ip6 or dns, tcp if
// the URL has a port, the scheme, and http-path if it has a path. A URL with a
// user, query or fragment is refused, as a multiaddr cannot hold them.
// Source: sync.md, section 4.
func FromURL(u *url.URL) (multiaddr.Multiaddr, error) {
	a, err := fromURL(u)
	if err != nil {
		return nil, fmt.Errorf("URL %s to multiaddr: %w", u.Redacted(), err)
	}
	return a, nil
}

func fromURL(u *url.URL) (multiaddr.Multiaddr, error) {
	if u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("scheme is neither http nor https")
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("user, query or fragment have no place in a multiaddr")
	}
	parts, err := hostComponents(u.Hostname())
	if err != nil {
		return nil, err
	}
	add := func(protocol, value string) {
		if err != nil {
			return
		}
		var c *multiaddr.Component
		if c, err = multiaddr.NewComponent(protocol, value); err == nil {
			parts = append(parts, *c)
		}
	}
	if port := u.Port(); port != "" {
		add("tcp", port)
	}
	add(u.Scheme, "")
	if u.Path != "" {
		add("http-path", url.QueryEscape(u.Path))
	}
	if err != nil {
		return nil, err
	}
	return parts, nil
}

func hostComponents(host string) (multiaddr.Multiaddr, error) {
	ip, err := netip.ParseAddr(host)
	if err != nil {
		if !validHost(host) {
			return nil, fmt.Errorf("%q is not a host name", host)
		}
		return multiaddr.NewMultiaddr("/dns/" + host)
	}
	if ip = ip.Unmap(); ip.Is4() {
		return multiaddr.NewMultiaddr("/ip4/" + ip.String())
	}
	text := "/ip6/" + ip.WithZone("").String()
	if zone := ip.Zone(); zone != "" {
		text = "/ip6zone/" + zone + text
	}
	return multiaddr.NewMultiaddr(text)
}
