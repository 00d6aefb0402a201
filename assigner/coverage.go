package assigner

import (
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/admin"
)

// PoolCoverage is the answer of the assigner's GET /signpost/v1/coverage: what
// of which chain is on which indexer, as far as it is known.
type PoolCoverage struct {
	// Version changes whenever a role, a range or a member does.
	Version uint64
	Members []CoveredMember // in the order of the pool
}

// CoveredMember is one indexer. Roles are not known of one that was never read,
// nor met in a pool map, and of foreign ones their ranges are not.
type CoveredMember struct {
	ID    peer.ID `json:",omitempty"`
	Find  string  // base URL of its find API
	State State
	// Known says that what it holds is known, Plain that it tells no ranges.
	Known bool
	Plain bool `json:",omitzero"`
	// AsOf is the last look that found it so; zero if that is known from a pool
	// map only.
	AsOf time.Time `json:",omitzero"`
	// Frozen says that it was at AsOf, and HeldSeconds for how long from then it
	// stays so, whether it can be reached or not.
	Frozen      bool    `json:",omitzero"`
	HeldSeconds float64 `json:",omitzero"`
	Publishers  []admin.CoveredPublisher
}

// coverage is the union of what the members said they own and hold.
func (p *pool) coverage(now time.Time) PoolCoverage {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := PoolCoverage{Version: p.changes, Members: make([]CoveredMember, 0, len(p.nodes))}
	for _, n := range p.nodes {
		m := CoveredMember{Find: n.member.Find, State: p.state(n, now), AsOf: n.looked, Publishers: []admin.CoveredPublisher{}}
		if f := n.facts; f != nil {
			m.ID, m.Known, m.Plain, m.Frozen = f.id, true, f.plain, f.frozen
			m.HeldSeconds = max(f.heldUntil.Sub(n.looked), 0).Seconds()
			for _, r := range f.roles {
				p := admin.CoveredPublisher{
					Publisher: r.Publisher, Role: r.Role, Ranges: r.Ranges, Mark: r.Mark, Height: r.Height, Top: r.Top,
					More: r.Unsure || !f.frozen && (r.Gaps > 0 || r.Pending > 0),
				}
				for _, id := range r.LeansOn {
					p.Lacks = append(p.Lacks, admin.Lack{Indexer: id})
				}
				m.Publishers = append(m.Publishers, p)
			}
		}
		c.Members = append(c.Members, m)
	}
	return c
}

// coverageAge is how long an answer serves: anybody may ask, and in a large pool
// it takes megabytes.
const coverageAge = time.Second

// coverageCache keeps the last answer.
type coverageCache struct {
	mu   sync.Mutex
	at   time.Time
	body []byte
}

func (c *coverageCache) get(p *pool) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if c.body != nil && now.Sub(c.at) < coverageAge {
		return c.body, nil
	}
	b, err := json.Marshal(p.coverage(now))
	if err == nil {
		c.body, c.at = b, now
	}
	return c.body, err
}

func (a *Assigner) serveCoverage(w http.ResponseWriter, r *http.Request) {
	if !api.Method(w, r, http.MethodGet) {
		return
	}
	body, err := a.covered.get(a.pool)
	if err != nil {
		a.log.Error("coverage cannot be told", "err", err)
		api.Error(w, http.StatusInternalServerError, "")
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	api.JSONBytes(w, http.StatusOK, body)
}
