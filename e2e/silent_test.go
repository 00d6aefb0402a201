package e2e

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/api/admin"
	"github.com/signpost-index/signpost/api/find"
	"github.com/signpost-index/signpost/ingest/ipnisync"
)

// leaver is a publisher that can go away, and come back to its address.
type leaver struct {
	*chain
	listen string
	server *httptest.Server // nil while it is away
}

// newLeaver makes a publisher that is there.
func newLeaver(t *testing.T, name string) *leaver {
	t.Helper()
	l := &leaver{chain: newChain(t, name), listen: freeAddr(t)}
	l.addr = addrOf(t, "http://"+l.listen)
	l.comeBack()
	t.Cleanup(func() {
		if l.server != nil {
			l.leave()
		}
	})
	return l
}

func (l *leaver) comeBack() {
	l.t.Helper()
	ln, err := net.Listen("tcp", l.listen)
	if err != nil {
		l.t.Fatal(err)
	}
	l.server = &httptest.Server{Listener: ln, Config: &http.Server{Handler: ipnisync.NewHandler(l.mem)}}
	l.server.Start()
}

func (l *leaver) leave() {
	l.server.CloseClientConnections()
	l.server.Close()
	l.server = nil
}

// publish adds a context with 50 multihashes that are told by its name.
func (l *leaver) publish(want index, name string) (head cid.Cid) {
	l.t.Helper()
	head = l.add(name, l.content(name))
	want.with(newHolding(l.id, []byte(name), bitswap), l.content(name))
	return head
}

func (l *leaver) content(name string) []multihash.Multihash {
	return multihashes(l.id.String()+name, 50)
}

// startLeavers starts an indexer that polls every second or two, with flags
// more, and has it index a context "first" of n publishers.
func startLeavers(t *testing.T, n int, flags ...string) (ix *indexer, all []*leaver, want index) {
	t.Helper()
	ix, want = startIndexer(t, workDir(t), "indexer", append([]string{"--poll-interval", "1s", "--poll-retry", "1s"}, flags...)...), make(index)
	for k := range n {
		l := newLeaver(t, fmt.Sprint("leaver ", k))
		head := l.publish(want, "first")
		l.announce(ix.Ingest)
		untilIndexed(t, ix.Ingest, head)
		all = append(all, l)
	}
	want.mustFind(t, ix.Find, "at first")
	return ix, all, want
}

// publisher is what the indexer says of it.
func (ix *indexer) publisher(l *leaver) admin.Publisher {
	ix.t.Helper()
	p, err := ix.api().Publisher(ix.t.Context(), l.id)
	if err != nil {
		ix.t.Fatal(err)
	}
	return p
}

