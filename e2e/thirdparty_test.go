package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/signpost-index/signpost/announce"
	"github.com/signpost-index/signpost/ingest/ipnisync"
	"github.com/signpost-index/signpost/ingest/schema"
)

// victim is an honest publisher whose content is known and must stay as it is.
type victim struct {
	*chain
	ix      *indexer
	want    index
	addrs   []multiaddr.Multiaddr // of the provider, as the indexer lists them
	next    int                   // number of the next honest ad
	removed *schema.Advertisement // its genuine removal of "removed"
	content *schema.Advertisement // its genuine ad of "removed", now history
	adCID   cid.Cid               // of content
}

func newVictim(t *testing.T, ix *indexer) *victim {
	t.Helper()
	v := &victim{chain: newChain(t, "victim"), ix: ix, want: make(index)}
	v.honest()
	gone := multihashes("removed", 20)
	v.adCID = v.add("removed", gone)
	v.want = v.want.with("", gone)
	v.content = v.adOf(v.adCID)
	v.removed = v.adOf(v.remove("removed"))
	v.honest()
	v.announce(ix.Ingest)
	untilDone(t, ix.Ingest, v.chain)
	v.addrs = v.listed()
	v.want.mustFind(t, ix.Find, "before the attack")
	return v
}

// honest adds an ad to the victim's chain.
func (v *victim) honest() cid.Cid {
	v.t.Helper()
	name := fmt.Sprintf("honest %d", v.next)
	v.next++
	mhs := multihashes(name, 50)
	v.want = v.want.with(newHolding(v.id, []byte(name), bitswap), mhs)
	return v.add(name, mhs)
}

// adOf is an ad of the victim's chain as anybody can fetch it.
func (v *victim) adOf(c cid.Cid) *schema.Advertisement {
	return fetchAd(v.t, peer.AddrInfo{ID: v.id, Addrs: []multiaddr.Multiaddr{v.addr}}, c)
}

// listed are the provider's addresses at the indexer.
func (v *victim) listed() []multiaddr.Multiaddr {
	v.t.Helper()
	info := providerInfo(v.t, v.ix.Find, v.id)
	if info == nil {
		v.t.Fatal("the indexer does not list the provider")
	}
	return info.AddrInfo.Addrs
}

// unharmed checks that nothing has changed, and that the victim can still
// publish.
func (v *victim) unharmed() {
	v.t.Helper()
	v.want.mustFind(v.t, v.ix.Find, "after the attack")
	if diff := cmp.Diff(texts(v.addrs), texts(v.listed())); diff != "" {
		v.t.Errorf("provider addresses have changed:\n%s", diff)
	}
	if info := providerInfo(v.t, v.ix.Find, v.id); info.Publisher == nil || info.Publisher.ID != v.id {
		v.t.Errorf("publisher of the provider is %v, want %s", info.Publisher, v.id)
	}
	v.honest()
	v.announce(v.ix.Ingest)
	untilDone(v.t, v.ix.Ingest, v.chain)
	v.want.mustFind(v.t, v.ix.Find, "after the victim's next ad")
	if diff := cmp.Diff(texts(v.addrs), texts(v.listed())); diff != "" {
		v.t.Errorf("provider addresses have changed after the next ad:\n%s", diff)
	}
}

func texts(addrs []multiaddr.Multiaddr) []string {
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return out
}

// untilAsked waits until somebody has asked c for its head n times more than
// at the time of the call of asked.
func untilAsked(c *chain, more int64) (wait func()) {
	before := c.heads.Load()
	return func() {
		c.t.Helper()
		eventually(c.t, "the indexer looks at the head", func() error {
			if got := c.heads.Load() - before; got < more {
				return fmt.Errorf("asked %d times, want %d", got, more)
			}
			return nil
		})
	}
}

