package assigner

import (
	"net/http"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/announce"
	"github.com/signpost-index/signpost/api"
)

// Paths of the read-only pages, which are ours and not the reference's.
const (
	PoolPath        = "/signpost/v1/pool"
	AssignmentsPath = "/signpost/v1/assignments"
)

// State is what an indexer is doing, or how an assignment stands.
type State string

const (
	StateActive  State = "active"  // takes publishers
	StateFrozen  State = "frozen"  // keeps what it has, takes nothing new
	StateStandby State = "standby" // takes publishers when no other can
	StateDown    State = "down"    // was read, and the last look failed
	StateUnknown State = "unknown" // never read
	// StatePending is the state of an assignment that was asked for and is not
	// yet seen in the indexer's own list.
	StatePending State = "pending"
)

// PoolPage is the answer of GET /signpost/v1/pool. From it a frontend learns
// whom to ask.
type PoolPage struct {
	ID         peer.ID  `json:",omitempty"` // the assigner's, if it has one
	Members    []Member // in the order of the pool file
	Publishers int      // assigned to some indexer
	Unplaced   int      // known publishers that no active indexer has or can take
	// Passive: it stands by for another assigner, which answers, and does nothing.
	Passive bool `json:",omitzero"`
}

// Member is one indexer of the pool. ID is empty until the indexer was read.
type Member struct {
	ID         peer.ID `json:",omitempty"`
	Find       string
	Ingest     string
	Admin      string
	State      State
	Publishers int     // assigned to it
	Usage      float64 // percent of its file system in use, -1 unknown
	Error      string  `json:",omitempty"` // of the last look
}

// Placement is one row of GET /signpost/v1/assignments: Indexer has Publisher
// assigned. Continued is the frozen indexer whose work it goes on with, or
// empty. State is the indexer's, or StatePending.
type Placement struct {
	Publisher peer.ID
	Indexer   peer.ID
	Continued peer.ID `json:",omitempty"`
	State     State
}

// handler serves the announce endpoints of assigner.md, section 1, the health
// text and the read-only pages.
func (a *Assigner) handler() http.Handler {
	mux := http.NewServeMux()
	announces := noOptions(announce.NewHandler(a.accept))
	mux.Handle("/announce", announces)
	mux.Handle("/ingest/announce", announces)
	mux.HandleFunc("/health", func(w http.ResponseWriter, r *http.Request) {
		if api.Method(w, r, http.MethodGet) {
			w.Header().Set("Cache-Control", "no-cache")
			api.Error(w, http.StatusOK, a.healthText())
		}
	})
	mux.HandleFunc(PoolPath, func(w http.ResponseWriter, r *http.Request) {
		if api.Method(w, r, http.MethodGet) {
			w.Header().Set("Cache-Control", "no-store")
			members, publishers, unplaced := a.pool.members()
			api.JSON(w, http.StatusOK, PoolPage{
				ID: a.id, Members: members, Publishers: publishers, Unplaced: unplaced, Passive: !a.standby.active(),
			})
		}
	})
	mux.HandleFunc(AssignmentsPath, func(w http.ResponseWriter, r *http.Request) {
		if api.Method(w, r, http.MethodGet) {
			w.Header().Set("Cache-Control", "no-store")
			api.JSON(w, http.StatusOK, a.pool.assignments())
		}
	})
	return mux
}

// noOptions answers OPTIONS as any wrong method, which is what the reference's
// assigner does, unlike its indexer.
func noOptions(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodOptions {
			w.Header().Set("Allow", http.MethodPut)
			api.Error(w, http.StatusMethodNotAllowed, "")
			return
		}
		h.ServeHTTP(w, r)
	})
}
