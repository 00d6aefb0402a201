package store

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Rows that come in millions name peers by numbers, given out from 1 up and
// never again. A peer keeps its number as a publisher for ever. As a provider
// it has the same one until it is removed, and then a new one: so removing a
// provider is one row, and what still carries the old number is swept in the
// background (remove.go).

// peersCached bounds the peers kept in memory: each takes about 300 bytes. The
// rest is read from their rows.
const peersCached = 1 << 16

// peerTable translates between peers and numbers. names may be used by
// anybody; numbers and providers are guarded by Store.mu.
type peerTable struct {
	names     *lru.Cache[uint32, peer.ID]
	numbers   *lru.Cache[peer.ID, uint32]
	providers *lru.Cache[peer.ID, uint32]
	// removed are the provider numbers not yet swept. The map is replaced,
	// never edited.
	removed atomic.Pointer[map[uint32]bool]
}

func newPeerTable() *peerTable {
	t := &peerTable{}
	// New fails only for a size that is not positive.
	t.names, _ = lru.New[uint32, peer.ID](peersCached)
	t.numbers, _ = lru.New[peer.ID, uint32](peersCached)
	t.providers, _ = lru.New[peer.ID, uint32](peersCached)
	t.removed.Store(&map[uint32]bool{})
	return t
}

func (t *peerTable) load(r pebble.Reader) error {
	removed := make(map[uint32]bool)
	err := scanPrefix(r, []byte{prefixRemoved}, func(k, _ []byte) error {
		n, err := parseNumberKey(prefixRemoved, k)
		removed[n] = true
		return err
	})
	t.removed.Store(&removed)
	return err
}

// setRemoved says whether a provider number waits to be swept. The caller
// holds Store.view for writing.
func (t *peerTable) setRemoved(n uint32, is bool) {
	removed := maps.Clone(*t.removed.Load())
	if is {
		removed[n] = true
	} else {
		delete(removed, n)
	}
	t.removed.Store(&removed)
}

// name returns the peer of a number that some row names.
func (t *peerTable) name(r pebble.Reader, n uint32) (peer.ID, error) {
	if p, ok := t.names.Get(n); ok {
		return p, nil
	}
	p, ok, err := getRow(r, numberKey(prefixPeer, n), decodePeer)
	if err == nil && !ok {
		err = fmt.Errorf("peer number %d is nobody's: %w", n, ErrCorrupt)
	}
	if err != nil {
		return "", err
	}
	t.names.Add(n, p)
	return p, nil
}

// number returns the number of a peer; 0 if it has none.
func (t *tx) number(p peer.ID) (uint32, error) {
	if n, ok := t.s.peers.numbers.Get(p); ok {
		return n, nil
	}
	n, ok, err := getRow(t.b, peerKey(prefixNumber, p), decodeNumber)
	if ok {
		t.after(func() { t.s.peers.numbers.Add(p, n) })
	}
	return n, err
}

// makeNumber is number for a peer that gets one if it has none.
func (t *tx) makeNumber(p peer.ID) (uint32, error) {
	n, err := t.number(p)
	if err != nil || n != 0 {
		return n, err
	}
	if n, err = t.newNumber(p); err != nil {
		return 0, err
	}
	t.after(func() { t.s.peers.numbers.Add(p, n) })
	return n, t.set(peerKey(prefixNumber, p), appendNumber(n))
}

func appendNumber(n uint32) []byte { return binary.AppendUvarint(nil, uint64(n)) }

func (t *tx) newNumber(p peer.ID) (uint32, error) {
	if t.totals.lastPeer == math.MaxUint32 {
		return 0, fmt.Errorf("more than %d peers: %w", uint32(math.MaxUint32), ErrInvalid)
	}
	t.totals.lastPeer++
	n := t.totals.lastPeer
	return n, t.set(numberKey(prefixPeer, n), []byte(p))
}

// providerNumber returns the number of a peer as a provider; 0 if it has none.
func (t *tx) providerNumber(p peer.ID) (uint32, error) {
	if n, ok := t.s.peers.providers.Get(p); ok {
		return n, nil
	}
	n, ok, err := getRow(t.b, peerKey(prefixRenumbered, p), decodeNumber)
	if err == nil && !ok {
		n, err = t.number(p)
	}
	if err == nil && n != 0 {
		t.after(func() { t.s.peers.providers.Add(p, n) })
	}
	return n, err
}

// makeProviderNumber is providerNumber for a peer that gets one if it has none.
func (t *tx) makeProviderNumber(p peer.ID) (uint32, error) {
	n, err := t.providerNumber(p)
	if err != nil || n != 0 {
		return n, err
	}
	return t.makeNumber(p)
}
