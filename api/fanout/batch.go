package fanout

import (
	"context"
	"slices"
	"time"

	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/api/find"
)

// perKey is what each key of a batch adds to how long its answer may take.
const perKey = 2 * time.Millisecond

var _ find.Batcher = (*Finder)(nil)

// FindBatch asks all backends about all keys at once. Of a key that nobody who
// answered knows it says that it is unknown, unless those who did not are not
// needed (SetHoldings).
func (f *Finder) FindBatch(ctx context.Context, keys []multihash.Multihash) (find.Batch, error) {
	links := *f.links.Load()
	open := make([]bool, len(keys))
	found := make([][]find.ProviderResult, len(keys))
	if len(links) == 0 {
		return find.NewBatch(keys, found, allOf(open), []string{noBackends}), nil
	}
	held := f.coverage.Load()
	asked, cancel := context.WithTimeout(ctx, min(wait(links, f.timeout)+time.Duration(len(keys))*perKey, f.timeout))
	defer cancel()
	answers := ask(asked, f, links, (*link).ask, func(ctx context.Context, b find.Finder) (find.Batch, error) {
		return find.FindBatch(ctx, b, keys)
	})
	if ctx.Err() != nil {
		return find.Batch{}, context.Cause(ctx)
	}
	place := make(map[string]int, len(keys))
	for n, mh := range keys {
		place[string(mh)] = n
	}
	silent := make([][]string, len(keys)) // by key, in the order of names
	var missing []string
	for i, a := range answers {
		name := links[i].Name
		if a.err != nil {
			missing = append(missing, missingOf(links[i], a.err)...)
			for n := range keys {
				silent[n] = append(silent[n], name)
			}
			continue
		}
		for _, m := range a.value.Missing {
			missing = append(missing, name+"/"+m)
		}
		for _, r := range a.value.Results {
			if n, asked := place[string(r.Multihash)]; asked {
				found[n] = append(found[n], r.ProviderResults...)
			}
		}
		for _, mh := range a.value.Unknown {
			if n, asked := place[string(mh)]; asked {
				silent[n] = append(silent[n], name)
			}
		}
	}
	needed := false
	now := time.Now()
	for n := range keys {
		slices.Sort(silent[n])
		open[n] = !held.dispensable(silent[n], now)
		needed = needed || open[n]
	}
	if !needed {
		missing = nil
	}
	return find.NewBatch(keys, found, open, missing), nil
}

func allOf(b []bool) []bool {
	for i := range b {
		b[i] = true
	}
	return b
}
