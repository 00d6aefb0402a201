package assigner

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/signpost-index/signpost/api/admin"
)

// fakeDNS is a resolver in memory. A name without addresses fails, one that hangs
// is never answered.
type fakeDNS struct {
	mu    sync.Mutex
	addrs map[string][]netip.Addr
	srv   map[string][]*net.SRV
	hangs map[string]bool
	asked int
}

func (f *fakeDNS) set(name string, addrs ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.addrs == nil {
		f.addrs, f.hangs = make(map[string][]netip.Addr), make(map[string]bool)
	}
	f.addrs[name] = nil
	for _, a := range addrs {
		f.addrs[name] = append(f.addrs[name], netip.MustParseAddr(a))
	}
}

func (f *fakeDNS) LookupNetIP(ctx context.Context, _, host string) ([]netip.Addr, error) {
	f.mu.Lock()
	f.asked++
	addrs, hangs := f.addrs[host], f.hangs[host]
	f.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if len(addrs) == 0 {
		return nil, errors.New("no such host")
	}
	return addrs, nil
}

func (f *fakeDNS) LookupSRV(_ context.Context, _, _, name string) (string, []*net.SRV, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return name, f.srv[name], nil
}

// rosterTest is a roster whose pool is a list.
type rosterTest struct {
	*roster
	dns *fakeDNS

	mu      sync.Mutex
	pool    []admin.PoolMember
	applied int
	ids     map[string]peer.ID // of members that were read, by admin URL
	refuse  error
}

func newRosterTest(t *testing.T, file string) *rosterTest {
	t.Helper()
	intents, err := openIntents("")
	if err != nil {
		t.Fatal(err)
	}
	rt := &rosterTest{dns: new(fakeDNS), ids: make(map[string]peer.ID)}
	rt.roster = newRoster(rosterConfig{
		file: file, ask: rt.dns, intents: intents, events: newEvents(nil, 0), log: slog.New(slog.DiscardHandler),
		failures: prometheus.NewCounter(prometheus.CounterOpts{}),
		apply: func(members []admin.PoolMember) error {
			rt.mu.Lock()
			defer rt.mu.Unlock()
			if rt.refuse != nil {
				return rt.refuse
			}
			rt.pool = members
			rt.applied++
			return nil
		},
		known: func(adminURL string) (peer.ID, bool) {
			rt.mu.Lock()
			defer rt.mu.Unlock()
			return rt.ids[adminURL], false
		},
	})
	return rt
}

// start runs the roster until the test's function ends.
func (rt *rosterTest) start(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := rt.run(ctx); err != nil {
			t.Error(err)
		}
	})
	return func() { cancel(); wg.Wait() }
}

// after waits and returns the hosts of the pool's members.
func (rt *rosterTest) after(d time.Duration) string {
	time.Sleep(d) // in a bubble: until nothing is left to do at that time
	synctest.Wait()
	rt.mu.Lock()
	defer rt.mu.Unlock()
	var hosts []string
	for _, m := range rt.pool {
		hosts = append(hosts, adminHost(m.Admin))
	}
	return strings.Join(hosts, " ")
}

func (rt *rosterTest) read(host string, id peer.ID) {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	rt.ids["http://"+host+":3"] = id
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

const (
	nameLine = "dns=p find-port=1 ingest-port=2 admin-port=3\n"
	urlLine  = "find=h:1 ingest=h:2 admin=h:3\n"
)

// expect compares the pool after each step.
func expect(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: pool %q, want %q", what, got, want)
	}
}

