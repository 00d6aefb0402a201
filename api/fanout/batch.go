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
		return find.NewBatch(keys, found, allOf(open), make([]*find.DeniedError, len(keys)), []string{noBackends}), nil
	}
	held := f.coverage.Load()
	asked, cancel := context.WithTimeout(ctx, min(wait(links, f.timeout)+time.Duration(len(keys))*perKey, f.timeout))
	defer cancel()
	parts := f.parts(links, keys)
	links = slices.DeleteFunc(slices.Clone(links), func(l *link) bool { return len(parts[l]) == 0 })
	answers := ask(asked, f, links, (*link).askPlainly, func(ctx context.Context, l *link) (find.Batch, error) {
		return find.FindBatch(ctx, l.Finder, parts[l])
	})
	if ctx.Err() != nil {
		return find.Batch{}, context.Cause(ctx)
	}
	place := make(map[string]int, len(keys))
	for n, mh := range keys {
		place[string(mh)] = n
	}
	silent := make([][]string, len(keys)) // by key, in the order of names
	denials := make([]denial, len(keys))
	var missing []string
	for i, a := range answers {
		name := links[i].Name
		if a.err != nil {
			missing = append(missing, missingOf(links[i], a.err)...)
			for _, mh := range parts[links[i]] {
				n := place[string(mh)]
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
		for _, d := range a.value.Denied {
			if n, asked := place[string(d.Multihash)]; asked {
				denials[n].add(name, d.Err)
			}
		}
		for _, mh := range a.value.Unknown {
			if n, asked := place[string(mh)]; asked {
				silent[n] = append(silent[n], name)
			}
		}
	}
	needed, denied := false, make([]*find.DeniedError, len(keys))
	now := time.Now()
	for n := range keys {
		slices.Sort(silent[n])
		open[n] = !held.dispensable(silent[n], now)
		needed = needed || open[n]
		denied[n] = denials[n].err
	}
	if !needed {
		missing = nil
	}
	return find.NewBatch(keys, found, open, denied, missing), nil
}

// parts are the keys each backend may have something of.
func (f *Finder) parts(links []*link, keys []multihash.Multihash) map[*link][]multihash.Multihash {
	parts := make(map[*link][]multihash.Multihash, len(links))
	for _, mh := range keys {
		asked := f.mayHave(links, mh)
		for i, l := range links {
			if asked == nil || asked[i] {
				parts[l] = append(parts[l], mh)
			}
		}
	}
	return parts
}

func allOf(b []bool) []bool {
	for i := range b {
		b[i] = true
	}
	return b
}
