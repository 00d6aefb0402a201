package fanout

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/find"
)

// link is a backend and how it has been lately. It outlives a change of the
// pool that leaves its name in.
type link struct {
	Backend
	filter  Filter // nil: there is none
	prompt  bool   // it returns as soon as its context ends, whatever others do
	breaker *gobreaker.TwoStepCircuitBreaker[struct{}]
	pace    atomic.Uint64             // float64: seconds an answer takes, fading mean; 0: not known
	heard   atomic.Pointer[time.Time] // when it last answered anything
}

// heardFor is how long an answer shows that a backend is up.
const heardFor = 15 * time.Second

func (l *link) hear() {
	now := time.Now()
	l.heard.Store(&now)
}

func (l *link) isUp() bool { return l.heardWithin(heardFor) }

func (l *link) heardWithin(d time.Duration) bool {
	at := l.heard.Load()
	return at != nil && time.Since(*at) <= d
}

// lately is how long after an answer a late one says nothing of the backend: or
// whoever asks what takes long could keep it from all others.
const lately = 250 * time.Millisecond

// A backend that fails is not asked for a while; then one question tries it.
// Meanwhile answers lack it at once instead of after a time-out.
const (
	tripAfter   = 5   // failures in a row
	tripShare   = 0.5 // of what was asked in tripLately, if that was
	tripLeast   = 20  // so much at least
	tripLately  = 10 * time.Second
	retryFailed = time.Second
)

// errOpen is why a backend was not asked.
var errOpen = errors.New("it failed lately, and is tried once a second")

func newLink(b Backend, trips func(name string, open bool)) *link {
	_, prompt := b.Finder.(*find.Client)
	return &link{Backend: b, prompt: prompt, breaker: gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Name: b.Name, MaxRequests: 1, Interval: tripLately, BucketPeriod: time.Second, Timeout: retryFailed,
		ReadyToTrip: func(c gobreaker.Counts) bool {
			return c.ConsecutiveFailures >= tripAfter ||
				c.Requests >= tripLeast && float64(c.TotalFailures) >= tripShare*float64(c.Requests)
		},
		OnStateChange: func(name string, _, to gobreaker.State) { trips(name, to == gobreaker.StateOpen) },
		IsSuccessful:  func(err error) bool { return !failed(err) },
		IsExcluded:    func(err error) bool { return errors.Is(err, context.Canceled) },
	})}
}

// failed tells whether an error is the backend's. One that is a fan-out itself
// and misses others has answered, and so has one that refused the question: or
// whoever asks what it refuses could keep it from all others; one that denies it by
// its denylist as well.
func failed(err error) bool {
	var partial *find.PartialError
	var status *api.StatusError
	switch {
	case err == nil, deniedBy(err) != nil, errors.As(err, &partial):
		return false
	case errors.As(err, &status):
		return errors.Is(err, find.ErrUnavailable)
	}
	return true
}

// ask has do ask the backend, unless it is not to be asked now.
func (l *link) ask(do func() error) error {
	done, err := l.breaker.Allow()
	if err != nil {
		return errOpen
	}
	err = do()
	if errors.Is(err, errLate) && l.heardWithin(lately) {
		// It answers others: what takes long is what was asked.
		done(context.Canceled)
		return err
	}
	done(err)
	if !failed(err) {
		l.hear()
	}
	return err
}

// askPlainly is ask without telling how it went.
func (l *link) askPlainly(do func() error) error {
	if l.breaker.State() == gobreaker.StateOpen {
		return errOpen
	}
	err := do()
	if !failed(err) {
		l.hear()
	}
	return err
}

// paceWeight is what one answer counts in the mean.
const paceWeight = 1.0 / 16

func (l *link) took(d time.Duration) {
	for {
		old := l.pace.Load()
		mean := math.Float64frombits(old)
		if mean == 0 {
			mean = d.Seconds()
		}
		mean += paceWeight * (d.Seconds() - mean)
		if l.pace.CompareAndSwap(old, math.Float64bits(mean)) {
			return
		}
	}
}

// How long an answer waits for a backend: many times what backends take, the
// median of them, so that one that is slow holds up nobody, and a pool that is
// slow as a whole is waited for.
const (
	patience      = 32
	leastPatience = 200 * time.Millisecond
	firstPatience = time.Second // nothing is known yet
)

// wait is how long to wait for each of links, at most limit.
func wait(links []*link, limit time.Duration) time.Duration {
	var paces []float64
	for _, l := range links {
		if p := math.Float64frombits(l.pace.Load()); p > 0 {
			paces = append(paces, p)
		}
	}
	if len(paces) == 0 {
		return min(firstPatience, limit)
	}
	slices.Sort(paces)
	median := time.Duration(paces[(len(paces)-1)/2] * float64(time.Second))
	return min(max(patience*median, leastPatience), limit)
}
