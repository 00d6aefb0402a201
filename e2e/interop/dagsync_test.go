package interop

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"
	carv2 "github.com/ipld/go-car/v2"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/storage/memstore"
	"github.com/ipni/go-libipni/announce"
	"github.com/ipni/go-libipni/dagsync"
	"github.com/ipni/go-libipni/ingest/schema"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multihash"
)

const (
	providerAddr = "/dns/gateway.example.com/tcp/443/https"
	movedAddr    = "/dns/moved.example.com/tcp/443/https"
)

// subscriber is the reference's: what deployed indexers sync chains with.
type subscriber struct {
	*dagsync.Subscriber
	store memstore.Store
}

// newSubscriber makes one that syncs in segments of two blocks, as deployed
// indexers do with larger ones.
func newSubscriber(t *testing.T, h host.Host, options ...dagsync.Option) *subscriber {
	t.Helper()
	s := &subscriber{}
	lsys := cidlink.DefaultLinkSystem()
	lsys.SetReadStorage(&s.store)
	lsys.SetWriteStorage(&s.store)
	previous := func(ad cid.Cid) (cid.Cid, error) {
		a, err := s.decode(ad)
		return a.PreviousCid(), err
	}
	var err error
	s.Subscriber, err = dagsync.NewSubscriber(h, lsys, append([]dagsync.Option{
		dagsync.SegmentDepthLimit(2), dagsync.BlockHook(dagsync.MakeGeneralBlockHook(previous)),
	}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close the reference subscriber: %v", err)
		}
	})
	return s
}

func (s *subscriber) block(c cid.Cid) ([]byte, error) {
	b, ok := s.store.Bag[cidlink.Link{Cid: c}.Binary()]
	if !ok {
		return nil, fmt.Errorf("no block %s", c)
	}
	if again, err := c.Prefix().Sum(b); err != nil || again != c {
		return nil, fmt.Errorf("block of %s hashes to %s: %v", c, again, err)
	}
	return b, nil
}

func (s *subscriber) decode(c cid.Cid) (schema.Advertisement, error) {
	b, err := s.block(c)
	if err != nil {
		return schema.Advertisement{}, err
	}
	return schema.BytesToAdvertisement(c, b)
}

// chain returns the ads from head back to genesis, each of which the reference
// accepts: decoded, within limits, signed by the publisher.
func (s *subscriber) chain(t *testing.T, head cid.Cid, publisher peer.ID, codec uint64) []schema.Advertisement {
	t.Helper()
	var ads []schema.Advertisement
	for c := head; c.Defined(); {
		if c.Prefix().Codec != codec {
			t.Errorf("ad %s has codec %x, want %x", c, c.Prefix().Codec, codec)
		}
		ad, err := s.decode(c)
		if err == nil {
			err = ad.Validate()
		}
		if err != nil {
			t.Fatalf("ad %s: %v", c, err)
		}
		if signer, err := ad.VerifySignature(); err != nil || signer != publisher {
			t.Errorf("ad %s is signed by %s, %v; want %s", c, signer, err, publisher)
		}
		if ad.Provider != publisher.String() {
			t.Errorf("ad %s is of provider %s, want %s", c, ad.Provider, publisher)
		}
		ads = append(ads, ad)
		c = ad.PreviousCid()
	}
	return ads
}

// entries syncs an ad's entries and returns their multihashes and the number
// of chunks.
func (s *subscriber) entries(t *testing.T, publisher peer.AddrInfo, ad schema.Advertisement) (mhs []multihash.Multihash, chunks int) {
	t.Helper()
	c := ad.Entries.(cidlink.Link).Cid
	nextChunk := func(c cid.Cid) (cid.Cid, error) {
		_, next, err := s.chunk(c)
		return next, err
	}
	err := s.SyncEntries(t.Context(), publisher, c, dagsync.ScopedBlockHook(dagsync.MakeGeneralBlockHook(nextChunk)))
	if err != nil {
		t.Fatalf("sync entries %s: %v", c, err)
	}
	for ; c.Defined(); chunks++ {
		chunk, next, err := s.chunk(c)
		if err != nil {
			t.Fatal(err)
		}
		mhs = append(mhs, chunk.Entries...)
		c = next
	}
	return mhs, chunks
}

// chunk decodes an entry chunk that was synced.
func (s *subscriber) chunk(c cid.Cid) (chunk schema.EntryChunk, next cid.Cid, err error) {
	b, err := s.block(c)
	if err != nil {
		return chunk, cid.Undef, err
	}
	chunk, err = schema.BytesToEntryChunk(c, b)
	if err == nil && chunk.Next != nil {
		next = chunk.Next.(cidlink.Link).Cid
	}
	return chunk, next, err
}

