package assigner

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/signpost-index/signpost/announce"
	"github.com/signpost-index/signpost/api/admin"
)

// patience is how long a test waits for what must happen; it ends only tests
// that fail.
const patience = 20 * time.Second

func realKey(t *testing.T, seed int64) crypto.PrivKey {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.New(rand.NewSource(seed)))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func realID(t *testing.T, seed int64) peer.ID {
	t.Helper()
	id, err := peer.IDFromPrivateKey(realKey(t, seed))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// cluster is fakes served over HTTP.
type cluster struct {
	fakes   []*fakeIndexer
	members []admin.PoolMember
}

func newCluster(t *testing.T, size int, token string) *cluster {
	t.Helper()
	c := new(cluster)
	finds := make(map[string]*fakeIndexer)
	for i := range size {
		f := newFake(realID(t, int64(100+i)))
		f.fakes = func(u string) *fakeIndexer { return finds[u] }
		adminSrv := httptest.NewServer(admin.NewHandler(f, admin.HandlerConfig{Token: token}))
		ingestSrv := httptest.NewServer(announce.NewHandler(f.announced))
		t.Cleanup(adminSrv.Close)
		t.Cleanup(ingestSrv.Close)
		m := admin.PoolMember{Find: fmt.Sprintf("http://find-%d.example", i), Ingest: ingestSrv.URL, Admin: adminSrv.URL}
		finds[m.Find] = f
		c.fakes, c.members = append(c.fakes, f), append(c.members, m)
	}
	return c
}

// run runs an assigner until the returned function or the end of the test.
func run(t *testing.T, cfg Config) (a *Assigner, stop func()) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Listener = ln
	if cfg.Replication == 0 {
		cfg.Replication = 1
	}
	if a, err = Open(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(stop)
	return a, stop
}

// send announces to the assigner over HTTP, in JSON every other time.
func send(t *testing.T, a *Assigner, publishers []peer.ID, word string) {
	t.Helper()
	hc := &http.Client{Transport: &http.Transport{}}
	defer hc.CloseIdleConnections()
	s := announce.NewSender(hc)
	for i, p := range publishers {
		put := s.Send
		if i%2 == 1 {
			put = s.SendJSON
		}
		if err := put(t.Context(), a.URL(), announceOf(p, word)); err != nil {
			t.Fatal(err)
		}
	}
}

// await waits until done holds, looking again whenever one of the fakes did
// something.
func await(t *testing.T, fakes []*fakeIndexer, what string, done func() bool) {
	t.Helper()
	deadline := time.After(patience)
	acted := make(chan struct{})
	stop := make(chan struct{})
	defer close(stop)
	for _, f := range fakes {
		go func() {
			for {
				select {
				case <-f.acted:
					select {
					case acted <- struct{}{}:
					case <-stop:
						return
					}
				case <-stop:
					return
				}
			}
		}()
	}
	for !done() {
		select {
		case <-acted:
		case <-deadline:
			t.Fatalf("%s: not after %s", what, patience)
		}
	}
}

// holders counts, for each publisher, the fakes that have it with that head.
func holders(fakes []*fakeIndexer, word string) map[peer.ID]int {
	n := make(map[peer.ID]int)
	for _, f := range fakes {
		f.set(func() {
			for p := range f.assigned {
				if f.heads[p] == head(word) {
					n[p]++
				}
			}
		})
	}
	return n
}

// counted reads a counter with one label.
func counted(t *testing.T, reg *prometheus.Registry, name, label string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == name && m.GetLabel()[0].GetValue() == label {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

func allOnce(publishers []peer.ID, got map[peer.ID]int) bool {
	for _, p := range publishers {
		if got[p] != 1 {
			return false
		}
	}
	return len(got) == len(publishers)
}

func publisherIDs(t *testing.T, first int64, n int) []peer.ID {
	var out []peer.ID
	for i := range n {
		out = append(out, realID(t, first+int64(i)))
	}
	return out
}

func TestAnnouncesReachTheIndexerAssigned(t *testing.T) {
	c := newCluster(t, 3, "")
	reg := prometheus.NewPedanticRegistry()
	a, stop := run(t, Config{Members: c.members, Registerer: reg, Key: realKey(t, 1)})
	publishers := publisherIDs(t, 1000, 12)
	send(t, a, publishers, "1")
	await(t, c.fakes, "first announce", func() bool { return allOnce(publishers, holders(c.fakes, "1")) })
	for i, f := range c.fakes {
		f.set(func() {
			if len(f.assigned) != 4 {
				t.Errorf("indexer %d has %d publishers, want 4", i, len(f.assigned))
			}
		})
	}
	send(t, a, publishers, "2")
	await(t, c.fakes, "second announce", func() bool { return allOnce(publishers, holders(c.fakes, "2")) })
	if got := counted(t, reg, "signpost_assigner_steps_total", "accepted"); got != 12 {
		t.Errorf("%v assigns, want 12", got)
	}

	// Another assigner finds all that and changes nothing.
	stop()
	before := didAll(c)
	asked := c.fakes[0].lookedAt()
	_, stop = run(t, Config{Members: c.members, PollInterval: 10 * time.Millisecond})
	await(t, nil, "looks", pollUntil(func() bool { return c.fakes[0].lookedAt() > asked+5 }))
	stop()
	if after := didAll(c); !slices.Equal(before, after) {
		t.Errorf("restart made changes: %v", after[len(before):])
	}
}

// pollUntil makes a condition that await sees only once, true: for what no
// channel tells.
func pollUntil(done func() bool) func() bool {
	return func() bool {
		for until := time.Now().Add(patience); time.Now().Before(until); {
			if done() {
				return true
			}
			<-time.After(time.Millisecond)
		}
		return false
	}
}

func (f *fakeIndexer) lookedAt() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

func didAll(c *cluster) []string {
	var all []string
	for _, f := range c.fakes {
		f.set(func() { all = append(all, f.did...) })
	}
	slices.Sort(all)
	return all
}

func TestFrozenIndexerHandsOffOverHTTP(t *testing.T) {
	c := newCluster(t, 3, "a token of some length")
	for i := range c.members {
		c.members[i].TokenFile = "token"
	}
	read := 0
	cfg := Config{Members: c.members, PollInterval: 20 * time.Millisecond, ReadToken: func(string) (string, error) {
		read++
		return "a token of some length", nil
	}}
	a, _ := run(t, cfg)
	if read != 3 {
		t.Errorf("%d tokens read, want 3", read)
	}
	publishers := publisherIDs(t, 2000, 9)
	send(t, a, publishers, "1")
	await(t, c.fakes, "announce", func() bool { return allOnce(publishers, holders(c.fakes, "1")) })
	frozen := c.fakes[0]
	var moved []peer.ID
	frozen.set(func() {
		frozen.frozen = true
		moved = slices.Collect(maps.Keys(frozen.assigned))
	})
	rest := c.fakes[1:]
	await(t, c.fakes, "handoff", func() bool { return allOnce(publishers, holders(rest, "1")) })
	for _, f := range rest {
		f.set(func() {
			if n := len(f.assigned); n < 4 || n > 5 {
				t.Errorf("%d publishers on one target: the handoffs were not spread", n)
			}
			for p, continued := range f.assigned {
				if want := slices.Contains(moved, p); (continued == frozen.id) != want {
					t.Errorf("publisher %s continued from %q", p, continued)
				}
			}
		})
	}
	// The frozen indexer hears of what it has, so that removals reach it.
	send(t, a, publishers, "2")
	await(t, c.fakes, "second announce", func() bool {
		return allOnce(moved, holders(c.fakes[:1], "2")) && allOnce(publishers, holders(rest, "2"))
	})
}

// hungListener accepts connections and never answers.
func hungListener(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		var conns []net.Conn
		for {
			conn, err := ln.Accept()
			if err != nil {
				break
			}
			conns = append(conns, conn)
		}
		for _, conn := range conns {
			_ = conn.Close()
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		wg.Wait()
	})
	return "http://" + ln.Addr().String()
}

// TestHungIndexerDelaysNobody has a member that accepts connections and never
// answers, with calls that may take far longer than the test.
func TestHungIndexerDelaysNobody(t *testing.T) {
	c := newCluster(t, 2, "")
	u := hungListener(t)
	members := append(c.members, admin.PoolMember{Find: u, Ingest: u, Admin: u})
	a, _ := run(t, Config{Members: members, CallTimeout: 10 * time.Minute, Grace: time.Nanosecond})
	publishers := publisherIDs(t, 3000, 10)
	send(t, a, publishers, "1")
	await(t, c.fakes, "announce", func() bool { return allOnce(publishers, holders(c.fakes, "1")) })
}

// TestForwardsToAHungIndexerDelayNobody hangs the announce endpoint of one of
// two indexers that both have every publisher.
func TestForwardsToAHungIndexerDelayNobody(t *testing.T) {
	c := newCluster(t, 2, "")
	c.members[0].Ingest = hungListener(t)
	a, _ := run(t, Config{Members: c.members, CallTimeout: 10 * time.Minute, Replication: 2})
	publishers := publisherIDs(t, 4000, 40) // more than one indexer is sent at once
	for _, word := range []string{"1", "2"} {
		send(t, a, publishers, word)
		await(t, c.fakes, "announce "+word, func() bool { return allOnce(publishers, holders(c.fakes[1:], word)) })
	}
}

func TestGossipIsHeard(t *testing.T) {
	here, err := announce.OpenGossip(announce.GossipConfig{Key: realKey(t, 1), Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	publisher := realKey(t, 2)
	there, err := announce.OpenGossip(announce.GossipConfig{
		Key: publisher, Peers: []peer.AddrInfo{{ID: here.ID(), Addrs: here.Addrs()}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	c := newCluster(t, 1, "")
	reg := prometheus.NewPedanticRegistry()
	_, stop := run(t, Config{Members: c.members, Gossip: here, Registerer: reg})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := there.WaitForPeer(ctx); err != nil {
		t.Fatal(err)
	}
	// Pubsub may lose what is published while a connection is new.
	heard := false
	for i := 0; !heard; i++ {
		an := announceOf(there.ID(), fmt.Sprint(i))
		if err := there.Publish(ctx, &announce.Message{Cid: an.Head, Addrs: an.Publisher.Addrs}); err != nil {
			t.Fatal(err)
		}
		select {
		case <-c.fakes[0].acted:
			heard = true
		case <-time.After(200 * time.Millisecond):
		}
	}
	await(t, c.fakes, "announce", func() bool {
		f := c.fakes[0]
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.heads[there.ID()].Defined()
	})
	if got := counted(t, reg, "signpost_assigner_announces_received_total", "gossip"); got < 1 {
		t.Error("gossiped announces are not counted")
	}
	stop() // before the gossip it uses is closed
}

func TestPoolIsReloadedUnderLoad(t *testing.T) {
	c := newCluster(t, 3, "")
	a, _ := run(t, Config{Members: c.members[:1], PollInterval: 5 * time.Millisecond})
	publishers := publisherIDs(t, 5000, 50)
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 100 {
			if err := a.SetPool(c.members[:1+i%3]); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Go(func() {
		for range 100 {
			w := httptest.NewRecorder()
			a.handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, PoolPath, nil))
			a.handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, AssignmentsPath, nil))
		}
	})
	send(t, a, publishers, "1")
	wg.Wait()
	if err := a.SetPool(c.members); err != nil {
		t.Fatal(err)
	}
	send(t, a, publishers, "2")
	await(t, c.fakes, "announce", func() bool {
		got := holders(c.fakes, "2")
		return len(got) == len(publishers)
	})
}

func TestTwoMembersThatAreOneIndexerAreToldApart(t *testing.T) {
	c := newCluster(t, 1, "")
	other := httptest.NewServer(admin.NewHandler(c.fakes[0], admin.HandlerConfig{}))
	defer other.Close()
	twin := c.members[0]
	twin.Admin = other.URL
	var log bytes.Buffer
	a, stop := run(t, Config{
		Members: []admin.PoolMember{c.members[0], twin}, PollInterval: time.Millisecond, Grace: time.Nanosecond,
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	publishers := publisherIDs(t, 6000, 3)
	send(t, a, publishers, "1")
	await(t, c.fakes, "announce", func() bool { return allOnce(publishers, holders(c.fakes, "1")) })
	var states []State
	await(t, nil, "looks", pollUntil(func() bool {
		states = nil
		members, _, _ := a.pool.members(time.Now())
		for _, m := range members {
			if m.Error == "" && m.State == StateUnknown {
				return false
			}
			states = append(states, m.State)
		}
		return true
	}))
	stop()
	slices.Sort(states)
	if !slices.Equal(states, []State{StateActive, StateUnknown}) {
		t.Errorf("states %v", states)
	}
	if !bytes.Contains(log.Bytes(), []byte("is in the pool already")) {
		t.Errorf("log does not say so:\n%s", &log)
	}
}

func TestOpenRefusesABadConfiguration(t *testing.T) {
	good := admin.PoolMember{Find: "http://a", Ingest: "http://b", Admin: "http://c"}
	change := func(f func(*admin.PoolMember)) []admin.PoolMember {
		m := good
		f(&m)
		return []admin.PoolMember{m}
	}
	tests := map[string]Config{
		"no members":     {Replication: 1},
		"no replication": {Members: []admin.PoolMember{good}},
		"negative time":  {Replication: 1, Members: []admin.PoolMember{good}, CallTimeout: -1},
		"listed twice":   {Replication: 1, Members: []admin.PoolMember{good, good}},
		"no ingest URL":  {Replication: 1, Members: change(func(m *admin.PoolMember) { m.Ingest = "" })},
		"password":       {Replication: 1, Members: change(func(m *admin.PoolMember) { m.Admin = "http://u:p@c" })},
		"no token":       {Replication: 1, Members: change(func(m *admin.PoolMember) { m.TokenFile = "x" })},
		"bad token": {Replication: 1, Members: change(func(m *admin.PoolMember) { m.TokenFile = "x" }),
			ReadToken: func(string) (string, error) { return "", errors.New("no such file") }},
	}
	for name, cfg := range tests {
		t.Run(name, func(t *testing.T) {
			cfg.Listener = newIdleListener()
			if _, err := Open(cfg); err == nil {
				t.Error("no error")
			}
		})
	}
	if _, err := Open(Config{Replication: 1, Members: []admin.PoolMember{good}}); err == nil {
		t.Error("no error without a listener")
	}
}

func TestRunReturnsTheListenersError(t *testing.T) {
	a := idleAssigner(t, "A")
	a.cfg.CallTimeout = time.Millisecond
	if err := a.cfg.Listener.Close(); err != nil {
		t.Fatal(err)
	}
	if err := a.Run(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("run: %v, want the listener's error", err)
	}
	a.Close() // once more does no harm
}
