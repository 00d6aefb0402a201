package fanout

import (
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/api/find"
)

// DefaultCacheFor is how long a frontend gives an answer again: with the minute
// that clients may keep it, a removal is seen by all after 65 s.
const DefaultCacheFor = 5 * time.Second

const (
	cachedAnswers = 1 << 14
	// sharedResults is the most results of an answer that is kept or shared.
	sharedResults = 32
	// sharedWait is how long a find waits for another about the same key, before it
	// asks itself: the other one may have a slow consumer.
	sharedWait = 20 * time.Millisecond
)

// answers are those that were given lately, and those being put together. Kept
// are whole answers with something in them only: what is new is found at once.
type answers struct {
	mu         sync.Mutex
	keepFor    time.Duration // 0: nothing is kept
	generation uint64        // answers begun in another one are not kept
	kept       *simplelru.LRU[string, kept]
	underWay   map[string]*flight
}

type kept struct {
	results []find.ProviderResult
	until   time.Time
}

// flight is a find under way. It is written by who has begun it, until done is
// closed.
type flight struct {
	done       chan struct{}
	results    []find.ProviderResult
	err        error
	shared     bool // results and err are those of the whole answer
	generation uint64
}

func newAnswers(keepFor time.Duration) *answers {
	lru, err := simplelru.NewLRU[string, kept](cachedAnswers, nil)
	if err != nil {
		panic(err) // the size is not positive
	}
	return &answers{keepFor: keepFor, kept: lru, underWay: make(map[string]*flight)}
}

// setKeepFor holds for answers to come, and drops those kept for longer.
func (a *answers) setKeepFor(d time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if d < a.keepFor {
		a.kept.Purge()
	}
	a.keepFor = d
}

// forget drops all that is kept.
func (a *answers) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.generation++
	a.kept.Purge()
}

// begin returns what is kept of a key, or the find about it that is under way, or
// else one that the caller has to make, and end.
func (a *answers) begin(mh multihash.Multihash) (known []find.ProviderResult, other, own *flight) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if k, ok := a.kept.Get(string(mh)); ok {
		if time.Now().Before(k.until) {
			return k.results, nil, nil
		}
		a.kept.Remove(string(mh))
	}
	if f := a.underWay[string(mh)]; f != nil {
		return nil, f, nil
	}
	f := &flight{done: make(chan struct{}), generation: a.generation}
	a.underWay[string(mh)] = f
	return nil, nil, f
}

// end gives the answer to all who wait for it, and keeps it if it is whole.
func (a *answers) end(mh multihash.Multihash, f *flight) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.underWay, string(mh))
	if f.shared && f.err == nil && len(f.results) > 0 && a.keepFor > 0 && f.generation == a.generation {
		a.kept.Add(string(mh), kept{f.results, time.Now().Add(a.keepFor)})
	}
	close(f.done)
}
