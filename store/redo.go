package store

import (
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"
)

// What was skipped, and what is older than the ranges, comes in by wishes to
// look at ads again (Revisit). Such a wish stays until nothing it has noted is
// left to be applied again; until then the publisher stands at its floor, so
// that a mark told to others never covers an ad that is not here.
//
//	asked for ──► the way back notes ads (AddAgain) ──► RevisitWalked ──► none left: settled

// redo is a wish as the store keeps it in memory: those that bear on marks.
type redo struct {
	Skipped, Fill, Walked bool
	Floor                 Stand
	// Ads above until and up to since are followed.
	Follow       bool
	until, since Position
}

// floor is below what may be noted to be applied again.
func (r redo) floor() Position {
	switch {
	case r.Fill:
		return 0
	case !r.Follow:
		return r.Floor.Pos
	case !r.Skipped:
		return r.until
	}
	return min(r.Floor.Pos, r.until)
}

// follows tells whether an ad that was noted is there for what it does to what is
// held: its content is not taken.
func (r redo) follows(pos Position) bool {
	return r.Follow && !r.Fill && r.until < pos && pos <= r.since
}

func redoOf(w Revisit) (redo, bool) {
	return redo{w.Skipped, w.Fill, w.Walked, w.Floor, w.Follow, w.Until.Pos, w.Since.Pos}, w.Skipped || w.Fill || w.Follow
}

func (s *Store) loadRedo() error {
	s.redo = make(map[peer.ID]redo)
	return scanPrefix(s.db, []byte{prefixRevisit}, func(k, v []byte) error {
		id, err := parsePeerKey(prefixRevisit, k)
		if err != nil {
			return err
		}
		w, err := decodeRevisit(v)
		if r, ok := redoOf(w); ok {
			s.redo[id] = r
		}
		return err
	})
}

// setRevisit writes a wish; an empty one is deleted.
func (t *tx) setRevisit(pub peer.ID, w Revisit) error {
	t.after(func() {
		if r, ok := redoOf(w); ok {
			t.s.redo[pub] = r
		} else {
			delete(t.s.redo, pub)
		}
	})
	return t.setOrDelete(peerKey(prefixRevisit, pub), !w.empty(), w.encode())
}

// stand is how far a publisher is, what is to be applied again considered.
func (t *tx) stand(pub peer.ID) Stand {
	w := t.peek(pub)
	if r, ok := t.s.redo[pub]; ok && r.Skipped && r.Floor.Pos < w.mark.Pos {
		return r.Floor
	}
	return Stand{w.mark.Ad, w.mark.Pos, w.height}
}

// Backfill asks for the ads older than the last range of a publisher that are
// not here, down to the genesis. When all of them are done its only range begins
// there. It is no error if there is nothing older, or that is asked for already.
// ErrNotFound if the publisher is not owned; ErrFrozen. It is durable when it
// returns nil.
func (s *Store) Backfill(publisher peer.ID) error {
	if err := s.enterWrite(); err != nil {
		return err
	}
	defer s.exit()
	s.admin.Lock()
	defer s.admin.Unlock()
	if s.frozen.Load() {
		return ErrFrozen
	}
	_, err := s.update(func(t *tx) error {
		a := s.assignments[publisher]
		switch {
		case a.Role != RoleOwner || len(a.Ranges) == 0:
			return ErrNotFound
		case a.whole() || s.redo[publisher].Fill:
			return errStop
		}
		top := Stand{Ad: a.run()[0].From, Pos: a.tail}
		switch {
		case !top.Ad.Defined(): // all is held but what it lacks
			top = t.stand(publisher)
		case top.Pos == 0:
			top = t.recall(publisher, top)
		}
		if top.Pos == 0 {
			return fmt.Errorf("where the last range begins is not known: %w", ErrInvalid)
		}
		return t.addRevisit(publisher, Revisit{Fill: true, Top: AdRef{Ad: top.Ad, Pos: top.Pos}})
	})
	if errors.Is(err, errStop) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("fill %s: %w", publisher, err)
	}
	return s.syncWrites("fill")
}

