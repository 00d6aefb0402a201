package store

import (
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Reapplying counts the publishers of which all ads are wished to be applied again
// (Revisit's All) and are not yet, those included of which single ads still are to
// be.
func (s *Store) Reapplying() (int, error) {
	if err := s.enter(); err != nil {
		return 0, err
	}
	defer s.exit()
	// Wishes first: one that ends in between has noted its ads before.
	wished := make(map[peer.ID]bool)
	err := scanPrefix(s.db, []byte{prefixRevisit}, func(k, v []byte) error {
		if len(v) == 0 || v[0]&revisitAll == 0 {
			return nil
		}
		id, err := parsePeerKey(prefixRevisit, k)
		wished[id] = true
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("count what is to be applied again: %w", err)
	}
	n := len(wished)
	s.view.RLock()
	defer s.view.RUnlock()
	for id, p := range s.publishers {
		if p.progress.again > 0 && !wished[id] {
			n++
		}
	}
	return n, nil
}
