package ingest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// TestTurnsGoToThePublisherServedLeast: one publisher asks from thirty lanes,
// another from one, which is served whenever it asks.
func TestTurnsGoToThePublisherServedLeast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := newTurns(2)
		ctx, cancel := context.WithCancel(context.Background())
		used := make(map[peer.ID]*time.Duration)
		done := make(chan struct{})
		workers := 0
		start := func(id peer.ID, lanes int) {
			total := new(time.Duration)
			used[id] = total
			for range lanes {
				workers++
				go func() {
					defer func() { done <- struct{}{} }()
					for {
						end, err := ts.take(ctx, id)
						if err != nil {
							return
						}
						time.Sleep(time.Millisecond) // of the bubble: no time passes
						end()
						ts.mu.Lock()
						*total += time.Millisecond
						ts.mu.Unlock()
					}
				}()
			}
		}
		start("greedy", 30)
		time.Sleep(time.Second)
		ts.mu.Lock()
		before := *used["greedy"]
		ts.mu.Unlock()
		start("modest", 1)
		time.Sleep(time.Second)
		cancel()
		for range workers {
			<-done
		}
		greedy, modest := *used["greedy"]-before, *used["modest"]
		// One lane uses at most one of the two turns, and waits for the end of
		// another before each; by the number of lanes it would have 65 ms.
		if modest < 450*time.Millisecond {
			t.Errorf("the modest publisher had %v, the greedy one %v of two seconds", modest, greedy)
		}
		if greedy < 900*time.Millisecond {
			t.Errorf("the greedy publisher had %v beside the modest one", greedy)
		}
		if ts.free != 2 || ts.refs() != 0 || len(ts.waiting) != 0 {
			t.Errorf("%d turns free, %d in use, %d wait; want 2, 0, 0", ts.free, ts.refs(), len(ts.waiting))
		}
	})
}

// TestSeatIsGivenBackWhenOthersWait: with more publishers than seats, each has
// its slice in the order of asking.
func TestSeatIsGivenBackWhenOthersWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSeats(1, time.Second)
		first, err := s.take(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if first.over() {
			t.Error("the slice is over though nobody waits")
		}
		got := make(chan error)
		go func() {
			second, err := s.take(t.Context())
			if err == nil {
				second.leave()
			}
			got <- err
		}()
		synctest.Wait()
		if !first.over() {
			t.Error("the slice is not over though another waits")
		}
		first.leave()
		if err := <-got; err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		held, err := s.take(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.take(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("take with an ended context: %v", err)
		}
		held.leave()
	})
}

// TestTurnLostByCancelIsPassedOn: none is lost, whatever the moment.
func TestTurnLostByCancelIsPassedOn(t *testing.T) {
	ts := newTurns(1)
	for round := range 200 {
		end, err := ts.take(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		got := make(chan error, 1)
		go func() {
			end, err := ts.take(ctx, peer.ID(fmt.Sprint(round)))
			if err == nil {
				end()
			}
			got <- err
		}()
		go cancel()
		end()
		<-got
	}
	if ts.free != 1 || ts.refs() != 0 {
		t.Errorf("%d turns free, %d in use; want 1, 0", ts.free, ts.refs())
	}
}

// refs is how many turns are held or waited for.
func (t *turns) refs() (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, u := range t.used {
		n += u.refs
	}
	return n
}

// TestUseIsRememberedWhileItIsAboveOthers: who has had much does not begin anew
// by letting go for a moment, and what is remembered is bounded.
func TestUseIsRememberedWhileItIsAboveOthers(t *testing.T) {
	ts := newTurns(1)
	ts.charge("greedy", time.Second)
	end, err := ts.take(t.Context(), "modest")
	if err != nil {
		t.Fatal(err)
	}
	order := make(chan peer.ID, 2)
	for _, id := range []peer.ID{"greedy", "another"} {
		go func() {
			end, err := ts.take(context.Background(), id)
			if err == nil {
				order <- id
				end()
			}
		}()
		for n := 0; ts.waits() == 0 || (id == "another" && ts.waits() < 2); n++ {
			runtime.Gosched()
		}
	}
	end()
	if first := <-order; first != "another" {
		t.Errorf("%s came first, though it has had most", first)
	}
	<-order
	for n := range 3 * maxUsages {
		ts.charge(peer.ID(fmt.Sprint(n)), time.Hour)
	}
	if n := len(ts.used); n > maxUsages+1 {
		t.Errorf("%d publishers are remembered", n)
	}
}

// TestLargeBlocksLeaveATurnToOthers: however many publishers have one.
func TestLargeBlocksLeaveATurnToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := newTurns(2)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		const hogs = 20
		for n := range hogs {
			go func() {
				defer func() { done <- struct{}{} }()
				for {
					end, err := ts.takeFor(ctx, peer.ID(fmt.Sprint("hog ", n)), largeBlock)
					if err != nil {
						return
					}
					time.Sleep(time.Second) // of the bubble: no time passes
					end()
				}
			}()
		}
		synctest.Wait()
		start := time.Now()
		end, err := ts.takeFor(ctx, "modest", largeBlock-1)
		if err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(start); waited > 0 {
			t.Errorf("a small block waited %v for large ones", waited)
		}
		end()
		cancel()
		for range hogs {
			<-done
		}
		if n := ts.refs(); n != 0 || !ts.large.TryAcquire(1) {
			t.Errorf("%d turns in use, large ones given back: want none and all", n)
		}
	})
}
