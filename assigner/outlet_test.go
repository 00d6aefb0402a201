package assigner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/signpost-index/signpost/announce"
)

func TestEveryAnnounceGoesToTheURLsGiven(t *testing.T) {
	p, q := realID(t, 1), realID(t, 2)
	inBubble(t, "A", func(t *testing.T, s *story) {
		s.assign("A", p)
		s.announces.ForwardURLs = []string{"http://one.example/path", "http://hung.example"}
		got := make(map[string]int)
		s.other = func(ctx context.Context, u string, an announce.Announce) error {
			if u == "http://hung.example" {
				<-ctx.Done()
				return ctx.Err()
			}
			got[string(an.Publisher.ID)+headWord(an.Head)]++
			return nil
		}
		s.mustStart()
		if w := putAnnounce(s.assigner, announceOf(p, "direct"), false); w.Code != http.StatusNoContent {
			t.Errorf("a hung receiver delays the answer: %d", w.Code)
		}
		gossiped := announceOf(q, "gossip")
		gossiped.Direct = false
		if err := s.assigner.hear(t.Context(), gossiped); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(got) != 2 || got[string(p)+"direct"] != 1 || got[string(q)+"gossip"] != 1 {
			t.Errorf("the receiver got %v", got)
		}
	})
}

// outletCase is an outlet whose sends a test answers.
type outletCase struct {
	*outlet
	t   *testing.T
	now time.Time
}

func newOutletCase(t *testing.T, way string) *outletCase {
	return &outletCase{
		outlet: newOutlet(way, "there", slog.New(slog.DiscardHandler), newAnnounceMetrics(nil), nil),
		t:      t, now: time.Unix(1_000_000, 0),
	}
}

func (c *outletCase) give(publisher int64, word string) {
	c.offer(announceOf(realID(c.t, publisher), word), true, c.now)
}

// sent takes the next announce due and ends its send with err.
func (c *outletCase) sent(err error) string {
	d, _ := c.next(c.now)
	if d.forward == nil {
		return "nothing"
	}
	c.finish(d, err, c.now)
	return headWord(d.announce.Head)
}

func (c *outletCase) expect(err error, want string) {
	c.t.Helper()
	if got := c.sent(err); got != want {
		c.t.Errorf("sent %s, want %s", got, want)
	}
}

func TestOutletSendsTheNewestAndRetriesWithPauses(t *testing.T) {
	c := newOutletCase(t, "url")
	c.give(1, "old")
	c.give(1, "new")
	c.expect(&announce.StatusError{Code: 500}, "new")
	c.expect(nil, "nothing") // for a second
	c.give(2, "other")
	c.expect(nil, "other") // an answer is about one publisher only
	c.now = c.now.Add(2 * forwardRetry)
	c.expect(nil, "new")
	c.expect(nil, "nothing")

	c.give(1, "a")
	c.expect(errors.New("connection refused"), "a")
	c.give(2, "b")
	c.expect(nil, "nothing") // nobody is there
	c.now = c.now.Add(2 * forwardPause)
	c.expect(nil, "a")
	c.expect(nil, "b")

	c.give(1, "c")
	d, _ := c.next(c.now)
	c.give(1, "d") // while c is being sent
	c.expect(nil, "nothing")
	c.finish(d, nil, c.now)
	c.expect(nil, "d")
	if len(c.queue.by) != 0 || len(c.newest) != 0 {
		t.Errorf("%d queued, %d kept in the end", len(c.queue.by), len(c.newest))
	}
}

func TestOutletGivesUpWhatIsRefused(t *testing.T) {
	c := newOutletCase(t, "url")
	for _, code := range []int{http.StatusForbidden, http.StatusBadRequest} {
		c.give(1, "a")
		c.expect(&announce.StatusError{Code: code}, "a")
		c.now = c.now.Add(time.Hour)
		c.expect(nil, "nothing")
	}
	c.give(1, "a")
	for range outletTries {
		c.expect(&announce.StatusError{Code: 500}, "a")
		c.now = c.now.Add(time.Hour)
	}
	c.expect(nil, "nothing")
	if n := testutil.ToFloat64(c.metrics.passed.WithLabelValues("url", "dropped")); n != 3 {
		t.Errorf("%v dropped, want 3", n)
	}
}

