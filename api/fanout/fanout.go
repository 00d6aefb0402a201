// Package fanout is a [find.Finder] made of Finders: the heart of the query
// frontend. A question goes to all backends at once that may know something; results are passed on as
// they come; an answer is complete if every backend gave one.
//
//	           ┌─► backend a ─┐
//	Find(mh) ──┼─► backend b ─┼─► results as they come ─► *find.PartialError
//	           └─► backend c ─┘                           if one gave no answer
//
// What it promises:
//
//   - A backend that is slow, down, or panics costs an answer at most
//     Config.Timeout and its own results. It is named in the
//     *find.PartialError that ends the answer; no answer is silently short,
//     and none says "not found" while someone who might know has not spoken.
//     One that fails again and again is asked once a second, and answers lack
//     it at once meanwhile.
//   - A backend whose filter says that it lacks the key is not asked, and counts as
//     one that has answered (Config.Filters).
//   - An answer is not partial for want of a frozen backend all of whose holdings
//     are on others that answered (SetHoldings).
//   - What one backend's denylist denies is denied, whatever the others know
//     (find.DeniedError); denying is answering.
//   - The answer as a set does not depend on the order in which backends
//     answer, on how results are spread over them, or on repetition. As a
//     sequence it is in the order of arrival, without exact repetitions;
//     [find.Merge] makes the one canonical list of it.
//   - Leaving a sequence early cancels the questions still open. A backend other
//     than a [find.Client], which does, returns soon after its context ends (find.Finder); one that does not
//     keeps its own goroutine until it does, and nothing else.
package fanout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/multiformats/go-multihash"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/signpost-index/signpost/api/find"
)

// DefaultTimeout is how long an answer waits for its backends at most: the
// reference's SERVER_RESULT_MAX_WAIT.
const DefaultTimeout = 5 * time.Second

// noBackends is what is missing when there is no one to ask.
const noBackends = "(no backends)"

// Backend is one of those asked. Name appears in errors, headers and metrics.
// Teller, which may be nil, tells what it holds.
type Backend struct {
	Name   string
	Finder find.Finder
	Teller Teller
}

// Config is what a Finder is made of.
type Config struct {
	Backends []Backend
	// Timeout is how long each backend may take for an answer, to its end, at
	// most, not counting how long the consumer takes. Finds wait for a backend's
	// first result, and from each to the next, for 32 times what backends take on
	// average (their median), and for 200 ms at least; as long as no backend has said
	// anything, for a second. Zero is DefaultTimeout.
	Timeout time.Duration
	// CacheFor is how long a whole answer with results may be given again; 0: never.
	// It is forgotten when a backend holds something else than before (SetHoldings).
	CacheFor time.Duration
	// Filters tell what backends lack, by their names; nil: nobody does.
	Filters Filters
	// Logger may be nil.
	Logger *slog.Logger
	// Registerer may be nil.
	Registerer prometheus.Registerer
}

// Filters tell of a multihash that a backend has nothing of it, so that it need
// not be asked.
type Filters interface {
	// Key is made of a multihash once for all backends.
	Key(mh multihash.Multihash) uint64
	// Of is the filter of a backend, nil if there is none.
	Of(backend string) Filter
}

// Filter is what is known of one backend.
type Filter interface {
	// Lacks is true only if the backend would now answer, and find nothing that it
	// has reported as indexed.
	Lacks(key uint64) bool
}

// Finder asks all backends. It is safe for concurrent use.
type Finder struct {
	links    atomic.Pointer[[]*link]
	coverage atomic.Pointer[coverage]
	timeout  time.Duration
	filters  Filters
	answers  *answers
	metrics  *metrics
	states   states
	setting  sync.Mutex // of links and coverage
}

var _ find.Finder = (*Finder)(nil)

// New returns a Finder over cfg.Backends.
func New(cfg Config) *Finder {
	f := &Finder{
		timeout: cmp.Or(cfg.Timeout, DefaultTimeout),
		filters: cfg.Filters,
		answers: newAnswers(cfg.CacheFor),
		metrics: newMetrics(cfg.Registerer),
		states:  states{log: cfg.Logger},
	}
	if f.states.log == nil {
		f.states.log = slog.New(slog.DiscardHandler)
	}
	f.links.Store(new([]*link))
	f.SetBackends(cfg.Backends)
	return f
}

