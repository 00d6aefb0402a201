package sim

import (
	"strconv"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/assigner"
)

// watch measures the truth at every sample.
type watch struct {
	w         *World
	series    []sample
	keepLoads bool // of each node, for plots

	// Of each publisher: since when it is so, or -1.
	ownerless, surplus, broken []time.Duration
	wounded                    []bool // a node that had something of it was lost
	owners                     []int  // scratch
	path                       []bool // scratch: has a whole copy
	waits                      int    // publishers without owner now

	longestOwnerless, longestSurplus, longestBroken time.Duration
	unexplained                                     int // publishers broken without a loss

	assigned, fills, froze int
	emptied                int // nodes that became empty or as good: joined, thawed, or given up and back
	moves                  map[assigner.Reason]int
	balanced               map[peer.ID]int // moves for balance
	left                   map[peer.ID]move
	returned               int // moves for balance back to where it left within a day
}

type move struct {
	from peer.ID
	at   time.Duration
}

type sample struct {
	at                         time.Duration
	maxToMean                  float64
	noOwner, oneOwner, surplus int
	nodes, frozen              int
	loads                      []float64
	largest, mean              float64
	moves                      int
}

func newWatch(w *World) *watch {
	return &watch{w: w, moves: make(map[assigner.Reason]int), balanced: make(map[peer.ID]int), left: make(map[peer.ID]move)}
}

func (t *watch) grow(n int) {
	for len(t.owners) < n {
		t.ownerless, t.surplus, t.broken = append(t.ownerless, -1), append(t.surplus, -1), append(t.broken, -1)
		t.owners, t.wounded, t.path = append(t.owners, 0), append(t.wounded, false), append(t.path, false)
	}
}

func (t *watch) took(s assigner.Step, now time.Duration) {
	t.moves[s.Why]++
	if s.Why != assigner.ReasonBalance {
		return
	}
	t.balanced[s.Publisher]++
	if l := t.left[s.Publisher]; l.from == s.Indexer && now-l.at < 24*time.Hour {
		t.returned++
	}
	t.left[s.Publisher] = move{s.From, now}
}

func (t *watch) lose(n *node) {
	for _, r := range n.list {
		t.wounded[r.p.at] = true
	}
}

func (t *watch) tick() {
	t.take()
	t.w.after(t.w.cfg.Sample, t.tick)
}

// take measures now.
func (t *watch) take() {
	s := sample{at: t.w.now, moves: t.moves[assigner.ReasonBalance]}
	clear(t.owners)
	var total float64
	for _, n := range t.w.nodes {
		if n.frozen && !n.lost {
			s.frozen++
		}
		if !n.up || n.frozen {
			if t.keepLoads {
				s.loads = append(s.loads, 0)
			}
			continue
		}
		s.nodes++
		load := n.load()
		total += load
		s.maxToMean = max(s.maxToMean, load)
		if t.keepLoads {
			s.loads = append(s.loads, load)
		}
		for _, r := range n.list {
			if r.owner {
				t.owners[r.p.at]++
				s.largest = max(s.largest, r.p.rate)
			}
		}
	}
	if s.mean = total / float64(max(s.nodes, 1)); s.mean > 0 {
		s.maxToMean /= s.mean
	}
	t.owner(&s)
	t.series = append(t.series, s)
}

// owner goes over publishers: how many owners they have, and since when.
func (t *watch) owner(s *sample) {
	for i, p := range t.w.publishers {
		if p.born >= t.w.now {
			continue
		}
		n := t.owners[i]
		switch {
		case n == 0:
			s.noOwner++
		case n > t.w.cfg.Replication:
			s.surplus++
		default:
			s.oneOwner++
		}
		since(&t.ownerless[i], n == 0, t.w.now, &t.longestOwnerless)
		since(&t.surplus[i], n > t.w.cfg.Replication, t.w.now, &t.longestSurplus)
	}
	t.waits = s.noOwner
}

// since keeps from when on something has been so.
func since(at *time.Duration, so bool, now time.Duration, longest *time.Duration) {
	switch {
	case !so:
		*at = -1
	case *at < 0:
		*at = now
	default:
		*longest = max(*longest, now-*at)
	}
}

// chains looks for publishers that had an owner and of which no whole copy is
// left on nodes that are not lost. It is dear, so not part of a sample.
func (t *watch) chains() {
	edges := make([]map[string][]string, len(t.w.publishers))
	tops := make([]uint64, len(t.w.publishers))
	for _, n := range t.w.nodes {
		if n.lost {
			continue
		}
		for _, r := range n.list {
			i := r.p.at
			if edges[i] == nil {
				edges[i] = make(map[string][]string)
			}
			for _, g := range r.ranges {
				edges[i][g.From] = append(edges[i][g.From], g.To)
			}
			tops[i] = max(tops[i], r.height())
		}
	}
	for i, e := range edges {
		if e == nil || tops[i] == 0 {
			continue
		}
		whole := reaches(e, strconv.FormatUint(tops[i], 10))
		if !whole && t.broken[i] < 0 && !t.wounded[i] {
			t.unexplained++
		}
		since(&t.broken[i], !whole, t.w.now, &t.longestBroken)
	}
}

// reaches tells whether ranges lead from the genesis to "growing" or to top.
func reaches(next map[string][]string, top string) bool {
	seen := map[string]bool{"": true}
	queue := []string{""}
	for len(queue) > 0 {
		for _, to := range next[queue[0]] {
			if to == "" || to == top {
				return true
			}
			if !seen[to] {
				seen[to] = true
				queue = append(queue, to)
			}
		}
		queue = queue[1:]
	}
	return false
}

func (t *watch) last() sample { return t.series[len(t.series)-1] }

// goal is what balance promises for max/mean: 1.05 of an even load, or of what
// the largest publisher alone makes of it.
func (s sample) goal() float64 { return 1.05 * max(s.largest/s.mean, 1) }
