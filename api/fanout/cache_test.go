package fanout

import (
	"context"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/api/admin"
	"github.com/signpost-index/signpost/api/find"
)

// counter counts how often it is asked.
type counter struct {
	actor
	asked atomic.Int32
}

func (c *counter) Find(ctx context.Context, mh multihash.Multihash) iter.Seq2[find.ProviderResult, error] {
	c.asked.Add(1)
	return c.actor.Find(ctx, mh)
}

func findAll(t *testing.T, f *Finder) (text string) {
	t.Helper()
	for r, err := range f.Find(t.Context(), mh) {
		if err != nil {
			return text + " " + err.Error()
		}
		text += " " + string(r.ContextID)
	}
	return text
}

// TestWholeAnswersAreGivenAgain: for as long as configured, if something was found
// and nobody was missing; and not once a backend holds something else.
func TestWholeAnswersAreGivenAgain(t *testing.T) {
	for name, c := range map[string]struct {
		steps, other []string
		cacheFor     time.Duration
		then         func(f *Finder)
		asked        int32 // in two finds
	}{
		"again":          {steps: []string{"P/a/x"}, cacheFor: 5 * time.Second, asked: 1},
		"switched off":   {steps: []string{"P/a/x"}, asked: 2},
		"nothing found":  {cacheFor: 5 * time.Second, asked: 2},
		"one is missing": {steps: []string{"P/a/x"}, other: []string{"fail"}, cacheFor: 5 * time.Second, asked: 2},
		"too late":       {steps: []string{"P/a/x"}, cacheFor: 5 * time.Second, then: func(*Finder) { time.Sleep(5 * time.Second) }, asked: 2},
		"other holdings": {steps: []string{"P/a/x"}, cacheFor: 5 * time.Second, then: func(f *Finder) {
			f.SetHoldings([]Holdings{{Backend: "b", AsOf: time.Now(), Coverage: admin.Coverage{Version: "2"}}})
		}, asked: 2},
		"kept shorter from now on": {steps: []string{"P/a/x"}, cacheFor: 5 * time.Second, then: func(f *Finder) { f.SetCacheFor(time.Second) }, asked: 2},
		"kept longer from now on":  {steps: []string{"P/a/x"}, cacheFor: time.Second, then: func(f *Finder) { f.SetCacheFor(5 * time.Second) }, asked: 1},
		"other backends": {steps: []string{"P/a/x"}, cacheFor: 5 * time.Second, then: func(f *Finder) {
			b := (*f.links.Load())[0].Backend
			f.SetBackends([]Backend{b})
		}, asked: 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &counter{actor: actor{steps: c.steps}}
				f := New(Config{CacheFor: c.cacheFor, Backends: []Backend{{Name: "b", Finder: b}, {Name: "other", Finder: &actor{steps: c.other}}}})
				first := findAll(t, f)
				if c.then != nil {
					c.then(f)
				}
				if again := findAll(t, f); again != first {
					t.Errorf("%q, then %q", first, again)
				}
				synctest.Wait()
				if n := b.asked.Load(); n != c.asked {
					t.Errorf("asked %d times, want %d", n, c.asked)
				}
			})
		})
	}
}

// TestEqualFindsShareAnAnswer: but none waits long for another, which may never
// end, or be left.
func TestEqualFindsShareAnAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		steps []string
		leave bool
		asked int32
	}{
		"at once":   {steps: []string{"wait 5ms", "P/a/x"}, asked: 1},
		"none":      {steps: []string{"wait 5ms"}, asked: 1},
		"failing":   {steps: []string{"wait 5ms", "fail"}, asked: 1},
		"slow":      {steps: []string{"wait 100ms", "P/a/x"}, asked: 20},
		"left":      {steps: []string{"P/a/x", "wait 5ms", "P/b/x"}, leave: true, asked: 20},
		"very long": {steps: manyResults(sharedResults + 1), asked: 20},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &counter{actor: actor{steps: c.steps}}
				f := New(Config{Backends: []Backend{{Name: "b", Finder: b}}})
				var wg sync.WaitGroup
				texts := make([]string, 20)
				for n := range texts {
					wg.Go(func() {
						if c.leave && n == 0 {
							for range f.Find(t.Context(), mh) {
								return
							}
						}
						texts[n] = findAll(t, f)
					})
					if n == 0 {
						synctest.Wait() // it has begun
						if c.leave {
							b.asked.Store(1)
						}
					}
				}
				wg.Wait()
				for n, text := range texts {
					if text != texts[len(texts)-1] && !(c.leave && n == 0) {
						t.Errorf("%q and %q", text, texts[len(texts)-1])
					}
				}
				synctest.Wait()
				if n := b.asked.Load(); n != c.asked && !c.leave {
					t.Errorf("asked %d times, want %d", n, c.asked)
				}
			})
		})
	}
}

func manyResults(n int) (steps []string) {
	for i := range n {
		steps = append(steps, fmt.Sprintf("P/%d/x", i))
	}
	return append([]string{"wait 5ms"}, steps...)
}
