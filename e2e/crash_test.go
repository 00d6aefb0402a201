package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/api/admin"
)

// What one round of the crash story publishes.
const (
	crashChunks   = 12 // of the large ad
	crashPerChunk = 300
	crashSmall    = 50 // multihashes of the small ad
	// crashSample is how many multihashes of an ad of earlier rounds are asked
	// for after each restart; in the end all are.
	crashSample = 20
)

// TestKillMidAdResumes kills an indexer with -9 while it is fetching the
// entries of a large ad, again and again, each time at another chunk. After
// each restart, with the publisher still stalling: newer ads are applied, what
// was reported as indexed before the kill still is, and what is reported as indexed now is all
// found. Then the publisher goes on, nobody announces anything, and everything
// is found and what was removed is not.
func TestKillMidAdResumes(t *testing.T) {
	t.Parallel()
	rounds := 5
	if os.Getenv("SIGNPOST_SOAK") == "1" {
		rounds = 50
	}
	s := &crashStory{t: t, ix: startIndexer(t, workDir(t), "indexer"), c: newChain(t, "crash")}
	for s.round = range rounds {
		small, large := fmt.Sprintf("small %d", s.round), fmt.Sprintf("large %d", s.round)
		smallMhs, largeMhs := multihashes(small, crashSmall), multihashes(large, crashChunks*crashPerChunk)
		s.published(s.c.add(small, smallMhs), newHolding(s.c.id, []byte(small), bitswap), smallMhs)
		links := s.c.entries(largeMhs, crashPerChunk)
		s.published(s.c.push(s.c.ad(large, links[0])), newHolding(s.c.id, []byte(large), bitswap), largeMhs)
		if s.round > 0 {
			before := fmt.Sprintf("small %d", s.round-1)
			s.published(s.c.remove(before), "", multihashes(before, crashSmall))
		}
		s.crash(links[(s.round*7+1)%crashChunks])
	}
	for _, e := range s.effects {
		untilIndexed(t, s.ix.Ingest, e.ad)
	}
	all := s.effectOf(func(effect) (bool, int) { return true, crashChunks * crashPerChunk })
	all.mustFind(t, s.ix.Find, "in the end")
	commandOK(t, "store", "compact", "--admin", s.ix.Admin)
	commandOK(t, "store", "check", "--admin", s.ix.Admin)
	all.mustFind(t, s.ix.Find, "after a compaction")
	s.removeProvider()
}

// removeProvider: what the provider had is gone at once, and its space and
// counts after a compaction.
func (s *crashStory) removeProvider() {
	s.t.Helper()
	commandOK(s.t, "store", "remove-provider", s.c.id.String(), "--admin", s.ix.Admin)
	none := make(index)
	for _, e := range s.effects {
		for _, mh := range e.mhs[:min(crashSample, len(e.mhs))] {
			none.with("", []multihash.Multihash{mh})
		}
	}
	none.mustFind(s.t, s.ix.Find, "after the provider was removed")
	commandOK(s.t, "store", "compact", "--admin", s.ix.Admin)
	var st admin.StoreStatus
	if err := json.Unmarshal([]byte(commandOK(s.t, "store", "status", "--json", "--admin", s.ix.Admin).stdout), &st); err != nil {
		s.t.Fatal(err)
	}
	if st.Postings != 0 || st.Records != 0 || st.Garbage != 0 || st.Bytes.Total <= 0 {
		s.t.Errorf("store after its only provider was removed: %+v", st)
	}
}

// crashStory is what the rounds have in common.
type crashStory struct {
	t       *testing.T
	ix      *indexer
	c       *chain
	round   int
	effects []effect // in the order of the chain
}

// effect is what one ad leads to: mhs are held, or with no holding not held.
type effect struct {
	ad    cid.Cid
	round int
	held  holding
	mhs   []multihash.Multihash
}

func (s *crashStory) published(ad cid.Cid, held holding, mhs []multihash.Multihash) {
	s.effects = append(s.effects, effect{ad, s.round, held, mhs})
}

// effectOf is what the chosen ads lead to together, as far as the first
// multihashes of each tell; choose says how many.
func (s *crashStory) effectOf(choose func(effect) (bool, int)) index {
	out := make(index)
	for _, e := range s.effects {
		if ok, n := choose(e); ok {
			for _, mh := range e.mhs[:min(n, len(e.mhs))] {
				delete(out, string(mh))
				out.with(e.held, []multihash.Multihash{mh})
			}
		}
	}
	return out
}

// crash announces, kills the indexer once it asks for stallAt, and restarts it.
func (s *crashStory) crash(stallAt cid.Cid) {
	s.t.Helper()
	reached := s.c.gate.close(stallAt.String())
	s.c.announce(s.ix.Ingest)
	s.c.await(reached)
	before := s.indexed()
	s.ix.kill()
	s.ix.restart()
	if s.round > 0 {
		untilIndexed(s.t, s.ix.Ingest, s.c.head) // a removal, though an ad before it hangs
	}
	after := s.indexed()
	for ad := range before {
		if !after[ad] {
			s.t.Errorf("round %d: ad %s was indexed before the kill and is not after it", s.round, ad)
		}
	}
	large := s.effects[len(s.effects)-1]
	if large.held == "" {
		large = s.effects[len(s.effects)-2]
	}
	if after[large.ad] {
		s.t.Errorf("round %d: the large ad is indexed although a chunk of it cannot be fetched", s.round)
	}
	s.effectOf(func(e effect) (bool, int) {
		if e.round < s.round-1 {
			return after[e.ad], crashSample
		}
		return after[e.ad], len(e.mhs)
	}).mustFind(s.t, s.ix.Find, fmt.Sprintf("round %d, right after the restart", s.round))
	commandOK(s.t, "store", "check", "--admin", s.ix.Admin)
	s.c.gate.letGo()
	untilIndexed(s.t, s.ix.Ingest, large.ad)
	untilIndexed(s.t, s.ix.Ingest, s.c.head)
}

// indexed is the set of ads that the indexer says are indexed.
func (s *crashStory) indexed() map[cid.Cid]bool {
	s.t.Helper()
	out := make(map[cid.Cid]bool)
	for _, e := range s.effects {
		st, err := getAdStatus(s.ix.Ingest, e.ad)
		if err != nil {
			s.t.Fatal(err)
		}
		if st.Indexed {
			out[e.ad] = true
		}
	}
	return out
}
