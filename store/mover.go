package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// The mover moves marks in the background that one change could not bring to
// their end. Store.moving, guarded by mu, says whose.

// moveOn has the mover go on with a publisher's mark. The caller holds mu.
func (s *Store) moveOn(pub peer.ID) {
	s.moving[pub] = true
	s.wakeMove()
}

// loadMoving finds the marks a crash has left on their way.
func (s *Store) loadMoving() error {
	s.moving = make(map[peer.ID]bool)
	for pub, p := range s.publishers {
		w := p.progress
		if w.above == 0 || !w.mark.Ad.Defined() {
			continue
		}
		next, err := listRefs(s.db, prefixAbove, pub, w.mark.Pos, 1)
		if err != nil {
			return err
		}
		if len(next) > 0 && (!next[0].Prev.Defined() || next[0].Prev.Equals(w.mark.Ad)) {
			s.moveOn(pub)
		}
	}
	return nil
}

// mover moves marks on, until ctx ends.
func (s *Store) mover(ctx context.Context, wake <-chan struct{}) {
	var failed time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-wake:
		}
		if time.Since(failed) < moveRetry || s.disk.err() != nil {
			continue
		}
		moved, err := s.moveMarks(ctx)
		if moved && err == nil && s.cfg.onMoved != nil {
			s.cfg.onMoved()
		}
		if err != nil && ctx.Err() == nil && s.disk.err() == nil {
			failed = time.Now()
			s.metrics.backgroundErrors.Inc()
			s.cfg.Logger.Warn("mark could not be moved on, it is tried again", "in", moveRetry, "err", err)
		}
	}
}

// moveRetry is how long marks that could not be moved on are left alone.
const moveRetry = time.Minute

// moveMarks moves the marks that are on their way to where they come. It tells
// whether there were any.
func (s *Store) moveMarks(ctx context.Context) (some bool, err error) {
	var errs []error
	marks := s.movingMarks()
	for _, pub := range marks {
		for more := true; more; {
			if err := errors.Join(ctx.Err(), s.disk.err()); err != nil {
				return true, err
			}
			_, err := s.update(func(t *tx) error {
				t.after(func() { delete(s.moving, pub) })
				err := t.goOn(pub)
				t.after(func() { more = s.moving[pub] })
				return err
			})
			if err != nil {
				errs, more = append(errs, fmt.Errorf("move mark of %s: %w", pub, err)), false
			}
		}
	}
	return len(marks) > 0, errors.Join(errs...)
}

// goOn moves a mark on by one part.
func (t *tx) goOn(pub peer.ID) error {
	from := t.peek(pub).mark.Pos
	if err := t.follow(pub, from); err != nil {
		return err
	}
	if err := t.dropPassed(pub, from); err != nil {
		return err
	}
	return t.sweep(pub)
}

func (s *Store) movingMarks() []peer.ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.moving))
}

// wakeMove has the mover look.
func (s *Store) wakeMove() {
	select {
	case s.move <- struct{}{}:
	default:
	}
}
