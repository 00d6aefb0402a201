package indexer

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/announce"
	"github.com/signpost-index/signpost/api/admin"
	"github.com/signpost-index/signpost/ingest/ipnisync"
	"github.com/signpost-index/signpost/store"
)

// growing is the recorded chain, served up to an ad that can be moved.
type growing struct {
	t    *testing.T
	mem  *ipnisync.Memory
	info peer.AddrInfo
	ads  []cid.Cid // the oldest first
}

func newGrowing(t *testing.T) *growing {
	t.Helper()
	mem, _ := vectorChain(t)
	g := &growing{t: t, mem: mem, info: peer.AddrInfo{ID: mem.ID()}}
	for at := cid.MustParse(vectorHead); at.Defined(); {
		g.ads = append(g.ads, at)
		b, err := mem.Block(t.Context(), at)
		if err != nil {
			t.Fatal(err)
		}
		var ad struct {
			PreviousID map[string]string
		}
		if err := json.Unmarshal(b, &ad); err != nil {
			t.Fatal(err)
		}
		at = cid.Undef
		if prev := ad.PreviousID["/"]; prev != "" {
			at = cid.MustParse(prev)
		}
	}
	slices.Reverse(g.ads)
	if len(g.ads) < 4 {
		t.Fatalf("recorded chain of %d ads", len(g.ads))
	}
	g.info = serveChain(t, mem)
	return g
}

// grow makes the n-th ad the head and has nodes index it.
func (g *growing) grow(n int, nodes ...*node) {
	g.t.Helper()
	if err := g.mem.SetHead(g.ads[n]); err != nil {
		g.t.Fatal(err)
	}
	for _, node := range nodes {
		err := announce.NewSender(http.DefaultClient).Send(g.t.Context(), node.ingest, announce.Announce{Head: g.ads[n], Publisher: g.info})
		if err != nil {
			g.t.Fatal(err)
		}
		node.eventually("head has its verdict", func() bool {
			st, ok, err := node.ix.store.AdState(g.ads[n])
			return err == nil && ok && st.Durable && st.Verdict != store.Pending && node.ix.store.DurableProgress(g.info.ID).Mark.Ad == g.ads[n]
		})
	}
}

func (n *node) roleClient() *admin.Client {
	n.t.Helper()
	c, err := admin.NewClient(n.admin, nil, "")
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(c.CloseIdleConnections)
	return c
}

// wantRole compares the one role a node has.
func (n *node) wantRole(want admin.PublisherRole) {
	n.t.Helper()
	roles, err := n.roleClient().Roles(n.t.Context(), "")
	if err != nil || len(roles.Publishers) != 1 {
		n.t.Fatalf("roles %+v, %v", roles, err)
	}
	got := roles.Publishers[0]
	got.Since, got.LastError, got.Multihashes, got.MultihashesPerSecond = time.Time{}, "", 0, 0
	if diff := cmp.Diff(want, got); diff != "" {
		n.t.Errorf("role (-want +got):\n%s", diff)
	}
}

func pooled(c *Config) { c.AssignedOnly, c.AnyPublisher = true, true }

func wantDone(t *testing.T, out []admin.Outcome, err error) {
	t.Helper()
	if err != nil || len(out) != 1 || out[0].Error != "" {
		t.Fatalf("%+v, %v", out, err)
	}
}

