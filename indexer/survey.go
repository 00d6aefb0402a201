package indexer

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/store"
)

const (
	// surveyEvery is the time between two looks at how far all publishers are. After
	// one that took t the next waits for surveyPause times that at least.
	surveyEvery = 5 * time.Second
	surveyPause = 20
	// laggingAfter is how long a publisher's mark may stand with ads waiting.
	laggingAfter = 30 * time.Minute
	// laggardsShown bounds the publishers that metrics name.
	laggardsShown = 20
)

// behind is a publisher of which something is known and not applied.
type behind struct {
	publisher peer.ID
	lag       time.Duration // the mark has not moved meanwhile
	pending   int           // ads
	gap       cid.Cid       // where its chain breaks off, if it does
	why       string        // there
}

// survey is how far behind publishers are, at some time. It is not changed.
type survey struct {
	publishers int
	behind     []behind // the longest lag first
	pending    int      // ads of all
	gaps       int      // publishers with one
}

// surveyor looks at all publishers again and again. Lag is counted from when a
// publisher was first seen with something waiting at the mark it has; at the first
// look, from when that mark was set.
type surveyor struct {
	list     func() []peer.ID
	progress func(peer.ID) store.Progress
	now      func() time.Time

	mu    sync.Mutex
	stood map[peer.ID]stand // of those behind
	first bool              // nothing was looked at yet
	last  survey
}

type stand struct {
	mark  cid.Cid
	since time.Time
}

func newSurveyor(list func() []peer.ID, progress func(peer.ID) store.Progress) *surveyor {
	return &surveyor{list: list, progress: progress, now: time.Now, stood: make(map[peer.ID]stand), first: true}
}

// run looks until ctx ends.
func (s *surveyor) run(ctx context.Context) error {
	for {
		start := s.now()
		s.look(ctx)
		if !pause(ctx, max(surveyEvery, surveyPause*s.now().Sub(start)), nil) {
			return nil
		}
	}
}

// look makes a survey. Only run calls it.
func (s *surveyor) look(ctx context.Context) {
	now, next := s.now(), make(map[peer.ID]stand)
	var v survey
	for _, id := range s.list() {
		if ctx.Err() != nil {
			return
		}
		v.publishers++
		p := s.progress(id)
		b := behind{publisher: id, pending: p.Pending}
		for _, sc := range p.Scans {
			if sc.Trouble.Attempts > 0 {
				b.gap, b.why = sc.Next, sc.Trouble.Reason
				break
			}
		}
		v.pending += p.Pending
		if b.gap.Defined() {
			v.gaps++
		}
		if p.Pending == 0 && len(p.Scans) == 0 {
			continue
		}
		st, known := s.stood[id]
		switch {
		case known && st.mark == p.Mark.Ad:
		case s.first && !p.MarkTime.IsZero():
			st = stand{p.Mark.Ad, p.MarkTime}
		default:
			st = stand{p.Mark.Ad, now}
		}
		next[id] = st
		b.lag = max(now.Sub(st.since), 0)
		v.behind = append(v.behind, b)
	}
	slices.SortFunc(v.behind, func(x, y behind) int {
		return cmp.Or(cmp.Compare(y.lag, x.lag), cmp.Compare(x.publisher, y.publisher))
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stood, s.first, s.last = next, false, v
}

// result is the last survey.
func (s *surveyor) result() survey {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// lagging names the publishers that lag for too long, in words.
func (v survey) lagging() string {
	n := 0
	for n < len(v.behind) && v.behind[n].lag >= laggingAfter {
		n++
	}
	if n == 0 {
		return ""
	}
	b := v.behind[0]
	return fmt.Sprintf("%d publishers; longest %s, for %s, with %d advertisements waiting", n, b.publisher, b.lag.Round(time.Minute), b.pending)
}

// broken names the chains that break off, in words.
func (v survey) broken() string {
	for _, b := range v.behind {
		if b.gap.Defined() {
			return fmt.Sprintf("%d publishers; such as %s at %s: %s", v.gaps, b.publisher, b.gap, b.why)
		}
	}
	return ""
}
