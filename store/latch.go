package store

import (
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// The frozen latch is one row. While it is set no content is taken; each
// publisher's row holds the contiguous mark it had when the latch fell (Stand), in
// the same atomic batch, so the marks and the latch are there together or not
// at all.

func decodeLatch(b []byte) (time.Time, error) {
	r := &reader{b: b}
	at := r.time()
	return at, r.done("latch")
}

func decodeWhy(b []byte) (string, error) {
	r := &reader{b: b}
	why := r.string()
	return why, r.done("reason of the latch")
}

func (s *Store) loadLatch() error {
	at, ok, err := getRow(s.db, []byte(keyFrozen), decodeLatch)
	if err != nil {
		return err
	}
	why, _, err := getRow(s.db, []byte(keyWhy), decodeWhy)
	if err != nil {
		return err
	}
	s.latched, s.stops.frozen, s.frozenTime, s.frozenWhy = ok, ok, at, why
	s.frozen.Store(ok)
	return nil
}

// Frozen tells whether the latch is set and on disk.
func (s *Store) Frozen() bool { return s.frozen.Load() }

// FrozenSince is when the latch was set and why, as FreezeFor was told; zero if
// the store is not frozen.
func (s *Store) FrozenSince() (at time.Time, why string) {
	s.view.RLock()
	defer s.view.RUnlock()
	if !s.frozen.Load() {
		return time.Time{}, ""
	}
	return s.frozenTime, s.frozenWhy
}

// Freeze is FreezeFor without a reason.
func (s *Store) Freeze(at time.Time) error { return s.FreezeFor(at, "") }

// FreezeFor sets the latch, and keeps why, up to 1 KiB, with it. Once it is set
// no Put succeeds, not of writers already begun either; when it returns nil, the
// latch is on disk, and the FrozenAt of every provider is the contiguous mark of its publisher,
// everything up to which is on disk too. Freezing a frozen store changes
// nothing. After an error the store is not frozen, and it can be tried again.
func (s *Store) FreezeFor(at time.Time, why string) error {
	if err := s.enterWrite(); err != nil {
		return err
	}
	defer s.exit()
	s.admin.Lock()
	defer s.admin.Unlock()
	if s.frozen.Load() {
		return nil
	}
	if err := s.closeLatch(at, cutReason(why)); err != nil {
		return err
	}
	if err := s.syncWrites("freeze"); err != nil {
		s.setLatched(false)
		return err
	}
	s.frozen.Store(true)
	s.cfg.Logger.Info("frozen", "mhs", s.postingCount())
	return nil
}

// closeLatch waits for Puts under way; later ones see the latch, and not before
// its row is written: so an ad that is skipped because of it is above FrozenAt,
// and later in the log.
func (s *Store) closeLatch(at time.Time, why string) error {
	s.latch.Lock()
	defer s.latch.Unlock()
	err := s.writeLatch(at, why)
	s.latched = err == nil
	return err
}

// setLatched waits for Puts under way; later ones see it.
func (s *Store) setLatched(latched bool) {
	s.latch.Lock()
	defer s.latch.Unlock()
	s.latched = latched
}

func (s *Store) writeLatch(at time.Time, why string) error {
	_, err := s.update(func(t *tx) error {
		t.after(func() { s.frozenTime, s.frozenWhy, s.stops.frozen = at, why, true })
		for id, p := range s.publishers {
			if err := t.setFrozenAt(id, p, t.stand(id)); err != nil {
				return err
			}
		}
		if err := t.rewalk(); err != nil {
			return err
		}
		if err := t.keepApplied(); err != nil {
			return err
		}
		if err := t.setOrDelete([]byte(keyWhy), why != "", appendString(nil, why)); err != nil {
			return err
		}
		return t.set([]byte(keyFrozen), appendTime(nil, at))
	})
	if err != nil {
		return fmt.Errorf("freeze: %w", err)
	}
	return nil
}

func (t *tx) setFrozenAt(id peer.ID, p *publisher, at Stand) error {
	info := p.info
	info.frozenAt, info.frozenPos, info.frozenHeight = at.Ad, at.Pos, at.Height
	if p.info.frozenAt == info.frozenAt && p.info.frozenPos == info.frozenPos && p.info.frozenHeight == info.frozenHeight {
		return nil
	}
	return t.setInfo(id, info)
}

// Unfreeze takes the latch and every FrozenAt away, and has what was skipped
// meanwhile applied after all (Revisit), but of publishers that were closed;
// when it returns nil, that is on disk.
func (s *Store) Unfreeze() error {
	if err := s.enterWrite(); err != nil {
		return err
	}
	defer s.exit()
	s.admin.Lock()
	defer s.admin.Unlock()
	if !s.frozen.Load() {
		return nil
	}
	_, err := s.update(func(t *tx) error {
		for id, p := range s.publishers {
			if err := t.redoFrozen(id, p); err != nil {
				return err
			}
			if err := t.setFrozenAt(id, p, Stand{}); err != nil {
				return err
			}
		}
		t.after(func() { s.stops.frozen = false })
		return errors.Join(t.dropApplied(), t.delete([]byte(keyWhy)), t.delete([]byte(keyFrozen)))
	})
	if err != nil {
		return fmt.Errorf("unfreeze: %w", err)
	}
	if err := s.syncWrites("unfreeze"); err != nil {
		return err
	}
	s.frozen.Store(false)
	s.setLatched(false)
	s.cfg.Logger.Info("unfrozen")
	return nil
}

func (s *Store) syncWrites(what string) error {
	if err := s.syncer.sync(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func (s *Store) postingCount() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.totals.postings
}
