package admin

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
)

// CheckListen refuses an admin listener that would let strangers in: one whose
// address, host:port, others can reach, without authentication. hasAuth says
// that there are tokens or certificates to show, insecure that the operator insists. The error says
// what to do.
func CheckListen(addr string, hasAuth, insecure bool) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("admin address %q: want host:port: %w", addr, err)
	}
	if hasAuth || insecure || loopback(host) {
		return nil
	}
	return fmt.Errorf("admin address %q can be reached from other machines, and without a token anyone there could command this node: "+
		"give --admin-token-file a file with a secret, listen on 127.0.0.1, or say --insecure-admin if the network is trusted", addr)
}

// loopback reports whether a host to listen on is this machine only. A name
// other than localhost may be anything.
func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

const (
	minToken      = 16
	maxTokenBytes = 4 << 10
)

// ReadTokenFile reads a token: the file's text without surrounding blanks, 16
// characters or more, none of them blank.
func ReadTokenFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("token file: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxTokenBytes))
	if err != nil {
		return "", fmt.Errorf("token file: %w", err)
	}
	token := string(bytes.TrimSpace(b))
	if err := checkToken(token); err != nil {
		return "", fmt.Errorf("token file %s: %w", path, err)
	}
	return token, nil
}
