package e2e

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/ingest/schema"
)

// What the chain of the kill story is made of.
const (
	killAds       = 1000
	killLargeEach = 80 // every so many ads there is a large one
	killChunks    = 20 // of a large ad
	killPerChunk  = 20 // multihashes of a chunk
	killSmallMost = 8  // multihashes of a small ad
	killShared    = 40 // multihashes that many contexts have
)

// killAd is one ad of the story's chain, with what it adds.
type killAd struct {
	ad        cid.Cid
	contextID string
	isRm      bool
	metadata  []byte // nil for a removal
	mhs       []multihash.Multihash
	chunks    []cid.Cid
}

// killChain is a chain with everything in it: small ads and large ones,
// contexts that are used again, removals, contexts that come back after their
// removal, updates of metadata, multihashes of several contexts.
type killChain struct {
	*chain
	rng    *rand.Rand
	shared []multihash.Multihash
	ads    []killAd
	live   []string // contexts
	gone   []string // contexts removed and not there again
}

func newKillChain(c *chain, seed uint64) *killChain {
	k := &killChain{chain: c, rng: rand.New(rand.NewPCG(seed, 0)), shared: multihashes("kill shared", killShared)}
	for n := range killAds {
		switch kind := k.rng.IntN(100); {
		case n%killLargeEach == killLargeEach/2:
			k.content(fmt.Sprintf("large %d", n), multihashes(fmt.Sprintf("kill %d", n), killChunks*killPerChunk))
		case kind < 15 && len(k.live) > 0:
			k.removal()
		case kind < 25 && len(k.live) > 0:
			k.update()
		case kind < 45 && len(k.live) > 0:
			k.content(k.some(k.live), k.small(n))
		case kind < 50 && len(k.gone) > 0:
			k.content(k.some(k.gone), k.small(n))
		default:
			k.content(fmt.Sprintf("small %d", n), k.small(n))
		}
	}
	return k
}

func (k *killChain) some(contexts []string) string { return contexts[k.rng.IntN(len(contexts))] }

// small are the multihashes of a small ad: some of its own, perhaps a shared one.
func (k *killChain) small(n int) []multihash.Multihash {
	mhs := multihashes(fmt.Sprintf("kill %d", n), 1+k.rng.IntN(killSmallMost))
	if k.rng.IntN(4) == 0 {
		mhs = append(mhs, k.shared[k.rng.IntN(killShared)])
	}
	return mhs
}

func (k *killChain) anyMetadata() []byte {
	if k.rng.IntN(2) == 0 {
		return bitswap
	}
	return bitswapGateway
}

func (k *killChain) content(contextID string, mhs []multihash.Multihash) {
	chunks := k.entries(mhs, killPerChunk)
	ad := k.chain.ad(contextID, chunks[0])
	ad.Metadata = k.anyMetadata()
	k.ads = append(k.ads, killAd{ad: k.push(ad), contextID: contextID, metadata: ad.Metadata, mhs: mhs, chunks: chunks})
	k.gone = slices.DeleteFunc(k.gone, func(o string) bool { return o == contextID })
	if !slices.Contains(k.live, contextID) {
		k.live = append(k.live, contextID)
	}
}

func (k *killChain) removal() {
	contextID := k.some(k.live)
	k.ads = append(k.ads, killAd{ad: k.remove(contextID), contextID: contextID, isRm: true})
	k.live = slices.DeleteFunc(k.live, func(o string) bool { return o == contextID })
	k.gone = append(k.gone, contextID)
}

func (k *killChain) update() {
	contextID := k.some(k.live)
	ad := k.chain.ad(contextID, schema.NoEntries)
	ad.Metadata = k.anyMetadata()
	k.ads = append(k.ads, killAd{ad: k.push(ad), contextID: contextID, metadata: ad.Metadata})
}

// outcome is what is to be found when all ads are done: the multihashes of the
// contexts that are there, with their last metadata, and no other.
func (k *killChain) outcome() index {
	metadata := make(map[string][]byte)
	members := make(map[string]map[string]bool)
	out := make(index)
	for _, a := range k.ads {
		out.with("", a.mhs)
		if a.isRm {
			delete(members, a.contextID)
			delete(metadata, a.contextID)
			continue
		}
		metadata[a.contextID] = a.metadata
		if members[a.contextID] == nil {
			members[a.contextID] = make(map[string]bool)
		}
		for _, mh := range a.mhs {
			members[a.contextID][string(mh)] = true
		}
	}
	for contextID, mhs := range members {
		h := newHolding(k.id, []byte(contextID), metadata[contextID])
		for mh := range mhs {
			out[mh] = append(out[mh], h)
		}
	}
	return out
}

// promise is what has to be found from when ad n is reported as indexed until
// the end, however far the others are.
type promise struct {
	mhs     []multihash.Multihash
	held    []holding // in one of these ways: with the metadata of this ad or of a later one
	notHeld []holding // in none of these
}

// promise of ad n. Of content that a later ad removes nothing is promised: it
// may be there for a while, or never. A removal that is reported holds against
// all ads before it, done already or not.
func (k *killChain) promise(n int) promise {
	ad := k.ads[n]
	var p promise
	if ad.isRm {
		p.mhs = k.removedBy(n)
		p.notHeld = k.ways(ad.contextID)
		return p
	}
	p.held = append(p.held, newHolding(k.id, []byte(ad.contextID), ad.metadata))
	for _, later := range k.ads[n+1:] {
		if later.contextID != ad.contextID {
			continue
		}
		if later.isRm {
			return promise{}
		}
		p.held = append(p.held, newHolding(k.id, []byte(ad.contextID), later.metadata))
	}
	p.mhs = ad.mhs
	return p
}

// removedBy are the multihashes that removal n takes from its context and no
// later ad gives back.
func (k *killChain) removedBy(n int) []multihash.Multihash {
	back := make(map[string]bool)
	for _, later := range k.ads[n+1:] {
		if later.contextID == k.ads[n].contextID {
			for _, mh := range later.mhs {
				back[string(mh)] = true
			}
		}
	}
	var out []multihash.Multihash
	for _, before := range k.ads[:n] {
		if before.contextID != k.ads[n].contextID {
			continue
		}
		for _, mh := range before.mhs {
			if !back[string(mh)] {
				out = append(out, mh)
			}
		}
	}
	return out
}

// ways are all in which a context is held at some time.
func (k *killChain) ways(contextID string) []holding {
	return []holding{newHolding(k.id, []byte(contextID), bitswap), newHolding(k.id, []byte(contextID), bitswapGateway)}
}

// check asks base whether the promise of an ad is kept.
func (p promise) check(base string, mhs []multihash.Multihash) error {
	for _, mh := range mhs {
		got, err := findJSON(base, raw(mh))
		if err != nil {
			return err
		}
		is := func(h holding) bool { return slices.Contains(got, h) }
		if p.held != nil && !slices.ContainsFunc(p.held, is) {
			return fmt.Errorf("%s is held by %q, want one of %q", mh.B58String(), got, p.held)
		}
		if slices.ContainsFunc(p.notHeld, is) {
			return fmt.Errorf("%s is held by %q, want none of %q", mh.B58String(), got, p.notHeld)
		}
	}
	return nil
}
