package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ipfs/go-cid"
)

// What a kill may cost, in blocks that are fetched again.
const (
	// killLanes is how many ads of a publisher are in work at once, of each of
	// which one chunk may be lost, and killLarge the chunk that a large ad loses
	// besides.
	killLanes = 32
	killLarge = 1
	// killWalk is how long what a walk has passed may stay unwritten, the write
	// itself included.
	killWalk = 150 * time.Millisecond
	// killUnwritten is how many ads are done in the 5 ms after which the store's
	// log is handed to the system: a killed process takes them along.
	killUnwritten = 25
)

// TestKillAnywhereInALongChain kills an indexer with -9 at random moments of
// its way through a chain of 1,000 ads, in the middle of a start among them.
// The chain is announced once. After each kill, what was reported as indexed
// before it still is and is found; in the end every ad is reported as indexed
// and what is found is exactly what the chain says. Little is fetched twice.
func TestKillAnywhereInALongChain(t *testing.T) {
	kills, delay, mean := 5, 5*time.Millisecond, 600*time.Millisecond
	if os.Getenv("SIGNPOST_SOAK") == "1" {
		kills, delay, mean = 50, 15*time.Millisecond, 600*time.Millisecond
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	s := &killStory{
		t: t, k: newKillChain(newChain(t, "kill"), seed), rng: rand.New(rand.NewPCG(seed, 1)),
		fetched: newFetchLog(), indexed: make(map[int]bool),
	}
	for _, a := range s.k.ads {
		s.fetched.ads[a.ad.String()] = true
	}
	s.wire = newWire(s.k.chain, delay)
	s.wire.served = s.fetched.served
	s.wire.start()
	s.ix = startIndexer(t, workDir(t), "indexer")
	s.k.announce(s.ix.Ingest)
	for s.kills < kills {
		// Short lives and long ones in turn: of the short ones some leave nothing.
		life := time.Duration(s.rng.Int64N(int64(mean)))
		if s.kills%2 == 1 {
			life += mean
		}
		s.watch(life)
		s.kill()
		if s.rng.IntN(5) == 0 && s.kills < kills {
			s.ix.launch() // at the ports it had, if it has been restarted before
			<-time.After(time.Duration(s.rng.Int64N(int64(60 * time.Millisecond))))
			s.kill()
		}
		s.ix.restart()
		s.mustKeep()
	}
	s.mustEnd()
	s.mustFetchLittle()
}

// killStory is what the rounds have in common.
type killStory struct {
	t       *testing.T
	ix      *indexer
	k       *killChain
	wire    *wire
	rng     *rand.Rand
	fetched *fetchLog

	kills   int
	midway  int          // kills of a life that had something indexed and not yet all
	before  int          // ads reported as indexed when the life began
	indexed map[int]bool // ads reported as indexed, by number; true once fully checked
	walked  int          // ads that walks passed right before the kills
}

// watch notes which ads are reported as indexed, until the time is over.
func (s *killStory) watch(d time.Duration) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), d)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for at := 0; ; {
		var some []int
		for range s.k.ads {
			if _, done := s.indexed[at]; !done {
				some = append(some, at)
			}
			if at = (at + 1) % len(s.k.ads); len(some) == 4*workers {
				break
			}
		}
		now, err := s.ask(some)
		if err != nil {
			s.t.Fatal(err)
		}
		for n := range now {
			s.indexed[n] = false
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// ask returns those of the ads that are reported as indexed.
func (s *killStory) ask(ads []int) (map[int]bool, error) {
	var mu sync.Mutex
	out := make(map[int]bool)
	err := s.each(ads, func(n int) error {
		st, err := getAdStatus(s.ix.Ingest, s.k.ads[n].ad)
		if err == nil && st.Indexed {
			mu.Lock()
			out[n] = true
			mu.Unlock()
		}
		return err
	})
	return out, err
}

func (s *killStory) each(ads []int, do func(n int) error) error {
	g := new(errgroup.Group)
	g.SetLimit(workers)
	for _, n := range ads {
		g.Go(func() error {
			if err := do(n); err != nil {
				return fmt.Errorf("ad %d, %s: %w", n, s.k.ads[n].ad, err)
			}
			return nil
		})
	}
	return g.Wait()
}

func (s *killStory) kill() {
	s.t.Helper()
	at := time.Now()
	s.ix.kill()
	s.kills++
	if n := len(s.indexed); s.before < n && n < len(s.k.ads) {
		s.midway++
	}
	s.before = len(s.indexed)
	s.walked += s.fetched.next(s.wire.life.Add(1), at.Add(-killWalk))
	client.CloseIdleConnections()
}

// mustKeep: what was reported as indexed before the kill is so after it, and
// is found. Of ads that were looked at after an earlier kill a sample is.
func (s *killStory) mustKeep() {
	s.t.Helper()
	var ads []int
	for n := range s.indexed {
		ads = append(ads, n)
	}
	still, err := s.ask(ads)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, n := range ads {
		if !still[n] {
			s.t.Errorf("kill %d: ad %d, %s, was indexed before it and is not after it", s.kills, n, s.k.ads[n].ad)
		}
	}
	err = s.each(ads, func(n int) error {
		p := s.k.promise(n)
		if s.indexed[n] {
			return p.check(s.ix.Find, p.mhs[:min(1, len(p.mhs))])
		}
		return p.check(s.ix.Find, p.mhs)
	})
	if err != nil {
		s.t.Fatalf("after kill %d: %v", s.kills, err)
	}
	for _, n := range ads {
		s.indexed[n] = true
	}
}

// mustEnd: in the end every ad has its verdict, and what is found is exact.
func (s *killStory) mustEnd() {
	s.t.Helper()
	verdicts := make(map[string]int)
	for _, a := range s.k.ads {
		untilIndexed(s.t, s.ix.Ingest, a.ad)
		st, err := getAdStatus(s.ix.Ingest, a.ad)
		if err != nil {
			s.t.Fatal(err)
		}
		verdicts[st.Verdict]++
	}
	out := s.k.outcome()
	out.mustFind(s.t, s.ix.Find, "in the end")
	commandOK(s.t, "store", "check", "--admin", s.ix.Admin)
	s.t.Logf("%d multihashes as the chain says; verdicts %v; %d of %d kills amid progress, %d ads indexed before the last",
		len(out), verdicts, s.midway, s.kills, s.before)
	// A life shorter than the store's 500 ms between two syncs may leave nothing.
	if s.midway < s.kills/4 {
		s.t.Errorf("only %d of %d kills came amid progress: this shows little", s.midway, s.kills)
	}
}

// mustFetchLittle: a kill costs the ads in flight, one chunk of each, what a
// walk has passed and not written down, and what was done in the last
// milliseconds. Said apart is what it would be without these. The backlog on disk is the CIDs of
// ads, not their blocks, so that each ad that stands in it at some kill is
// fetched once more when its turn comes, however many kills there are.
func (s *killStory) mustFetchLittle() {
	s.t.Helper()
	ads, chunks, most := s.fetched.again()
	promisedAds := s.kills*killLanes + s.walked + len(s.k.ads)
	promisedChunks := s.kills * (killLanes + killLarge)
	maxAds, maxChunks := promisedAds+s.kills*killUnwritten, promisedChunks+s.kills*killUnwritten
	s.t.Logf("fetched again after %d kills: %d of %d ads (promised %d, of which %d for the last %v of walks; at most %d), %d chunks (promised %d; at most %d)",
		s.kills, ads, len(s.k.ads), promisedAds, s.walked, killWalk, maxAds, chunks, promisedChunks, maxChunks)
	s.t.Logf("most after one kill: %d ads, %d chunks (promised %d); without a kill between: %d",
		most.ads, most.chunks, killLanes+killLarge, s.fetched.twice)
	if ads > maxAds || chunks > maxChunks {
		s.t.Errorf("%d ads and %d chunks were fetched again, want at most %d and %d", ads, chunks, maxAds, maxChunks)
	}
	if s.fetched.twice > 0 {
		s.t.Errorf("%d blocks were fetched twice without a kill between", s.fetched.twice)
	}
}

// fetchLog is what a publisher saw fetched, in each life of the indexer. Safe
// for concurrent use.
type fetchLog struct {
	ads map[string]bool // which blocks are ads; not changed later

	mu    sync.Mutex
	life  int64
	last  map[string]int64 // life in which a block was fetched last
	walk  []time.Time      // when ads were fetched for the first time, of this life
	lives map[int64]refetched
	twice int // blocks fetched twice in one life
}

// refetched are blocks that an earlier life had fetched before.
type refetched struct{ ads, chunks int }

func newFetchLog() *fetchLog {
	return &fetchLog{ads: make(map[string]bool), last: make(map[string]int64), lives: make(map[int64]refetched)}
}

// served is a wire's. What went to somebody who is dead by now was not fetched.
func (l *fetchLog) served(life int64, resource string) {
	if _, err := cid.Decode(resource); err != nil {
		return // the head
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if life != l.life {
		return
	}
	before, again := l.last[resource]
	l.last[resource] = life
	r := l.lives[life]
	switch {
	case again && before == life:
		l.twice++
	case again && l.ads[resource]:
		r.ads++
	case again:
		r.chunks++
	case l.ads[resource]:
		l.walk = append(l.walk, time.Now())
	}
	l.lives[life] = r
}

// next begins a life and returns how many ads the one before had fetched for
// the first time since then.
func (l *fetchLog) next(life int64, since time.Time) (walked int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, at := range l.walk {
		if at.After(since) {
			walked++
		}
	}
	l.life, l.walk = life, nil
	return walked
}

// again sums up what was fetched again, and says the most of one life.
func (l *fetchLog) again() (ads, chunks int, most refetched) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.lives {
		ads, chunks = ads+r.ads, chunks+r.chunks
		most = refetched{max(most.ads, r.ads), max(most.chunks, r.chunks)}
	}
	return ads, chunks, most
}