// SetCacheFor replaces Config.CacheFor.
func (f *Finder) SetCacheFor(d time.Duration) { f.answers.setKeepFor(d) }

// SetBackends replaces the backends. Questions being answered go on with the
// ones they started with.
func (f *Finder) SetBackends(backends []Backend) {
	f.setting.Lock()
	defer f.setting.Unlock()
	keep := func(name string) bool {
		return slices.ContainsFunc(backends, func(b Backend) bool { return b.Name == name })
	}
	before := *f.links.Load()
	links := make([]*link, 0, len(backends))
	for _, b := range backends {
		l := newLink(b, f.metrics.tripped)
		if f.filters != nil {
			l.filter = f.filters.Of(b.Name)
		}
		if i := slices.IndexFunc(before, func(l *link) bool { return l.Name == b.Name }); i >= 0 {
			l.breaker = before[i].breaker
			l.pace.Store(before[i].pace.Load())
			l.heard.Store(before[i].heard.Load())
		}
		links = append(links, l)
	}
	f.coverage.Store(nil) // until holdings are told again, as who is asked has changed
	f.links.Store(&links)
	f.answers.forget()
	for _, old := range before {
		if !keep(old.Name) {
			f.metrics.forget(old.Name)
		}
	}
	f.states.forget(keep)
	f.metrics.backends.Set(float64(len(backends)))
}

// Ready tells whether more than half of the backends answered something within the
// last 15 s, and if not, which did not. FollowHoldings asks them.
func (f *Finder) Ready() (ready bool, text string) {
	silent, all := f.Silent()
	switch {
	case all == 0:
		return false, "there are no indexers to ask"
	case 2*len(silent) < all:
		return true, ""
	}
	return false, "no answer from " + named(silent)
}

// Silent names the backends that did not answer anything within the last 15 s, of
// all that are asked.
func (f *Finder) Silent() (silent []string, all int) {
	links := *f.links.Load()
	for _, l := range links {
		if !l.isUp() {
			silent = append(silent, l.Name)
		}
	}
	return silent, len(links)
}

// named lists some names.
func named(names []string) string {
	more := ""
	if n := len(names) - maxNamed; n > 0 {
		names, more = names[:maxNamed], fmt.Sprintf(" and %d others", n)
	}
	return strings.Join(names, ", ") + more
}

// maxNamed is how many silent backends are named.
const maxNamed = 10

// observe counts one answer of a backend. One that was cancelled because the
// client left, or that was not asked for, says nothing about the backend.
func (f *Finder) observe(backend string, elapsed time.Duration, err error) {
	if errors.Is(err, context.Canceled) || errors.Is(err, errOpen) {
		return
	}
	if deniedBy(err) != nil {
		err = nil // it is an answer
	}
	f.metrics.observe(backend, elapsed, err != nil)
	f.states.note(backend, err)
}

// Providers is the union of what the backends list, sorted by peer ID. Of
// several records of one provider it is the newest.
func (f *Finder) Providers(ctx context.Context) ([]find.ProviderInfo, error) {
	lists, missing := scatter(ctx, f, func(ctx context.Context, b find.Finder) ([]find.ProviderInfo, error) {
		return b.Providers(ctx)
	})
	return newestOfEach(slices.Concat(lists...)), partial(ctx, missing)
}

// partial is the error that ends an answer with those missing.
func partial(ctx context.Context, missing []string) error {
	if len(missing) == 0 {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	slices.Sort(missing)
	return &find.PartialError{Missing: slices.Compact(missing)}
}

// missingOf names what is missing when backend b failed with err: b, or, if b
// is a fan-out itself, those of its backends that it missed.
func missingOf(b *link, err error) []string {
	var inner *find.PartialError
	if !errors.As(err, &inner) || len(inner.Missing) == 0 {
		return []string{b.Name}
	}
	names := make([]string, len(inner.Missing))
	for i, name := range inner.Missing {
		names[i] = b.Name + "/" + name
	}
	return names
}

// recovered turns a panic of a backend into its error.
func recovered(err *error) {
	if v := recover(); v != nil {
		*err = fmt.Errorf("%w: panic: %v", find.ErrUnavailable, v)
	}
}