// TestThirdPartyChangesNothing: whatever a stranger announces, and whatever
// his own chain says about somebody else, nothing of the other's changes. Each
// case attacks and returns when the indexer has dealt with the attack.
func TestThirdPartyChangesNothing(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name   string
		attack func(t *testing.T, v *victim, attacker *chain)
	}{
		{"announce of an ad that is not in the chain", func(t *testing.T, v *victim, _ *chain) {
			wait := untilAsked(v.chain, 1)
			a := v.announced()
			a.Head = schema.LinkOf(schema.DagJSON, []byte("no such ad"))
			send(t, v.ix.Ingest, a)
			wait()
		}},
		{"announce of an attacker's ad under the victim's name", func(t *testing.T, v *victim, attacker *chain) {
			attacker.pushRaw(forgedRemoval(v, attacker))
			wait := untilAsked(v.chain, 1)
			a := v.announced()
			a.Head = attacker.head
			send(t, v.ix.Ingest, a)
			wait()
		}},
		{"address that serves a head of another key", func(t *testing.T, v *victim, attacker *chain) {
			attacker.pushRaw(forgedRemoval(v, attacker))
			wait := untilAsked(attacker, 1)
			send(t, v.ix.Ingest, announce.Announce{
				Head: attacker.head, Publisher: peer.AddrInfo{ID: v.id, Addrs: []multiaddr.Multiaddr{attacker.addr}},
			})
			wait()
		}},
		{"address that serves a head with the victim's key and no signature of it", func(t *testing.T, v *victim, attacker *chain) {
			attacker.pushRaw(forgedRemoval(v, attacker))
			head, err := schema.SignHead(attacker.head, announce.DefaultTopic, attacker.key)
			if err != nil {
				t.Fatal(err)
			}
			genuine, err := v.mem.Head(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			head.Pubkey = genuine.Pubkey
			addr := attacker.serve(ipnisync.NewHandler(impostor{attacker.mem, head}))
			wait := untilAsked(attacker, 1)
			send(t, v.ix.Ingest, announce.Announce{
				Head: attacker.head, Publisher: peer.AddrInfo{ID: v.id, Addrs: []multiaddr.Multiaddr{addr}},
			})
			wait()
		}},
		{"ad that names the victim, signed by the attacker", func(t *testing.T, v *victim, attacker *chain) {
			attacker.rejects(v.ix, attacker.pushRaw(signed(attacker, forgedRemoval(v, attacker))))
		}},
		{"content and addresses for the victim, signed by the attacker", func(t *testing.T, v *victim, attacker *chain) {
			ad := attacker.ad("honest 0", attacker.entries(multihashes("forged", 10), 10)[0])
			ad.Provider, ad.Addresses = v.id.String(), []string{"/ip4/198.51.100.9/tcp/9/http"}
			v.want = v.want.with("", multihashes("forged", 10))
			attacker.rejects(v.ix, attacker.pushRaw(signed(attacker, ad)))
		}},
		{"unsigned removal", func(t *testing.T, v *victim, attacker *chain) {
			attacker.rejects(v.ix, attacker.pushRaw(forgedRemoval(v, attacker)))
		}},
		{"removal with the victim's signature of another ad", func(t *testing.T, v *victim, attacker *chain) {
			ad := forgedRemoval(v, attacker)
			ad.Signature = v.content.Signature
			attacker.rejects(v.ix, attacker.pushRaw(ad))
		}},
		{"genuine removal with another context ID", func(t *testing.T, v *victim, attacker *chain) {
			// The signature does not cover the context ID: this ad verifies.
			ad := *v.removed
			ad.ContextID = []byte("honest 0")
			attacker.mirrors(v, ad)
		}},
		{"genuine content with an extended provider", func(t *testing.T, v *victim, attacker *chain) {
			// Nor does it cover extended providers.
			attacker.mirrors(v, withExtended(*v.adOf(v.head), attacker))
		}},
		{"replay of content that was removed later", func(t *testing.T, v *victim, attacker *chain) {
			attacker.copyOf(v)
			attacker.setHead(v.adCID)
			attacker.deals(v.ix, v.adCID)
		}},
		{"replay of an old head at another address", func(t *testing.T, v *victim, attacker *chain) {
			old := ipnisync.NewMemory(v.key, announce.DefaultTopic)
			if err := old.SetHead(v.adCID); err != nil {
				t.Fatal(err)
			}
			addr := attacker.serve(ipnisync.NewHandler(old))
			wait := untilAsked(attacker, 1)
			send(t, v.ix.Ingest, announce.Announce{
				Head:      schema.LinkOf(schema.DagJSON, []byte("not yet known")),
				Publisher: peer.AddrInfo{ID: v.id, Addrs: []multiaddr.Multiaddr{addr}},
			})
			wait()
		}},
		{"announce of the victim's next ad as the attacker's, who stalls", func(t *testing.T, v *victim, attacker *chain) {
			attacker.await(announceStalled(v, attacker, attacker.id))
			v.announce(v.ix.Ingest)
			untilDone(t, v.ix.Ingest, v.chain)
		}},
		{"announce of the victim's next ad at the attacker's address, who stalls", func(t *testing.T, v *victim, attacker *chain) {
			announceStalled(v, attacker, v.id) // perhaps not even asked
			v.announce(v.ix.Ingest)
			untilDone(t, v.ix.Ingest, v.chain)
		}},
		{"announce of a newcomer's first ad at the attacker's address, who stalls", func(t *testing.T, v *victim, attacker *chain) {
			n := newChain(t, "newcomer")
			n.add("first", multihashes("first", 5))
			reached := attacker.gate.close("head")
			a := n.announced()
			a.Publisher.Addrs = []multiaddr.Multiaddr{attacker.addr}
			send(t, v.ix.Ingest, a)
			attacker.await(reached)
			n.announce(v.ix.Ingest)
			untilDone(t, v.ix.Ingest, n)
		}},
	}
	dir := workDir(t)
	for n, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			v := newVictim(t, startIndexer(t, dir, fmt.Sprintf("indexer-%d", n)))
			tc.attack(t, v, newChain(t, "attacker"))
			v.unharmed()
		})
	}
}

