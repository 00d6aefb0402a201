package fanout

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/signpost-index/signpost/api/admin"
)

// How often backends are asked what they hold, how long they may take to say
// so, how many are asked at once, and how long one that does not know the
// question is not asked again.
const (
	holdingsEvery  = 3 * time.Second
	holdingsWithin = 2 * time.Second
	holdingsAtOnce = 32
	noHoldingsFor  = 10 * time.Second
)

// Teller tells what a backend holds: an admin.Client of its find listener.
type Teller interface {
	Coverage(ctx context.Context) (admin.Coverage, error)
}

// told is what a backend said last.
type told struct {
	Holdings
	notBefore time.Time // it does not know the question
}

// FollowHoldings asks the backends again and again what they hold, until ctx
// ends. more, which may be nil, is asked each time for what others say of them;
// of two accounts of one backend the newer counts, but that of a backend itself as
// long as it is held, since nothing comes to it.
func (f *Finder) FollowHoldings(ctx context.Context, more func(context.Context) []Holdings) error {
	tick := time.NewTicker(holdingsEvery)
	defer tick.Stop()
	last := make(map[string]told)
	for {
		last = f.askHoldings(ctx, last)
		newest := make(map[string]Holdings)
		add := func(h Holdings) {
			if known := newest[h.Backend]; h.AsOf.After(known.AsOf) && !(h.Rough && known.heldAt(time.Now())) {
				newest[h.Backend] = h
			}
		}
		for _, t := range last {
			add(t.Holdings)
		}
		if more != nil {
			for _, h := range more(ctx) {
				add(h)
			}
		}
		all := make([]Holdings, 0, len(newest))
		for _, h := range newest {
			all = append(all, h)
		}
		f.SetHoldings(all)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// askHoldings asks all backends at once.
func (f *Finder) askHoldings(ctx context.Context, last map[string]told) map[string]told {
	ctx, cancel := context.WithTimeout(ctx, holdingsWithin)
	defer cancel()
	var mu sync.Mutex
	now := make(map[string]told) // guarded by mu
	keep := func(name string, t told) {
		mu.Lock()
		defer mu.Unlock()
		now[name] = t
	}
	var g errgroup.Group
	g.SetLimit(holdingsAtOnce)
	for _, l := range *f.links.Load() {
		before, known := last[l.Name]
		if l.Teller == nil || known && time.Now().Before(before.notBefore) {
			keep(l.Name, before)
			continue
		}
		g.Go(func() error {
			start := time.Now()
			c, err := l.Teller.Coverage(ctx)
			if err == nil || errors.Is(err, admin.ErrNotSupported) {
				l.hear()
			}
			after := before
			switch {
			case err == nil:
				held := time.Duration(min(c.HeldSeconds, admin.MaxHold.Seconds()) * float64(time.Second))
				after = told{Holdings: Holdings{Backend: l.Name, AsOf: start, HeldFor: held, Coverage: c}}
			case errors.Is(err, admin.ErrNotSupported):
				after = told{notBefore: start.Add(noHoldingsFor)}
			}
			keep(l.Name, after)
			return nil
		})
	}
	_ = g.Wait() // nobody returns an error
	return now
}