// published is a running signpost publish.
type published struct {
	*process
	info   peer.AddrInfo
	events []event
}

// toNobody makes signpost publish only serve.
var toNobody = []string{"--announce", "none", "--find", "none"}

// startPublish runs signpost publish until it has done its work and serves.
func startPublish(t *testing.T, data string, args ...string) *published {
	t.Helper()
	args = append([]string{"publish", "--data", data, "--listen", "127.0.0.1:0", "--json"}, args...)
	p := &published{process: start(t, "publish", args...)}
	p.events = p.untilEvent(t, "waiting")
	serving := named(p.events, "serving")
	if len(serving) != 1 || len(serving[0].Addrs) == 0 {
		t.Fatalf("events are %+v", p.events)
	}
	id, err := peer.Decode(serving[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	p.info = peer.AddrInfo{ID: id}
	for _, a := range serving[0].Addrs {
		p.info.Addrs = append(p.info.Addrs, parseAddr(t, a))
	}
	return p
}

// sync brings the subscriber to the publisher's signed head, which it returns.
func (s *subscriber) sync(t *testing.T, p *published) cid.Cid {
	t.Helper()
	head, err := s.SyncAdChain(t.Context(), peer.AddrInfo{ID: p.info.ID, Addrs: slices.Clone(p.info.Addrs)})
	if err != nil {
		t.Fatalf("sync: %v", err)
	}
	return head
}

// TestReferenceSubscriberSyncsOurChain: the reference fetches, verifies and
// understands every block of a chain of ours, in both codecs, and follows when
// the publisher comes back with changes at another address.
func TestReferenceSubscriberSyncsOurChain(t *testing.T) {
	t.Parallel()
	codecs := map[string]uint64{"dag-json": cid.DagJSON, "dag-cbor": cid.DagCBOR}
	for name, codec := range codecs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := workDir(t)
			data, files, car := filepath.Join(dir, "data"), filepath.Join(dir, "files"), filepath.Join(dir, "content.car")
			small := writeFiles(t, files)
			blocks := writeCAR(t, car, 2*16384+1, carv2.WriteAsCarV1(codec == cid.DagCBOR))

			serve := func(args ...string) *published {
				return startPublish(t, data, slices.Concat(toNobody, []string{"--codec", name}, args)...)
			}
			p := serve("--provider-addr", providerAddr, files, car)
			s := newSubscriber(t, newHost(t))
			head := s.sync(t, p)
			ads := s.chain(t, head, p.info.ID, codec)
			added := named(p.events, "added")
			if len(ads) != 2 || len(added) != 2 || head.String() != added[1].Ad {
				t.Fatalf("%d ads up to %s after %+v", len(ads), head, added)
			}
			slices.Reverse(ads) // oldest first
			for i, e := range added {
				wantAd(t, ads[i], e.Context, marshal(t, overGateway), providerAddr)
			}
			dirMhs, _ := s.entries(t, p.info, ads[0])
			root, err := cid.Decode(added[0].Roots[0])
			if err != nil {
				t.Fatal(err)
			}
			if len(dirMhs) != added[0].Multihashes || !contains(dirMhs, append(small, root.Hash())) {
				t.Errorf("entries of the directory are %d multihashes, want %d and all of its small files", len(dirMhs), added[0].Multihashes)
			}
			carMhs, chunks := s.entries(t, p.info, ads[1])
			if len(carMhs) != len(blocks) || !contains(carMhs, hashes(blocks)) || chunks != 3 {
				t.Errorf("entries of the CAR are %d multihashes in %d chunks, want the %d of its blocks in 3", len(carMhs), chunks, len(blocks))
			}
			p.stop(t)

			p = serve("--provider-addr", providerAddr, "--remove", files, "--update-metadata", "bitswap")
			changed := s.sync(t, p)
			more := s.chain(t, changed, p.info.ID, codec)
			if len(more) != 4 || more[2].PreviousCid().String() != added[0].Ad {
				t.Fatalf("%d ads after a removal and a metadata update, want 4", len(more))
			}
			wantRemoval(t, more[1], ads[0].ContextID)
			wantAd(t, more[0], ads[1].ContextID, marshal(t, overBitswap), providerAddr)
			if more[0].Entries != ads[1].Entries {
				t.Errorf("metadata update links %s, want %s again", more[0].Entries, ads[1].Entries)
			}
			p.stop(t)

			p = serve("--provider-addr", movedAddr)
			moved := s.chain(t, s.sync(t, p), p.info.ID, codec)
			if len(moved) != 5 || moved[0].PreviousCid() != changed {
				t.Fatalf("%d ads after new addresses, want 5", len(moved))
			}
			wantAd(t, moved[0], nil, nil, movedAddr)
			if moved[0].Entries != schema.NoEntries {
				t.Errorf("address update links entries %s", moved[0].Entries)
			}
		})
	}
}

