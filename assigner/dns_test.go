package assigner

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
)

// serveDNS answers questions from records until the test ends, and returns its
// address.
func serveDNS(t *testing.T, records map[string][]dnsmessage.ResourceBody) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	t.Cleanup(func() { _ = conn.Close(); <-ended })
	go func() {
		defer close(ended)
		b := make([]byte, 1<<16)
		for {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(b[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			if out, err := answerDNS(m, records).Pack(); err == nil {
				_, _ = conn.WriteTo(out, from) // who did not wait has gone
			}
		}
	}()
	return conn.LocalAddr().String()
}

func answerDNS(m dnsmessage.Message, records map[string][]dnsmessage.ResourceBody) *dnsmessage.Message {
	q := m.Questions[0]
	m.Header.Response, m.Header.Authoritative, m.Additionals = true, true, nil
	bodies, known := records[strings.ToLower(q.Name.String())]
	if !known {
		m.Header.RCode = dnsmessage.RCodeNameError
	}
	for _, body := range bodies {
		var kind dnsmessage.Type
		switch body.(type) {
		case *dnsmessage.AResource:
			kind = dnsmessage.TypeA
		case *dnsmessage.AAAAResource:
			kind = dnsmessage.TypeAAAA
		case *dnsmessage.SRVResource:
			kind = dnsmessage.TypeSRV
		}
		if kind == q.Type {
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Type: kind, Class: q.Class, TTL: 1}, Body: body})
		}
	}
	return &m
}

func srvRecord(target string, port int) *dnsmessage.SRVResource {
	return &dnsmessage.SRVResource{Target: dnsmessage.MustNewName(target), Port: uint16(port)}
}

func TestTheDNSServerGivenIsAsked(t *testing.T) {
	addr := serveDNS(t, map[string][]dnsmessage.ResourceBody{
		"p.test.": {&dnsmessage.AResource{A: [4]byte{10, 0, 0, 2}}, &dnsmessage.AResource{A: [4]byte{10, 0, 0, 1}}, &dnsmessage.AAAAResource{AAAA: [16]byte{0xfd, 15: 1}}},
		"s.test.": {srvRecord("p.test.", 7), srvRecord("gone.test.", 8)},
	})
	r, err := newResolver(addr)
	if err != nil {
		t.Fatal(err)
	}
	a, errs := lookUp(t.Context(), r, poolLines(t, "dns=p.test find-port=1 ingest-port=2 admin-port=3\n"+
		"srv=s.test find-port=1 ingest-port=2\ndns=gone.test find-port=1 ingest-port=2 admin-port=3\nfind=p.test:1 ingest=p.test:2 admin=p.test:3"))
	var got []string
	for _, e := range append(a.names["p.test"], a.names["s.test"]...) {
		got = append(got, e.String())
	}
	if want := "10.0.0.1, 10.0.0.2, fd00::1, 10.0.0.1 port 7"; strings.Join(got, ", ") != want || len(a.hosts["p.test"]) != 3 || len(errs) != 1 || errs["gone.test"] == nil || !strings.Contains(errs["gone.test"].Error(), addr) {
		t.Errorf("got %v, %v, %v; want %s", got, a.hosts, errs, want)
	}
	if _, err := newResolver("nowhere"); err == nil {
		t.Error("a resolver without port is taken")
	}
}

// TestAPoolOfNamesIsReadAtStart: its indexers get publishers like others.
func TestAPoolOfNamesIsReadAtStart(t *testing.T) {
	c := newCluster(t, 2, "")
	port := func(i int) int {
		_, text, err := net.SplitHostPort(strings.TrimPrefix(c.members[i].Admin, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		n, err := net.LookupPort("tcp", text)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	addr := serveDNS(t, map[string][]dnsmessage.ResourceBody{
		"s.test.": {srvRecord("host.test.", port(0)), srvRecord("host.test.", port(1))}, "host.test.": {&dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}}}})
	file := filepath.Join(t.TempDir(), "pool")
	writeFile(t, file, "srv=s.test find-port=1 ingest-port=2\n")
	a, _ := run(t, Config{Replication: 2, PollInterval: 50 * time.Millisecond, Operating: Operating{PoolFile: file, Resolver: addr}})
	publisher := realID(t, 11)
	if err := a.hear(t.Context(), announceOf(publisher, "h")); err != nil { // nothing takes it at port 2
		t.Fatal(err)
	}
	await(t, c.fakes, "both have the publisher", func() bool {
		n := 0
		for _, f := range c.fakes {
			f.set(func() { n += len(f.assigned) })
		}
		return n == 2
	})
}

// TestOneIndexerAtTwoAddressesIsOne: it gets a publisher once, and nobody waits for
// the other address to be read.
func TestOneIndexerAtTwoAddressesIsOne(t *testing.T) {
	c := newCluster(t, 1, "")
	other := c.members[0]
	other.Find = "http://elsewhere.example"
	other.Admin = strings.Replace(other.Admin, "127.0.0.1", "localhost", 1)
	other.Ingest = strings.Replace(other.Ingest, "127.0.0.1", "localhost", 1)
	a, stop := run(t, Config{PollInterval: 50 * time.Millisecond, Members: append([]admin.PoolMember{other}, c.members...)})
	send(t, a, []peer.ID{realID(t, 11), realID(t, 12)}, "h")
	await(t, c.fakes, "assigned and announced", func() bool { return len(holders(c.fakes, "h")) == 2 })
	stop()
	if n := len(c.fakes[0].did); n != 2 {
		t.Errorf("%d steps for 2 publishers: %v", n, c.fakes[0].did)
	}
}
