package store

import (
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

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
		it, err := snap.NewIter(bounds(peerPosKey(prefix, publisher, w.mark.Pos+1), keyEnd(peerKey(prefix, publisher))))
		if err != nil {
			return AdRef{}, false, err
		}
		if it.Last() {
			var ref AdRef
			var value []byte
			if value, err = it.ValueAndErr(); err == nil {
				ref, err = decodeRefRow(prefix, it.Key(), value)
			}
			if err == nil && ref.Pos > newest.Pos {
				newest = ref
			}
		}
		if cerr := it.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return AdRef{}, false, fmt.Errorf("newest ad of %s: %w", publisher, err)
		}
	}
	return newest, newest.Ad.Defined(), nil
}

// LastError returns the last error noted of a publisher, "" if there is none.
func (s *Store) LastError(publisher peer.ID) (text string, at time.Time) {
	s.view.RLock()
	defer s.view.RUnlock()
	info := s.publisher(publisher).info
	return info.lastError, info.lastErrorTime
}