// TestHandoffThroughTheAssigner moves a publisher with two providers from one
// node to another, with a restart of the source after it was closed and every
// call made twice.
func TestHandoffThroughTheAssigner(t *testing.T) {
	ctx := t.Context()
	g := newGrowing(t)
	mid, last := len(g.ads)/2, len(g.ads)-1
	key, dir := newKey(t), t.TempDir()
	same := func(c *Config) { pooled(c); c.Key, c.DataDir = key, dir }
	source, target := startNode(t, same), startNode(t, pooled)
	ids := []peer.ID{g.info.ID}
	for range 2 {
		out, err := source.roleClient().Open(ctx, ids)
		wantDone(t, out, err)
	}
	g.grow(mid, source)
	second := store.Provider{ID: target.ix.ID(), Publisher: g.info.ID, Addrs: []string{"/ip4/203.0.113.1/tcp/1"}}
	if err := source.ix.store.RegisterProvider(second); err != nil {
		t.Fatal(err)
	}
	offers, err := source.roleClient().Close(ctx, ids)
	if err != nil || offers[0].Error != "" || offers[0].Mark != g.ads[mid].String() || offers[0].Height != uint64(mid+1) || len(offers[0].Addrs) == 0 {
		t.Fatalf("offers %+v, %v", offers, err)
	}
	source.stop()
	source = startNode(t, same)
	again, err := source.roleClient().Close(ctx, ids)
	if diff := cmp.Diff(offers[0].Mark, again[0].Mark); diff != "" || again[0].Height != offers[0].Height || len(again[0].Providers) != len(offers[0].Providers) || err != nil {
		t.Errorf("closed again: %+v, %v; want as before: %+v", again, err, offers)
	}
	for range 2 {
		out, err := target.roleClient().TakeOver(ctx, admin.TakeOver{From: source.ix.ID(), Offers: again})
		wantDone(t, out, err)
	}
	for _, p := range offers[0].Providers {
		var info struct{ AddrInfo peer.AddrInfo }
		if err := json.Unmarshal(p, &info); err != nil {
			t.Fatal(err)
		}
		if _, ok, err := target.ix.store.Provider(info.AddrInfo.ID); !ok || err != nil {
			t.Errorf("provider %s did not move: %v", info.AddrInfo.ID, err)
		}
	}
	if len(offers[0].Providers) < 2 {
		t.Errorf("%d providers were offered", len(offers[0].Providers))
	}
	g.grow(last, source, target)
	source.wantRole(admin.PublisherRole{Publisher: g.info.ID, Role: admin.RoleHolder, Ranges: []admin.Range{{To: g.ads[mid].String()}},
		Mark: g.ads[last].String(), Height: uint64(last + 1)})
	target.wantRole(admin.PublisherRole{Publisher: g.info.ID, Role: admin.RoleOwner, Continued: source.ix.ID(),
		Ranges: []admin.Range{{From: g.ads[mid].String()}}, Mark: g.ads[last].String(), Height: uint64(last + 1)})
	for n, ad := range g.ads {
		if st, known, err := target.ix.store.AdState(ad); err != nil || (n < mid && known) || (n > mid && (!known || st.Verdict == store.SkippedFrozen)) {
			t.Errorf("ad %d at the target: %v, %v, %v", n, st.Verdict, known, err)
		}
	}

	// Older ads are fetched on request; then the source is not needed.
	out, err := target.roleClient().Backfill(ctx, ids)
	wantDone(t, out, err)
	whole := []admin.Range{{To: g.ads[mid].String()}, {From: g.ads[mid].String()}}
	target.eventually("the chain is whole", func() bool {
		roles, err := target.roleClient().Roles(ctx, "")
		return err == nil && cmp.Equal(roles.Publishers[0].Ranges, whole) && !roles.Publishers[0].Filling
	})
	for range 2 {
		out, err = source.roleClient().Release(ctx, ids)
		wantDone(t, out, err)
	}
	if st, err := source.ix.store.Counts(); err != nil || source.providers() != 0 {
		t.Errorf("%d providers, %+v after the release, %v", source.providers(), st, err)
	}
	if got, err := source.ix.Admin().Preferred(ctx); err != nil || len(got) != 0 {
		t.Errorf("preferred after the release: %v, %v", got, err)
	}
	if v, err := target.ix.store.Find(vectorMultihash(t, "hamt1000-7")); err != nil || len(v) == 0 {
		t.Errorf("not found at the target: %v, %v", v, err)
	}
	// Released, it is new: all of it is fetched.
	out, err = source.roleClient().Open(ctx, ids)
	wantDone(t, out, err)
	g.grow(last, source)
	if v, err := source.ix.store.Find(vectorMultihash(t, "hamt1000-7")); err != nil || len(v) == 0 {
		t.Errorf("not found at the source: %v, %v", v, err)
	}
}

