package indexer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/announce"
	"github.com/signpost-index/signpost/api/admin"
	"github.com/signpost-index/signpost/api/find"
	"github.com/signpost-index/signpost/ingest"
	"github.com/signpost-index/signpost/store"
)

// fakeSyncs notes what is asked of it.
type fakeSyncs struct {
	asked     []peer.ID
	forgotten []peer.ID
	onForget  func(peer.ID)
	begun     map[peer.ID]int
	running   map[peer.ID]bool
	failed    map[peer.ID]bool
}

func (f *fakeSyncs) poll(info peer.AddrInfo) error { f.asked = append(f.asked, info.ID); return nil }
func (f *fakeSyncs) reindex(id peer.ID) error {
	f.begun[id]++
	f.running[id] = true
	return nil
}
func (f *fakeSyncs) reindexing() map[peer.ID]bool           { return f.running }
func (f *fakeSyncs) reindexed(id peer.ID, _ time.Time) bool { return !f.failed[id] }
func (f *fakeSyncs) forget(id peer.ID) {
	f.forgotten = append(f.forgotten, id)
	if f.onForget != nil {
		f.onForget(id)
	}
}

// world is a book over a store, publishers that answer or do not, and a clock.
type world struct {
	t     *testing.T
	store *store.Store
	syncs *fakeSyncs
	book  *publisherBook
	clock time.Time
	dead  map[peer.ID]bool
	down  bool // this node's own network
}

var hourly = PollConfig{Interval: time.Hour, Retry: time.Hour, DeactivateAfter: 3 * time.Hour, RemoveAfter: 6 * time.Hour, grace: 100 * time.Hour, graceRetry: 10 * time.Hour}

func openWorld(t *testing.T, dir string, clock time.Time) *world {
	t.Helper()
	return openWorldPolling(t, dir, clock, hourly)
}

