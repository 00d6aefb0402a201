package indexer

import (
	"hash/fnv"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/store"
)

// Defaults of PollConfig, the reference's (admin.md section 7). This is the
// one place they are written.
const (
	DefaultPollInterval    = 24 * time.Hour
	DefaultPollRetry       = 5 * time.Hour
	DefaultDeactivateAfter = 7 * 24 * time.Hour
	DefaultRemoveAfter     = 14 * 24 * time.Hour

	defaultGrace      = 30 * 24 * time.Hour
	defaultGraceRetry = 24 * time.Hour
)

// PollConfig says when a publisher that is silent is asked, hidden and
// removed. A publisher is heard from when its signed head was fetched. 0 is the
// default, negative is never.
//
//	last contact ── Interval ──► polled every Retry
//	                               ├── DeactivateAfter ──► inactive: hidden
//	                               └── RemoveAfter ──────► removed: its content is gone
type PollConfig struct {
	Interval time.Duration
	// Retry negative: every Interval.
	Retry           time.Duration
	DeactivateAfter time.Duration
	RemoveAfter     time.Duration

	// For grace after a removal the addresses are kept and asked every
	// graceRetry.
	grace, graceRetry time.Duration
	// spread is the part, 0 to 1, of a tenth of each time by which this
	// publisher is asked later than others.
	spread float64
}

func (c PollConfig) withDefaults() PollConfig {
	for _, d := range []struct {
		of    *time.Duration
		value time.Duration
	}{
		{&c.Interval, DefaultPollInterval}, {&c.Retry, DefaultPollRetry},
		{&c.DeactivateAfter, DefaultDeactivateAfter}, {&c.RemoveAfter, DefaultRemoveAfter},
		{&c.grace, defaultGrace}, {&c.graceRetry, defaultGraceRetry},
	} {
		if *d.of == 0 {
			*d.of = d.value
		}
	}
	if c.Retry < 0 {
		c.Retry = c.Interval
	}
	return c
}

// of is what holds for one publisher.
func (c PollConfig) of(id peer.ID, st store.PublisherState) PollConfig {
	if st.PollInterval != 0 {
		c.Interval = st.PollInterval
	}
	if st.PollRetry != 0 {
		c.Retry = st.PollRetry
	}
	if c.Retry < 0 {
		c.Retry = c.Interval
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(id)) // never fails
	c.spread = float64(h.Sum32()) / (1 << 32)
	return c
}

// later is d with the publisher's part of a tenth added.
func (c PollConfig) later(d time.Duration) time.Duration {
	return d + time.Duration(c.spread*float64(d)/10)
}

// recent is how long the outcome of a try says something about this node's
// network: until each that was reached is asked again, the last a tenth later
// than the first and a few looks late, and has had a retry's time to answer.
func (c PollConfig) recent() time.Duration {
	return c.Interval + c.Interval/10 + c.Retry + 3*lookMin
}

// pollAction is what is to be done about a publisher.
type pollAction uint8

const (
	pollWait       pollAction = iota // nothing
	pollAsk                          // fetch its head
	pollDeactivate                   // hide its providers
	pollRemove                       // remove what it published
	pollReindex                      // index its chain from the first ad
	pollBury                         // forget where a removed publisher was
)

// nextPoll decides what is to be done about a publisher now, and if that is
// nothing, when to look again; the zero time is never.
func nextPoll(st store.PublisherState, c PollConfig, now time.Time) (pollAction, time.Time) {
	if c.Interval <= 0 {
		if st.Phase == store.PhaseReturning {
			return pollReindex, now
		}
		return pollWait, time.Time{}
	}
	switch {
	case st.Phase == store.PhaseRemoved && len(st.Addrs) == 0:
		return pollWait, time.Time{}
	case st.Phase == store.PhaseRemoved && !now.Before(st.Removed.Add(c.grace)):
		return pollBury, now
	case st.Phase == store.PhaseRemoved:
		return askAt(st.Tried.Add(c.later(c.graceRetry)), now)
	case c.RemoveAfter > 0 && st.Silent >= c.Interval+c.RemoveAfter:
		return pollRemove, now
	case st.Phase == store.PhaseReturning:
		return pollReindex, now
	case st.Phase == store.PhaseActive && c.DeactivateAfter > 0 && st.Silent >= c.Interval+c.DeactivateAfter:
		return pollDeactivate, now
	case st.Tried.After(st.Contact):
		return askAt(st.Tried.Add(c.later(c.Retry)), now)
	}
	return askAt(st.Contact.Add(c.later(c.Interval)), now)
}

func askAt(due, now time.Time) (pollAction, time.Time) {
	if due.After(now) {
		return pollWait, due
	}
	return pollAsk, now
}

// unreached is the state of a publisher that was tried in vain now. Its
// silence grows by the time since it was last reached or tried, but not by what
// was before from, when this node may itself have been out of reach or not
// running, and not by more than twice what is between two tries: it was not
// asked then. A zero from counts nothing.
func unreached(st store.PublisherState, c PollConfig, from, now time.Time) store.PublisherState {
	if !from.IsZero() {
		for _, t := range []time.Time{st.Contact, st.Tried} {
			if t.After(from) {
				from = t
			}
		}
		st.Silent += max(0, min(now.Sub(from), 2*max(c.Interval, c.Retry)))
	}
	st.Tried = now
	return st
}

// outcome is how the last try to reach a publisher ended.
type outcome struct {
	at      time.Time
	reached bool
}

// reachedHalf decides whether silence counts: whether of the publishers tried
// since from at least half were reached when tried last. If not, or if none
// was tried, it may be this node that cannot be reached.
func reachedHalf(outcomes func(yield func(outcome) bool), from time.Time) bool {
	tried, reached := 0, 0
	for o := range outcomes {
		if o.at.Before(from) {
			continue
		}
		tried++
		if o.reached {
			reached++
		}
	}
	return tried > 0 && 2*reached >= tried
}
