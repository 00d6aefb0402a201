package assigner

import (
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// maxEvents is how many events are remembered.
const maxEvents = 10_000

// Kinds of events. Steps have the kind of the step.
const (
	EventOperator = "operator"  // something was asked for
	EventMember   = "member"    // an indexer joins, leaves, vanishes
	EventPoolFile = "pool-file" // the pool file was read, or cannot be
)

// Event is something that was asked for or done.
type Event struct {
	Seq       uint64 // grows by one; goes on after a restart if events are kept in a file
	Time      time.Time
	Kind      string
	Publisher peer.ID `json:",omitempty"`
	Indexer   peer.ID `json:",omitempty"` // who got something to do
	From      peer.ID `json:",omitempty"` // who gave something away
	Text      string  `json:",omitempty"` // what is so now, in words
	Error     string  `json:",omitempty"` // why it is not
}

// events are the last events, newest last. Its methods are safe for concurrent
// use and do no I/O, so that they can be called under any lock.
type events struct {
	now  func() time.Time
	file *eventFile // nil: in memory only

	mu   sync.Mutex
	ring []Event // from oldest, when full: the element after newest
	next int     // where the next one goes
	seq  uint64  // of the newest
}

// newEvents begins after the event with number seq.
func newEvents(file *eventFile, seq uint64) *events {
	return &events{now: time.Now, file: file, seq: seq}
}

// add keeps an event, whose Seq and, if it is zero, Time it sets.
func (es *events) add(e Event) {
	es.mu.Lock()
	defer es.mu.Unlock()
	es.seq++
	e.Seq = es.seq
	if e.Time.IsZero() {
		e.Time = es.now()
	}
	if len(es.ring) < maxEvents {
		es.ring = append(es.ring, e)
	} else {
		es.ring[es.next] = e
	}
	es.next = (es.next + 1) % maxEvents
	if es.file != nil {
		es.file.offer(e) // under the lock, so that lines are in order
	}
}

// EventQuery says which events are wanted.
type EventQuery struct {
	Since     uint64  // those with a greater Seq
	Publisher peer.ID // empty: any
	Indexer   peer.ID // as Indexer or From; empty: any
	Limit     int     // the newest so many; 0: all there are
}

// EventPage is the answer of GET /signpost/v1/events: events from the oldest to
// the newest. Newest is the number of the newest event there is, to ask from the
// next time.
type EventPage struct {
	Events []Event
	Newest uint64
}

// page answers q. A Since that is still to come is from before a restart, and
// counts as 0.
func (es *events) page(q EventQuery) EventPage {
	es.mu.Lock()
	defer es.mu.Unlock()
	if q.Since > es.seq {
		q.Since = 0
	}
	p := EventPage{Events: []Event{}, Newest: es.seq}
	for i := range es.ring {
		e := es.ring[(es.next-1-i+2*len(es.ring))%len(es.ring)] // from the newest
		if e.Seq <= q.Since || q.Limit > 0 && len(p.Events) == q.Limit {
			break
		}
		if (q.Publisher == "" || q.Publisher == e.Publisher) && (q.Indexer == "" || q.Indexer == e.Indexer || q.Indexer == e.From) {
			p.Events = append(p.Events, e)
		}
	}
	slices.Reverse(p.Events)
	return p
}
