package store

import (
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"
)

func (s *Store) loadAssignments() error {
	return scanPrefix(s.db, []byte{prefixAssignment}, func(k, v []byte) error {
		id, err := parsePeerKey(prefixAssignment, k)
		if err != nil {
			return err
		}
		row, err := decodeAssignment(v)
		s.assignments[id] = Assignment{Publisher: id, Continued: row.continued, Time: row.time}
		return err
	})
}

// Assignments returns all assignments, in no order.
func (s *Store) Assignments() []Assignment {
	s.view.RLock()
	defer s.view.RUnlock()
	as := make([]Assignment, 0, len(s.assignments))
	for _, a := range s.assignments {
		as = append(as, a)
	}
	return as
}

// Assign stores an assignment, replacing one of the same publisher. It is on
// disk when Assign returns nil.
func (s *Store) Assign(a Assignment) error {
	return s.AssignWithMark(a, nil, nil)
}

// AssignWithMark stores an assignment together with where to go on (see
// SetMark) and what is known of the publisher's providers (see
// RegisterProvider): after a crash all of it is there or nothing. It is on
// disk when AssignWithMark returns nil. mark may be nil.
func (s *Store) AssignWithMark(a Assignment, mark *AdRef, provs []Provider) error {
	if err := s.enterWrite(); err != nil {
		return err
	}
	defer s.exit()
	if err := checkPeer("publisher", a.Publisher); err != nil {
		return err
	}
	if len(a.Continued) > maxPeerBytes {
		return checkPeer("frozen indexer", a.Continued)
	}
	if mark != nil {
		if err := checkMark(a.Publisher, *mark); err != nil {
			return err
		}
	}
	for _, p := range provs {
		if err := checkProvider(p); err != nil {
			return err
		}
	}
	s.admin.Lock()
	defer s.admin.Unlock()
	_, err := s.update(func(t *tx) error {
		if mark != nil {
			if err := t.setMark(a.Publisher, *mark); err != nil {
				return err
			}
		}
		for _, p := range provs {
			if err := t.registerProvider(p); err != nil {
				return err
			}
		}
		return t.set(peerKey(prefixAssignment, a.Publisher), assignmentRow{a.Continued, a.Time}.encode())
	})
	if err != nil {
		return fmt.Errorf("assign %s: %w", a.Publisher, err)
	}
	if err := s.syncWrites("assign"); err != nil {
		return err
	}
	s.view.Lock()
	s.assignments[a.Publisher] = a
	s.view.Unlock()
	return nil
}

// Unassign removes an assignment; that is on disk when it returns nil. What is
// stored of the publisher stays. It is no error if there is none.
func (s *Store) Unassign(publisher peer.ID) error {
	if err := s.enterWrite(); err != nil {
		return err
	}
	defer s.exit()
	if err := checkPeer("publisher", publisher); err != nil {
		return err
	}
	s.admin.Lock()
	defer s.admin.Unlock()
	_, err := s.update(func(t *tx) error { return t.delete(peerKey(prefixAssignment, publisher)) })
	if err != nil {
		return fmt.Errorf("unassign %s: %w", publisher, err)
	}
	if err := s.syncWrites("unassign"); err != nil {
		return err
	}
	s.view.Lock()
	delete(s.assignments, publisher)
	s.view.Unlock()
	return nil
}

// Assignment returns the assignment of one publisher, or false.
func (s *Store) Assignment(publisher peer.ID) (Assignment, bool) {
	s.view.RLock()
	defer s.view.RUnlock()
	a, ok := s.assignments[publisher]
	return a, ok
}
