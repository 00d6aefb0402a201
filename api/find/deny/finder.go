package deny

import (
	"context"
	"iter"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/api/find"
)

// finder is a Finder with a list applied.
type finder struct {
	find.Finder
	list  *List
	peers bool
}

var _ find.Batcher = (*finder)(nil)

// Finder is f without what the list denies. With peers it does not tell of denied
// providers either (Provider); an indexer does, as whoever takes a publisher over
// from it asks. Lists of providers, and sizes, are those of f.
func (l *List) Finder(f find.Finder, peers bool) find.Finder {
	if l == nil {
		return f
	}
	return &finder{f, l, peers}
}

// Find asks nobody about a key that is denied.
func (f *finder) Find(ctx context.Context, mh multihash.Multihash) iter.Seq2[find.ProviderResult, error] {
	s := f.list.now.Load()
	if s.len() == 0 {
		return f.Finder.Find(ctx, mh)
	}
	return func(yield func(find.ProviderResult, error) bool) {
		if m := s.key(mh); m != nil {
			f.list.denied(m)
			yield(find.ProviderResult{}, m.err())
			return
		}
		c := censor{set: s}
		defer func() { f.list.leftOut(c.counts) }()
		for r, err := range f.Finder.Find(ctx, mh) {
			if err == nil && !c.passes(&r) {
				continue
			}
			if !yield(r, err) || err != nil {
				return
			}
		}
		if m := c.nothingElse(); m != nil {
			f.list.denied(m)
			yield(find.ProviderResult{}, m.err())
		}
	}
}

// censor leaves results of one key out.
type censor struct {
	set    *set
	passed int
	first  *match // of what was left out, in an order that does not depend on time
	counts counts
}

func (c *censor) passes(r *find.ProviderResult) bool {
	m := c.set.result(r)
	if m == nil {
		c.passed++
		return true
	}
	c.counts[m.kind]++
	if c.first == nil || m.before(c.first) {
		c.first = m
	}
	return false
}

// nothingElse is why there is no result, if that is because some were left out.
func (c *censor) nothingElse() *match {
	if c.passed > 0 {
		return nil
	}
	return c.first
}

// FindBatch asks nobody about keys that are denied.
func (f *finder) FindBatch(ctx context.Context, keys []multihash.Multihash) (find.Batch, error) {
	s := f.list.now.Load()
	if s.len() == 0 {
		return find.FindBatch(ctx, f.Finder, keys)
	}
	a := newBatch(keys)
	var ask []multihash.Multihash
	for n, mh := range keys {
		if m := s.key(mh); m != nil {
			f.list.denied(m)
			a.denied[n] = m.err()
		} else {
			ask = append(ask, mh)
		}
	}
	if len(ask) == 0 {
		return a.answer(), nil
	}
	b, err := find.FindBatch(ctx, f.Finder, ask)
	if err != nil {
		return find.Batch{}, err
	}
	a.take(f.list, s, b)
	return a.answer(), nil
}

// batch is an answer by key.
type batch struct {
	keys    []multihash.Multihash
	place   map[string]int
	found   [][]find.ProviderResult
	open    []bool
	denied  []*find.DeniedError
	missing []string
}

func newBatch(keys []multihash.Multihash) *batch {
	a := &batch{
		keys: keys, place: make(map[string]int, len(keys)),
		found: make([][]find.ProviderResult, len(keys)), open: make([]bool, len(keys)), denied: make([]*find.DeniedError, len(keys)),
	}
	for n, mh := range keys {
		a.place[string(mh)] = n
	}
	return a
}

// take takes what was answered, without the results that s denies.
func (a *batch) take(l *List, s *set, b find.Batch) {
	a.missing = b.Missing
	for _, r := range b.Results {
		n := a.place[string(r.Multihash)]
		c := censor{set: s}
		for _, result := range r.ProviderResults {
			if c.passes(&result) {
				a.found[n] = append(a.found[n], result)
			}
		}
		l.leftOut(c.counts)
		switch m := c.nothingElse(); {
		case m == nil:
		case len(b.Missing) > 0:
			a.open[n] = true // those missing may know another
		default:
			l.denied(m)
			a.denied[n] = m.err()
		}
	}
	for _, mh := range b.Unknown {
		a.open[a.place[string(mh)]] = true
	}
	for _, d := range b.Denied {
		a.denied[a.place[string(d.Multihash)]] = d.Err
	}
}

func (a *batch) answer() find.Batch {
	return find.NewBatch(a.keys, a.found, a.open, a.denied, a.missing)
}

// Provider says nothing of a denied provider, where that is wanted.
func (f *finder) Provider(ctx context.Context, id peer.ID) (*find.ProviderInfo, error) {
	if f.peers {
		if m := f.list.now.Load().provider(id); m != nil {
			f.list.denied(m)
			return nil, m.err()
		}
	}
	return f.Finder.Provider(ctx, id)
}

// denied notes a question that the list denies.
func (l *List) denied(m *match) {
	l.metrics.denied[m.kind].Inc()
	l.audit.note(m)
}

// leftOut notes results that the list denies.
func (l *List) leftOut(c counts) {
	for k, n := range c {
		if n > 0 {
			l.metrics.leftOut[k].Add(float64(n))
		}
	}
}