// TestThePoolFollowsDNS: what is new joins, what vanishes stays, and a look-up that
// fails or hangs changes nothing.
func TestThePoolFollowsDNS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := newRosterTest(t, "")
		rt.dns.set("p", "10.0.0.1")
		if err := rt.setLines(poolLines(t, nameLine+urlLine)); err != nil {
			t.Fatal(err)
		}
		if rt.absent(time.Now(), time.Minute) != 1 || rt.absent(time.Now().Add(2*time.Minute), time.Minute) != 0 {
			t.Error("a name without an answer is to be waited for, for a time")
		}
		defer rt.start(t)()
		expect(t, "at first", rt.after(3*time.Second), "10.0.0.1 h")
		if n := rt.absent(time.Now(), time.Minute); n != 0 {
			t.Errorf("%d names waited for", n)
		}
		rt.read("10.0.0.1", "X")

		rt.dns.set("p", "10.0.0.1", "10.0.0.2")
		expect(t, "one more", rt.after(lookUpEvery+fileEvery), "10.0.0.1 10.0.0.2 h")
		rt.read("10.0.0.2", "Y")
		applied := rt.applied
		rt.dns.set("p", "10.0.0.2")
		expect(t, "one less", rt.after(lookUpEvery+fileEvery), "10.0.0.1 10.0.0.2 h")
		rt.dns.set("p")
		expect(t, "none", rt.after(time.Minute), "10.0.0.1 10.0.0.2 h")
		rt.dns.mu.Lock()
		rt.dns.hangs["p"] = true
		rt.dns.mu.Unlock()
		expect(t, "no answer", rt.after(time.Minute), "10.0.0.1 10.0.0.2 h")
		if rt.applied != applied {
			t.Errorf("the same pool was applied %d times", rt.applied-applied)
		}
		rt.dns.mu.Lock()
		rt.dns.hangs["p"] = false
		rt.dns.mu.Unlock()
		rt.dns.set("p", "10.0.0.3", "10.0.0.1")
		expect(t, "back with another", rt.after(lookUpEvery+lookUpTimeout+fileEvery), "10.0.0.1 10.0.0.2 10.0.0.3 h")
	})
}

// TestAVanishedAddressOfWhichNothingIsKnownIsForgotten: its indexer answers at
// another address now, or never did.
func TestAVanishedAddressOfWhichNothingIsKnownIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := newRosterTest(t, "")
		rt.dns.set("p", "10.0.0.1", "10.0.0.2")
		if err := rt.setLines(poolLines(t, nameLine)); err != nil {
			t.Fatal(err)
		}
		defer rt.start(t)()
		rt.after(3 * time.Second)
		rt.read("10.0.0.1", "X")
		rt.dns.set("p", "10.0.0.3")
		expect(t, "moved", rt.after(lookUpEvery+fileEvery), "10.0.0.1 10.0.0.3")
		rt.read("10.0.0.1", "")
		rt.read("10.0.0.3", "X") // it was X that moved
		expect(t, "read elsewhere", rt.after(lookUpEvery+fileEvery), "10.0.0.3")
	})
}

// TestAHangingNameDelaysNoOther: look-ups are bounded together.
func TestAHangingNameDelaysNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := newRosterTest(t, "")
		rt.dns.set("p", "10.0.0.1")
		rt.dns.set("q", "10.0.1.1")
		rt.dns.hangs["q"] = true
		lines := poolLines(t, nameLine+strings.Replace(nameLine, "=p", "=q", 1))
		begin := time.Now()
		a, errs := lookUp(t.Context(), rt.dns, lines)
		if took := time.Since(begin); took != lookUpTimeout || len(a.names["p"]) != 1 || errs["q"] == nil || errs["p"] != nil {
			t.Errorf("after %v: %v, %v", took, a, errs)
		}
	})
}

// TestNoNameNoLookUp: a pool without names asks no DNS server.
func TestNoNameNoLookUp(t *testing.T) {
	dns := new(fakeDNS)
	lookUp(t.Context(), dns, poolLines(t, urlLine))
	if dns.asked > 0 {
		t.Errorf("asked %d times", dns.asked)
	}
}

// TestSRVTargetsThatFailCostOthersNothing.
func TestSRVTargetsThatFailCostOthersNothing(t *testing.T) {
	dns := &fakeDNS{srv: map[string][]*net.SRV{"s": {{Target: "a.", Port: 7}, {Target: "gone.", Port: 8}, {Target: "b.", Port: 9}, {Target: "b.", Port: 0}}}}
	dns.set("a", "10.0.0.2", "10.0.0.1")
	dns.set("b", "10.0.0.1")
	a, errs := lookUp(t.Context(), dns, poolLines(t, "srv=s find-port=1 ingest-port=2"))
	if got := a.names["s"]; len(errs) > 0 || len(got) != 2 || got[0] != at("10.0.0.1:7")[0] || got[1] != at("10.0.0.1:9")[0] {
		t.Errorf("got %v, %v", got, errs)
	}
	dns.set("a")
	dns.set("b")
	if a, errs = lookUp(t.Context(), dns, poolLines(t, "srv=s find-port=1 ingest-port=2")); errs["s"] == nil || len(a.names) > 0 {
		t.Errorf("got %v, %v", a, errs)
	}
}

