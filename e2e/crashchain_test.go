package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
	"golang.org/x/sync/errgroup"

	"github.com/signpost-index/signpost/ingest/ipnisync"
	"github.com/signpost-index/signpost/ingest/schema"
)

// What the story of many kills is made of.
const (
	killsSample    = 50 // ads asked for right before a kill
	killsMhs       = 3  // multihashes asked for of an ad that must be there
	killsLarge     = 20 // chunks of a large ad
	killsLeastLife = 50 * time.Millisecond
	killsMostLife  = 400 * time.Millisecond
	// killsQuestions is the life that has time for questions after its start.
	// What shorter ones do not ask is asked in the next.
	killsQuestions = 200 * time.Millisecond
	// killsLanes work on ads of a publisher at once, that of one new head
	// included (doc/ingestion.md, The way of a chain). A cursor is left every
	// 4,096 multihashes; no ad here has as many, so all blocks of an ad that was
	// in work come again.
	killsLanes = 36
	// killsUnwritten is how much of the log a killed process takes along: its
	// buffer, written out when it has 64 KiB or is synced (store/wal). A small ad
	// writes at least killsAdLog bytes: a record, a ledger entry, ten multihashes.
	killsUnwritten = 64 << 10
	killsAdLog     = 500
	// killsLost is the blocks that one kill can make come twice: of the ads in
	// work, and of ads that were passed or done and whose log was not written.
	killsLost = killsLanes*(1+killsLarge) + killsUnwritten/killsAdLog*(1+3)
)

