package fanout

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/api/find"
)

// lacking says by name which backends lack everything.
type lacking map[string]bool

func (l lacking) Key(multihash.Multihash) uint64 { return 1 }
func (l lacking) Of(name string) Filter {
	if _, ok := l[name]; !ok {
		return nil
	}
	return lacks{l, name}
}

type lacks struct {
	of   lacking
	name string
}

func (l lacks) Lacks(uint64) bool { return l.of[l.name] }

// TestWhoLacksAKeyIsNotAsked: and its silence decides the answer as its no does,
// also while it is down; one whose filter does not stand any more is asked.
func TestWhoLacksAKeyIsNotAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		has, down := &actor{steps: []string{"P/a/x"}}, &actor{steps: []string{"fail"}}
		filters := lacking{"down": true}
		f := New(Config{Backends: []Backend{{Name: "has", Finder: has}, {Name: "down", Finder: down}}, Filters: filters})
		ask := func() (results int, partial bool) {
			for _, err := range f.Find(t.Context(), mh) {
				if err == nil {
					results++
				}
				var pe *find.PartialError
				partial = partial || errors.As(err, &pe)
			}
			return results, partial
		}
		if results, partial := ask(); results != 1 || partial {
			t.Errorf("%d results, partial: %v", results, partial)
		}
		b, err := f.FindBatch(t.Context(), []multihash.Multihash{mh})
		if err != nil || len(b.Results) != 1 || len(b.Unknown)+len(b.Missing) > 0 {
			t.Errorf("batch: %+v, %v", b, err)
		}
		filters["down"] = false
		if results, partial := ask(); results != 1 || !partial {
			t.Errorf("without its filter: %d results, partial: %v", results, partial)
		}
		synctest.Wait()
	})
}
