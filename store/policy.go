package store

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
)

// MaxPolicyBytes bounds the policy.
const MaxPolicyBytes = 4 << 20

// checkPolicy: the store knows of a policy that it is JSON, no more.
func checkPolicy(b []byte) error {
	if len(b) > MaxPolicyBytes || !json.Valid(b) {
		return fmt.Errorf("policy of %d bytes: %w", len(b), ErrCorrupt)
	}
	return nil
}

// Policy returns what SetPolicy stored last, nil if nothing was.
func (s *Store) Policy() ([]byte, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.exit()
	b, _, err := getRow(s.db, []byte(keyPolicy), func(b []byte) ([]byte, error) { return bytes.Clone(b), checkPolicy(b) })
	if err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	return b, nil
}

// SetPolicy stores who may publish for whom: JSON of the caller's, at most
// MaxPolicyBytes. It is on disk when SetPolicy returns nil.
func (s *Store) SetPolicy(policy []byte) error {
	if err := s.enterWrite(); err != nil {
		return err
	}
	defer s.exit()
	if len(policy) > MaxPolicyBytes || !json.Valid(policy) {
		return fmt.Errorf("policy of %d bytes: %w", len(policy), ErrInvalid)
	}
	if _, err := s.update(func(t *tx) error { return t.set([]byte(keyPolicy), slices.Clone(policy)) }); err != nil {
		return fmt.Errorf("set policy: %w", err)
	}
	return s.syncWrites("set policy")
}