// TestAFrozenNodeIsClosedAtItsFreeze: and after unfreezing it owns what was not
// handed off, and fetches what it left out.
func TestAFrozenNodeIsClosedAtItsFreeze(t *testing.T) {
	ctx := t.Context()
	g := newGrowing(t)
	mid, last := len(g.ads)/2, len(g.ads)-1
	frozen, kept := startNode(t, pooled), startNode(t, pooled)
	ids := []peer.ID{g.info.ID}
	for _, n := range []*node{frozen, kept} {
		out, err := n.roleClient().Open(ctx, ids)
		wantDone(t, out, err)
		g.grow(mid, n)
		if err := n.roleClient().Freeze(ctx); err != nil {
			t.Fatal(err)
		}
		g.grow(last, n)
	}
	offers, err := frozen.roleClient().Close(ctx, ids)
	if err != nil || offers[0].Mark != g.ads[mid].String() {
		t.Errorf("offers %+v, %v; want the mark of the freeze", offers, err)
	}
	out, err := frozen.roleClient().TakeOver(ctx, admin.TakeOver{From: kept.ix.ID(), Offers: offers})
	if err != nil || !strings.Contains(out[0].Error, admin.ErrFrozen.Error()) {
		t.Errorf("takeover by a frozen node: %+v, %v", out, err)
	}
	for _, n := range []*node{frozen, kept} {
		if err := n.roleClient().Unfreeze(ctx); err != nil {
			t.Fatal(err)
		}
	}
	kept.eventually("what was skipped is here", func() bool {
		wish, ok, err := kept.ix.store.Revisit(g.info.ID)
		_ = wish
		return err == nil && !ok
	})
	if v, err := kept.ix.store.Find(vectorMultihash(t, "hamt1000-7")); err != nil || len(v) == 0 {
		t.Errorf("not found: %v, %v", v, err)
	}
	frozen.wantRole(admin.PublisherRole{Publisher: g.info.ID, Role: admin.RoleHolder, Ranges: []admin.Range{{To: g.ads[mid].String()}},
		Mark: g.ads[last].String(), Height: uint64(last + 1)})
}

// TestRoleCallsSayWhatIsWrong: unknown publishers, policy, hostile offers, nodes
// without an assigner.
func TestRoleCallsSayWhatIsWrong(t *testing.T) {
	ctx := t.Context()
	n, single := startNode(t, pooled), startNode(t, nil)
	c := n.roleClient()
	id, other := n.ix.ID(), single.ix.ID()
	if offers, err := c.Close(ctx, []peer.ID{id}); err != nil || offers[0].Error != errNotHere || offers[0].Publisher != id {
		t.Errorf("close of an unknown publisher: %+v, %v", offers, err)
	}
	if out, err := c.Backfill(ctx, []peer.ID{id}); err != nil || out[0].Error == "" {
		t.Errorf("backfill of an unknown publisher: %+v, %v", out, err)
	}
	if err := c.Block(ctx, other); err != nil {
		t.Fatal(err)
	}
	if out, err := c.Open(ctx, []peer.ID{other, id}); err != nil || out[0].Error != admin.ErrNotAllowed.Error() || out[1].Error != "" {
		t.Errorf("open of a blocked publisher and another: %+v, %v", out, err)
	}
	for name, o := range map[string]admin.Offer{
		"an error":   {Publisher: other, Error: "x"},
		"blocked":    {Publisher: other},
		"no CID":     {Publisher: vectorPublisher(t).ID, Mark: "x"},
		"no ad":      {Publisher: vectorPublisher(t).ID, Applied: []string{strings.Repeat("z", 600)}},
		"a provider": {Publisher: vectorPublisher(t).ID, Providers: []json.RawMessage{json.RawMessage(`{}`)}},
		"not JSON":   {Publisher: vectorPublisher(t).ID, Providers: []json.RawMessage{json.RawMessage(`7`)}},
	} {
		out, err := c.TakeOver(ctx, admin.TakeOver{From: id, Offers: []admin.Offer{o}})
		if err != nil || out[0].Error == "" || strings.Contains(out[0].Error, "log") {
			t.Errorf("offer with %s: %+v, %v", name, out, err)
		}
	}
	if _, err := single.roleClient().Roles(ctx, ""); !errors.Is(err, admin.ErrNotAssigner) {
		t.Errorf("roles of a node without assigner: %v", err)
	}
}

