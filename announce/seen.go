package announce

import (
	"crypto/sha256"
	"encoding/binary"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// DefaultSeen is how many announces a receiver remembers. The reference keeps
// 64 CIDs (announce.md, section 4).
const DefaultSeen = 4096

// Key names an announce: its publisher, head and addresses, however it came.
// Announces are not signed, so the head alone would let anyone who repeats it
// under another publisher or with other addresses keep the true announce from
// being heard.
type Key [sha256.Size]byte

// KeyOf returns the key of an announce of head by publisher, at its addresses.
func KeyOf(publisher peer.AddrInfo, head cid.Cid) (k Key) {
	h := sha256.New()
	part := func(b []byte) {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(b)))
		h.Write(size[:])
		h.Write(b)
	}
	part([]byte(publisher.ID))
	part(head.Bytes())
	for _, addr := range publisher.Addrs {
		part(addr.Bytes())
	}
	h.Sum(k[:0])
	return k
}

// Key returns the announce's key.
func (a Announce) Key() Key { return KeyOf(a.Publisher, a.Head) }

// Seen remembers the most recent announces, so that one that comes by several
// ways, or again and again, causes one sync. Safe for concurrent use.
type Seen struct {
	mu   sync.Mutex
	keys *simplelru.LRU[Key, struct{}] // guarded by mu
}

// NewSeen returns a memory of the last n announces; n below 1 means [DefaultSeen].
func NewSeen(n int) *Seen {
	if n < 1 {
		n = DefaultSeen
	}
	keys, err := simplelru.NewLRU[Key, struct{}](n, nil)
	if err != nil {
		panic(err) // only for a size below 1
	}
	return &Seen{keys: keys}
}

// Add remembers k, dropping the announce not made for longest if the memory is
// full. It reports whether k was new.
func (s *Seen) Add(k Key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, seen := s.keys.Get(k); seen {
		return false
	}
	s.keys.Add(k, struct{}{})
	return true
}

// Forget makes k new again: for an announce whose sync failed, so that a
// repeated one is a retry. Forgetting an unknown key does nothing.
func (s *Seen) Forget(k Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys.Remove(k)
}
