package store

import (
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Assign makes the store own a publisher, as Open does, or, if Continued is
// given, as TakeOver does without a mark. It is on disk when Assign returns nil.
func (s *Store) Assign(a Assignment) error {
	return s.AssignWithMark(a, nil, nil)
}

// AssignWithMark stores an assignment together with where to go on and what is
// known of the publisher's providers: see TakeOver. It is on disk when
// AssignWithMark returns nil. mark may be nil.
func (s *Store) AssignWithMark(a Assignment, mark *AdRef, provs []Provider) error {
	if mark == nil && len(provs) == 0 && a.Continued == "" {
		return s.Open([]peer.ID{a.Publisher}, a.Time)[0]
	}
	o := Takeover{Publisher: a.Publisher, From: a.Continued, Time: a.Time, Providers: provs}
	if mark != nil {
		o.Mark = *mark
	}
	return s.TakeOver([]Takeover{o})[0]
}

// Open makes the store the owner of publishers: of those it holds, of those it
// owned before, and of new ones. What was skipped of a publisher since it was
// closed is applied after all (Revisit). Errors are by publisher: ErrFrozen. All
// whose error is nil are on disk. It can be repeated.
func (s *Store) Open(publishers []peer.ID, at time.Time) []error {
	return s.changeRoles("open", publishers, func(t *tx, n int) (Assignment, error) {
		return t.open(publishers[n], at)
	})
}

func (t *tx) open(pub peer.ID, at time.Time) (Assignment, error) {
	a, known := t.s.assignments[pub]
	switch {
	case a.Role == RoleOwner:
		return a, errStop
	case !known:
		a = Assignment{Publisher: pub}.withRange(Range{}, 0)
	case !a.open():
		a = a.withRange(Range{From: a.stop.Ad}, a.stop.Pos)
		if err := t.redoAbove(pub, a.stop); err != nil {
			return a, err
		}
	}
	a.Role, a.Time, a.stop, a.applied = RoleOwner, at, Stand{}, nil
	return a, t.setAssignment(a)
}

// changeRoles makes one change for each publisher, all of them durable at the
// end. change returns errStop if there is nothing to change.
func (s *Store) changeRoles(what string, publishers []peer.ID, change func(t *tx, n int) (Assignment, error)) []error {
	errs := make([]error, len(publishers))
	all := func(err error) []error {
		for n := range errs {
			errs[n] = errors.Join(errs[n], err)
		}
		return errs
	}
	if err := s.enterWrite(); err != nil {
		return all(err)
	}
	defer s.exit()
	s.admin.Lock()
	defer s.admin.Unlock()
	if s.frozen.Load() {
		return all(ErrFrozen)
	}
	var done []Assignment
	for n, pub := range publishers {
		if errs[n] = checkPeer("publisher", pub); errs[n] != nil {
			continue
		}
		var a Assignment
		_, err := s.update(func(t *tx) (err error) {
			a, err = change(t, n)
			return err
		})
		switch {
		case err == nil:
			done = append(done, a)
		case !errors.Is(err, errStop):
			errs[n] = fmt.Errorf("%s %s: %w", what, pub, err)
		}
	}
	if len(done) == 0 {
		return errs
	}
	if err := s.syncWrites(what); err != nil {
		return all(err)
	}
	s.showRoles(done)
	return errs
}

// showRoles makes roles that are on disk known. Of publishers that are owned
// content is taken.
func (s *Store) showRoles(as []Assignment) {
	s.latch.Lock()
	defer s.latch.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.view.Lock()
	defer s.view.Unlock()
	for _, a := range as {
		s.assignments[a.Publisher] = a
		if a.Role != RoleHolder {
			delete(s.held, a.Publisher)
		}
	}
}

// Unassign ends that a publisher is owned or held; that is on disk when it
// returns nil. What is stored of the publisher stays, and is known when it is
// assigned again. It is no error if there is none.
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
	var a Assignment
	_, err := s.update(func(t *tx) error {
		if a = s.assignments[publisher]; a.Role != RoleOwner && a.Role != RoleHolder {
			return errStop
		}
		a.Role, a.Time = roleLeft, time.Now()
		return t.setAssignment(a)
	})
	if errors.Is(err, errStop) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("unassign %s: %w", publisher, err)
	}
	if err := s.syncWrites("unassign"); err != nil {
		return err
	}
	s.showRoles([]Assignment{a})
	return nil
}
