package fanout

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
)

// ConfirmedFor is how long what a frozen backend said that it holds may stand for
// its own answer. What another one said never does: it may have got something
// since, and a miss must not be told of what was found a moment ago.
const ConfirmedFor = 10 * time.Second

// maxDecided bounds what is remembered until holdings are told again.
const maxDecided = 4096

// Holdings is what one backend said that it holds, and when it was asked.
type Holdings struct {
	Backend string // as in Backend.Name
	AsOf    time.Time
	// HeldFor is for how long from AsOf it is sure to take nothing new: so long
	// what it said stands, if that is longer than ConfirmedFor.
	HeldFor  time.Duration
	Coverage admin.Coverage
	// Rough: somebody else says so, who does not know what it has besides its
	// ranges. Then only a whole copy elsewhere makes up for it.
	Rough bool
}

// until is how long what was said may stand for the backend's own answer.
func (h Holdings) until() time.Time {
	if h.Coverage.Frozen {
		return h.AsOf.Add(max(h.HeldFor, ConfirmedFor))
	}
	return h.AsOf.Add(ConfirmedFor)
}

func (h Holdings) heldAt(now time.Time) bool {
	return h.Coverage.Frozen && now.Before(h.AsOf.Add(h.HeldFor))
}

// coverage tells whose silence an answer can do without: every stretch of a
// chain they are known to hold is on others that answered. It is safe for
// concurrent use.
type coverage struct {
	until map[string]time.Time // how long what frozen backends said may stand
	// versions tell, by backend, whether it holds the same as before.
	versions map[string]string
	by       map[peer.ID][]holding
	on       map[string][]peer.ID // publishers by backend

	mu      sync.Mutex
	decided map[string]bool // by names of those silent; guarded by mu
}

// holding is what one backend holds of one publisher.
type holding struct {
	backend string
	indexer peer.ID
	rough   bool
	admin.CoveredPublisher
}

func newCoverage(all []Holdings) *coverage {
	c := &coverage{
		until: make(map[string]time.Time), by: make(map[peer.ID][]holding), on: make(map[string][]peer.ID),
		decided: make(map[string]bool), versions: make(map[string]string),
	}
	for _, h := range all {
		c.versions[h.Backend] = h.Coverage.Version
		if h.Coverage.Frozen {
			c.until[h.Backend] = h.until()
		}
		for _, p := range h.Coverage.Publishers {
			c.by[p.Publisher] = append(c.by[p.Publisher], holding{h.Backend, h.Coverage.ID, h.Rough, p})
			c.on[h.Backend] = append(c.on[h.Backend], p.Publisher)
		}
	}
	return c
}

// dispensable tells whether the answer of the silent backends, sorted, is not
// needed. One that is not frozen, or whose holdings nobody confirmed lately, is
// always needed.
func (c *coverage) dispensable(silent []string, now time.Time) bool {
	if c == nil || len(silent) == 0 {
		return len(silent) == 0
	}
	for _, name := range silent {
		if until, known := c.until[name]; !known || now.After(until) {
			return false
		}
	}
	key := strings.Join(silent, "\n")
	c.mu.Lock()
	covered, known := c.decided[key]
	c.mu.Unlock()
	if known {
		return covered
	}
	covered = c.covered(silent)
	c.mu.Lock()
	if len(c.decided) < maxDecided {
		c.decided[key] = covered
	}
	c.mu.Unlock()
	return covered
}

func (c *coverage) covered(silent []string) bool {
	for _, name := range silent {
		for _, p := range c.on[name] {
			if !coveredWithout(c.by[p], silent) {
				return false
			}
		}
	}
	return true
}

// coveredWithout tells whether all that silent backends hold of a publisher is
// on the others: its whole chain, as far as any of the silent is known to have
// come, or else each of their ranges.
func coveredWithout(all []holding, silent []string) bool {
	var gone, left []holding
	for _, h := range all {
		if slices.Contains(silent, h.backend) {
			gone = append(gone, h)
		}
	}
	for _, h := range all {
		if !slices.Contains(silent, h.backend) && !slices.ContainsFunc(h.Lacks, func(l admin.Lack) bool {
			return !slices.ContainsFunc(all, func(o holding) bool { return o.indexer == l.Indexer && !slices.Contains(silent, o.backend) })
		}) {
			left = append(left, h)
		}
	}
	for _, g := range gone {
		// What it has above its mark nobody can compare.
		if g.Role == admin.RoleOwner && (g.More || len(g.Gaps) > 0) {
			return false
		}
		whole := leads(left, "", "", max(g.Height, g.Top))
		if whole {
			continue
		}
		if g.rough || len(g.Also) > 0 || g.Top > 0 {
			return false
		}
		for _, r := range g.Ranges {
			if !leads(left, r.From, r.To, g.Height) {
				return false
			}
		}
	}
	return true
}

// leads tells whether ranges of some lead from one ad to another; from "" is the
// genesis, to "" a range that grows and has reached a height.
func leads(some []holding, from, to string, height uint64) bool {
	seen := map[string]bool{from: true}
	queue := []string{from}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		for _, h := range some {
			for _, r := range h.Ranges {
				switch {
				case r.From != at:
				case r.To == "" && to == "":
					if h.Height >= height {
						return true
					}
				case r.To != "" && r.To == to:
					return true
				case r.To != "" && !seen[r.To]:
					seen[r.To] = true
					queue = append(queue, r.To)
				}
			}
		}
	}
	return from == to && from != ""
}

// SetHoldings replaces what is known of what backends hold. Answers that lack a
// frozen backend whose holdings are on others are complete from then on. Those of
// who is not asked, or of which nobody has heard for ConfirmedFor, do not count.
func (f *Finder) SetHoldings(all []Holdings) {
	f.setting.Lock()
	defer f.setting.Unlock()
	links, now := *f.links.Load(), time.Now()
	all = slices.SortedFunc(slices.Values(all), func(a, b Holdings) int { return cmp.Compare(a.Backend, b.Backend) })
	all = slices.DeleteFunc(all, func(h Holdings) bool {
		return now.After(h.until()) || !slices.ContainsFunc(links, func(l *link) bool { return l.Name == h.Backend })
	})
	c := newCoverage(all)
	if before := f.coverage.Load(); before == nil || !maps.Equal(before.versions, c.versions) {
		f.answers.forget()
	}
	f.coverage.Store(c)
	spare := 0
	for _, h := range all {
		if c.dispensable([]string{h.Backend}, time.Now()) {
			spare++
		}
	}
	f.metrics.spare.Set(float64(spare))
}
