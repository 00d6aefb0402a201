package ingest

import (
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2"
	"github.com/ipfs/go-cid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/signpost-index/signpost/store"
)

// stagesKept bounds the ads whose stages are remembered, of all publishers.
const stagesKept = 20_000

// Stages are the times at which an ad passed the stations of its way on this
// node, as far as they are known: zero for one not reached, or reached before
// this node started. Announced is known of heads only, Fetched of ads whose
// entries were fetched.
type Stages struct {
	Announced time.Time `json:",omitzero"`
	Scanned   time.Time `json:",omitzero"`
	Fetched   time.Time `json:",omitzero"`
	Indexed   time.Time `json:",omitzero"` // its verdict was given
}

// stageBook remembers the stages of the ads worked on last. Safe for
// concurrent use.
type stageBook struct {
	mu      sync.Mutex // of the entries
	ads     *lru.Cache[cid.Cid, *Stages]
	seconds *prometheus.HistogramVec
}

func newStageBook(seconds *prometheus.HistogramVec) *stageBook {
	ads, err := lru.New[cid.Cid, *Stages](stagesKept)
	if err != nil {
		panic(err) // only for a size below 1
	}
	return &stageBook{ads: ads, seconds: seconds}
}

// Stages returns what is remembered of an ad's way.
func (i *Ingester) Stages(ad cid.Cid) (Stages, bool) {
	b := i.stages
	b.mu.Lock()
	defer b.mu.Unlock()
	if s, ok := b.ads.Get(ad); ok {
		return *s, true
	}
	return Stages{}, false
}

func (b *stageBook) with(ad cid.Cid, f func(s *Stages, now time.Time)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, ok := b.ads.Get(ad)
	if !ok {
		s = &Stages{}
		b.ads.Add(ad, s)
	}
	f(s, time.Now())
}

func (b *stageBook) announced(ad cid.Cid, at time.Time) {
	b.with(ad, func(s *Stages, _ time.Time) {
		if s.Announced.IsZero() {
			s.Announced = at
		}
	})
}

func (b *stageBook) scanned(ad cid.Cid) {
	b.with(ad, func(s *Stages, now time.Time) {
		s.Scanned = now
		b.observe("announced to scanned", s.Announced, now)
	})
}

func (b *stageBook) fetched(ad cid.Cid) {
	b.with(ad, func(s *Stages, now time.Time) {
		s.Fetched = now
		b.observe("scanned to fetched", s.Scanned, now)
	})
}

func (b *stageBook) indexed(ad cid.Cid, v store.Verdict) {
	b.with(ad, func(s *Stages, now time.Time) {
		s.Indexed = now
		if v == store.Applied {
			b.observe("fetched to indexed", s.Fetched, now)
			b.observe("announced to indexed", s.Announced, now)
		}
	})
}

func (b *stageBook) observe(stage string, from, to time.Time) {
	if !from.IsZero() {
		b.seconds.WithLabelValues(stage).Observe(to.Sub(from).Seconds())
	}
}
