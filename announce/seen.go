package announce

import (
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/ipfs/go-cid"
)

// DefaultSeen is how many announced CIDs a receiver remembers
// (announce.md, section 4).
const DefaultSeen = 64

// Seen remembers the most recently announced CIDs, so that an announce that
// comes by several ways causes one sync. Safe for concurrent use.
type Seen struct {
	mu   sync.Mutex
	cids *simplelru.LRU[cid.Cid, struct{}] // guarded by mu
}

// NewSeen returns a memory of the last n CIDs; n below 1 means [DefaultSeen].
func NewSeen(n int) *Seen {
	if n < 1 {
		n = DefaultSeen
	}
	cids, err := simplelru.NewLRU[cid.Cid, struct{}](n, nil)
	if err != nil {
		panic(err) // only for a size below 1
	}
	return &Seen{cids: cids}
}

// Add remembers c, dropping the CID not announced for longest if the memory is
// full. It reports whether c was new.
func (s *Seen) Add(c cid.Cid) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, seen := s.cids.Get(c); seen {
		return false
	}
	s.cids.Add(c, struct{}{})
	return true
}

// Forget makes c new again: for a CID whose sync failed, so that a repeated
// announce is a retry. Forgetting an unknown CID does nothing.
func (s *Seen) Forget(c cid.Cid) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cids.Remove(c)
}