func openWorldPolling(t *testing.T, dir string, clock time.Time, cfg PollConfig) *world {
	t.Helper()
	st, err := store.Open(store.Config{Dir: dir, MemoryBytes: 32 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	w := &world{t: t, store: st, clock: clock, dead: make(map[peer.ID]bool),
		syncs: &fakeSyncs{begun: make(map[peer.ID]int), running: make(map[peer.ID]bool), failed: make(map[peer.ID]bool)}}
	w.book, err = openBook(st, w.syncs, func(peer.ID) error { return nil }, cfg, slog.New(slog.DiscardHandler), func() time.Time { return w.clock })
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func testMH(n int) multihash.Multihash { return mustSum([]byte(fmt.Sprint("mh-", n))) }

func mustSum(b []byte) multihash.Multihash {
	mh, err := multihash.Sum(b, multihash.SHA2_256, -1)
	if err != nil {
		panic(err)
	}
	return mh
}

// publish applies one ad of publisher n, which is its own provider.
func (w *world) publish(n int) peer.ID {
	w.t.Helper()
	id := peer.ID(fmt.Sprintf("publisher-%05d", n))
	ad := store.Ad{
		AdRef:     store.AdRef{Ad: cid.NewCidV1(cid.Raw, mustSum([]byte(id))), Pos: 1 << 32},
		Publisher: id, Provider: id, ContextID: []byte("c"), Metadata: []byte("m"),
	}
	aw, err := w.store.Begin(ad)
	if err != nil {
		w.t.Fatal(err)
	}
	defer aw.Abort()
	if err := aw.Put([]multihash.Multihash{testMH(n)}); err != nil {
		w.t.Fatal(err)
	}
	_, err = aw.Commit(store.Effect{Kind: store.EffectContent, Verdict: store.Applied,
		Provider: &store.ProviderUpdate{Addrs: []string{"/dns/a"}, PublisherAddrs: []string{"/dns/p/tcp/1/http"}}})
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

// pass lets time pass in steps of half an hour, in each of which all that is
// due is done and polls are answered.
func (w *world) pass(d time.Duration) {
	w.t.Helper()
	for end := w.clock.Add(d); w.clock.Before(end); w.clock = w.clock.Add(30 * time.Minute) {
		w.settle()
	}
}

// settle does all that is due; what a look leaves to the next is done in a few.
func (w *world) settle() {
	for idle := 0; idle < 6; {
		w.syncs.asked = nil
		next := w.book.look(w.t.Context(), w.clock)
		for _, id := range w.syncs.asked {
			if w.down || w.dead[id] {
				w.book.reached(id, errors.New("no answer"))
			} else {
				w.book.reached(id, nil)
			}
		}
		w.book.save()
		if len(w.syncs.asked) > 0 {
			idle = 0
		} else if idle++; next.After(w.clock) {
			return
		}
	}
}

func (w *world) state(id peer.ID) store.PublisherState { return w.book.snapshot()[id] }

func (w *world) found(n int) bool {
	w.t.Helper()
	v, err := w.store.Find(testMH(n))
	if err != nil {
		w.t.Fatal(err)
	}
	return len(v) > 0
}

// TestAThousandExpiringAtOnceAcrossAKill: each is removed exactly once, or kept
// because it returned.
func TestAThousandExpiringAtOnceAcrossAKill(t *testing.T) {
	const silent, alive, returning, killAfter = 1000, 1001, 50, 137
	w := openWorld(t, filepath.Join(t.TempDir(), "a"), pollStart)
	var ids []peer.ID
	for n := range silent + alive {
		id := w.publish(n)
		ids = append(ids, id)
		w.dead[id] = n < silent
	}
	w.pass(8 * time.Hour)
	for _, id := range ids[:silent] {
		if st := w.state(id); st.Phase != store.PhaseInactive || st.Removals > 0 {
			t.Fatalf("%s before its time: %+v", id, st)
		}
	}
	// The node is killed when some are removed: a checkpoint is what a kill leaves.
	killed := filepath.Join(t.TempDir(), "killed")
	removed := 0
	w.syncs.onForget = func(id peer.ID) {
		if w.state(id).Phase != store.PhaseRemoved {
			return // its tries end, no more
		}
		if removed++; removed == killAfter {
			if err := w.store.Checkpoint(killed); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.pass(3 * time.Hour)
	if removed != silent {
		t.Fatalf("%d removed, want %d", removed, silent)
	}

	again := openWorld(t, killed, w.clock)
	again.dead = w.dead
	before := 0
	for _, id := range ids {
		before += int(again.state(id).Removals)
	}
	if before != killAfter {
		t.Fatalf("%d were removed when the node was killed, want %d", before, killAfter)
	}
	for _, id := range ids[silent-returning : silent] { // announced before they are asked
		again.dead[id] = false
		again.book.reached(id, nil)
	}
	again.pass(10 * time.Hour)
	for n, id := range ids {
		st := again.state(id)
		want := store.PhaseActive
		if n < silent-returning {
			want = store.PhaseRemoved
		}
		if times := uint64(want / store.PhaseRemoved); st.Phase != want || st.Removals != times || again.found(n) != (times == 0) {
			t.Errorf("%s: %s, removed %d times, found %v; want %s", id, st.Phase, st.Removals, again.found(n), want)
		}
		if _, _, known, err := again.store.ProviderEntry(id); err != nil || known != (want == store.PhaseActive) {
			t.Errorf("%s is in the registry: %v, %v", id, known, err)
		}
	}
}

// TestSilenceOfOurOwnIsNotTheirs: while this node reaches nobody nobody
// expires; what is dead does when the others answer again.
func TestSilenceOfOurOwnIsNotTheirs(t *testing.T) {
	w := openWorld(t, filepath.Join(t.TempDir(), "a"), pollStart)
	dead := w.publish(0)
	live := []peer.ID{w.publish(1), w.publish(2)}
	w.dead[dead] = true
	w.pass(3 * time.Hour)
	w.down = true
	w.pass(100 * time.Hour)
	for _, id := range append(live, dead) {
		if st := w.state(id); st.Phase != store.PhaseActive {
			t.Errorf("%s: %s while the network was down", id, st.Phase)
		}
	}
	w.down = false
	w.pass(12 * time.Hour)
	if st := w.state(dead); st.Phase != store.PhaseRemoved || w.found(0) {
		t.Errorf("dead: %+v", st)
	}
	for n, id := range live {
		if st := w.state(id); st.Phase != store.PhaseActive || !w.found(n+1) {
			t.Errorf("%s: %+v", id, st)
		}
	}
}

// TestSilenceCountsUntilThoseReachedAreAskedAgain: also of those asked a tenth
// of the interval later than others, which is more than a retry here. In the first
// interval nobody is asked, so that nothing counts.
func TestSilenceCountsUntilThoseReachedAreAskedAgain(t *testing.T) {
	cfg := hourly
	cfg.Retry, cfg.DeactivateAfter, cfg.RemoveAfter = time.Minute, -1, -1
	w := openWorldPolling(t, filepath.Join(t.TempDir(), "a"), pollStart, cfg)
	dead := w.publish(0)
	w.dead[dead] = true
	for n, late := 1, 0; late < 2; n++ {
		if id := peer.ID(fmt.Sprintf("publisher-%05d", n)); cfg.of(id, store.PublisherState{}).spread > 0.5 {
			w.publish(n)
			late++
		}
	}
	const minutes = 5 * 60
	for range minutes {
		w.clock = w.clock.Add(time.Minute)
		w.settle()
	}
	if st := w.state(dead); st.Silent < (minutes-60-10)*time.Minute {
		t.Errorf("after %d minutes of silence of one of three: %+v", minutes, st)
	}
}

// TestReturnAndGrace: a removed publisher is asked now and then for the grace,
// is indexed again when it answers, also after a restart and after a failure
// of that, and is forgotten but for having been removed afterwards.
func TestReturnAndGrace(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a")
	w := openWorld(t, dir, pollStart)
	back, gone := w.publish(0), w.publish(1)
	for n := range 4 {
		w.publish(2 + n)
	}
	w.dead[back], w.dead[gone] = true, true
	w.pass(12 * time.Hour)
	for _, id := range []peer.ID{back, gone} {
		st := w.state(id)
		if st.Phase != store.PhaseRemoved || !slices.Equal(st.Addrs, []string{"/dns/p/tcp/1/http"}) || !st.LastAd.Defined() || len(w.store.PublisherAddrs(id)) > 0 {
			t.Fatalf("%s: %+v", id, st)
		}
	}
	if !slices.Contains(w.syncs.forgotten, gone) {
		t.Error("tries of a removed publisher go on")
	}
	w.dead[back] = false
	w.pass(12 * time.Hour)
	if st := w.state(back); st.Phase != store.PhaseReturning || w.syncs.begun[back] != 1 {
		t.Fatalf("answered a poll: %s, %d reindexes", st.Phase, w.syncs.begun[back])
	}
	if !w.book.isGone(back) {
		t.Error("announces of what was applied before are passed over")
	}
	// Started anew in the middle, it begins again.
	if err := w.store.Close(); err != nil {
		t.Fatal(err)
	}
	w = openWorld(t, dir, w.clock)
	w.dead[gone] = true
	w.settle()
	if w.syncs.begun[back] != 1 {
		t.Fatalf("%d reindexes after a restart", w.syncs.begun[back])
	}
	delete(w.syncs.running, back)
	w.syncs.failed[back] = true
	w.settle()
	if w.syncs.begun[back] != 2 || w.state(back).Phase != store.PhaseReturning {
		t.Fatalf("%d reindexes after a failed one", w.syncs.begun[back])
	}
	delete(w.syncs.running, back)
	w.syncs.failed[back] = false
	w.settle()
	if st := w.state(back); st.Phase != store.PhaseActive || w.book.isGone(back) || st.Removals != 1 {
		t.Errorf("indexed again: %+v", st)
	}
	w.pass(100 * time.Hour)
	if st := w.state(gone); st.Phase != store.PhaseRemoved || len(st.Addrs) > 0 {
		t.Errorf("after the grace: %+v", st)
	}
	w.book.reached(gone, nil) // it announces
	if st := w.state(gone); st.Phase != store.PhaseReturning {
		t.Errorf("returned after the grace: %+v", st)
	}
}

// TestPollingIsBounded: never more than pollsAtOnce are under way.
func TestPollingIsBounded(t *testing.T) {
	w := openWorld(t, filepath.Join(t.TempDir(), "a"), pollStart)
	for n := range 3 * pollsAtOnce {
		w.publish(n)
	}
	w.settle()
	w.clock = w.clock.Add(2 * time.Hour)
	for range 3 {
		w.book.look(t.Context(), w.clock)
	}
	if n := len(w.syncs.asked); n != pollsAtOnce {
		t.Errorf("%d polls under way, want %d", n, pollsAtOnce)
	}
	w.clock = w.clock.Add(pollPatience)
	w.book.look(t.Context(), w.clock)
	if n := len(w.syncs.asked); n != 2*pollsAtOnce {
		t.Errorf("%d polls after those nothing was heard of were given up, want %d", n, 2*pollsAtOnce)
	}
}

func TestPollingOfOnePublisherIsKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a")
	w := openWorld(t, dir, pollStart)
	a, b := w.publish(0), w.publish(1)
	if known, err := w.book.setPolling(a, -1, time.Minute); err != nil || !known {
		t.Fatal(known, err)
	}
	if known, err := w.book.setPolling("nobody", 0, 0); err != nil || known {
		t.Error("polling of a publisher not known was set", err)
	}
	w.dead[a], w.dead[b] = true, true
	w.pass(5 * time.Hour)
	if st := w.state(a); st.PollInterval != -1 || !st.Tried.IsZero() || w.state(b).Tried.IsZero() {
		t.Errorf("polled: %+v", st)
	}
	if err := w.store.Close(); err != nil {
		t.Fatal(err)
	}
	again := openWorld(t, dir, w.clock)
	if st := again.state(a); st.PollInterval != -1 || st.PollRetry != time.Minute {
		t.Errorf("after a restart: %+v", st)
	}
}

// expire makes a publisher of a running node as silent as is said.
func (n *node) expire(id peer.ID, silent time.Duration) {
	b := n.ix.book
	b.meet(time.Now())
	b.mu.Lock()
	e := b.entry(id, time.Now())
	e.st.Silent, e.st.Tried, e.last = silent, time.Now(), outcome{time.Now(), true}
	b.mu.Unlock()
	b.rouse()
}

func (n *node) finds(client *find.Client) (results int) {
	n.t.Helper()
	for _, err := range client.Find(n.t.Context(), vectorMultihash(n.t, "hamt1000-7")) {
		if err != nil {
			n.t.Fatal(err)
		}
		results++
	}
	return results
}

// TestWhatWasRemovedIsIndexedAgain: a publisher is hidden, removed, and all it
// published is found again when it returns with the head it left with.
func TestWhatWasRemovedIsIndexedAgain(t *testing.T) {
	n := startNode(t, nil)
	info := vectorPublisher(t)
	client, err := find.NewClient(n.find, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := n.announce(info); err != nil {
		t.Fatal(err)
	}
	n.waitIndexed(vectorHead)
	full, err := n.ix.store.Stats()
	if err != nil {
		t.Fatal(err)
	}
	state := func() store.Phase { return n.ix.book.snapshot()[info.ID].Phase }

	n.expire(info.ID, 10*day)
	n.eventually("inactive", func() bool { return state() == store.PhaseInactive })
	n.eventually("hidden", func() bool { return n.finds(client) == 0 })
	if _, err := client.Provider(t.Context(), info.ID); !errors.Is(err, find.ErrNotFound) {
		t.Errorf("inactive provider: %v", err)
	}
	if all, err := client.Providers(t.Context()); err != nil || len(all) != 1 || !all[0].Inactive {
		t.Errorf("list with an inactive provider: %+v, %v", all, err)
	}
	n.ix.reached(info.ID, nil)
	if state() != store.PhaseActive || n.finds(client) == 0 {
		t.Error("hidden after it was heard from")
	}

	n.expire(info.ID, 16*day)
	n.eventually("removed", func() bool { return state() == store.PhaseRemoved })
	if n.finds(client) != 0 || n.providers() != 0 {
		t.Error("found after removal")
	}
	operator, err := admin.NewClient(n.admin, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	defer operator.CloseIdleConnections()
	if p, err := operator.Publisher(t.Context(), info.ID); err != nil || p.State != "removed" || p.LastAd != vectorHead || len(p.Addrs) != 1 {
		t.Errorf("removed publisher: %+v, %v", p, err)
	}

	if err := n.announce(info); err != nil {
		t.Fatal(err)
	}
	n.eventually("indexed again", func() bool { return state() == store.PhaseActive })
	if n.finds(client) == 0 || n.providers() != 1 {
		t.Error("not found after it returned")
	}
	if again, err := n.ix.store.Stats(); err != nil || again.Postings != full.Postings || again.Records != full.Records {
		t.Errorf("%d postings, %d records after it returned, were %d and %d, %v", again.Postings, again.Records, full.Postings, full.Records, err)
	}
}

// TestBlockedPublisherIsLeftAlone: blocking ends what is under way, hides the
// provider, refuses announces, and lasts across a restart.
func TestBlockedPublisherIsLeftAlone(t *testing.T) {
	var dir string
	n := startNode(t, func(c *Config) { dir = c.DataDir })
	info := vectorPublisher(t)
	client, err := admin.NewClient(n.admin, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	if err := n.announce(info); err != nil {
		t.Fatal(err)
	}
	n.waitIndexed(vectorHead)
	if err := client.RemoveProvider(t.Context(), info.ID); err != nil {
		t.Fatal(err)
	}
	if err := client.Block(t.Context(), info.ID); err != nil {
		t.Fatal(err)
	}
	check := func(n *node) {
		t.Helper()
		if err := n.announce(info); err == nil {
			t.Error("announce of a blocked publisher is taken")
		}
		if err := n.ix.ingester.Sync(info.ID, ingest.SyncOptions{}); !errors.Is(err, announce.ErrNotAllowed) {
			t.Errorf("sync of a blocked publisher: %v", err)
		}
		if _, err := n.ix.Finder().Provider(context.Background(), info.ID); !errors.Is(err, find.ErrNotFound) {
			t.Errorf("blocked provider: %v", err)
		}
	}
	check(n)
	n.stop()
	again := startNode(t, func(c *Config) { c.DataDir = dir })
	check(again)
	if err := again.ix.Registry().Allow(t.Context(), info.ID); err != nil {
		t.Fatal(err)
	}
	if err := again.ix.Admin().Sync(t.Context(), info.ID, admin.SyncOptions{Resync: true}); err != nil {
		t.Fatal(err)
	}
	again.eventually("indexed again", func() bool { return again.providers() == 1 })
}
