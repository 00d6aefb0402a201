package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/announce"
	"github.com/signpost-index/signpost/ingest/ipnisync"
	"github.com/signpost-index/signpost/ingest/schema"
)

// The metadata of synthetic ads: transport-bitswap, and with the HTTP gateway.
var (
	bitswap        = []byte{0x80, 0x12}
	bitswapGateway = []byte{0x80, 0x12, 0xa0, 0x12, 0x00}
)

const providerAddr = "/ip4/192.0.2.1/tcp/4001"

// chain is a publisher made by the test: a chain in memory, served over HTTP
// by the test's own process, which can therefore lie, stall and watch.
type chain struct {
	t     testing.TB
	key   crypto.PrivKey
	id    peer.ID
	codec schema.Codec
	mem   *ipnisync.Memory
	head  cid.Cid
	addr  multiaddr.Multiaddr
	made  []cid.Cid // blocks put since they were taken over by a wire

	heads atomic.Int64 // times the head was asked for
	gate  gate
}

// newChain makes the publisher of this name: the same name has the same key.
func newChain(t testing.TB, name string) *chain {
	t.Helper()
	c := &chain{t: t, key: keyOf(t, name), codec: schema.DagJSON}
	c.mem = ipnisync.NewMemory(c.key, announce.DefaultTopic)
	c.id = c.mem.ID()
	c.addr = c.serve(ipnisync.NewHandler(c.mem))
	return c
}

// keyOf is the ed25519 key of a name.
func keyOf(t testing.TB, name string) crypto.PrivKey {
	t.Helper()
	var seed [32]byte
	copy(seed[:], name)
	key, _, err := crypto.GenerateEd25519Key(rand.NewChaCha8(seed))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// serve serves h until the test ends and returns its address.
func (c *chain) serve(h http.Handler) multiaddr.Multiaddr {
	c.t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		what := path.Base(r.URL.Path)
		if what == "head" {
			c.heads.Add(1)
		}
		if c.gate.pass(r.Context(), what) {
			h.ServeHTTP(w, r)
		}
	}))
	c.t.Cleanup(srv.Close)
	c.t.Cleanup(c.gate.letGo)
	return addrOf(c.t, srv.URL)
}

