package interop

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http/httptest"
	"net/url"
	"slices"
	"sync"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/ipni/go-libipni/maurl"
	"github.com/ipni/go-libipni/metadata"
	provider "github.com/ipni/index-provider"
	"github.com/ipni/index-provider/engine"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multihash"
)

// retrievalAddr and the protocols are what reference publishers advertise.
const retrievalAddr = "/ip4/192.0.2.7/tcp/4001"

var (
	overBitswap = metadata.Default.New(metadata.Bitswap{})
	overGateway = metadata.Default.New(metadata.IpfsGatewayHttp{})
)

// publisher is the reference publisher: index-provider's engine, and the
// contents it lists for each context.
type publisher struct {
	*engine.Engine
	t   *testing.T
	key crypto.PrivKey
	id  peer.ID
	ds  datastore.Batching

	mu       sync.Mutex
	contexts map[string][]multihash.Multihash
}

func newPublisher(t *testing.T) *publisher {
	t.Helper()
	key, id := newIdentity(t)
	return &publisher{
		t: t, key: key, id: id,
		ds:       dssync.MutexWrap(datastore.NewMapDatastore()),
		contexts: make(map[string][]multihash.Multihash),
	}
}

// open starts the engine over the publisher's datastore. A publisher that was
// shut down can be opened again: it goes on with its chain.
func (p *publisher) open(more ...engine.Option) {
	p.t.Helper()
	var err error
	p.Engine, err = engine.New(append([]engine.Option{
		engine.WithPrivateKey(p.key),
		engine.WithProvider(peer.AddrInfo{ID: p.id, Addrs: []multiaddr.Multiaddr{parseAddr(p.t, retrievalAddr)}}),
		engine.WithDatastore(p.ds),
		engine.WithPublisherKind(engine.HttpPublisher),
		engine.WithPubsubAnnounce(false),
	}, more...)...)
	if err != nil {
		p.t.Fatal(err)
	}
	p.RegisterMultihashLister(p.list)
	if err := p.Start(context.WithoutCancel(p.t.Context())); err != nil {
		p.t.Fatal(err)
	}
}

func (p *publisher) list(_ context.Context, _ peer.ID, contextID []byte) (provider.MultihashIterator, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	mhs, ok := p.contexts[string(contextID)]
	if !ok {
		return nil, fmt.Errorf("no context %q", contextID)
	}
	return provider.SliceMultihashIterator(mhs), nil
}

func (p *publisher) shutdown() {
	if err := p.Shutdown(); err != nil {
		p.t.Errorf("shut the reference publisher down: %v", err)
	}
}

// startAnnouncing starts a reference publisher with its own HTTP server, which
// announces each advertisement to the URLs itself.
func startAnnouncing(t *testing.T, announceTo string, more ...engine.Option) *publisher {
	t.Helper()
	p := newPublisher(t)
	p.openAnnouncing(announceTo, more...)
	t.Cleanup(func() { p.shutdown() })
	return p
}

func (p *publisher) openAnnouncing(announceTo string, more ...engine.Option) {
	p.t.Helper()
	p.open(append([]engine.Option{
		engine.WithHttpPublisherListenAddr("127.0.0.1:0"),
		engine.WithDirectAnnounce(announceTo),
	}, more...)...)
}

// startSilent starts a reference publisher behind a server of the test, as
// applications with a server of their own run it. It announces nothing; the
// returned address is where its chain is.
func startSilent(t *testing.T, more ...engine.Option) (*publisher, peer.AddrInfo) {
	t.Helper()
	return startSilentAt(t, "", more...)
}

// startSilentAt serves the chain below a path.
func startSilentAt(t *testing.T, path string, more ...engine.Option) (*publisher, peer.AddrInfo) {
	t.Helper()
	p := newPublisher(t)
	p.open(append([]engine.Option{engine.WithHttpPublisherWithoutServer(), engine.WithHttpPublisherHandlerPath(path)}, more...)...)
	t.Cleanup(p.shutdown)
	serve, err := p.GetPublisherHttpFunc()
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(serve)
	t.Cleanup(srv.Close)
	u, err := url.Parse(srv.URL + path)
	if err != nil {
		t.Fatal(err)
	}
	addr, err := maurl.FromURL(u)
	if err != nil {
		t.Fatal(err)
	}
	return p, peer.AddrInfo{ID: p.id, Addrs: []multiaddr.Multiaddr{addr}}
}

// put publishes the multihashes under the context.
func (p *publisher) put(contextID string, mhs []multihash.Multihash, md metadata.Metadata) cid.Cid {
	p.t.Helper()
	p.listing(content{contextID: contextID, mhs: mhs})
	ad, err := p.NotifyPut(p.t.Context(), nil, []byte(contextID), md)
	if err != nil {
		p.t.Fatalf("put %s: %v", contextID, err)
	}
	return ad
}

// listing lets the engine find the multihashes of a context.
func (p *publisher) listing(c content) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.contexts[c.contextID] = c.mhs
}

// remove publishes the removal of the context.
func (p *publisher) remove(contextID string) cid.Cid {
	p.t.Helper()
	ad, err := p.NotifyRemove(p.t.Context(), "", []byte(contextID))
	if err != nil {
		p.t.Fatalf("remove %s: %v", contextID, err)
	}
	return ad
}

// newIdentity makes a key and its peer ID.
func newIdentity(t *testing.T) (crypto.PrivKey, peer.ID) {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(nil)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, id
}

// multihashes makes n multihashes that no other name has.
func multihashes(name string, n int) []multihash.Multihash {
	mhs := make([]multihash.Multihash, n)
	for i := range mhs {
		mhs[i] = sum(fmt.Appendf(nil, "%s %d", name, i))
	}
	return mhs
}

// sum is the sha2-256 multihash of b.
func sum(b []byte) multihash.Multihash {
	digest := sha256.Sum256(b)
	return slices.Concat(multihash.Multihash{multihash.SHA2_256, sha256.Size}, digest[:])
}

// marshal is the wire form of metadata.
func marshal(t *testing.T, md metadata.Metadata) []byte {
	t.Helper()
	b, err := md.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func parseAddr(t *testing.T, text string) multiaddr.Multiaddr {
	t.Helper()
	a, err := multiaddr.NewMultiaddr(text)
	if err != nil {
		t.Fatal(err)
	}
	return a
}