// RevisitWalked notes that the way of the wish of this number has come to its
// end and all that is wished is noted to be applied again. What was wished for
// this run only ends; what bears on the mark stays until that is done.
func (s *Store) RevisitWalked(publisher peer.ID, number uint64) error {
	return s.endRevisit(publisher, number, func(w *Revisit) { w.Walked = true })
}

// RevisitGivenUp ends the wish of this number as far as that is possible: the
// publisher stands at its mark again, and its ranges stay. What is noted of ads that
// are followed is applied all the same.
func (s *Store) RevisitGivenUp(publisher peer.ID, number uint64) error {
	return s.endRevisit(publisher, number, func(w *Revisit) {
		w.Skipped, w.Fill, w.Floor, w.Top, w.Walked = false, false, Stand{}, AdRef{}, w.Follow
	})
}

func (s *Store) endRevisit(publisher peer.ID, number uint64, change func(*Revisit)) error {
	if err := s.enterWrite(); err != nil {
		return err
	}
	defer s.exit()
	_, err := s.update(func(t *tx) error {
		w, ok, err := getRow(t.b, peerKey(prefixRevisit, publisher), decodeRevisit)
		if err != nil || !ok || w.Number != number {
			return err
		}
		w.All, w.Depth, w.Ads = false, 0, nil
		change(&w)
		if err := t.setRevisit(publisher, w); err != nil || t.peek(publisher).again > 0 {
			return err
		}
		return t.settle(publisher)
	})
	if err != nil {
		return fmt.Errorf("end looking again at %s: %w", publisher, err)
	}
	return nil
}

// settle ends a wish whose ads are all applied again: what it filled is held.
// A freeze or a closing has the way begin anew, so nothing is settled while
// ads are skipped.
func (t *tx) settle(pub peer.ID) error {
	w, ok, err := getRow(t.b, peerKey(prefixRevisit, pub), decodeRevisit)
	if err != nil || !ok || !w.Walked {
		return err
	}
	if a := t.s.assignments[pub]; w.Fill && a.Role == RoleOwner && len(a.Ranges) > 0 {
		a = a.filled()
		if err := t.setAssignment(a); err != nil {
			return err
		}
		t.after(func() { t.s.assignments[pub] = a })
	}
	return t.setRevisit(pub, Revisit{})
}

// rewalk has all ways begin anew once content is taken again: from now on what
// is applied again is skipped.
func (t *tx) rewalk() error {
	for pub := range t.s.redo {
		w, ok, err := getRow(t.b, peerKey(prefixRevisit, pub), decodeRevisit)
		if err != nil || !ok {
			return err
		}
		w.Walked = false
		w.Number++
		if err := t.setRevisit(pub, w); err != nil {
			return err
		}
	}
	return nil
}

// redoFrozen asks for what was skipped of a publisher since the latch fell.
func (t *tx) redoFrozen(id peer.ID, p *publisher) error {
	if t.s.assignments[id].Role == RoleHolder {
		return nil
	}
	at := Stand{p.info.frozenAt, p.info.frozenPos, p.info.frozenHeight}
	if at.Ad.Defined() && at.Pos == 0 { // of a store of format 5
		at = t.recall(id, at)
	}
	return t.redoAbove(id, at)
}

// redoAbove asks for what was skipped above an ad, if anything is known there.
func (t *tx) redoAbove(id peer.ID, at Stand) error {
	if w := t.peek(id); w.mark.Pos <= at.Pos && w.above == 0 {
		return nil
	}
	return t.addRevisit(id, Revisit{Skipped: true, Floor: at})
}

// recall finds the position of an ad in the ledger; no ad at all if it is not
// there.
func (t *tx) recall(pub peer.ID, at Stand) Stand {
	w, known, err := t.known(pub, at)
	if err != nil || !known {
		return Stand{}
	}
	at.Pos = w.pos
	return at
}

// known is the ledger entry of an ad in the chain of pub.
func (t *tx) known(pub peer.ID, at Stand) (w ledgerRow, known bool, err error) {
	n, err := t.makeNumber(pub)
	if err != nil {
		return w, false, err
	}
	w, ok, err := getRow(t.b, t.s.ledgerKey(at.Ad), decodeLedger)
	return w, err == nil && ok && w.publisher == n && w.pos > t.peek(pub).epoch, err
}