// announceStalled makes v's next ad and announces it, before v does, under a
// name and at the address of c, which lets the indexer wait for its head.
func announceStalled(v *victim, c *chain, publisher peer.ID) (reached <-chan struct{}) {
	v.t.Helper()
	v.honest()
	reached = c.gate.close("head")
	send(v.t, v.ix.Ingest, announce.Announce{
		Head: v.head, Publisher: peer.AddrInfo{ID: publisher, Addrs: []multiaddr.Multiaddr{c.addr}},
	})
	return reached
}

// forgedRemoval is an unsigned removal of the victim's first context.
func forgedRemoval(v *victim, attacker *chain) schema.Advertisement {
	ad := attacker.ad("honest 0", schema.NoEntries)
	ad.Provider, ad.IsRm, ad.Metadata = v.id.String(), true, nil
	return ad
}

// signed is the ad signed by c, whoever it names.
func signed(c *chain, ad schema.Advertisement) schema.Advertisement {
	c.t.Helper()
	ad.PreviousID = c.head
	if err := ad.Sign(c.key); err != nil {
		c.t.Fatal(err)
	}
	return ad
}

// rejects announces c's chain, followed by a good ad of c's own, and waits
// until the bad one has been rejected and the good one is indexed.
func (c *chain) rejects(ix *indexer, bad cid.Cid) {
	c.t.Helper()
	good := c.add("the attacker's own", multihashes("own", 5))
	c.announce(ix.Ingest)
	untilIndexed(c.t, ix.Ingest, good)
	isRejected(c.t, ix, bad)
}

func isRejected(t testing.TB, ix *indexer, bad cid.Cid) {
	t.Helper()
	st, err := getAdStatus(ix.Ingest, bad)
	if err != nil {
		t.Fatal(err)
	}
	if st.Indexed || st.Verdict != "rejected" || st.Reason == "" {
		t.Errorf("status of bad ad %s: %+v, want it rejected with a reason", bad, st)
	}
}

// copyOf makes the blocks of v's whole chain c's own, as they are public.
func (c *chain) copyOf(v *victim) {
	c.t.Helper()
	for at := v.head; at.Defined(); {
		ad := v.adOf(at)
		c.copyBlock(v, at)
		for link := ad.Entries; link.Defined() && link != schema.NoEntries; {
			block := c.copyBlock(v, link)
			chunk, err := schema.DecodeEntryChunk(link, block)
			if err != nil {
				c.t.Fatal(err)
			}
			link = chunk.Next
		}
		at = ad.PreviousID
	}
}

func (c *chain) copyBlock(v *victim, link cid.Cid) []byte {
	c.t.Helper()
	block, err := v.mem.Block(c.t.Context(), link)
	if err != nil {
		c.t.Fatal(err)
	}
	c.mem.PutCID(link, block)
	return block
}

