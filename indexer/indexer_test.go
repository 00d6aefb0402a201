package indexer

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multihash"
	"go.uber.org/goleak"

	"github.com/signpost-index/signpost/announce"
	"github.com/signpost-index/signpost/api/admin"
	"github.com/signpost-index/signpost/api/find"
	"github.com/signpost-index/signpost/ingest/ipnisync"
	"github.com/signpost-index/signpost/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testWait   = 30 * time.Second
	vectorHead = "baguqeera2ocl5mgh7zoitqrmfykahhhsgsgl7o53oluagt7ffqvaxxrazjiq"
)

// node is a running indexer and where it listens.
type node struct {
	t                   *testing.T
	ix                  *Indexer
	find, ingest, admin string
	stop                func()
}

func startNode(t *testing.T, change func(*Config)) *node {
	t.Helper()
	cfg := Config{
		DataDir: t.TempDir(), Key: newKey(t), AllowPrivate: true, StoreMemory: 64 << 20, FreezePercent: -1,
		Find: listenAny(t), Ingest: listenAny(t), Admin: listenAny(t),
	}
	if change != nil {
		change(&cfg)
	}
	ix, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- ix.Run(ctx) }()
	n := &node{t: t, ix: ix, find: base(cfg.Find), ingest: base(cfg.Ingest), admin: base(cfg.Admin)}
	stopped := false
	n.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if err := errors.Join(ix.Close(), ix.Close()); err != nil {
			t.Errorf("Close: %v", err)
		}
		http.DefaultClient.CloseIdleConnections()
	}
	t.Cleanup(n.stop)
	return n
}

func newKey(t *testing.T) crypto.PrivKey {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func vectorKeys(t *testing.T) map[string]string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", "keys.json"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Keys []struct {
			Name    string `json:"name"`
			Private string `json:"private_key_b64"`
		} `json:"keys"`
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	keys := make(map[string]string)
	for _, k := range file.Keys {
		keys[k.Name] = k.Private
	}
	return keys
}