func TestOutletIsBoundedAndStrangersGetHalf(t *testing.T) {
	c := newOutletCase(t, "url")
	for i := range maxOutlet {
		c.offer(announceOf(madeUp(i), "h"), false, c.now)
	}
	if n := len(c.queue.by); n != maxOutlet/2 {
		t.Errorf("%d strangers, want %d", n, maxOutlet/2)
	}
	for i := range maxOutlet {
		c.offer(announceOf(madeUp(maxOutlet+i), "h"), true, c.now)
	}
	if n := len(c.queue.by); n != maxOutlet || len(c.newest) != n {
		t.Errorf("%d queued, want %d", n, maxOutlet)
	}
	c.offer(announceOf(madeUp(maxOutlet), "newer"), true, c.now)
	if got := c.newest[madeUp(maxOutlet)]; headWord(got.Head) != "newer" {
		t.Error("full, and a newer announce of a publisher in it was dropped")
	}
}

func TestDirectAnnouncesAreGossipedOnce(t *testing.T) {
	open := func(seed int64, peers ...*announce.Gossip) *announce.Gossip {
		cfg := announce.GossipConfig{Key: realKey(t, seed), Listen: []string{"/ip4/127.0.0.1/tcp/0"}}
		for _, p := range peers {
			cfg.Peers = append(cfg.Peers, peer.AddrInfo{ID: p.ID(), Addrs: p.Host().Addrs()})
		}
		g, err := announce.OpenGossip(cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = g.Close() })
		return g
	}
	listener := open(31)
	ours := open(32, listener)
	heard := make(chan announce.Announce, 10)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = listener.Run(ctx, func(_ context.Context, an announce.Announce) error { heard <- an; return nil })
	})
	defer wg.Wait()
	defer cancel()
	c := newCluster(t, 1, "")
	a, stop := run(t, Config{Members: c.members, Gossip: ours, Announces: AnnounceConfig{ForwardGossip: true}})
	defer stop()
	if err := ours.WaitForPeer(ctx); err != nil {
		t.Fatal(err)
	}
	p := realID(t, 1)
	for range 2 { // what is repeated is not published again
		if err := announce.NewSender(http.DefaultClient).Send(ctx, a.URL(), announceOf(p, "1")); err != nil {
			t.Fatal(err)
		}
	}
	gossiped := func(want string) {
		t.Helper()
		select {
		case an := <-heard:
			if an.Publisher.ID != p || headWord(an.Head) != want || len(an.Publisher.Addrs) != 1 {
				t.Errorf("gossip told of %+v, want head %s of %s", an, want, p)
			}
		case <-time.After(patience):
			t.Fatalf("%s did not come by gossip", want)
		}
	}
	gossiped("1") // before the next, which else may take its place
	if err := announce.NewSender(http.DefaultClient).Send(ctx, a.URL(), announceOf(p, "2")); err != nil {
		t.Fatal(err)
	}
	http.DefaultClient.CloseIdleConnections()
	gossiped("2")
	// Our own publication has come back to us by now, or never does, and is no
	// new announce.
	if n := testutil.ToFloat64(a.metrics.announces.WithLabelValues("gossip")); n != 0 {
		t.Errorf("%v announces heard from ourselves", n)
	}
}

func TestBadForwardsAreRefused(t *testing.T) {
	for i, cfg := range []AnnounceConfig{
		{ForwardGossip: true},
		{ForwardURLs: []string{"ftp://x"}},
		{ForwardURLs: []string{"http://x", "http://x"}},
		{StandbyFor: "x"},
	} {
		if err := cfg.validate(false); err == nil {
			t.Errorf("case %d is taken: %s", i, fmt.Sprint(cfg))
		}
	}
}