// TestKillsAtRandomMomentsLoseNothing kills an indexer with -9 at random
// moments while it takes in one chain of small ads, removals, updates and
// contexts used again, announced once. What was reported as indexed before a
// kill is so after it, and found; in the end all of the chain is, exactly; and
// what a kill makes the indexer fetch once more is bounded.
func TestKillsAtRandomMomentsLoseNothing(t *testing.T) {
	t.Parallel()
	ads, kills := 150, 5
	if os.Getenv("SIGNPOST_SOAK") == "1" {
		ads, kills = 1000, 50
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	s := newKillsStory(t, seed, ads)
	s.ix = startIndexer(t, workDir(t), "indexer")
	life := time.Now()
	s.c.announce(s.ix.Ingest)
	amid := 0
	for n := range kills {
		long := killsLeastLife + time.Duration(s.rnd.Int64N(int64(killsMostLife-killsLeastLife)))
		if long >= killsQuestions {
			s.mustHold(fmt.Sprintf("after %d kills", n))
		}
		<-time.After(time.Until(life.Add(long)))
		s.sample()
		if st, err := getAdStatus(s.ix.Ingest, s.last); err != nil || !st.Indexed {
			amid++
		}
		s.ix.kill()
		s.served.newLife()
		s.ix.restart()
		life = time.Now()
	}
	s.mustHold("after the last kill")
	untilDone(t, s.ix.Ingest, s.c)
	for _, a := range s.ads {
		untilIndexed(t, s.ix.Ingest, a.ad)
	}
	s.want().mustFind(t, s.ix.Find, "in the end")
	commandOK(t, "store", "check", "--admin", s.ix.Admin)
	t.Logf("%d kills, the oldest ad not done at %d of them; %d ads were asked for again", kills, amid, len(s.holds))
	if amid == 0 || len(s.holds) == 0 {
		t.Error("no kill came amid the work, with something done")
	}
	s.checkServed(kills)
}

// killsAd is one ad of the chain; mhs is what it adds to its context.
type killsAd struct {
	ad      cid.Cid
	context string
	mhs     []multihash.Multihash
}

// killsContext is what the chain says about a context.
type killsContext struct {
	id         string
	ads        int                   // that touch it
	live, gone []multihash.Multihash // found in the end, or not
	metadata   []byte
}

type killsStory struct {
	t        *testing.T
	rnd      *rand.Rand
	ix       *indexer
	c        *chain
	served   *servedBlocks
	ads      []killsAd
	contexts []*killsContext
	byID     map[string]*killsContext
	last     cid.Cid             // the genesis, walked to last
	holds    map[cid.Cid]killsAd // reported as indexed at some time
}

func newKillsStory(t *testing.T, seed uint64, ads int) *killsStory {
	s := &killsStory{
		t: t, rnd: rand.New(rand.NewPCG(seed, 0)), c: newChain(t, "many kills"),
		byID: make(map[string]*killsContext), holds: make(map[cid.Cid]killsAd),
	}
	for n := range ads {
		s.publish(n)
	}
	s.last = s.ads[0].ad
	s.served = &servedBlocks{next: ipnisync.NewHandler(s.c.mem), last: make(map[string]int), ads: make(map[string]bool)}
	for _, a := range s.ads {
		s.served.ads[a.ad.String()] = true
	}
	s.served.newLife()
	s.c.addr = s.c.serve(s.served)
	return s
}

// publish adds ad n to the chain, of a kind drawn by lot.
func (s *killsStory) publish(n int) {
	lot := s.rnd.IntN(100)
	if n < 10 || lot < 70 {
		x := &killsContext{id: fmt.Sprintf("context %d", n)}
		s.contexts, s.byID[x.id] = append(s.contexts, x), x
		s.content(n, x, lot < 4)
		return
	}
	x := s.contexts[s.rnd.IntN(len(s.contexts))]
	switch {
	case lot < 80: // of one that has gone as well, sometimes
		s.published(s.c.remove(x.id), x, nil)
		x.gone, x.live = append(x.gone, x.live...), nil
	case lot < 90 && len(x.live) > 0:
		ad := s.c.ad(x.id, schema.NoEntries)
		x.metadata = s.metadata()
		ad.Metadata = x.metadata
		s.published(s.c.push(ad), x, nil)
	default:
		s.content(n, x, false)
	}
}

func (s *killsStory) content(n int, x *killsContext, large bool) {
	chunks, per := 1+s.rnd.IntN(3), 10+s.rnd.IntN(41)
	if large {
		chunks = killsLarge
	}
	mhs := multihashes(fmt.Sprintf("many kills %d", n), chunks*per)
	ad := s.c.ad(x.id, s.c.entries(mhs, per)[0])
	x.metadata = s.metadata()
	ad.Metadata = x.metadata
	x.live = append(x.live, mhs...)
	s.published(s.c.push(ad), x, mhs)
}

func (s *killsStory) metadata() []byte {
	if s.rnd.IntN(2) == 0 {
		return bitswap
	}
	return bitswapGateway
}

func (s *killsStory) published(ad cid.Cid, x *killsContext, mhs []multihash.Multihash) {
	x.ads++
	s.ads = append(s.ads, killsAd{ad, x.id, mhs})
}

// want is what is found once the chain is done.
func (s *killsStory) want() index {
	out := make(index)
	for _, x := range s.contexts {
		out.with(newHolding(s.c.id, []byte(x.id), x.metadata), x.live)
		out.with("", x.gone)
	}
	return out
}

// sample notes which of some ads are reported as indexed.
func (s *killsStory) sample() {
	s.t.Helper()
	for _, n := range s.rnd.Perm(len(s.ads))[:killsSample] {
		st, err := getAdStatus(s.ix.Ingest, s.ads[n].ad)
		if err != nil {
			s.t.Fatal(err)
		}
		if st.Indexed {
			s.holds[s.ads[n].ad] = s.ads[n]
		}
	}
}

// mustHold asks for everything that was reported as indexed before. Contexts
// that another ad of the chain touches may have changed since.
func (s *killsStory) mustHold(when string) {
	s.t.Helper()
	g := new(errgroup.Group)
	g.SetLimit(workers)
	want := make(index)
	for _, a := range s.holds {
		g.Go(func() error {
			st, err := getAdStatus(s.ix.Ingest, a.ad)
			if err == nil && !st.Indexed {
				err = fmt.Errorf("was indexed, is %+v", st)
			}
			return err
		})
		if x := s.byID[a.context]; x.ads == 1 {
			for range killsMhs {
				some := a.mhs[s.rnd.IntN(len(a.mhs))]
				delete(want, string(some))
				want.with(newHolding(s.c.id, []byte(x.id), x.metadata), []multihash.Multihash{some})
			}
		}
	}
	if err := g.Wait(); err != nil {
		s.t.Fatalf("%s: %v", when, err)
	}
	want.mustFind(s.t, s.ix.Find, when)
}

// checkServed bounds what was served more than once. The ad blocks of what
// waits on disk are no loss: they are fetched a second time when the ad is due,
// the first life that walks past an ad keeping what fits into memory.
func (s *killsStory) checkServed(kills int) {
	s.t.Helper()
	again := 0
	for n, l := range s.served.lives {
		again += l.ads + l.chunks
		s.t.Logf("life %d: %d blocks, again %d ads and %d chunks", n, l.all, l.ads, l.chunks)
		if n > 0 && l.chunks > killsLost {
			s.t.Errorf("life %d: %d chunks came again, above the %d that a kill may cost", n, l.chunks, killsLost)
		}
	}
	limit := len(s.ads) + kills*killsLost
	s.t.Logf("%d ads, %d blocks served again, %.1f a kill; at most %d may be", len(s.ads), again, float64(again)/float64(kills), limit)
	if again > limit {
		s.t.Errorf("%d blocks were served again, above %d", again, limit)
	}
}

// servedBlocks serves a chain after a moment, as over a network, and counts
// what it served before.
type servedBlocks struct {
	next http.Handler
	ads  map[string]bool // CIDs of ads

	mu    sync.Mutex
	last  map[string]int // times served
	lives []servedLife
}

// servedLife counts the blocks asked for in one life of the indexer: all, and
// those that had been asked for before.
type servedLife struct{ all, ads, chunks int }

func (b *servedBlocks) newLife() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lives = append(b.lives, servedLife{})
}

func (b *servedBlocks) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	what := path.Base(r.URL.Path)
	moment := time.NewTimer(rand.N(20 * time.Millisecond))
	defer moment.Stop()
	select {
	case <-moment.C:
	case <-r.Context().Done():
		return
	}
	b.mu.Lock()
	life := &b.lives[len(b.lives)-1]
	switch {
	case what == "head":
	case b.last[what] == 0:
		life.all++
	case b.ads[what]:
		life.all, life.ads = life.all+1, life.ads+1
	default:
		life.all, life.chunks = life.all+1, life.chunks+1
	}
	if what != "head" {
		b.last[what]++
	}
	b.mu.Unlock()
	b.next.ServeHTTP(w, r)
}