// addrOf is the multiaddr of an HTTP URL.
func addrOf(t testing.TB, rawURL string) multiaddr.Multiaddr {
	t.Helper()
	u, err := url.Parse(rawURL)
	if err != nil {
		t.Fatal(err)
	}
	addr, err := ipnisync.FromURL(u)
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// announced is the announce of the chain's head.
func (c *chain) announced() announce.Announce {
	return announce.Announce{Head: c.head, Publisher: peer.AddrInfo{ID: c.id, Addrs: []multiaddr.Multiaddr{c.addr}}}
}

// announce tells the indexer or assigner at url of the head.
func (c *chain) announce(url string) {
	c.t.Helper()
	send(c.t, url, c.announced())
}

func send(t testing.TB, url string, a announce.Announce) {
	t.Helper()
	if err := announce.NewSender(client).Send(t.Context(), url, a); err != nil {
		t.Fatal(err)
	}
}

// block stores a block and returns its CID.
func (c *chain) block(b []byte, err error) cid.Cid {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
	link := c.mem.Put(b, c.codec)
	c.made = append(c.made, link)
	return link
}

// entries stores mhs as a list of chunks of at most per multihashes and
// returns the links, in the order they are fetched.
func (c *chain) entries(mhs []multihash.Multihash, per int) []cid.Cid {
	c.t.Helper()
	var links []cid.Cid
	next := cid.Undef
	for end := len(mhs); end > 0; {
		begin := (end - 1) / per * per
		next = c.block((&schema.EntryChunk{Entries: mhs[begin:end], Next: next}).Encode(c.codec))
		links = append([]cid.Cid{next}, links...)
		end = begin
	}
	return links
}

// ad is an ad of the chain's own provider, not yet signed or linked.
func (c *chain) ad(contextID string, entries cid.Cid) schema.Advertisement {
	return schema.Advertisement{
		Provider: c.id.String(), Addresses: []string{providerAddr},
		Entries: entries, ContextID: []byte(contextID), Metadata: bitswap,
	}
}

// push links the ad to the head, signs it and makes it the head.
func (c *chain) push(ad schema.Advertisement) cid.Cid {
	c.t.Helper()
	ad.PreviousID = c.head
	if err := ad.Sign(c.key); err != nil {
		c.t.Fatal(err)
	}
	return c.pushRaw(ad)
}

// pushRaw makes the ad the head as it is, whatever it is.
func (c *chain) pushRaw(ad schema.Advertisement) cid.Cid {
	c.t.Helper()
	c.setHead(c.block(ad.Encode(c.codec)))
	return c.head
}

func (c *chain) setHead(head cid.Cid) {
	c.t.Helper()
	c.head = head
	if err := c.mem.SetHead(head); err != nil {
		c.t.Fatal(err)
	}
}

// add publishes mhs under a context, in chunks of 1000.
func (c *chain) add(contextID string, mhs []multihash.Multihash) cid.Cid {
	c.t.Helper()
	return c.push(c.ad(contextID, c.entries(mhs, 1000)[0]))
}

// remove publishes the removal of a context.
func (c *chain) remove(contextID string) cid.Cid {
	c.t.Helper()
	ad := c.ad(contextID, schema.NoEntries)
	ad.IsRm, ad.Metadata = true, nil
	return c.push(ad)
}

// multihashes makes n sha2-256 multihashes, always the same for a seed.
func multihashes(seed string, n int) []multihash.Multihash {
	rnd := rand.NewChaCha8(sha256.Sum256([]byte(seed)))
	const size = 2 + sha256.Size
	all := make([]byte, n*size)
	out := make([]multihash.Multihash, n)
	for i := range out {
		mh := all[i*size : (i+1)*size : (i+1)*size]
		mh[0], mh[1] = multihash.SHA2_256, sha256.Size
		for at := 2; at < size; at += 8 {
			binary.LittleEndian.PutUint64(mh[at:], rnd.Uint64())
		}
		out[i] = mh
	}
	return out
}

// gate holds up requests for one resource.
type gate struct {
	mu      sync.Mutex
	what    string
	reached chan struct{} // closed when somebody asks for what
	open    chan struct{} // closed to let them in
}

// close holds up requests for what, a CID or "head", until the gate is opened.
// The channel is closed when the first one has come.
func (g *gate) close(what string) (reached <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.what, g.reached, g.open = what, make(chan struct{}), make(chan struct{})
	return g.reached
}

// letGo opens the gate.
func (g *gate) letGo() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.what != "" {
		g.what = ""
		close(g.open)
	}
}

// await waits until somebody is at the gate.
func (c *chain) await(reached <-chan struct{}) {
	c.t.Helper()
	select {
	case <-reached:
	case <-time.After(patience):
		c.t.Fatalf("nobody has come within %v", patience)
	}
}

// pass waits at the gate; false if the client has left meanwhile.
func (g *gate) pass(ctx context.Context, what string) bool {
	g.mu.Lock()
	if g.what == "" || g.what != what {
		g.mu.Unlock()
		return true
	}
	select {
	case <-g.reached:
	default:
		close(g.reached)
	}
	open := g.open
	g.mu.Unlock()
	select {
	case <-open:
		return true
	case <-ctx.Done():
		return false
	}
}

// fetchAd is an ad as the publisher at addr serves it.
func fetchAd(t testing.TB, info peer.AddrInfo, c cid.Cid) *schema.Advertisement {
	t.Helper()
	ad, err := func() (*schema.Advertisement, error) {
		hc := ipnisync.NewClient(ipnisync.ClientConfig{AllowPrivate: true})
		defer hc.Close()
		pub, err := hc.Publisher(info)
		if err != nil {
			return nil, err
		}
		block, err := pub.Block(t.Context(), c, ipnisync.HintAdvertisement)
		if err != nil {
			return nil, err
		}
		ad, err := schema.DecodeAdvertisement(c, block)
		if err != nil {
			return nil, err
		}
		_, err = ad.Verify()
		return ad, err
	}()
	if err != nil {
		t.Fatalf("ad %s of %s: %v", c, info.ID, err)
	}
	return ad
}
