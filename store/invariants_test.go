package store

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/libp2p/go-libp2p/core/peer"
)

// checkInvariants reads every row and compares those that must agree, and what
// is counted in memory.
func checkInvariants(s *Store) error {
	if err := checkCounted(s); err != nil {
		return err
	}
	snap := s.db.NewSnapshot()
	defer snap.Close()
	return s.verifyRows(context.Background(), snap, func(key []byte, err error) error {
		return fmt.Errorf("row %q: %w", key, err)
	})
}

func checkCounted(s *Store) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for prefix, counted := range map[byte]int{prefixAnnounced: s.announced, prefixCursor: s.cursors} {
		rows := 0
		if err := scanPrefix(s.db, []byte{prefix}, func(_, _ []byte) error { rows++; return nil }); err != nil {
			return err
		}
		if rows != counted {
			return fmt.Errorf("%d rows %q, counted %d", rows, prefix, counted)
		}
	}
	closed := make(map[peer.ID]bool)
	err := scanPrefix(s.db, []byte{prefixAssignment}, func(k, v []byte) error {
		id, err := parsePeerKey(prefixAssignment, k)
		if row, rerr := decodeAssignment(v); err == nil && rerr == nil && row.Role == RoleHolder {
			closed[id] = true
		}
		return err
	})
	frozen, ferr := has(s.db, []byte(keyFrozen))
	if err := errors.Join(err, ferr); err != nil {
		return err
	}
	if frozen != s.stops.frozen || !maps.Equal(closed, s.stops.closed) {
		return fmt.Errorf("content is kept out by %v, %v; in memory by %+v", frozen, closed, s.stops)
	}
	return nil
}
