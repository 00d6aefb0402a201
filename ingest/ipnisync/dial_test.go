package ipnisync

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
)

// resolving makes c dial like it always does, with names that mean what answer
// says at that moment. Its guard stays in place.
func resolving(t *testing.T, c *Client, answer func(name string) string) {
	t.Helper()
	tr := c.http.Transport.(*http.Transport)
	dialer := &net.Dialer{Timeout: connectTimeout, ControlContext: refusePrivate}
	tr.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		if ip := answer(host); ip != "" {
			host = ip
		}
		return dialer.DialContext(ctx, network, net.JoinHostPort(host, port))
	}
}

// A name is looked up for each connection, and what is refused is the address
// that is connected to: a check before would have seen the public one.
func TestRebindingIsRefused(t *testing.T) {
	m := newMemory(t)
	cids := chain(t, m, 1)
	var asked, lookups atomic.Int32
	srv := serveTest(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	port := srv.Listener.Addr().(*net.TCPAddr).Port
	c := newTestClient(t, ClientConfig{})
	resolving(t, c, func(name string) string {
		if name == "rebind.example.com" {
			lookups.Add(1)
			return "127.0.0.1"
		}
		return ""
	})
	p := atWith(t, c, m.ID(), fmt.Sprintf("http://rebind.example.com:%d", port))
	if _, err := p.Block(t.Context(), cids[0], ""); !errors.Is(err, ErrPrivateAddress) || asked.Load() > 0 || lookups.Load() == 0 {
		t.Errorf("%d requests after %d look-ups: %v", asked.Load(), lookups.Load(), err)
	}
}

// A chain of redirects is judged at every step: here the first two servers are
// let through, and the third, to which a name leads, is not.
func TestRedirectChainToAPrivateNameIsRefused(t *testing.T) {
	m := newMemory(t)
	cids := chain(t, m, 1)
	var asked atomic.Int32
	secret := serveTest(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	port := secret.Listener.Addr().(*net.TCPAddr).Port
	second := serveTest(t, http.RedirectHandler(fmt.Sprintf("http://inside.example.com:%d/", port), http.StatusTemporaryRedirect))
	first := serveTest(t, http.RedirectHandler(second.URL, http.StatusMovedPermanently))
	c := newTestClient(t, ClientConfig{})
	resolving(t, c, func(name string) string {
		if name == "inside.example.com" {
			return "127.0.0.1"
		}
		return ""
	})
	exceptFor(c, second.Listener.Addr().String())
	exceptFor(c, first.Listener.Addr().String())
	if _, err := atWith(t, c, m.ID(), first.URL).Block(t.Context(), cids[0], ""); !errors.Is(err, ErrPrivateAddress) || asked.Load() > 0 {
		t.Errorf("%d requests: %v", asked.Load(), err)
	}
}
