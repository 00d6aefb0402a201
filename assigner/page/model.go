package page

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Pool is a pool at one time. Texts are shown as text, cut if they are long.
type Pool struct {
	At      time.Time
	ID      peer.ID // the assigner's, if it has one
	Passive bool    // it stands by for another
	// Publishers are assigned; Unplaced are known and have no indexer that takes
	// their ads; Lagging and Failing have ads that wait, and an error.
	Publishers, Unplaced, Lagging, Failing int
	Nodes                                  []Node
	Tasks                                  []Task
	Leaving                                []Leaving
	Steps                                  []Steps
	MoreSteps                              int // single steps that are left out
	// Worst are the publishers to look at first.
	Worst   []Publisher
	Events  []Event // newest first
	Actions []Action
}

// Node is one indexer.
type Node struct {
	ID    peer.ID // empty: never read
	Admin string  // URL
	State string
	Why   string // it is in this state
	Error string // of the last look
	// Usage is percent of its fullest disk, -1 if unknown; FreezeAt the usage at
	// which it freezes, 0 if it does not by itself.
	Usage, FreezeAt float64
	RoomBytes       int64         // until it freezes, -1 if unknown
	FreeBytes       int64         // on its fullest disk, -1 if unknown
	FullIn          time.Duration // until it freezes if it goes on growing as now; 0: it does not grow
	StoredBytes     int64
	Owned, Held     int
	Rate            float64 // multihashes a second
	Lag             int     // ads that are known and not done
	Filling         int     // publishers of which it fetches older ads
	Version         string
	Seen            time.Time // the last look that succeeded
	Actions         []Action
}

// Task is what was asked for and goes node by node, such as an upgrade.
type Task struct {
	ID, State, Why string
	Done, Total    int // nodes it is done with, those skipped included
	// Node is the one it is at, Step how that stands, and Text what it waits for.
	Node       peer.ID
	Step, Text string
	Actions    []Action
}

// Leaving is a node that is frozen or drained, and how far its publishers are
// gone on elsewhere.
type Leaving struct {
	Node    peer.ID
	Drained bool // all has to leave, not only what comes new
	Since   time.Time
	Why     string
	// Owned and Held are what is left of the totals, which are what it had when
	// that began or this assigner first saw it.
	Owned, OwnedTotal, Held, HeldTotal int
}

// OwnedDone are the publishers that go on elsewhere.
func (l Leaving) OwnedDone() int { return max(l.OwnedTotal-l.Owned, 0) }

// HeldDone are the publishers of which it has nothing any more.
func (l Leaving) HeldDone() int { return max(l.HeldTotal-l.Held, 0) }

// Steps are those under way of one kind between the same nodes.
type Steps struct {
	Kind, Why string
	On, From  peer.ID
	// Done have succeeded and are not yet seen to have; Unsure ended without an
	// answer.
	Total, Done, Unsure int
}

// Publisher is a publisher at one of its owners.
type Publisher struct {
	ID, Node  peer.ID
	Lag       int
	Gaps      int // places where its chain breaks off
	Rate      float64
	LastError string
}

// Event is something that happened.
type Event struct {
	Time                     time.Time
	Kind                     string
	Publisher, Indexer, From peer.ID
	Text, Error              string
}

// Detail is what is known of one publisher.
type Detail struct {
	ID     peer.ID
	Places []Place
	// Explained says that what follows is known.
	Explained     bool
	Wished, Whole int // copies; Whole is -1 if it is not known
	Bound         []peer.ID
	Waiting       string
	Next          []Steps // what a plan would do now
	Refused       []string
	Underway      []Steps
	Events        []Event
	Actions       []Action
}

// Place is what one node is to a publisher.
type Place struct {
	Node        peer.ID
	State, Role string
	Continued   peer.ID
	Since       time.Time
	Height      uint64
	Lag         int
	Filling     bool
	Rate        float64
	LastError   string
}

// Action is something an operator can ask for.
type Action struct {
	Label string
	// Do is method and path of the operator's API, with its query.
	Do string
	// Ask is what is asked before it is done.
	Ask string
	// Field is a value that is asked for: a parameter of the query, or "body".
	// FieldLabel says what it is.
	Field, FieldLabel string
}