// mirrors serves v's chain as c's, with ad, whose signature is v's, on top.
func (c *chain) mirrors(v *victim, ad schema.Advertisement) {
	c.t.Helper()
	c.copyOf(v)
	c.deals(v.ix, c.pushRaw(ad))
}

// deals announces c's head, ad, and waits until the indexer has done with it.
func (c *chain) deals(ix *indexer, ad cid.Cid) {
	c.t.Helper()
	before := c.heads.Load()
	c.announce(ix.Ingest)
	eventually(c.t, "the attacker's chain is dealt with", func() error {
		if c.heads.Load() == before {
			return errors.New("not looked at")
		}
		return syncEnded(ix, c.id)
	})
	st, err := getAdStatus(ix.Ingest, ad)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Logf("the indexer about the attacker's ad: %+v", st)
}

// withExtended is the ad with c as an extended provider, and an entry of the
// ad's own provider as the rules have it, whose signature only that provider
// could make.
func withExtended(ad schema.Advertisement, c *chain) schema.Advertisement {
	ad.ExtendedProvider = &schema.ExtendedProvider{Providers: []schema.Provider{
		{ID: ad.Provider, Addresses: ad.Addresses, Signature: ad.Signature},
		{ID: c.id.String(), Addresses: []string{"/ip4/198.51.100.9/tcp/9/http"}, Signature: ad.Signature},
	}}
	return ad
}

// impostor serves a chain whose head claims another key than signed it.
type impostor struct {
	*ipnisync.Memory
	head *schema.SignedHead
}

func (i impostor) Head(context.Context) (*schema.SignedHead, error) { return i.head, nil }

// TestBadAdsAreRejectedAndTheChainGoesOn: bad ads in a publisher's own chain
// cost that publisher those ads, with a reason to read, and nothing else.
func TestBadAdsAreRejectedAndTheChainGoesOn(t *testing.T) {
	t.Parallel()
	ix := startIndexer(t, workDir(t), "indexer")
	c := newChain(t, "careless")
	want, bad := make(index), make(map[string]cid.Cid)
	good := func(name string) {
		mhs := multihashes(name, 20)
		want = want.with(newHolding(c.id, []byte(name), bitswap), mhs)
		c.add(name, mhs)
	}
	spoiled := func(name string, spoil func(ad *schema.Advertisement)) {
		mhs := multihashes(name, 20)
		want = want.with("", mhs)
		ad := signed(c, c.ad(name, c.entries(mhs, 20)[0]))
		spoil(&ad)
		bad[name] = c.pushRaw(ad)
	}
	good("first")
	spoiled("unsigned", func(ad *schema.Advertisement) { ad.Signature = nil })
	spoiled("signature cut short", func(ad *schema.Advertisement) { ad.Signature = ad.Signature[:len(ad.Signature)-1] })
	good("second")
	spoiled("metadata changed after signing", func(ad *schema.Advertisement) { ad.Metadata = slices.Concat(bitswap, []byte{0}) })
	spoiled("another's signature", func(ad *schema.Advertisement) {
		if err := ad.Sign(keyOf(t, "another")); err != nil {
			t.Fatal(err)
		}
	})
	spoiled("entries that are not there", func(ad *schema.Advertisement) {
		ad.Entries = schema.LinkOf(schema.DagJSON, []byte("nowhere"))
		*ad = signed(c, *ad)
	})
	spoiled("entries that are an ad", func(ad *schema.Advertisement) {
		ad.Entries = c.head
		*ad = signed(c, *ad)
	})
	good("third")
	c.announce(ix.Ingest)
	untilIndexed(t, ix.Ingest, c.head)
	for _, ad := range bad {
		untilJudged(t, ix.Ingest, ad)
	}
	for name, ad := range bad {
		st, err := getAdStatus(ix.Ingest, ad)
		if err != nil {
			t.Fatal(err)
		}
		verdict := "rejected"
		if name == "entries that are not there" {
			verdict = "pending" // for 6 h
		}
		if st.Indexed || st.Verdict != verdict || st.Reason == "" {
			t.Errorf("%s: %+v, want it %s with a reason", name, st, verdict)
		}
	}
	want.mustFind(t, ix.Find, "with bad ads in the chain")
}
