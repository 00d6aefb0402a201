package fanout

import (
	"context"
	"encoding/binary"
	"iter"
	"slices"
	"time"

	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/api/find"
)

// queueLen is how many results may wait for the consumer of a find before the
// backends do. Enough for nearly every find.
const queueLen = 32

// event is a result of one backend, or its end.
type event struct {
	backend int
	result  find.ProviderResult
	ended   bool
	err     error // of the end
}

// Find yields the results of all backends as they come, each provider,
// context ID, metadata and address list once, and then a *find.PartialError if
// a backend failed or has not finished within the timeout.
func (f *Finder) Find(ctx context.Context, mh multihash.Multihash) iter.Seq2[find.ProviderResult, error] {
	return func(yield func(find.ProviderResult, error) bool) {
		g := f.gather(ctx, mh)
		defer g.stop()
		seen := make(map[string]struct{})
		for {
			r, ok := g.next()
			if !ok {
				break
			}
			key := fingerprint(&r)
			if _, dup := seen[key]; dup {
				continue
			}
			seen[key] = struct{}{}
			if !yield(r, nil) {
				return
			}
		}
		if g.decided() {
			return
		}
		if err := partial(ctx, g.missing()); err != nil {
			yield(find.ProviderResult{}, err)
		}
	}
}

// gathering is one find under way. It is used by one goroutine.
type gathering struct {
	f        *Finder
	backends []*link
	coverage *coverage
	ctx      context.Context // of the backends
	cancel   context.CancelFunc
	wait     time.Duration // for each
	events   chan event
	late     chan int      // backends that took too long
	left     chan struct{} // closed when no one reads events any more
	open     int           // backends that have not ended
	ends     []end         // by backend
}

// end is how a backend's part of a find ended.
type end struct {
	done bool
	err  error
}

// gather asks all backends.
func (f *Finder) gather(ctx context.Context, mh multihash.Multihash) *gathering {
	backends := *f.links.Load()
	g := &gathering{
		f:        f,
		backends: backends,
		coverage: f.coverage.Load(),
		wait:     wait(backends, f.timeout),
		events:   make(chan event, queueLen),
		late:     make(chan int, len(backends)), // no one waits to send
		left:     make(chan struct{}),
		open:     len(backends),
		ends:     make([]end, len(backends)),
	}
	g.ctx, g.cancel = context.WithCancel(ctx)
	for i := range backends {
		go g.ask(i, mh)
	}
	return g
}

// ask puts the question to one backend. It never blocks once left is closed.
func (g *gathering) ask(i int, mh multihash.Multihash) {
	l := g.backends[i]
	var took time.Duration
	err := l.ask(func() (err error) {
		took, err = g.pass(i, mh)
		return err
	})
	g.f.observe(l.Name, took, err)
	select {
	case g.events <- event{backend: i, ended: true, err: err}:
	case <-g.left:
	}
}

// pass passes on the results of one backend, and returns how long that took it,
// and its error. The backend may take as long as is waited for until its first result, and from each to the
// next, and as the timeout in all. How long the consumer takes does not count.
func (g *gathering) pass(i int, mh multihash.Multihash) (took time.Duration, err error) {
	defer recovered(&err)
	ctx, cancel := context.WithCancelCause(g.ctx)
	defer cancel(nil)
	l, began, first := g.backends[i], time.Now(), true
	watch := time.AfterFunc(min(g.wait, g.f.timeout), func() {
		g.late <- i
		cancel(errLate)
	})
	defer watch.Stop()
	// came is called when it is the consumer's turn; false: that is too late.
	came := func(err error) bool {
		inTime := watch.Stop()
		took += time.Since(began)
		if first && inTime && !failed(err) {
			l.took(took)
		}
		first = false
		return inTime
	}
	for r, err := range l.Finder.Find(ctx, mh) {
		if !came(err) {
			return took, errLate
		}
		if err != nil {
			return took, err
		}
		if r.Provider != nil && r.Provider.ID != "" {
			select {
			case g.events <- event{backend: i, result: r}:
			case <-g.left:
				return took, nil
			}
		}
		began = time.Now()
		watch.Reset(max(min(g.wait, g.f.timeout-took), 0))
	}
	if !came(nil) {
		return took, errLate
	}
	return took, nil
}

// next returns the next result; it is false when all backends have ended or
// taken too long. It waits also for those whose holdings are on others: they may
// have got something since they said so.
func (g *gathering) next() (find.ProviderResult, bool) {
	for g.open > 0 {
		var e event
		select {
		case e = <-g.events:
		default:
			// Nothing is waiting: only now may a backend be given up, so that
			// what has arrived in time is never lost to it.
			select {
			case e = <-g.events:
			case i := <-g.late:
				e = event{backend: i, ended: true, err: errLate}
			case <-g.ctx.Done():
				return find.ProviderResult{}, false
			}
		}
		switch {
		case g.ends[e.backend].done: // it was given up
		case e.ended:
			g.open--
			g.ends[e.backend] = end{done: true, err: e.err}
		default:
			return e.result, true
		}
	}
	return find.ProviderResult{}, false
}

// decided tells whether all that might be known has been said: those that have
// not answered hold nothing that others, who have, do not.
func (g *gathering) decided() bool {
	if len(g.backends) == 0 {
		return false
	}
	var silent []string
	for i, e := range g.ends {
		if !e.done || e.err != nil {
			silent = append(silent, g.backends[i].Name)
		}
	}
	slices.Sort(silent)
	return g.coverage.dispensable(silent, time.Now())
}

// missing names the backends whose results may not all have been passed on.
func (g *gathering) missing() []string {
	if len(g.backends) == 0 {
		return []string{noBackends}
	}
	var missing []string
	for i, e := range g.ends {
		if e.done && e.err == nil {
			continue
		}
		missing = append(missing, missingOf(g.backends[i], e.err)...)
	}
	return missing
}

// stop lets go of all backends.
func (g *gathering) stop() {
	close(g.left)
	g.cancel()
}

// fingerprint is a result as a map key: every part with its length.
func fingerprint(r *find.ProviderResult) string {
	b := make([]byte, 0, 256)
	part := func(p []byte) {
		b = binary.AppendUvarint(b, uint64(len(p)))
		b = append(b, p...)
	}
	part([]byte(r.Provider.ID))
	part(r.ContextID)
	part(r.Metadata)
	for _, addr := range r.Provider.Addrs {
		part(addr.Bytes())
	}
	return string(b)
}
