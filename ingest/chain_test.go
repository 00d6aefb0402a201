package ingest

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
	"go.uber.org/goleak"

	"github.com/signpost-index/signpost/ingest/ipnisync"
	"github.com/signpost-index/signpost/ingest/schema"
	"github.com/signpost-index/signpost/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testWait = 30 * time.Second

// bitswap is metadata of one protocol.
var bitswap = []byte{0x80, 0x12}

// testChain builds and serves a publisher's chain in memory.
type testChain struct {
	t     testing.TB
	key   crypto.PrivKey
	mem   *ipnisync.Memory
	head  cid.Cid
	codec schema.Codec

	mu    sync.Mutex
	fault func(c cid.Cid, hint ipnisync.Hint) error // may refuse a block
	asked map[cid.Cid]int
}

func newTestChain(t testing.TB) *testChain {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return chainOf(t, key)
}

func chainOf(t testing.TB, key crypto.PrivKey) *testChain {
	return &testChain{t: t, key: key, mem: ipnisync.NewMemory(key, ""), codec: schema.DagJSON, asked: make(map[cid.Cid]int)}
}

func (c *testChain) id() peer.ID { return c.mem.ID() }

// testMultihashes are n multihashes that belong to name.
func testMultihashes(t testing.TB, name string, n int) []multihash.Multihash {
	t.Helper()
	out := make([]multihash.Multihash, n)
	for k := range out {
		mh, err := multihash.Sum(fmt.Appendf(nil, "%s-%d", name, k), multihash.SHA2_256, -1)
		if err != nil {
			t.Fatal(err)
		}
		out[k] = mh
	}
	return out
}

// entries stores chunks of the multihashes and returns the first link.
func (c *testChain) entries(mhs []multihash.Multihash, chunk int) cid.Cid {
	next := cid.Undef
	for len(mhs) > 0 {
		n := min(chunk, len(mhs))
		b, err := (&schema.EntryChunk{Entries: mhs[:n], Next: next}).Encode(c.codec)
		if err != nil {
			c.t.Fatal(err)
		}
		next = c.mem.Put(b, c.codec)
		mhs = mhs[n:]
	}
	return next
}

// ad signs and appends an ad made from the fields given; Provider, Addresses
// and PreviousID are filled in.
func (c *testChain) ad(ad schema.Advertisement) cid.Cid {
	c.t.Helper()
	ad.PreviousID = c.head
	if ad.Provider == "" {
		ad.Provider = c.id().String()
	}
	if ad.Addresses == nil {
		ad.Addresses = []string{"/ip4/203.0.113.7/tcp/24001"}
	}
	if !ad.Entries.Defined() {
		ad.Entries = schema.NoEntries
	}
	if err := ad.Sign(c.key); err != nil {
		c.t.Fatal(err)
	}
	return c.raw(&ad)
}

// raw appends an ad as it is.
func (c *testChain) raw(ad *schema.Advertisement) cid.Cid {
	c.t.Helper()
	b, err := ad.Encode(c.codec)
	if err != nil {
		c.t.Fatal(err)
	}
	c.setHead(c.mem.Put(b, c.codec))
	return c.head
}

func (c *testChain) setHead(head cid.Cid) {
	c.t.Helper()
	c.head = head
	if err := c.mem.SetHead(head); err != nil {
		c.t.Fatal(err)
	}
}

func (c *testChain) put(ctxID string, mhs []multihash.Multihash) cid.Cid {
	return c.ad(schema.Advertisement{ContextID: []byte(ctxID), Metadata: bitswap, Entries: c.entries(mhs, 10)})
}

func (c *testChain) remove(ctxID string) cid.Cid {
	return c.ad(schema.Advertisement{ContextID: []byte(ctxID), IsRm: true})
}

// Head and Block make the chain an ipnisync.Source with faults.
func (c *testChain) Head(ctx context.Context) (*schema.SignedHead, error) { return c.mem.Head(ctx) }

func (c *testChain) Block(ctx context.Context, k cid.Cid) ([]byte, error) {
	c.mu.Lock()
	fault := c.fault
	c.asked[k]++
	c.mu.Unlock()
	if fault != nil {
		if err := fault(k, ""); err != nil {
			return nil, err
		}
	}
	return c.mem.Block(ctx, k)
}

func (c *testChain) setFault(f func(cid.Cid, ipnisync.Hint) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fault = f
}

func (c *testChain) timesAsked(k cid.Cid) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked[k]
}

// testNode is a store and an ingester over some chains.
type testNode struct {
	t      testing.TB
	store  *store.Store
	i      *Ingester
	chains map[peer.ID]*testChain
	cfg    store.Config

	failed chan cid.Cid
	once   sync.Once
}

func openNode(t testing.TB, fs vfs.FS, chains ...*testChain) *testNode {
	t.Helper()
	return openNodeOn(t, store.Config{Dir: "data", FS: fs, MemoryBytes: 64 << 20, SyncEvery: time.Millisecond}, nil, chains...)
}