// TestReferenceSubscriberSyncsOurStreams: a chain of ours is synced over libp2p
// streams by whoever knows no HTTP address of it.
func TestReferenceSubscriberSyncsOurStreams(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	car := filepath.Join(dir, "content.car")
	blocks := writeCAR(t, car, 16384+1, carv2.WriteAsCarV1(true))
	p := &published{process: start(t, "publish", slices.Concat([]string{"publish", "--data", filepath.Join(dir, "data"), "--listen", "127.0.0.1:0", "--json"},
		toNobody, []string{"--listen-p2p", "127.0.0.1:0", "--provider-addr", providerAddr, car})...)}
	p.events = p.untilEvent(t, "added") // after that it looks for somebody to gossip with
	infos, err := addrInfos(named(p.events, "serving")[0].P2P)
	if err != nil || len(infos) != 1 {
		t.Fatalf("serves at %+v, %v", infos, err)
	}
	p.info = infos[0]
	s := newSubscriber(t, newHost(t))
	ads := s.chain(t, s.sync(t, p), p.info.ID, cid.DagJSON)
	if len(ads) != 1 {
		t.Fatalf("%d ads, want 1", len(ads))
	}
	if mhs, chunks := s.entries(t, p.info, ads[0]); len(mhs) != len(blocks) || chunks != 2 {
		t.Errorf("%d multihashes in %d chunks, want %d in 2", len(mhs), chunks, len(blocks))
	}
}

// wantAd compares an ad that carries content with what it should say.
func wantAd(t *testing.T, ad schema.Advertisement, contextID, md []byte, addrs ...string) {
	t.Helper()
	if !bytes.Equal(ad.ContextID, contextID) || !bytes.Equal(ad.Metadata, md) || !slices.Equal(ad.Addresses, addrs) || ad.IsRm {
		t.Errorf("ad is %+v, want context %x, metadata %x, addresses %v", ad, contextID, md, addrs)
	}
}

// wantRemoval checks an ad that removes a context.
func wantRemoval(t *testing.T, ad schema.Advertisement, contextID []byte) {
	t.Helper()
	if !ad.IsRm || !bytes.Equal(ad.ContextID, contextID) || ad.Entries != schema.NoEntries {
		t.Errorf("ad is %+v, want the removal of context %x", ad, contextID)
	}
}

// TestReferenceSubscriberHearsOurGossip: a chain announced by us over gossip
// alone is synced by a reference subscriber.
func TestReferenceSubscriberHearsOurGossip(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	files := filepath.Join(dir, "files")
	writeFiles(t, files)
	key, _ := newIdentity(t)
	g := joinGossip(t, key)
	s := newSubscriber(t, g.host, dagsync.RecvAnnounce("", announce.WithTopic(g.topic)))
	finished, cancel := s.OnSyncFinished()
	defer cancel()

	addrs, err := peer.AddrInfoToP2pAddrs(host.InfoFromHost(g.host))
	if err != nil {
		t.Fatal(err)
	}
	p := startPublish(t, filepath.Join(dir, "data"), append(slices.Clone(toNobody), "--gossip-peer", loopback(addrs), files)...)
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	select {
	case done := <-finished:
		if done.Err != nil || done.PeerID != p.info.ID {
			t.Fatalf("synced %+v, want the chain of %s", done, p.info.ID)
		}
		if ads := s.chain(t, done.Cid, p.info.ID, cid.DagJSON); len(ads) != 1 {
			t.Errorf("%d ads, want 1", len(ads))
		}
	case <-ctx.Done():
		t.Fatal("the reference subscriber heard nothing")
	}
}

// loopback is the address another process on this machine dials.
func loopback(addrs []multiaddr.Multiaddr) string {
	for _, a := range addrs {
		if ip, err := a.ValueForProtocol(multiaddr.P_IP4); err == nil && ip == "127.0.0.1" {
			return a.String()
		}
	}
	return ""
}

func hashes(cids []cid.Cid) []multihash.Multihash {
	var mhs []multihash.Multihash
	for _, c := range cids {
		mhs = append(mhs, c.Hash())
	}
	return mhs
}

// contains says whether all has every one of some, and nothing twice.
func contains(all, some []multihash.Multihash) bool {
	have := make(map[string]bool, len(all))
	for _, mh := range all {
		have[string(mh)] = true
	}
	for _, mh := range some {
		if !have[string(mh)] {
			return false
		}
	}
	return len(have) == len(all)
}
