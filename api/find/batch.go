package find

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/multiformats/go-multihash"
	"golang.org/x/sync/errgroup"
)

// MaxBatch is how many keys one batch may ask about.
const MaxBatch = 1000

// batchAtOnce is how many keys of a batch are looked up at once where that is
// done one by one.
const batchAtOnce = 16

// tooMuch stands among the missing if a key is left open as too much is known.
const tooMuch = "too-many-results"

// Batch is the answer about several keys.
type Batch struct {
	// Results are of the keys something is known of, in the order asked for.
	Results []MultihashResult
	// Unknown are keys of which nothing was found and somebody who might know
	// did not answer, in the order asked for. Of all other keys not in Results
	// or Denied nothing is known by anybody.
	Unknown []multihash.Multihash
	// Denied are keys of which a denylist forbids the answer, in the order asked
	// for. They are neither in Results nor in Unknown.
	Denied []Denied
	// Missing names who did not answer, sorted. Results may lack something then,
	// even if no key is unknown.
	Missing []string
}

// Denied is a key that is denied, and why.
type Denied struct {
	Multihash multihash.Multihash
	Err       *DeniedError
}

// Batcher is a Finder that can be asked about several keys at once: at most
// MaxBatch, each once. An error leaves all of them open.
type Batcher interface {
	FindBatch(ctx context.Context, keys []multihash.Multihash) (Batch, error)
}

// FindBatch asks f about several keys, at once if it is a Batcher, one by one if
// not. keys may repeat.
func FindBatch(ctx context.Context, f Finder, keys []multihash.Multihash) (Batch, error) {
	keys = unique(keys)
	if b, ok := f.(Batcher); ok {
		return b.FindBatch(ctx, keys)
	}
	return oneByOne(ctx, f, keys)
}

func unique(keys []multihash.Multihash) []multihash.Multihash {
	seen := make(map[string]bool, len(keys))
	var once []multihash.Multihash
	for _, mh := range keys {
		if !seen[string(mh)] {
			seen[string(mh)] = true
			once = append(once, mh)
		}
	}
	return once
}

// oneByOne is FindBatch of a Finder that knows no batches. Keys of which more is
// known than fits in one answer stay open: they can be asked about alone.
func oneByOne(ctx context.Context, f Finder, keys []multihash.Multihash) (Batch, error) {
	found := make([][]ProviderResult, len(keys))
	open, refused := make([]bool, len(keys)), make([]*DeniedError, len(keys))
	var mu sync.Mutex
	var missing []string
	var budget Budget
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(batchAtOnce)
	for n, mh := range keys {
		g.Go(func() error {
			for r, err := range f.Find(ctx, mh) {
				var partial *PartialError
				var denied *DeniedError
				switch {
				case err == nil && !budget.Take(&r):
					found[n], open[n] = nil, true
					mu.Lock()
					missing = append(missing, tooMuch)
					mu.Unlock()
					return nil
				case err == nil:
					found[n] = append(found[n], r)
				case errors.As(err, &denied):
					refused[n] = denied
				case errors.As(err, &partial):
					open[n] = true
					mu.Lock()
					missing = append(missing, partial.Missing...)
					mu.Unlock()
				default:
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return Batch{}, err
	}
	return NewBatch(keys, found, open, refused, missing), nil
}

// NewBatch puts an answer together: what was found of each key, whether
// somebody who might know more of it is missing, and the denial of it, or nil. A
// denial that is not of the whole key counts if there is nothing else.
func NewBatch(keys []multihash.Multihash, found [][]ProviderResult, open []bool, denied []*DeniedError, missing []string) Batch {
	b := Batch{}
	for n, mh := range keys {
		switch d := denied[n]; {
		case d != nil && (d.Whole() || len(found[n]) == 0 && !open[n]):
			b.Denied = append(b.Denied, Denied{mh, d})
		case len(found[n]) > 0:
			b.Results = append(b.Results, MultihashResult{Multihash: mh, ProviderResults: found[n]})
		case open[n]:
			b.Unknown = append(b.Unknown, mh)
		}
	}
	slices.Sort(missing)
	b.Missing = slices.Compact(missing)
	return b
}
