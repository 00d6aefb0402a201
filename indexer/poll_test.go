package indexer

import (
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/store"
)

var pollStart = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

// TestNextPollDecides is the table of states and times.
func TestNextPollDecides(t *testing.T) {
	at := func(d time.Duration) time.Time { return pollStart.Add(d) }
	c := PollConfig{}.withDefaults()
	never := func(change func(*PollConfig)) PollConfig {
		c := c
		change(&c)
		return c.withDefaults()
	}
	active := func(silent time.Duration, tried time.Time) store.PublisherState {
		return store.PublisherState{Contact: pollStart, Tried: tried, Silent: silent}
	}
	inactive, removed := active(8*day, at(8*day)), store.PublisherState{Phase: store.PhaseRemoved, Contact: pollStart,
		Removed: at(15 * day), Tried: at(15 * day), Addrs: []string{"/a"}, Silent: 15 * day}
	inactive.Phase = store.PhaseInactive
	buried, returning := removed, active(0, pollStart)
	buried.Addrs = nil
	returning.Phase = store.PhaseReturning
	tests := []struct {
		name   string
		st     store.PublisherState
		c      PollConfig
		now    time.Time
		action pollAction
		when   time.Time
	}{
		{"just heard from", active(0, time.Time{}), c, at(time.Hour), pollWait, at(day)},
		{"silent for a day", active(0, time.Time{}), c, at(day), pollAsk, at(day)},
		{"asked in vain", active(day, at(day)), c, at(day + time.Hour), pollWait, at(day + 5*time.Hour)},
		{"asked again", active(day, at(day)), c, at(day + 5*time.Hour), pollAsk, at(day + 5*time.Hour)},
		{"failed before the last contact", active(0, at(-time.Hour)), c, at(time.Hour), pollWait, at(day)},
		{"not silent enough to hide", active(8*day-1, at(8*day)), c, at(8 * day), pollWait, at(8*day + 5*time.Hour)},
		{"to be hidden", active(8*day, at(8*day)), c, at(8 * day), pollDeactivate, at(8 * day)},
		{"hidden", inactive, c, at(8 * day), pollWait, at(8*day + 5*time.Hour)},
		{"to be removed", active(15*day, at(15*day)), c, at(15 * day), pollRemove, at(15 * day)},
		{"removed", removed, c, at(15 * day), pollWait, at(16 * day)},
		{"removed, asked now and then", removed, c, at(16 * day), pollAsk, at(16 * day)},
		{"grace is over", removed, c, at(45 * day), pollBury, at(45 * day)},
		{"nothing left to ask", buried, c, at(16 * day), pollWait, time.Time{}},
		{"returned", returning, c, at(15 * day), pollReindex, at(15 * day)},
		{"returned and silent again", store.PublisherState{Phase: store.PhaseReturning, Silent: 15 * day}, c, at(60 * day), pollRemove, at(60 * day)},
		{"never polled", active(0, time.Time{}), never(func(c *PollConfig) { c.Interval = -1 }), at(100 * day), pollWait, time.Time{}},
		{"never polled, returned", returning, never(func(c *PollConfig) { c.Interval = -1 }), at(day), pollReindex, at(day)},
		{"never hidden", active(14*day, at(14*day)), never(func(c *PollConfig) { c.DeactivateAfter = -1 }), at(14 * day), pollWait, at(14*day + 5*time.Hour)},
		{"never removed", inactive, never(func(c *PollConfig) { c.RemoveAfter = -1 }), at(100 * day), pollAsk, at(100 * day)},
		{"asked again once an interval", active(day, at(day)), never(func(c *PollConfig) { c.Retry = -1 }), at(day), pollWait, at(2 * day)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			action, when := nextPoll(test.st, test.c, test.now)
			if action != test.action || !when.Equal(test.when) {
				t.Errorf("got %d at %v, want %d at %v", action, when, test.action, test.when)
			}
		})
	}
}

func TestOverridesAndSpreadAreOfOnePublisher(t *testing.T) {
	c := PollConfig{}.withDefaults()
	st := store.PublisherState{Contact: pollStart, PollInterval: time.Hour, PollRetry: -1}
	own := c.of("a", st)
	if own.Interval != time.Hour || own.Retry != time.Hour {
		t.Errorf("own times: %+v", own)
	}
	var last time.Time
	different := false
	for _, id := range []peer.ID{"a", "b", "c", "d"} {
		_, when := nextPoll(store.PublisherState{Contact: pollStart}, c.of(id, store.PublisherState{}), pollStart)
		if d := when.Sub(pollStart); d < day || d >= day+day/10 {
			t.Errorf("%s is asked after %v", id, d)
		}
		different = different || !last.IsZero() && !when.Equal(last)
		last = when
	}
	if !different {
		t.Error("all are asked at the same time")
	}
}

// TestSilenceIsWhatWasTriedInVain: neither the time this node did not run or was
// out of reach, nor that in which it did not ask, is silence of the publisher.
func TestSilenceIsWhatWasTriedInVain(t *testing.T) {
	c := PollConfig{}.withDefaults()
	h := func(n int) time.Time { return pollStart.Add(time.Duration(n) * time.Hour) }
	st := store.PublisherState{Contact: h(0)}
	for _, step := range []struct {
		name      string
		from, now time.Time
		silent    time.Duration
	}{
		{"the first try counts from the contact", h(-5), h(24), 24 * time.Hour},
		{"the next from that try", h(-5), h(29), 29 * time.Hour},
		{"less than half reached", time.Time{}, h(34), 29 * time.Hour},
		{"reached half again for an hour", h(38), h(39), 30 * time.Hour},
		{"not asked for a week", h(0), h(39 + 7*24), 78 * time.Hour},
		{"started anew after it", h(1000), h(999), 78 * time.Hour},
	} {
		st = unreached(st, c, step.from, step.now)
		if st.Silent != step.silent || !st.Tried.Equal(step.now) {
			t.Errorf("%s: silent %v, want %v", step.name, st.Silent, step.silent)
		}
	}
}

func TestSilenceCountsOnlyWhileHalfAreReached(t *testing.T) {
	o := func(hour int, reached bool) outcome {
		return outcome{pollStart.Add(time.Duration(hour) * time.Hour), reached}
	}
	for name, test := range map[string]struct {
		outcomes []outcome
		want     bool
	}{
		"none tried":       {nil, false},
		"one, reached":     {[]outcome{o(5, true)}, true},
		"one, not reached": {[]outcome{o(5, false)}, false},
		"half":             {[]outcome{o(5, true), o(5, false)}, true},
		"less than half":   {[]outcome{o(5, true), o(5, false), o(6, false)}, false},
		"long ago":         {[]outcome{o(0, true), o(0, true), o(5, false)}, false},
	} {
		if got := reachedHalf(slices.Values(test.outcomes), pollStart.Add(time.Hour)); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
