package fanout

import (
	"context"
	"encoding/binary"
	"iter"
	"slices"
	"sync/atomic"
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
// a backend failed or has not finished within the timeout, or a *find.DeniedError
// if one denies what is asked for, or nothing is known but what they deny. It may give an answer
// that was whole again (Config.CacheFor), or that of another find about the same key.
func (f *Finder) Find(ctx context.Context, mh multihash.Multihash) iter.Seq2[find.ProviderResult, error] {
	return func(yield func(find.ProviderResult, error) bool) {
		known, other, own := f.answers.begin(mh)
		switch {
		case known != nil:
			f.metrics.again.WithLabelValues("kept").Inc()
			giveAll(known, nil, yield)
		case own != nil:
			defer f.answers.end(mh, own)
			f.find(ctx, mh, own, yield)
		case await(ctx, other) && other.shared:
			f.metrics.again.WithLabelValues("shared").Inc()
			giveAll(other.results, other.err, yield)
		default:
			f.find(ctx, mh, nil, yield)
		}
	}
}

// await waits a little for a find that somebody else has begun.
func await(ctx context.Context, other *flight) bool {
	timer := time.NewTimer(sharedWait)
	defer timer.Stop()
	select {
	case <-other.done:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

func giveAll(results []find.ProviderResult, err error, yield func(find.ProviderResult, error) bool) {
	for _, r := range results {
		if !yield(r, nil) {
			return
		}
	}
	if err != nil {
		yield(find.ProviderResult{}, err)
	}
}

// find asks, and notes the answer in own, which may be nil.
func (f *Finder) find(ctx context.Context, mh multihash.Multihash, own *flight, yield func(find.ProviderResult, error) bool) {
	g := f.gather(ctx, mh)
	defer g.stop()
	seen := make(map[string]struct{})
	give := func(r find.ProviderResult) bool {
		key := fingerprint(&r)
		if _, dup := seen[key]; dup || g.denial.whole() {
			return true
		}
		seen[key] = struct{}{}
		if own != nil && len(own.results) <= sharedResults {
			own.results = append(own.results, r)
		}
		return yield(r, nil)
	}
	if !g.each(mh, give) {
		return
	}
	var err error
	switch decided := g.decided(); {
	case g.denial.whole(), decided && g.denial.err != nil && len(seen) == 0:
		err = g.denial.err
	case !decided:
		err = partial(ctx, g.missing())
	}
	if own != nil && ctx.Err() == nil && len(own.results) <= sharedResults {
		own.shared, own.err = true, err
	}
	if err != nil {
		yield(find.ProviderResult{}, err)
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
	told     atomic.Int32  // results and ends that came
	ends     []end         // by backend
	denial   denial
}

// end is how a backend's part of a find ended. A denial is no error of it.
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
	asked := f.mayHave(backends, mh)
	for i := range backends {
		if asked != nil && !asked[i] {
			g.open--
			g.ends[i] = end{done: true}
		}
	}
	return g
}

// each calls give with each result; it is false as soon as give is. A backend that is
// asked alone is asked here: what goes through goroutines and channels costs a few
// microseconds, as much as an answer on a line.
func (g *gathering) each(mh multihash.Multihash, give func(find.ProviderResult) bool) bool {
	for i, l := range g.backends {
		switch {
		case g.ends[i].done:
		case g.open == 1 && l.prompt:
			left := false
			err := g.askTo(i, mh, func(r find.ProviderResult) bool {
				left = !give(r)
				return !left
			})
			g.ended(i, err)
			return !left
		default:
			go g.ask(i, mh)
		}
	}
	for {
		r, ok := g.next()
		if !ok {
			return true
		}
		if !give(r) {
			return false
		}
	}
}

// mayHave tells which backends may have something of a key; nil: all.
func (f *Finder) mayHave(links []*link, mh multihash.Multihash) []bool {
	if f.filters == nil {
		return nil
	}
	key, spared := f.filters.Key(mh), 0
	asked := make([]bool, len(links))
	for i, l := range links {
		asked[i] = l.filter == nil || !l.filter.Lacks(key)
		if !asked[i] {
			spared++
		}
	}
	f.metrics.spared.Add(float64(spared))
	return asked
}

// ask puts the question to one backend. It never blocks once left is closed.
func (g *gathering) ask(i int, mh multihash.Multihash) {
	err := g.askTo(i, mh, func(r find.ProviderResult) bool {
		select {
		case g.events <- event{backend: i, result: r}:
			return true
		case <-g.left:
			return false
		}
	})
	select {
	case g.events <- event{backend: i, ended: true, err: err}:
	case <-g.left:
	}
}

// askTo puts the question to one backend and returns its error.
func (g *gathering) askTo(i int, mh multihash.Multihash, give func(find.ProviderResult) bool) error {
	l := g.backends[i]
	var took time.Duration
	err := l.ask(func() (err error) {
		took, err = g.pass(i, mh, give)
		return err
	})
	g.f.observe(l.Name, took, err)
	return err
}

// pass gives the results of one backend to give, as long as that is true, and returns
// how long that took the backend, and its error. The backend may take as long as is waited for until its first
// result, and from each to the next, and as the timeout in all; a second while
// nobody has said anything, as then it is not this one that is slow. How long the
// consumer takes does not count.
func (g *gathering) pass(i int, mh multihash.Multihash, give func(find.ProviderResult) bool) (took time.Duration, err error) {
	defer recovered(&err)
	ctx, cancel := context.WithCancelCause(g.ctx)
	defer cancel(nil)
	l, began, first := g.backends[i], time.Now(), true
	asked, atFirst := began, min(firstPatience, g.f.timeout)
	var watch *time.Timer
	set := make(chan struct{})
	watch = time.AfterFunc(min(g.wait, g.f.timeout), func() {
		<-set
		if left := atFirst - time.Since(asked); left > 0 && g.told.Load() == 0 {
			watch.Reset(left)
			return
		}
		g.late <- i
		cancel(errLate)
	})
	close(set)
	defer watch.Stop()
	// came is called when it is the consumer's turn; false: that is too late.
	came := func(err error) bool {
		inTime := watch.Stop()
		took += time.Since(began)
		if inTime && !failed(err) {
			g.told.Add(1)
		}
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
		if r.Provider != nil && r.Provider.ID != "" && !give(r) {
			return took, nil
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
			g.ended(e.backend, e.err)
		default:
			return e.result, true
		}
	}
	return find.ProviderResult{}, false
}

// ended notes how a backend's part ended.
func (g *gathering) ended(i int, err error) {
	g.open--
	if denied := deniedBy(err); denied != nil {
		g.denial.add(g.backends[i].Name, denied)
		err = nil
	}
	g.ends[i] = end{done: true, err: err}
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
	if p := r.Position; p.Height > 0 {
		b = binary.AppendUvarint(append(b, p.Chain[:]...), p.Height)
		if p.Extended {
			b = append(b, 1)
		}
	}
	return string(b)
}
