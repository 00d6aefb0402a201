package store

import "github.com/libp2p/go-libp2p/core/peer"

// Takes tells whether content of a publisher is taken: the store is not frozen,
// and the publisher not closed.
func (s *Store) Takes(publisher peer.ID) bool {
	if s.frozen.Load() {
		return false
	}
	s.view.RLock()
	defer s.view.RUnlock()
	return s.assignments[publisher].Role != RoleHolder
}

// TakesAd tells whether content of an ad of a publisher is taken: that of the
// publisher is, and the ad is none that is only followed (Revisit). again: AddAgain
// has noted it.
func (s *Store) TakesAd(publisher peer.ID, pos Position, again bool) bool {
	if !s.Takes(publisher) {
		return false
	}
	s.view.RLock()
	defer s.view.RUnlock()
	return !again || !s.redo[publisher].follows(pos)
}

// Passed tells whether a mark was set above an ad, or the publisher forgotten, so that
// the ad is not waited for any more, but for those AddAgain has noted.
func (s *Store) Passed(publisher peer.ID, pos Position) bool {
	s.view.RLock()
	defer s.view.RUnlock()
	w := s.publisher(publisher).progress
	return pos <= max(w.mark.Pos, w.epoch)
}

// checkTakes refuses content once the publisher is closed, or the store frozen, on
// disk: what is here by then is said to whoever goes on, and nothing later (ErrFrozen).
// And it refuses to skip an ad of a publisher whose content is taken by now: what was
// skipped is looked for at the moment that begins, and later no more (ErrTaken).
func (t *tx) checkTakes(ad Ad, e Effect) error {
	skips := e.HeldOnly || e.Verdict == SkippedFrozen
	if !skips && e.Kind != EffectContent {
		return nil
	}
	takes := t.takes(ad.Publisher)
	switch {
	case e.Kind == EffectContent && !takes:
		return ErrFrozen
	case skips && takes:
		return t.checkSkips(ad.Publisher, ad.AdRef, e.Verdict)
	}
	return nil
}

// stops are what keeps content out by the rows as they are: what others see follows
// when that is on disk, in Store.frozen and Store.held. Store.mu guards it.
type stops struct {
	frozen bool
	closed map[peer.ID]bool
}

// takes tells whether content of a publisher is taken, by what is to be on disk.
func (t *tx) takes(publisher peer.ID) bool {
	return !t.s.stops.frozen && !t.s.stops.closed[publisher]
}

// setClosed is called with each row of an assignment.
func (t *tx) setClosed(publisher peer.ID, closed bool) {
	t.after(func() {
		if closed {
			t.s.stops.closed[publisher] = true
		} else {
			delete(t.s.stops.closed, publisher)
		}
	})
}

// checkSkips refuses to skip an ad of a publisher whose content is taken, unless it is
// one that the indexer has which the publisher was taken over from: one it has told of,
// one below the mark that nobody noted to be applied again, or one that is followed.
func (t *tx) checkSkips(publisher peer.ID, ad AdRef, v Verdict) error {
	if v == MarkedDone {
		if elsewhere, err := t.isElsewhere(publisher, ad.Ad); err != nil || elsewhere {
			return err
		}
	}
	w, again := t.peek(publisher), false
	if w.again > 0 {
		var err error
		if again, err = t.has(peerPosKey(prefixAgain, publisher, ad.Pos)); err != nil {
			return err
		}
	}
	if again && !t.s.redo[publisher].follows(ad.Pos) || !again && ad.Pos > w.mark.Pos {
		return ErrTaken
	}
	return nil
}