// TestThePoolFollowsItsFile: a change is seen without a signal, and only once it
// is written; what cannot be read leaves the pool as it was.
func TestThePoolFollowsItsFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "pool")
		writeFile(t, file, urlLine)
		rt := newRosterTest(t, file)
		if err := rt.reload(); err != nil {
			t.Fatal(err)
		}
		defer rt.start(t)()
		second := strings.ReplaceAll(urlLine, "h:", "h2:")
		writeFile(t, file, urlLine+second)
		expect(t, "just written", rt.after(fileEvery), "h")
		expect(t, "written", rt.after(fileEvery), "h h2")

		writeFile(t, file, "find=h:1 inges")
		expect(t, "damaged", rt.after(time.Minute), "h h2")
		writeFile(t, file, "# nobody")
		expect(t, "empty", rt.after(time.Minute), "h h2")
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		expect(t, "gone", rt.after(time.Minute), "h h2")
		if n := len(rt.cfg.events.page(EventQuery{}).Events); n != 2+1+3 {
			t.Errorf("%d events, want one for each member, for the change and for each thing that was wrong: %+v", n, rt.cfg.events.page(EventQuery{}))
		}
		writeFile(t, file, second)
		expect(t, "back", rt.after(2*fileEvery), "h2")
	})
}

// TestThePoolFollowsTheOperator: members he adds join, those he removes leave,
// whatever brings them, and come back when they are added again.
func TestThePoolFollowsTheOperator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := newRosterTest(t, "")
		rt.dns.set("p", "10.0.0.1", "10.0.0.2")
		if err := rt.setLines(poolLines(t, urlLine+nameLine)); err != nil {
			t.Fatal(err)
		}
		defer rt.start(t)()
		expect(t, "at first", rt.after(3*time.Second), "h 10.0.0.1 10.0.0.2")
		rt.read("10.0.0.2", "Y")
		change := func(f func(Intents) (Intents, error)) {
			t.Helper()
			if err := rt.cfg.intents.Change(f); err != nil {
				t.Fatal(err)
			}
		}
		third := poolLine(t, "find=h3:1 ingest=h3:2 admin=h3:3")
		change(func(in Intents) (Intents, error) { return in.add(third) })
		expect(t, "added", rt.after(0), "h 10.0.0.1 10.0.0.2 h3")
		change(func(in Intents) (Intents, error) { return in.remove(Removal{Admin: "http://h:3"}, true) })
		expect(t, "removed by URL", rt.after(0), "10.0.0.1 10.0.0.2 h3")
		change(func(in Intents) (Intents, error) { return in.remove(Removal{Indexer: "Y"}, true) })
		expect(t, "removed by ID", rt.after(0), "10.0.0.1 h3")
		rt.read("10.0.0.1", "Y")
		expect(t, "read at another address", rt.after(fileEvery), "h3")
		change(func(in Intents) (Intents, error) { return in.remove(Removal{Admin: "http://h3:3"}, false) })
		expect(t, "nobody left", rt.after(0), "")
		change(func(in Intents) (Intents, error) { return in.add(poolLine(t, urlLine[:len(urlLine)-1])) })
		expect(t, "added again", rt.after(0), "h")
	})
}

// TestAPoolThatCannotBeAppliedIsTriedAgain, such as while a token file is missing.
func TestAPoolThatCannotBeAppliedIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := newRosterTest(t, "")
		rt.dns.set("p", "10.0.0.1")
		if err := rt.setLines(poolLines(t, urlLine)); err != nil {
			t.Fatal(err)
		}
		rt.refuse = errors.New("no token")
		if err := rt.setLines(poolLines(t, nameLine)); err == nil {
			t.Error("no error")
		}
		defer rt.start(t)()
		expect(t, "refused", rt.after(time.Minute), "h")
		if err := rt.cfg.intents.Change(func(in Intents) (Intents, error) { return in.add(poolLine(t, "find=h3:1 ingest=h3:2 admin=h3:3")) }); err != nil {
			t.Fatal(err)
		}
		expect(t, "added, and refused", rt.after(0), "h")
		rt.mu.Lock()
		rt.refuse = nil
		rt.mu.Unlock()
		expect(t, "taken", rt.after(fileEvery), "h h3")
	})
}
