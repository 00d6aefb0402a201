package ingest

import (
	"testing"
	"time"

	"github.com/signpost-index/signpost/store"
)

// TestFeedOfAnEndlessWalkStaysSmall: what was applied is not remembered for as
// long as a walk goes on.
func TestFeedOfAnEndlessWalkStaysSmall(t *testing.T) {
	read := func(bool, store.Position, int) ([]store.PendingAd, error) { return nil, nil }
	f := newFeed(read, func() bool { return false })
	for n := range 100_000 {
		j := job{PendingAd: store.PendingAd{AdRef: store.AdRef{Pos: store.Position(1<<40 - n)}}, bytes: 500}
		f.expect([]job{j})
		f.push([]job{j}, false)
		got, ok, _ := f.next()
		if !ok || got.Pos != j.Pos {
			t.Fatalf("ad %d: got %+v, %v", n, got, ok)
		}
		f.done(got, time.Time{})
	}
	if n := len(f.handled) + len(f.busy) + len(f.coming) + len(f.fresh); n > 2*backlogPage {
		t.Errorf("%d ads are remembered", n)
	}
}

// TestFeedGivesNoAdOfThePageTwice: an ad that was passed by a walk and applied
// stands in the page that was read before.
func TestFeedGivesNoAdOfThePageTwice(t *testing.T) {
	const waiting = 10
	var page []store.PendingAd
	for n := range waiting {
		page = append(page, store.PendingAd{AdRef: store.AdRef{Pos: store.Position(n + 1)}})
	}
	reads := 0
	read := func(again bool, _ store.Position, _ int) ([]store.PendingAd, error) {
		if reads++; again || reads > 1 {
			return nil, nil
		}
		return page, nil
	}
	f := newFeed(read, func() bool { return false })
	first, ok, _ := f.next()
	if !ok || first.Pos != 1 {
		t.Fatalf("first %+v", first)
	}
	last := job{PendingAd: page[waiting-1], bytes: 1}
	f.push([]job{last}, true)
	for n := range 10 * backlogPage { // enough to forget
		j := job{PendingAd: store.PendingAd{AdRef: store.AdRef{Pos: store.Position(1000 + n)}}, bytes: 1}
		f.push([]job{j}, false)
		got, ok, _ := f.next()
		if !ok {
			t.Fatal("nothing is given")
		}
		f.done(got, time.Time{})
	}
	f.done(first, time.Time{})
	f.setScanning(false)
	given := map[store.Position]int{last.Pos: 1, 1: 1}
	for {
		j, ok, _ := f.next()
		if !ok {
			break
		}
		given[j.Pos]++
		f.done(j, time.Time{})
	}
	for pos := store.Position(1); pos <= waiting; pos++ {
		if given[pos] != 1 {
			t.Errorf("ad at %d was given %d times", pos, given[pos])
		}
	}
}
