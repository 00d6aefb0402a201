package store

import (
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// The ledger has one row an ad, under a hash of its CID. It is an account for
// people; progress does not depend on it. An entry takes about 35 bytes on
// disk, so it is kept for ever.

const maxReasonBytes = 1 << 10

func (t *tx) setLedger(ad cid.Cid, w ledgerRow) error {
	if len(w.reason) > maxReasonBytes {
		w.reason = w.reason[:maxReasonBytes]
	}
	return t.set(t.s.ledgerKey(ad), w.encode())
}

// ledgerIfUnknown writes an entry unless the ad has one that says more than
// pending: an ad may be in the chains of two publishers.
func (t *tx) ledgerIfUnknown(pub peer.ID, ad AdRef, v Verdict) error {
	w, ok, err := getRow(t.b, t.s.ledgerKey(ad.Ad), decodeLedger)
	if err != nil {
		return err
	}
	if ok && (w.verdict != Pending || v == Pending) {
		return nil
	}
	n, err := t.makeNumber(pub)
	if err != nil {
		return err
	}
	return t.setLedger(ad.Ad, ledgerRow{publisher: n, pos: ad.Pos, verdict: v, time: time.Now()})
}

// AdState returns what became of an ad; false if the store never heard of it.
// An ad in the chains of several publishers has the state of its last commit.
func (s *Store) AdState(ad cid.Cid) (AdState, bool, error) {
	if err := s.enter(); err != nil {
		return AdState{}, false, err
	}
	defer s.exit()
	if checkCID("ad", ad) != nil {
		return AdState{}, false, nil
	}
	st, ok, err := s.readAdState(s.db, ad)
	if ok {
		err = s.syncer.read(func(r pebble.Reader) error {
			durable, _, err := s.readAdState(r, ad)
			st.Durable = durable == st
			return err
		})
	}
	if err != nil {
		return AdState{}, false, fmt.Errorf("read state of ad %s: %w", ad, err)
	}
	return st, ok, nil
}

// readAdState reads an ad's row. An ad that was pending when SetMark jumped
// over it still says so in its row.
func (s *Store) readAdState(r pebble.Reader, ad cid.Cid) (AdState, bool, error) {
	w, ok, err := getRow(r, s.ledgerKey(ad), decodeLedger)
	if err != nil || !ok {
		return AdState{}, false, err
	}
	publisher, err := s.peers.name(r, w.publisher)
	if err != nil {
		return AdState{}, false, err
	}
	st := AdState{Publisher: publisher, Pos: w.pos, Verdict: w.verdict, Reason: w.reason, Time: w.time}
	if st.Verdict == Pending {
		var p progressRow
		if err := loadRow(r, peerKey(prefixProgress, publisher), decodeProgress, &p); err != nil {
			return AdState{}, false, err
		}
		if st.Pos <= p.mark.Pos {
			st.Verdict, st.Time = MarkedDone, time.Time{}
		}
	}
	return st, true, nil
}