func openNodeOn(t testing.TB, cfg store.Config, mayPublish func(id, provider peer.ID) bool, chains ...*testChain) *testNode {
	t.Helper()
	st, err := store.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	n := &testNode{t: t, store: st, cfg: cfg, chains: make(map[peer.ID]*testChain), failed: make(chan cid.Cid, 1000)}
	for _, c := range chains {
		n.chains[c.id()] = c
	}
	n.i, err = Open(Config{
		Store: st,
		Dial: func(ai peer.AddrInfo) (Publisher, error) {
			c, ok := n.chains[ai.ID]
			if !ok {
				return nil, errors.New("no such chain")
			}
			return FromSource(ai.ID, c), nil
		},
		MayPublish: mayPublish,
		Failed:     func(_ peer.AddrInfo, head cid.Cid) { n.failed <- head },
		RetryMin:   time.Millisecond, RetryMax: 5 * time.Millisecond,
		AdRetryMin: time.Millisecond, AdRetryMax: 5 * time.Millisecond,
		Logger: testLogger(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	n.i.cursorEvery = 20
	t.Cleanup(n.close)
	return n
}

func testLogger(t testing.TB) *slog.Logger {
	if !testing.Verbose() {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

func (n *testNode) close() { n.once.Do(n.closeOnce) }

func (n *testNode) closeOnce() {
	if err := n.i.Close(); err != nil {
		n.t.Error(err)
	}
	if err := n.store.Close(); err != nil {
		n.t.Error(err)
	}
}

// notify announces the chain's head, as a direct announce does.
func (n *testNode) notify(c *testChain, head cid.Cid) {
	n.t.Helper()
	if err := n.i.Notify(peer.AddrInfo{ID: c.id(), Addrs: parseAddrs([]string{"/ip4/127.0.0.1/tcp/1/http"})}, head); err != nil {
		n.t.Fatal(err)
	}
}

// idle waits until no worker is left.
func (n *testNode) idle() {
	n.t.Helper()
	n.until("no work is left", func() bool {
		n.i.mu.Lock()
		defer n.i.mu.Unlock()
		return len(n.i.workers) == 0
	})
}

func (n *testNode) until(what string, cond func() bool) {
	n.t.Helper()
	for deadline := time.Now().Add(testWait); !cond(); {
		if time.Now().After(deadline) {
			n.t.Fatalf("waited %v until %s", testWait, what)
		}
		<-time.After(time.Millisecond)
	}
}

// sync announces the head and waits until it is applied.
func (n *testNode) sync(c *testChain) {
	n.t.Helper()
	n.notify(c, c.head)
	n.idle()
	if got := n.store.Progress(c.id()).Mark.Ad; got != c.head {
		n.t.Fatalf("mark is %s, want the head %s", got, c.head)
	}
}

// found returns the values of mh as "provider/context" strings.
func (n *testNode) found(mh multihash.Multihash) []store.Value {
	n.t.Helper()
	v, err := n.store.Find(mh)
	if err != nil {
		n.t.Fatal(err)
	}
	return v
}

func (n *testNode) wantFound(mhs []multihash.Multihash, ctxID string) {
	n.t.Helper()
	for k, mh := range mhs {
		v := n.found(mh)
		if len(v) != 1 || string(v[0].ContextID) != ctxID {
			n.t.Fatalf("multihash %d of %s: found %v", k, ctxID, v)
		}
	}
}

func (n *testNode) wantGone(mhs []multihash.Multihash) {
	n.t.Helper()
	for k, mh := range mhs {
		if v := n.found(mh); len(v) != 0 {
			n.t.Fatalf("multihash %d is still found: %v", k, v)
		}
	}
}

func (n *testNode) verdict(ad cid.Cid) store.AdState {
	n.t.Helper()
	st, ok, err := n.store.AdState(ad)
	if err != nil || !ok {
		n.t.Fatalf("state of ad %s: known %v, err %v", ad, ok, err)
	}
	return st
}

// vectorKey returns a named key of the wire vectors.
func vectorKey(t testing.TB, name string) crypto.PrivKey {
	t.Helper()
	var file struct {
		Keys []struct {
			Name    string `json:"name"`
			Private string `json:"private_key_b64"`
		} `json:"keys"`
	}
	readJSON(t, "keys.json", &file)
	for _, k := range file.Keys {
		if k.Name != name {
			continue
		}
		raw, err := base64.StdEncoding.DecodeString(k.Private)
		if err != nil {
			t.Fatal(err)
		}
		key, err := crypto.UnmarshalPrivateKey(raw)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	t.Fatalf("no vector key %q", name)
	return nil
}

func readJSON(t testing.TB, name string, v any) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, v); err != nil {
		t.Fatal(err)
	}
}

// vectorChain serves every positive block of the wire vectors.
func vectorChain(t testing.TB, head string) *testChain {
	t.Helper()
	c := chainOf(t, vectorKey(t, "provider"))
	files, err := os.ReadDir(filepath.Join("testdata", "blocks"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		raw, err := os.ReadFile(filepath.Join("testdata", "blocks", f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		c.mem.PutCID(mustCID(t, f.Name()), raw)
	}
	c.setHead(mustCID(t, head))
	return c
}

func mustCID(t testing.TB, text string) cid.Cid {
	t.Helper()
	k, err := cid.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}
