package store

import (
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Top returns the highest position in use of a publisher, or used before.
func (s *Store) Top(publisher peer.ID) (top Position, err error) {
	if err := s.enter(); err != nil {
		return 0, err
	}
	defer s.exit()
	err = s.look(func(t *tx) error {
		top, err = t.top(publisher)
		return err
	})
	return top, err
}

func (t *tx) top(pub peer.ID) (Position, error) {
	w := t.peek(pub)
	top := max(w.mark.Pos, w.epoch)
	for _, prefix := range []byte{prefixAbove, prefixPending, prefixScan, prefixAgain} {
		err := scanBack(t.b, peerPosKey(prefix, pub, top+1), keyEnd(peerKey(prefix, pub)), func(k, _ []byte) error {
			_, pos, err := parsePeerPosKey(prefix, k)
			top = max(top, pos)
			if err == nil {
				err = errStop
			}
			return err
		})
		if err != nil {
			return 0, fmt.Errorf("highest position of %s: %w", pub, err)
		}
	}
	return top, nil
}

// Newest returns the ad with the highest position known of a publisher: the
// mark, an ad done above it, or one that is pending; false if there is none.
func (s *Store) Newest(publisher peer.ID) (AdRef, bool, error) {
	if err := s.enter(); err != nil {
		return AdRef{}, false, err
	}
	defer s.exit()
	snap := s.db.NewSnapshot()
	defer snap.Close()
	w, _, err := getRow(snap, peerKey(prefixProgress, publisher), decodeProgress)
	if err != nil {
		return AdRef{}, false, err
	}
	newest := w.mark
	for _, prefix := range []byte{prefixAbove, prefixPending} {
		err := scanBack(snap, peerPosKey(prefix, publisher, w.mark.Pos+1), keyEnd(peerKey(prefix, publisher)), func(k, v []byte) error {
			ref, err := decodeRefRow(prefix, k, v)
			if err != nil {
				return err
			}
			if ref.Pos > newest.Pos {
				newest = ref
			}
			return errStop
		})
		if err != nil {
			return AdRef{}, false, fmt.Errorf("newest ad of %s: %w", publisher, err)
		}
	}
	return newest, newest.Ad.Defined(), nil
}
