package assigner

import (
	"net/http"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/announce"
	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/admin"
	"github.com/signpost-index/signpost/api/openapi"
	"github.com/signpost-index/signpost/assigner/page"
)

// Paths of the read-only pages, which are ours and not the reference's.
const (
	PoolPath        = "/signpost/v1/pool"
	AssignmentsPath = "/signpost/v1/assignments"
)

// State is what an indexer is doing, or how an assignment stands.
type State string

const (
	StateActive   State = "active"   // takes publishers
	StateFrozen   State = "frozen"   // keeps what it has, takes nothing new
	StateResting  State = "resting"  // held, to be restarted: it keeps its publishers
	StateStandby  State = "standby"  // takes publishers when no other can
	StateDown     State = "down"     // was read, and the last look failed
	StateCrashing State = "crashing" // restarts again and again: it gets nothing to do
	StateUnknown  State = "unknown"  // never read
	StateLost     State = "lost"     // down, or crashing, for longer than the grace: its publishers go elsewhere
	StateDraining State = "draining" // everything moves off it
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
	Publishers int     // that it owns or holds something of
	Owned      int     // that it owns
	Usage      float64 // percent of its file system in use, -1 unknown
	// FreezeSeconds is the time until it freezes if it goes on growing as now;
	// absent if it does not grow. FrozenWhy is why it is frozen.
	FreezeSeconds        *float64 `json:",omitempty"`
	FrozenWhy            string   `json:",omitempty"`
	MultihashesPerSecond float64  // over the last minute
	PendingAds           int      // known and not done
	StoredBytes          int64
	RoomBytes            int64 // until it freezes, -1 unknown
	// LostShare is the part of all multihashes of which it may have lost postings to
	// damage, 0 to 1.
	LostShare float64 `json:",omitzero"`
	Plain     bool    `json:",omitzero"`  // it knows no roles: not one of ours
	Steps     int     `json:",omitzero"`  // under way
	Error     string  `json:",omitempty"` // of the last look
}

// Placement is one row of GET /signpost/v1/assignments: Indexer owns or holds
// Publisher. Continued is the indexer whose work it goes on with, or empty.
// State is the indexer's, or StatePending.
type Placement struct {
	Publisher peer.ID
	Indexer   peer.ID
	Role      admin.Role `json:",omitempty"`
	Continued peer.ID    `json:",omitempty"`
	State     State
	Filling   bool `json:",omitzero"` // it fetches older ads
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
			members, publishers, unplaced := a.pool.members(time.Now())
			api.JSON(w, http.StatusOK, PoolPage{
				ID: a.id, Members: members, Publishers: publishers, Unplaced: unplaced, Passive: !a.standby.active(),
			})
		}
	})
	mux.HandleFunc(openapi.Path, openapi.Serve)
	mux.HandleFunc(admin.CoveragePath, a.serveCoverage)
	mux.Handle("/{$}", a.pages.handler(page.ReadOnly))
	mux.HandleFunc(AssignmentsPath, func(w http.ResponseWriter, r *http.Request) {
		if api.Method(w, r, http.MethodGet) {
			w.Header().Set("Cache-Control", "no-store")
			api.JSON(w, http.StatusOK, a.pool.assignments(time.Now()))
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
