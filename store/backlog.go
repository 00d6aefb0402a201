package store

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/libp2p/go-libp2p/core/peer"
)

// PendingAd is an ad to be applied, with the trouble it has met.
type PendingAd struct {
	AdRef
	Trouble Trouble
	Again   bool // listed by AgainBacklog
}

// Backlog returns up to limit pending ads of a publisher with a position above
// after and above the mark, ascending.
func (s *Store) Backlog(publisher peer.ID, after Position, limit int) ([]PendingAd, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.exit()
	s.view.RLock()
	after = max(after, s.publisher(publisher).progress.mark.Pos)
	s.view.RUnlock()
	ads, err := listWaiting(s.db, prefixPending, publisher, after, limit)
	if err != nil {
		return nil, fmt.Errorf("list pending ads of %s: %w", publisher, err)
	}
	return ads, nil
}

func listWaiting(r pebble.Reader, prefix byte, pub peer.ID, after Position, limit int) ([]PendingAd, error) {
	if limit <= 0 || after >= MaxPosition {
		return nil, nil
	}
	var ads []PendingAd
	err := scan(r, peerPosKey(prefix, pub, after+1), keyEnd(peerKey(prefix, pub)), func(k, v []byte) error {
		_, pos, err := parsePeerPosKey(prefix, k)
		if err != nil {
			return err
		}
		row, err := decodeWaiting(v)
		if err != nil {
			return err
		}
		ads = append(ads, PendingAd{AdRef{Ad: row.ad, Prev: row.prev, Pos: pos}, row.trouble, prefix == prefixAgain})
		if len(ads) == limit {
			return errStop
		}
		return nil
	})
	return ads, err
}

// SetTrouble notes the trouble an ad has met that is pending or to be applied
// again; the zero one takes it away. Of any other ad it notes nothing.
func (s *Store) SetTrouble(publisher peer.ID, ad AdRef, t Trouble) error {
	if err := s.enterWrite(); err != nil {
		return err
	}
	defer s.exit()
	if err := checkPeer("publisher", publisher); err != nil {
		return err
	}
	if err := checkRef(ad); err != nil {
		return err
	}
	_, err := s.update(func(tx *tx) error {
		w := tx.peek(publisher)
		for prefix, n := range map[byte]uint64{prefixPending: w.pending, prefixAgain: w.again} {
			if n == 0 {
				continue
			}
			key := peerPosKey(prefix, publisher, ad.Pos)
			row, ok, err := getRow(tx.b, key, decodeWaiting)
			if err != nil {
				return err
			}
			if !ok || !row.ad.Equals(ad.Ad) {
				continue
			}
			row.trouble = t.kept()
			if err := tx.set(key, row.encode()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("note trouble of ad %s of %s: %w", ad.Ad, publisher, err)
	}
	return nil
}

// AddAgain notes ads that are to be applied although they have a verdict, at
// whatever position: what was rejected, or all of a publisher's for a second
// time. Ads that are pending are passed over; repeating it changes nothing.
// Commit of an ad at the position removes the note; a mark does not.
//
// With setPending the ads' ledger entries become pending, but those that say
// applied, as that stays true, and those that stand for another publisher.
func (s *Store) AddAgain(publisher peer.ID, ads []AdRef, setPending bool) error {
	if err := s.enterWrite(); err != nil {
		return err
	}
	defer s.exit()
	if err := checkPeer("publisher", publisher); err != nil {
		return err
	}
	if err := checkRefs(ads); err != nil {
		return err
	}
	for len(ads) > 0 {
		n := min(len(ads), pendingChunk)
		if _, err := s.update(func(t *tx) error { return t.addAgain(publisher, ads[:n], setPending) }); err != nil {
			return fmt.Errorf("note ads of %s to be applied again: %w", publisher, err)
		}
		ads = ads[n:]
	}
	return nil
}

func (t *tx) addAgain(pub peer.ID, ads []AdRef, setPending bool) error {
	w := t.progress(pub)
	for _, ad := range ads {
		if ad.Pos <= w.epoch {
			continue
		}
		if pending, err := t.has(peerPosKey(prefixPending, pub, ad.Pos)); err != nil {
			return err
		} else if pending {
			continue
		}
		key := peerPosKey(prefixAgain, pub, ad.Pos)
		row := waitingRow{refRow: refRow{ad.Ad, ad.Prev}}
		known, ok, err := getRow(t.b, key, decodeWaiting)
		if err != nil {
			return err
		}
		if !ok {
			w.isAgain(ad.Pos)
		}
		if !ok || known.refRow != row.refRow {
			if err := t.set(key, row.encode()); err != nil {
				return err
			}
		}
		if setPending {
			if err := t.ledgerPending(pub, ad); err != nil {
				return err
			}
		}
	}
	return nil
}

// AgainBacklog returns up to limit ads of a publisher noted by AddAgain with a
// position above after, ascending.
func (s *Store) AgainBacklog(publisher peer.ID, after Position, limit int) ([]PendingAd, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.exit()
	s.view.RLock()
	n := s.publisher(publisher).progress.again
	s.view.RUnlock()
	if n == 0 {
		return nil, nil
	}
	ads, err := listWaiting(s.db, prefixAgain, publisher, after, limit)
	if err != nil {
		return nil, fmt.Errorf("list ads of %s to be applied again: %w", publisher, err)
	}
	return ads, nil
}

// DropAgain forgets all that AddAgain has noted of a publisher. A ledger entry
// that became pending with it is then shown as MarkedDone.
func (s *Store) DropAgain(publisher peer.ID) error {
	if err := s.enterWrite(); err != nil {
		return err
	}
	defer s.exit()
	if err := checkPeer("publisher", publisher); err != nil {
		return err
	}
	_, err := s.update(func(t *tx) error {
		if t.peek(publisher).again == 0 {
			return nil
		}
		w := t.progress(publisher)
		w.notAgain(w.again)
		all := peerKey(prefixAgain, publisher)
		if err := t.b.DeleteRange(all, keyEnd(all), nil); err != nil {
			return err
		}
		return t.settle(publisher)
	})
	if err != nil {
		return fmt.Errorf("forget ads of %s to be applied again: %w", publisher, err)
	}
	return nil
}

// dropAgain removes the note that the ad at a position is to be applied again.
func (t *tx) dropAgain(pub peer.ID, pos Position) error {
	if t.peek(pub).again == 0 {
		return nil
	}
	key := peerPosKey(prefixAgain, pub, pos)
	ok, err := t.has(key)
	if err != nil || !ok {
		return err
	}
	if err := t.delete(key); err != nil {
		return err
	}
	w := t.progress(pub)
	if w.notAgain(1); w.again > 0 {
		return nil
	}
	return t.settle(pub)
}
