package store

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/libp2p/go-libp2p/core/peer"
)

// LastPending returns the pending ad of a publisher with the largest position,
// or false if none is pending.
func (s *Store) LastPending(publisher peer.ID) (ref AdRef, ok bool, err error) {
	if err := s.enter(); err != nil {
		return AdRef{}, false, err
	}
	defer s.exit()
	lower := peerKey(prefixPending, publisher)
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: keyEnd(lower)})
	if err != nil {
		return AdRef{}, false, fmt.Errorf("last pending ad of %s: %w", publisher, err)
	}
	if ok = it.Last(); ok {
		ref, err = decodeRefRow(prefixPending, it.Key(), it.Value())
	}
	if cerr := it.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return AdRef{}, false, fmt.Errorf("last pending ad of %s: %w", publisher, err)
	}
	return ref, ok, nil
}