func (ix *indexer) untilState(l *leaver, state string) {
	ix.t.Helper()
	eventually(ix.t, "publisher "+state, func() error {
		if p := ix.publisher(l); p.State != state {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
}

// tableSays checks the row of a publisher in what status shows an operator.
func (ix *indexer) tableSays(l *leaver, state string) {
	ix.t.Helper()
	out := commandOK(ix.t, "status", "--admin", ix.Admin).stdout
	for row := range strings.Lines(out) {
		if strings.Contains(row, l.id.String()) && strings.Contains(row, state) {
			return
		}
	}
	ix.t.Errorf("status has no row with %s and %q:\n%s", l.id, state, out)
}

// without is x without all that one publisher holds.
func (x index) without(l *leaver) index {
	out := make(index)
	for mh, held := range x {
		out[mh] = nil
		for _, h := range held {
			if !strings.HasPrefix(string(h), l.id.String()) {
				out[mh] = append(out[mh], h)
			}
		}
	}
	return out
}

// inactiveProviders are those that the list of providers calls so.
func inactiveProviders(t testing.TB, base string) (ids []peer.ID) {
	t.Helper()
	c, err := find.NewClient(base, client)
	if err != nil {
		t.Fatal(err)
	}
	all, err := c.Providers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if p.Inactive {
			ids = append(ids, p.AddrInfo.ID)
		}
	}
	return ids
}

// TestSilentPublisherIsPolledHiddenAndFoundAgain: nothing is announced after
// the first ads. A new head is fetched; one that went away is hidden, and is
// found again, with what it published meanwhile, when it is back.
func TestSilentPublisherIsPolledHiddenAndFoundAgain(t *testing.T) {
	t.Parallel()
	ix, all, want := startLeavers(t, 3, "--deactivate-after", "1s", "--remove-after", "0")
	untilIndexed(t, ix.Ingest, all[0].publish(want, "not announced"))
	want.mustFind(t, ix.Find, "a new head that nobody announced")

	gone := all[1]
	gone.leave()
	ix.untilState(gone, "inactive")
	want.without(gone).mustFind(t, ix.Find, "while it is away")
	if inactive := inactiveProviders(t, ix.Find); !slices.Equal(inactive, []peer.ID{gone.id}) {
		t.Errorf("inactive in the list of providers: %v, want %v", inactive, gone.id)
	}
	ix.tableSays(gone, "inactive")
	ix.tableSays(all[2], "active")

	head := gone.publish(want, "published while away")
	gone.comeBack()
	untilIndexed(t, ix.Ingest, head)
	ix.untilState(gone, "active")
	want.mustFind(t, ix.Find, "when it is back, unasked")
}

// TestGonePublisherIsRemovedAndIndexedAgainWhenItReturns: with its content, and
// nothing of others.
func TestGonePublisherIsRemovedAndIndexedAgainWhenItReturns(t *testing.T) {
	t.Parallel()
	// Silence grows by two seconds at once, at most: being inactive is not passed over.
	ix, all, want := startLeavers(t, 3, "--deactivate-after", "1s", "--remove-after", "4s")
	gone := all[0]
	gone.leave()
	ix.untilState(gone, "inactive")
	ix.untilState(gone, "removed")
	want.without(gone).mustFind(t, ix.Find, "after the removal")
	if info := providerInfo(t, ix.Find, gone.id); info != nil {
		t.Errorf("removed provider is still known: %+v", info)
	}
	ix.tableSays(gone, "removed")
	if p := ix.publisher(gone); p.Removals != 1 || p.Removed.IsZero() || len(p.Addrs) == 0 {
		t.Errorf("removed publisher: %+v", p)
	}

	head := gone.publish(want, "published while away")
	gone.comeBack()
	gone.announce(ix.Ingest)
	eventually(t, "all is found again", func() error { return want.check(ix.Find) })
	untilIndexed(t, ix.Ingest, head)
	ix.untilState(gone, "active")
	want.mustFind(t, ix.Find, "after the return")
	for _, l := range all[1:] {
		if p := ix.publisher(l); p.Removals != 0 {
			t.Errorf("one that was there all the time: %+v", p)
		}
	}
}

// TestSilenceDoesNotCountWhileMostPublishersAreOut: it may be this node that has
// no network. Once half of them are reached, it counts.
func TestSilenceDoesNotCountWhileMostPublishersAreOut(t *testing.T) {
	t.Parallel()
	const interval, expire = time.Second, 2 * time.Second
	ix, all, want := startLeavers(t, 3, "--deactivate-after", expire.String(), "--remove-after", expire.String())
	gone, back := all[0], all[1]
	gone.leave()
	back.leave()
	// Both are tried at once: silence of one that the other answers counts.
	for _, l := range []*leaver{gone, back} {
		hint := l.announced()
		hint.Head = raw(multihashes("not there", 1)[0])
		send(t, ix.Ingest, hint)
	}
	eventually(t, "both are tried in vain for longer than any would be kept", func() error {
		for _, l := range []*leaver{gone, back} {
			p := ix.publisher(l)
			if p.State != "active" && p.State != "polled" {
				t.Fatalf("two of three are out, and one is %+v", p)
			}
			if p.LastFailure.Sub(p.LastContact) < interval+expire+time.Second {
				return fmt.Errorf("%+v", p)
			}
		}
		return nil
	})
	want.mustFind(t, ix.Find, "while two of three are out")

	back.comeBack()
	ix.untilState(back, "active")
	ix.untilState(gone, "removed")
	want.without(gone).mustFind(t, ix.Find, "after the removal")
	if p := ix.publisher(back); p.Removals != 0 {
		t.Errorf("the one that is back: %+v", p)
	}
}
