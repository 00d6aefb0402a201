package store

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/libp2p/go-libp2p/core/peer"
)

// pendingChunk is how many ads AddPending writes at a time, so that commits
// get their turn.
const pendingChunk = 1000

// AddPending remembers ads that were scanned and are not applied yet. Ads at
// or below the mark and ads already done are passed over; repeating it
// changes nothing. Commit and SetMark remove them.
func (s *Store) AddPending(publisher peer.ID, ads []AdRef) error {
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
		if _, err := s.update(func(t *tx) error { return t.addPending(publisher, ads[:n]) }); err != nil {
			return fmt.Errorf("add pending ads of %s: %w", publisher, err)
		}
		ads = ads[n:]
	}
	return nil
}

func (t *tx) addPending(pub peer.ID, ads []AdRef) error {
	w := t.progress(pub)
	for _, ad := range ads {
		if ad.Pos <= max(w.mark.Pos, w.epoch) {
			continue
		}
		if done, err := t.isAbove(pub, ad); err != nil {
			return err
		} else if done {
			continue
		}
		key := peerPosKey(prefixPending, pub, ad.Pos)
		row := waitingRow{refRow: refRow{ad.Ad, ad.Prev}}
		known, ok, err := getRow(t.b, key, decodeWaiting)
		switch {
		case err != nil:
			return err
		case !ok:
			w.pending++
		case known.refRow == row.refRow:
			continue // with the trouble it has met
		}
		if err := t.dropAgain(pub, ad.Pos); err != nil { // it waits only once
			return err
		}
		if err := t.set(key, row.encode()); err != nil {
			return err
		}
		if err := t.ledgerIfUnknown(pub, ad, Pending); err != nil {
			return err
		}
	}
	return nil
}

// isAbove tells whether an ad is done above the mark.
func (t *tx) isAbove(pub peer.ID, ad AdRef) (bool, error) {
	if t.peek(pub).above == 0 {
		return false, nil
	}
	above, ok, err := getRow(t.b, peerPosKey(prefixAbove, pub, ad.Pos), decodeRef)
	return ok && above.ad.Equals(ad.Ad), err
}

// LastPending returns the pending ad of a publisher with the largest position,
// or false if none is pending.
func (s *Store) LastPending(publisher peer.ID) (ref AdRef, ok bool, err error) {
	if err := s.enter(); err != nil {
		return AdRef{}, false, err
	}
	defer s.exit()
	s.view.RLock()
	p := s.publisher(publisher).progress
	s.view.RUnlock()
	if p.pending == 0 {
		return AdRef{}, false, nil
	}
	// Not from the first key: below the mark there are only deleted rows,
	// which are slow to pass.
	it, err := s.db.NewIter(bounds(peerPosKey(prefixPending, publisher, p.mark.Pos+1), keyEnd(peerKey(prefixPending, publisher))))
	if err != nil {
		return AdRef{}, false, fmt.Errorf("last pending ad of %s: %w", publisher, err)
	}
	if ok = it.Last(); ok {
		var value []byte
		if value, err = it.ValueAndErr(); err == nil {
			ref, err = decodeRefRow(prefixPending, it.Key(), value)
		}
	}
	if cerr := it.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return AdRef{}, false, fmt.Errorf("last pending ad of %s: %w", publisher, err)
	}
	return ref, ok, nil
}

func listRefs(r pebble.Reader, prefix byte, pub peer.ID, after Position, limit int) ([]AdRef, error) {
	var refs []AdRef
	if limit <= 0 || after >= MaxPosition {
		return nil, nil
	}
	err := scan(r, peerPosKey(prefix, pub, after+1), keyEnd(peerKey(prefix, pub)), func(k, v []byte) error {
		ref, err := decodeRefRow(prefix, k, v)
		if err != nil {
			return err
		}
		if refs = append(refs, ref); len(refs) == limit {
			return errStop
		}
		return nil
	})
	return refs, err
}
