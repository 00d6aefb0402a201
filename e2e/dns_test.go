package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/signpost-index/signpost/assigner"
)

// nameServer is a DNS server: the A records of one name, as a headless service has them.
type nameServer struct {
	addr  string // of the server
	mu    sync.Mutex
	addrs []string // guarded by mu, as is asked
	asked int      // for A records, since addrs were set
}

const poolName = "indexers.test"

func serveNames(t *testing.T) *nameServer {
	t.Helper()
	conn, err := net.ListenPacket("udp", anyPort)
	if err != nil {
		t.Fatal(err)
	}
	n := &nameServer{addr: conn.LocalAddr().String()}
	ended := make(chan struct{})
	t.Cleanup(func() { _ = conn.Close(); <-ended })
	go func() {
		defer close(ended)
		b := make([]byte, 1<<16)
		for {
			size, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			if out, err := n.answer(b[:size]); err == nil {
				_, _ = conn.WriteTo(out, from) // who did not wait has gone
			}
		}
	}()
	return n
}

func (n *nameServer) answer(question []byte) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(question); err != nil || len(m.Questions) != 1 {
		return nil, fmt.Errorf("%d questions: %w", len(m.Questions), err)
	}
	q := m.Questions[0]
	m.Header.Response, m.Header.Authoritative, m.Additionals = true, true, nil
	if q.Name.String() != poolName+"." {
		m.Header.RCode = dnsmessage.RCodeNameError
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if q.Type == dnsmessage.TypeA {
		n.asked++
	}
	for _, addr := range n.addrs {
		if m.Header.RCode == dnsmessage.RCodeSuccess && q.Type == dnsmessage.TypeA {
			m.Answers = append(m.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1},
				Body:   &dnsmessage.AResource{A: netip.MustParseAddr(addr).As4()},
			})
		}
	}
	return m.Pack()
}

func (n *nameServer) set(indexers ...*indexer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.addrs, n.asked = nil, 0
	for _, ix := range indexers {
		host, _, _ := net.SplitHostPort(hostport(ix.Find))
		n.addrs = append(n.addrs, host)
	}
}

// replica starts an indexer at an address of its own, at the ports of like.
func replica(t *testing.T, dir, name, addr string, like *indexer) *indexer {
	t.Helper()
	at := func(u string) string {
		_, port, err := net.SplitHostPort(hostport(u))
		if err != nil {
			t.Fatal(err)
		}
		return net.JoinHostPort(addr, port)
	}
	return startIndexer(t, dir, name, "--assigned-only",
		"--listen-find", at(like.Find), "--listen-ingest", at(like.Ingest), "--listen-admin", at(like.Admin))
}

// TestThePoolGrowsByReplicas: as on Kubernetes, the indexers are the addresses of one
// name. A third that appears there gets publishers, and frontends ask it, with no file
// edited and nobody told. One that comes back at another address is asked there, and
// what it has is not missed as long as it is away.
func TestThePoolGrowsByReplicas(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	dns := serveNames(t)
	first := startIndexer(t, dir, "indexer-0", "--assigned-only")
	p := &pool{dir: dir, indexers: []*indexer{first, replica(t, dir, "indexer-1", "127.0.0.2", first)}}
	dns.set(p.indexers...)
	port := func(u string) string { return hostport(u)[strings.LastIndex(hostport(u), ":")+1:] }
	p.file = writePoolLines(t, dir, fmt.Sprintf("dns=%s find-port=%s ingest-port=%s admin-port=%s", poolName, port(first.Find), port(first.Ingest), port(first.Admin)))
	p.startAssigner(t, anyPort, "--resolver", dns.addr, "--journal", filepath.Join(dir, "journal"))
	byDNS := spawn(t, dir, "by-dns", "frontend", "--listen", anyPort, "--pool", p.file, "--resolver", dns.addr).ready().HTTP
	byBoth := spawn(t, dir, "by-both", "frontend", "--listen", anyPort, "--pool", p.file, "--resolver", dns.addr, "--assigner", p.announce).ready().HTTP
	p.frontend = byDNS
	var ledgers []*ledger
	publish := func(n int) *ledger {
		b := newLedger(t, fmt.Sprint("of a pool of replicas ", n))
		b.publish(20)
		b.announce(p.announce)
		untilDone(t, p.owner(t, b.id).Ingest, b.chain)
		ledgers = append(ledgers, b)
		return b
	}
	for n := range 4 {
		publish(n)
	}
	p.mustEnd(t, ledgers...)

	third := replica(t, dir, "indexer-2", "127.0.0.3", first)
	p.indexers = append(p.indexers, third)
	dns.set(p.indexers...)
	eventually(t, "the replica is in the pool", func() error { return p.stateIs(third, assigner.StateActive) })
	b := publish(4)
	if ix := p.owner(t, b.id); ix != third {
		t.Errorf("a new publisher went to %s, although the new replica has nothing yet", ix.name)
	}
	for _, fe := range []string{byDNS, byBoth} {
		eventually(t, "the frontend asks the new replica", func() error { return b.want.check(fe) })
	}
	p.mustEnd(t, ledgers...)

	absent := multihashes("nobody has it", 1)[0]
	third.stop()
	dns.set(p.indexers[:2]...)
	eventually(t, "assigner and frontends have looked the name up again", func() error {
		dns.mu.Lock()
		defer dns.mu.Unlock()
		if dns.asked < 6 { // twice each, as all look as often
			return fmt.Errorf("%d look-ups", dns.asked)
		}
		return nil
	})
	for _, fe := range []string{byDNS, byBoth} {
		if err := miss(fe, absent, http.StatusServiceUnavailable, third.Find); err != nil {
			t.Errorf("while a replica is away: %v", err)
		}
	}
	back := replica(t, dir, "indexer-2", "127.0.0.4", first)
	p.indexers[2] = back
	dns.set(p.indexers...)
	p.frontend = byBoth // which is told who it is; the other one waits for the old address for a while
	eventually(t, "the frontend asks the replica where it is now, and no longer where it was", func() error {
		return errors.Join(b.want.check(byBoth), miss(byBoth, absent, http.StatusNotFound, ""))
	})
	publish(5) // nobody waits for the old address to be read
	p.mustEnd(t, ledgers...)
}