func listenAny(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

func base(ln net.Listener) string { return "http://" + ln.Addr().String() }

// vectorChain is the recorded chain and its publisher's key.
func vectorChain(t *testing.T) (*ipnisync.Memory, crypto.PrivKey) {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(vectorKeys(t)["provider"])
	if err != nil {
		t.Fatal(err)
	}
	key, err := crypto.UnmarshalPrivateKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	mem := ipnisync.NewMemory(key, "")
	files, err := os.ReadDir(filepath.Join("testdata", "blocks"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		raw, err := os.ReadFile(filepath.Join("testdata", "blocks", f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		mem.PutCID(cid.MustParse(f.Name()), raw)
	}
	if err := mem.SetHead(cid.MustParse(vectorHead)); err != nil {
		t.Fatal(err)
	}
	return mem, key
}

// vectorPublisher serves the recorded chain over HTTP.
func vectorPublisher(t *testing.T) peer.AddrInfo {
	t.Helper()
	mem, _ := vectorChain(t)
	return serveChain(t, mem)
}

// serveChain serves a chain over HTTP, and says where.
func serveChain(t *testing.T, mem *ipnisync.Memory) peer.AddrInfo {
	t.Helper()
	srv := httptest.NewServer(ipnisync.NewHandler(mem))
	t.Cleanup(srv.Close)
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	addr, err := ipnisync.FromURL(u)
	if err != nil {
		t.Fatal(err)
	}
	return peer.AddrInfo{ID: mem.ID(), Addrs: []multiaddr.Multiaddr{addr}}
}

func (n *node) announce(info peer.AddrInfo) error {
	return announce.NewSender(http.DefaultClient).Send(context.Background(), n.ingest,
		announce.Announce{Head: cid.MustParse(vectorHead), Publisher: info})
}

// call returns status, headers and body of a request.
func (n *node) call(method, u, body string) (int, http.Header, string) {
	n.t.Helper()
	req, err := http.NewRequest(method, u, strings.NewReader(body))
	if err != nil {
		n.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		n.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(b)
}

// waitIndexed waits until head and all before it are done, and no sync runs.
func (n *node) waitIndexed(head string) {
	n.t.Helper()
	want := `{"Ad":"` + head + `","Indexed":true`
	deadline := time.Now().Add(testWait)
	for {
		_, _, body := n.call(http.MethodGet, n.ingest+"/sync/status/ad/"+head, "")
		_, _, syncs := n.call(http.MethodGet, n.ingest+"/sync/status", "")
		if strings.HasPrefix(body, want) && !strings.Contains(syncs, `"Ongoing":true`) {
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("not indexed: %s", body)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func vectorMultihash(t *testing.T, name string) multihash.Multihash {
	t.Helper()
	mh, err := multihash.Sum([]byte(name), multihash.SHA2_256, -1)
	if err != nil {
		t.Fatal(err)
	}
	return mh
}

func TestAnnounceOverHTTPMakesContentFindable(t *testing.T) {
	n := startNode(t, nil)
	info := vectorPublisher(t)
	if status, _, _ := n.call(http.MethodGet, n.ingest+"/sync/status", ""); status != http.StatusNoContent {
		t.Errorf("sync status of a new node: %d, want 204", status)
	}
	if err := n.announce(info); err != nil {
		t.Fatal(err)
	}
	n.waitIndexed(vectorHead)
	if err := n.announce(info); err != nil {
		t.Errorf("an announce of what is known: %v", err)
	}

	client, err := find.NewClient(n.find, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	found := 0
	for r, err := range client.Find(context.Background(), vectorMultihash(t, "hamt1000-7")) {
		if err != nil {
			t.Fatal(err)
		}
		found++
		if string(r.ContextID) != "context-hamt" {
			t.Errorf("found %q", r.ContextID)
		}
	}
	// The provider itself and the chain-level extended providers of chain-07.
	if found < 2 {
		t.Errorf("found %d results, want the provider and its extended providers", found)
	}
	p, err := client.Provider(context.Background(), info.ID)
	if err != nil {
		t.Fatal(err)
	}
	if p.LastAdvertisement.String() != vectorHead || p.Publisher == nil || p.Publisher.ID != info.ID || len(p.Publisher.Addrs) != 1 {
		t.Errorf("provider info %+v", p)
	}
	if p.ExtendedProviders == nil || len(p.ExtendedProviders.Providers) != len(p.ExtendedProviders.Metadatas) {
		t.Errorf("extended providers %+v: the lists must have equal length", p.ExtendedProviders)
	}
	n.checkSyncStatus(info.ID)
}

// checkSyncStatus compares with the recorded exchanges of the ingest port.
func (n *node) checkSyncStatus(publisher peer.ID) {
	n.t.Helper()
	status, header, body := n.call(http.MethodGet, n.ingest+"/sync/status/"+publisher.String(), "")
	if status != http.StatusOK || header.Get("Access-Control-Allow-Origin") != "*" || header.Get("Content-Type") != "application/json; charset=utf-8" {
		n.t.Errorf("sync status: %d %v", status, header)
	}
	var st struct {
		Provider    string
		ScanHistory []struct {
			AdsScanned int
			HeadAd     string
		}
		ProcessingHistory []struct{ AdsProcessed int }
		DownloadHistory   []struct{ HamtMultihashCount int }
	}
	if err := json.Unmarshal([]byte(body), &st); err != nil {
		n.t.Fatal(err)
	}
	if len(st.ScanHistory) == 0 || st.ScanHistory[0].AdsScanned != 11 || st.ScanHistory[0].HeadAd != vectorHead ||
		st.ProcessingHistory[0].AdsProcessed != 11 || st.DownloadHistory[0].HamtMultihashCount != 1000 {
		n.t.Errorf("sync status %s", body)
	}
	for path, want := range map[string]string{
		"/sync/status/nonsense":    "Cannot decode peer id\n",
		"/sync/status/ad/nonsense": "Cannot decode advertisement cid\n",
	} {
		if status, _, body := n.call(http.MethodGet, n.ingest+path, ""); status != http.StatusBadRequest || body != want {
			n.t.Errorf("%s: %d %q", path, status, body)
		}
	}
	if status, header, _ := n.call(http.MethodGet, n.ingest+"/health", ""); status != http.StatusOK || header.Get("Cache-Control") != "no-cache" {
		n.t.Errorf("health: %d %v", status, header)
	}
	if status, _, _ := n.call(http.MethodGet, n.ingest+"/nosuch", ""); status != http.StatusNotFound {
		n.t.Errorf("unknown path: %d", status)
	}
}

func TestUnassignedPublisherIsRefused(t *testing.T) {
	n := startNode(t, func(c *Config) { c.AssignedOnly = true })
	info := vectorPublisher(t)
	err := n.announce(info)
	if err == nil || !strings.Contains(err.Error(), "403") {
		t.Fatalf("announce of a publisher not assigned: %v, want 403", err)
	}
	ctx := context.Background()
	a := n.ix.Admin()
	if err := a.Assign(ctx, info.ID); err != nil {
		t.Fatal(err)
	}
	if err := a.Assign(ctx, info.ID); !errors.Is(err, admin.ErrAlreadyAssigned) {
		t.Errorf("assign again: %v", err)
	}
	if err := n.announce(info); err != nil {
		t.Fatal(err)
	}
	n.waitIndexed(vectorHead)
	if got := n.providers(); got != 1 {
		t.Errorf("%d providers listed, want 1", got)
	}
	if err := a.Unassign(ctx, info.ID); err != nil {
		t.Fatal(err)
	}
	if err := a.Unassign(ctx, info.ID); !errors.Is(err, admin.ErrNotAssigned) {
		t.Errorf("unassign again: %v", err)
	}
	if got := n.providers(); got != 0 {
		t.Errorf("%d providers listed after unassign, want 0", got)
	}
	if p, err := a.Preferred(ctx); err != nil || len(p) != 0 {
		t.Errorf("preferred right after unassign: %v, %v; want none until restart", p, err)
	}
}

func (n *node) providers() int {
	n.t.Helper()
	list, err := n.ix.Finder().Providers(context.Background())
	if err != nil {
		n.t.Fatal(err)
	}
	return len(list)
}

func TestExistingPublishersArePreferredAfterRestart(t *testing.T) {
	var dir string
	n := startNode(t, func(c *Config) { dir = c.DataDir })
	info := vectorPublisher(t)
	if err := n.announce(info); err != nil {
		t.Fatal(err)
	}
	n.waitIndexed(vectorHead)
	n.stop()
	again := startNode(t, func(c *Config) { c.DataDir, c.AssignedOnly = dir, true })
	got, err := again.ix.Admin().Preferred(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]peer.ID{info.ID}, got); diff != "" {
		t.Error(diff)
	}
}

func TestHandoffGoesOnWhereTheFrozenNodeStopped(t *testing.T) {
	info := vectorPublisher(t)
	ctx := context.Background()
	frozen := startNode(t, func(c *Config) { c.AssignedOnly = true })
	if err := frozen.ix.Admin().Assign(ctx, info.ID); err != nil {
		t.Fatal(err)
	}
	if err := frozen.announce(info); err != nil {
		t.Fatal(err)
	}
	frozen.waitIndexed(vectorHead)
	if err := frozen.ix.Admin().Freeze(ctx); err != nil {
		t.Fatal(err)
	}
	if err := frozen.ix.Admin().Assign(ctx, frozen.ix.ID()); !errors.Is(err, admin.ErrFrozen) {
		t.Errorf("assign to a frozen node: %v", err)
	}

	target := startNode(t, func(c *Config) { c.AssignedOnly = true })
	a := target.ix.Admin()
	h := admin.Handoff{FrozenID: frozen.ix.ID(), FrozenURL: frozen.find + "/some/path"}
	if err := a.Handoff(ctx, frozen.ix.ID(), h); !errors.Is(err, admin.ErrNotFound) {
		t.Errorf("handoff of an unknown publisher: %v, want not found", err)
	}
	if err := a.Handoff(ctx, info.ID, h); err != nil {
		t.Fatal(err)
	}
	if err := a.Handoff(ctx, info.ID, h); !errors.Is(err, admin.ErrAlreadyAssigned) {
		t.Errorf("handoff again: %v", err)
	}
	got, err := a.Assigned(ctx)
	if err != nil {
		t.Fatal(err)
	}
	want := []admin.Assignment{{Publisher: info.ID, Continued: frozen.ix.ID()}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("assigned (-want +got):\n%s", diff)
	}
	if mark := target.ix.store.Progress(info.ID).Mark.Ad.String(); mark != vectorHead {
		t.Errorf("the target goes on after %s, want %s", mark, vectorHead)
	}
	if v, err := target.ix.store.Find(vectorMultihash(t, "hamt1000-7")); err != nil || len(v) != 0 {
		t.Errorf("data moved: %v, %v", v, err)
	}
	if p, ok, err := target.ix.store.Provider(info.ID); err != nil || !ok || len(p.Addrs) == 0 || p.Extended == nil {
		t.Errorf("provider was not taken over: %+v %v %v", p, ok, err)
	}
	dead := admin.Handoff{FrozenID: frozen.ix.ID(), FrozenURL: "http://127.0.0.1:1"}
	if err := a.Handoff(ctx, frozen.ix.ID(), dead); !errors.Is(err, admin.ErrUnavailable) {
		t.Errorf("handoff from an unreachable node: %v", err)
	}
}

func TestFreezesAtTheLimit(t *testing.T) {
	n := startNode(t, func(c *Config) { c.FreezePercent, c.DiskQuotaBytes = 1, 1 })
	deadline := time.Now().Add(testWait)
	for !n.ix.store.Frozen() {
		if time.Now().After(deadline) {
			t.Fatal("not frozen at a quota of one byte")
		}
		<-time.After(5 * time.Millisecond)
	}
	st, err := n.ix.Admin().Status(context.Background())
	if err != nil || !st.Frozen || st.Usage < 100 {
		t.Errorf("status %+v, %v", st, err)
	}
}

func TestDataDirectoryIsBoundToItsSecret(t *testing.T) {
	var dir string
	secret := bytes.Repeat([]byte{1}, 32)
	n := startNode(t, func(c *Config) { dir, c.IndexSecret = c.DataDir, secret })
	n.stop()
	for name, other := range map[string][]byte{"another": bytes.Repeat([]byte{2}, 32), "none": nil} {
		_, err := Open(Config{DataDir: dir, Key: newKey(t), IndexSecret: other, StoreMemory: 64 << 20})
		if !errors.Is(err, store.ErrOtherSecret) || !strings.Contains(err.Error(), "--index-secret") {
			t.Errorf("%s secret: %v, want one that names the flag", name, err)
		}
	}
	startNode(t, func(c *Config) { c.DataDir, c.IndexSecret = dir, secret })
}

// TestExpansionFollowsTheContract: find.md section 5.
func TestExpansionFollowsTheContract(t *testing.T) {
	main, x1, x2 := peer.ID("main"), peer.ID("x1"), peer.ID("x2")
	v := store.Value{Provider: main, ContextID: []byte("c"), Metadata: []byte("md")}
	set := func(override bool, xs ...store.ExtendedProvider) *store.ExtendedSet {
		return &store.ExtendedSet{Override: override, Providers: xs}
	}
	own := store.ExtendedProvider{ID: main}
	tests := []struct {
		name              string
		chain, contextual *store.ExtendedSet
		want              []string
	}{
		{"none", nil, nil, []string{"main/md"}},
		{"chain level, metadata inherited", set(false, own, store.ExtendedProvider{ID: x1}), nil, []string{"main/md", "x1/md"}},
		{"own metadata is shown", nil, set(false, own, store.ExtendedProvider{ID: x1, Metadata: []byte("o")}), []string{"main/md", "x1/o"}},
		{"the provider again with other metadata", nil, set(false, store.ExtendedProvider{ID: main, Metadata: []byte("o")}), []string{"main/md", "main/o"}},
		{"the provider again with the same metadata", nil, set(false, store.ExtendedProvider{ID: main, Metadata: []byte("md")}), []string{"main/md"}},
		{"context first, then chain", set(false, store.ExtendedProvider{ID: x2}), set(false, store.ExtendedProvider{ID: x1}), []string{"main/md", "x1/md", "x2/md"}},
		{"override hides the chain level", set(false, store.ExtendedProvider{ID: x2}), set(true, store.ExtendedProvider{ID: x1}), []string{"main/md", "x1/md"}},
		{"an empty override hides it too", set(false, store.ExtendedProvider{ID: x2}), set(true), []string{"main/md"}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			for _, r := range expand(v, &peer.AddrInfo{ID: v.Provider}, tc.chain, tc.contextual, func(peer.ID, store.Position) store.Place { return store.Place{} }) {
				got = append(got, string(r.Provider.ID)+"/"+string(r.Metadata))
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
