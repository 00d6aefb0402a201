package fanout

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
)

// teller is a backend that tells what it holds, if it does.
type teller struct {
	holds atomic.Pointer[string]
	err   error
	hangs atomic.Bool
	asked atomic.Int64
}

func (l *teller) Coverage(ctx context.Context) (admin.Coverage, error) {
	l.asked.Add(1)
	if l.hangs.Load() {
		<-ctx.Done()
		return admin.Coverage{}, ctx.Err()
	}
	if l.err != nil {
		return admin.Coverage{}, l.err
	}
	return holds("", time.Time{}, *l.holds.Load()).Coverage, nil
}

func tells(words string) *teller {
	l := &teller{}
	l.holds.Store(&words)
	return l
}

// TestHoldingsAreFollowed: what backends say counts, for ten seconds, also while
// another hangs; of two accounts the newer; and one that does not know the
// question is left alone for a while.
func TestHoldingsAreFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, foreign := tells("p[..]@5"), tells("p[..]@5"), &teller{err: admin.ErrNotSupported}
		f := New(Config{Backends: []Backend{{"a", &actor{}, a}, {"b", &actor{}, b}, {"foreign", &actor{}, foreign}, {"mute", &actor{}, nil}}})
		var others atomic.Pointer[Holdings]
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- f.FollowHoldings(ctx, func(context.Context) []Holdings {
				if h := others.Load(); h != nil {
					return []Holdings{*h}
				}
				return nil
			})
		}()
		without := func(name string) bool { return f.coverage.Load().dispensable([]string{name}, time.Now()) }
		time.Sleep(time.Second)
		if !without("a") || !without("b") || without("foreign") || without("mute") {
			t.Error("what is held was not asked for")
		}
		if up, text := f.Ready(); !up {
			t.Errorf("not ready: %s", text)
		}
		less := "p[x..]@5"
		b.holds.Store(&less)
		time.Sleep(holdingsEvery)
		if without("a") || !without("b") {
			t.Error("what has changed was not noticed")
		}
		all := "p[..]@5"
		b.holds.Store(&all)
		a.hangs.Store(true)
		time.Sleep(ConfirmedFor - time.Second)
		if !without("a") {
			t.Error("what was said does not stand for ten seconds")
		}
		time.Sleep(2 * time.Second)
		if without("a") || without("b") {
			t.Error("what was said stands for longer than ten seconds, or makes up for another")
		}
		said := holds("a", time.Now(), "p[..]@4")
		said.Coverage.ID = peer.ID("a")
		others.Store(&said)
		time.Sleep(holdingsEvery + holdingsWithin)
		if !without("a") {
			t.Error("what another said later does not count")
		}
		if n := foreign.asked.Load(); n < 2 || n > 3 {
			t.Errorf("one that does not know the question was asked %d times", n)
		}
		b.hangs.Store(true)
		time.Sleep(heardFor + holdingsEvery)
		if up, text := f.Ready(); up || text != "no answer from a, b, mute" {
			t.Errorf("ready %v although three of four are silent: %q", up, text)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