// TestCoverageIsServedToFrontends: at the find listener as at the admin's.
func TestCoverageIsServedToFrontends(t *testing.T) {
	ctx := t.Context()
	n, g := startNode(t, pooled), newGrowing(t)
	out, err := n.roleClient().Open(ctx, []peer.ID{g.info.ID})
	wantDone(t, out, err)
	g.grow(1, n)
	want, err := n.roleClient().Coverage(ctx)
	if err != nil || len(want.Publishers) != 1 || want.Publishers[0].Mark != g.ads[1].String() || want.ID != n.ix.ID() {
		t.Fatalf("coverage %+v, %v", want, err)
	}
	status, _, body := n.call(http.MethodGet, n.find+admin.CoveragePath, "")
	var got admin.Coverage
	if err := json.Unmarshal([]byte(body), &got); err != nil || status != 200 || !cmp.Equal(got.Publishers, want.Publishers) || got.Version != want.Version {
		t.Errorf("%d %v %s", status, err, body)
	}
	roles, err := n.roleClient().Roles(ctx, "")
	if err != nil || roles.Version != want.Version {
		t.Errorf("version %q of the roles, %q of the coverage, %v", roles.Version, want.Version, err)
	}
	if same, err := n.roleClient().Roles(ctx, roles.Version); same != nil || err != nil {
		t.Errorf("roles of the same version: %+v, %v", same, err)
	}
	if code, _, _ := n.call(http.MethodGet, n.find+"/health", ""); code != 200 {
		t.Errorf("health at the find listener: %d", code)
	}
}

// TestPoolMapOfTheNewestVersionIsKept: across a restart; a file that cannot be
// read is as good as none.
func TestPoolMapOfTheNewestVersionIsKept(t *testing.T) {
	ctx := context.Background()
	var dir string
	n := startNode(t, func(c *Config) { pooled(c); dir = c.DataDir })
	c := n.roleClient()
	if _, err := c.PoolMap(ctx); !errors.Is(err, admin.ErrNotFound) {
		t.Errorf("map of a new node: %v", err)
	}
	for _, m := range []admin.PoolMap{{Version: 7, Assigner: n.ix.ID()}, {Version: 6}, {Version: 7}} {
		if err := c.SetPoolMap(ctx, m); err != nil {
			t.Fatal(err)
		}
		if got, err := c.PoolMap(ctx); err != nil || got.Version != 7 || got.Assigner != n.ix.ID() {
			t.Errorf("after version %d: %+v, %v", m.Version, got, err)
		}
	}
	n.stop()
	n = startNode(t, func(c *Config) { pooled(c); c.DataDir = dir })
	c = n.roleClient()
	if got, err := c.PoolMap(ctx); err != nil || got.Version != 7 {
		t.Errorf("after a restart: %+v, %v", got, err)
	}
	if err := os.WriteFile(filepath.Join(dir, poolMapFile), []byte(`{"Version":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.PoolMap(ctx); !errors.Is(err, admin.ErrNotFound) {
		t.Errorf("map that is cut: %v", err)
	}
	if err := c.SetPoolMap(ctx, admin.PoolMap{Version: 1}); err != nil {
		t.Fatal(err)
	}
	if got, err := c.PoolMap(ctx); err != nil || got.Version != 1 {
		t.Errorf("after a damaged one: %+v, %v", got, err)
	}
}
