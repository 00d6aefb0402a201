package store

import (
	"bytes"
	"errors"
	"fmt"
)

// Probe writes, reads and removes a row and makes that durable: nil says that
// the store takes changes and its disk keeps them.
func (s *Store) Probe() error {
	if err := s.enterWrite(); err != nil {
		return err
	}
	defer s.exit()
	_, err := s.update(func(t *tx) error {
		key, value := []byte(keyPolicy+"probe"), []byte("OK")
		if err := t.set(key, value); err != nil {
			return err
		}
		got, _, err := getRow(t.b, key, func(b []byte) ([]byte, error) { return bytes.Clone(b), nil })
		if err == nil && !bytes.Equal(got, value) {
			err = errors.New("what was written is not what is read")
		}
		return errors.Join(err, t.delete(key))
	})
	if err != nil {
		return fmt.Errorf("probe store: %w", err)
	}
	return s.syncWrites("probe store")
}
