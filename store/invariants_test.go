package store

import (
	"context"
	"fmt"
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
	return nil
}
