package store

import (
	"context"
	"fmt"
)

// checkInvariants reads every row and compares those that must agree.
func checkInvariants(s *Store) error {
	snap := s.db.NewSnapshot()
	defer snap.Close()
	return s.verifyRows(context.Background(), snap, func(key []byte, err error) error {
		return fmt.Errorf("row %q: %w", key, err)
	})
}
