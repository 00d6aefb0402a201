package fanout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/api/find"
)

// batcher is a backend that answers batches: words "key" (found), "key?" (it
// does not know); all others it knows are not there.
type batcher struct {
	actor
	answers string
	err     error
	wait    time.Duration
	asked   int
}

func (b *batcher) FindBatch(ctx context.Context, keys []multihash.Multihash) (find.Batch, error) {
	b.asked++
	select {
	case <-time.After(b.wait):
	case <-ctx.Done():
		return find.Batch{}, ctx.Err()
	}
	found, open := make([][]find.ProviderResult, len(keys)), make([]bool, len(keys))
	missing := []string(nil)
	for w := range strings.FieldsSeq(b.answers) {
		key, unknown := strings.CutSuffix(w, "?")
		if n := slices.IndexFunc(keys, func(mh multihash.Multihash) bool { return string(mh) == key }); n >= 0 && unknown {
			open[n], missing = true, []string{"x"}
		} else if n >= 0 {
			found[n] = []find.ProviderResult{{Provider: &peer.AddrInfo{ID: "P"}, ContextID: []byte(key)}}
		}
	}
	return find.NewBatch(keys, found, open, make([]*find.DeniedError, len(keys)), missing), b.err
}

// words shows a batch as "found | unknown | missing".
func words(b find.Batch) string {
	var found, unknown []string
	for _, r := range b.Results {
		found = append(found, fmt.Sprintf("%s:%d", string(r.Multihash), len(r.ProviderResults)))
	}
	for _, mh := range b.Unknown {
		unknown = append(unknown, string(mh))
	}
	return strings.Join([]string{strings.Join(found, " "), strings.Join(unknown, " "), strings.Join(b.Missing, " ")}, " | ")
}

// TestBatchIsOneFanOut: each backend is asked once for all keys, and a key that
// nobody found is undecided if, and only if, somebody who is needed did not
// answer for it.
func TestBatchIsOneFanOut(t *testing.T) {
	for _, c := range []struct {
		name string
		a, b batcher
		held bool // all of b is on a as well, and the other way round
		want string
		took time.Duration
	}{
		{"all answer", batcher{answers: "k l"}, batcher{answers: "l m"}, false, "k:1 l:2 m:1 |  | ", 0},
		{"one fails", batcher{answers: "k"}, batcher{err: errDown}, false, "k:1 | l m | b", 0},
		{"one hangs", batcher{answers: "k"}, batcher{wait: time.Hour}, false, "k:1 | l m | b", firstPatience + 3*perKey},
		{"one does not know of one", batcher{answers: "k"}, batcher{answers: "l?"}, false, "k:1 | l | b/x", 0},
		{"another knows that one", batcher{answers: "k l"}, batcher{answers: "l?"}, false, "k:1 l:1 |  | b/x", 0},
		{"one fails that is not needed", batcher{answers: "k"}, batcher{err: errDown}, true, "k:1 |  | ", 0},
		{"one does not know what the other does", batcher{answers: "k"}, batcher{answers: "l?"}, true, "k:1 |  | ", 0},
		{"both fail", batcher{err: errDown}, batcher{err: errDown}, true, " | k l m | a b", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := New(Config{Backends: []Backend{{"a", &c.a, nil}, {"b", &c.b, nil}}})
				if c.held {
					f.SetHoldings([]Holdings{holds("a", time.Now(), "p[..]@5"), holds("b", time.Now(), "p[..]@5")})
				}
				start := time.Now()
				keys := []multihash.Multihash{multihash.Multihash("k"), multihash.Multihash("l"), multihash.Multihash("k"), multihash.Multihash("m")}
				b, err := find.FindBatch(t.Context(), f, keys)
				took := time.Since(start)
				synctest.Wait()
				if err != nil || words(b) != c.want || took != c.took || c.a.asked != 1 || c.b.asked != 1 {
					t.Errorf("%q, %v after %s, asked %d and %d times; want %q after %s", words(b), err, took, c.a.asked, c.b.asked, c.want, c.took)
				}
			})
		})
	}
}

func TestBatchOfNoBackendsIsUndecided(t *testing.T) {
	b, err := find.FindBatch(t.Context(), New(Config{}), []multihash.Multihash{mh})
	if err != nil || len(b.Unknown) != 1 || len(b.Missing) != 1 {
		t.Errorf("%+v, %v", b, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if b, err := find.FindBatch(ctx, New(Config{Backends: []Backend{{"a", &batcher{wait: time.Hour}, nil}}}), []multihash.Multihash{mh}); !errors.Is(err, context.Canceled) {
		t.Errorf("of a client that has left: %+v, %v", b, err)
	}
}
