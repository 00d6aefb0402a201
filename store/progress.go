package store

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Progress returns what is applied of a publisher: what Find can see. Of a
// publisher never heard of, and when the rows cannot be read, which is
// logged, it is zero.
func (s *Store) Progress(publisher peer.ID) Progress {
	if s.enter() != nil {
		return Progress{}
	}
	defer s.exit()
	snap := s.db.NewSnapshot()
	p, err := readProgress(snap, publisher)
	if cerr := snap.Close(); err == nil {
		err = cerr
	}
	return s.progressOrZero(publisher, p, err)
}

// DurableProgress is Progress as it would be after a power loss now: what to
// tell others.
func (s *Store) DurableProgress(publisher peer.ID) (p Progress) {
	if s.enter() != nil {
		return Progress{}
	}
	defer s.exit()
	err := s.syncer.read(func(r pebble.Reader) (err error) {
		p, err = readProgress(r, publisher)
		return err
	})
	return s.progressOrZero(publisher, p, err)
}

func (s *Store) progressOrZero(publisher peer.ID, p Progress, err error) Progress {
	if err != nil {
		s.metrics.readErrors.Inc()
		s.cfg.Logger.Warn("read progress", "publisher", publisher, "err", err)
		return Progress{}
	}
	return p
}

func readProgress(r pebble.Reader, pub peer.ID) (Progress, error) {
	w, ok, err := getRow(r, peerKey(prefixProgress, pub), decodeProgress)
	if err != nil || !ok {
		return Progress{}, err
	}
	p := Progress{Mark: w.mark, MarkTime: w.markTime, AppliedCount: int(w.above), Pending: int(w.pending)}
	if w.above > 0 {
		if p.Applied, err = listRefs(r, prefixAbove, pub, w.mark.Pos, MaxListed); err != nil {
			return Progress{}, err
		}
	}
	if w.pending > 0 {
		if p.Holes, err = listRefs(r, prefixPending, pub, w.mark.Pos, MaxListed); err != nil {
			return Progress{}, err
		}
	}
	if w.scans > 0 {
		if p.Scans, err = listScans(r, pub); err != nil {
			return Progress{}, err
		}
	}
	return p, nil
}

// Publishers returns all publishers the store knows anything of, in no order.
func (s *Store) Publishers() []peer.ID {
	s.view.RLock()
	defer s.view.RUnlock()
	ids := make([]peer.ID, 0, len(s.publishers))
	for id := range s.publishers {
		ids = append(ids, id)
	}
	return ids
}

// decodeRefRow decodes an above, pending or again row.
func decodeRefRow(prefix byte, k, v []byte) (AdRef, error) {
	_, pos, err := parsePeerPosKey(prefix, k)
	if err != nil {
		return AdRef{}, err
	}
	row, err := waitingRow{}, error(nil)
	if prefix == prefixAbove {
		row.refRow, err = decodeRef(v)
	} else {
		row, err = decodeWaiting(v)
	}
	return AdRef{Ad: row.ad, Prev: row.prev, Pos: pos}, err
}

func checkRef(ref AdRef) error {
	if err := checkCID("ad", ref.Ad); err != nil {
		return err
	}
	if ref.Prev.Defined() {
		if err := checkCID("previous ad", ref.Prev); err != nil {
			return err
		}
	}
	if ref.Pos == 0 || ref.Pos > MaxPosition {
		return fmt.Errorf("ad %s at position %d: %w", ref.Ad, ref.Pos, ErrInvalid)
	}
	return nil
}

func checkRefs(refs []AdRef) error {
	for _, ref := range refs {
		if err := checkRef(ref); err != nil {
			return err
		}
	}
	return nil
}
