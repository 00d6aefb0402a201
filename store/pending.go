package store

import (
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"
)

// LastPending returns the pending ad of a publisher with the largest position,
// or false if none is pending.
func (s *Store) LastPending(publisher peer.ID) (ref AdRef, ok bool, err error) {
	if err := s.enter(); err != nil {
		return AdRef{}, false, err
	}
	defer s.exit()
	s.view.RLock()
	p := s.publisher(publisher).progress
	s.view.RUnlock()
	if p.pending == 0 {
		return AdRef{}, false, nil
	}
	// Not from the first key: below the mark there are only deleted rows,
	// which are slow to pass.
	it, err := s.db.NewIter(bounds(peerPosKey(prefixPending, publisher, p.mark.Pos+1), keyEnd(peerKey(prefixPending, publisher))))
	if err != nil {
		return AdRef{}, false, fmt.Errorf("last pending ad of %s: %w", publisher, err)
	}
	if ok = it.Last(); ok {
		var value []byte
		if value, err = it.ValueAndErr(); err == nil {
			ref, err = decodeRefRow(prefixPending, it.Key(), value)
		}
	}
	if cerr := it.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return AdRef{}, false, fmt.Errorf("last pending ad of %s: %w", publisher, err)
	}
	return ref, ok, nil
}
