package store

import (
	"errors"
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
	w.reason = cutReason(w.reason)
	return t.set(t.s.ledgerKey(ad), w.encode())
}

// ledgerIfUnknown writes an entry unless the ad has one that says more than
// pending: an ad may be in the chains of two publishers.
func (t *tx) ledgerIfUnknown(pub peer.ID, ad AdRef, v Verdict) error {
	w, ok, err := getRow(t.b, t.s.ledgerKey(ad.Ad), decodeLedger)
	if err != nil {
		return err
	}
	n, err := t.makeNumber(pub)
	if err != nil {
		return err
	}
	w.forget(t, pub, n)
	if ok && w.verdict != 0 && (w.verdict != Pending || v == Pending) {
		return nil
	}
	return t.setLedger(ad.Ad, ledgerRow{publisher: n, pos: ad.Pos, verdict: v, time: time.Now()})
}

// AdState returns what became of an ad; false if the store never heard of it.
// An ad in the chains of several publishers has the state of its last commit,
// but as long as one who has applied it, or passed it over as superseded, has it
// in what is done of its chain, that one's.
func (s *Store) AdState(ad cid.Cid) (AdState, bool, error) {
	if err := s.enter(); err != nil {
		return AdState{}, false, err
	}
	defer s.exit()
	if checkCID("ad", ad) != nil {
		return AdState{}, false, nil
	}
	snap := s.db.NewSnapshot() // an ad just applied has no pending row any more
	st, ok, err := s.readAdState(snap, ad)
	err = errors.Join(err, snap.Close())
	if ok && err == nil {
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
// over it, or DropAgain forgot it, still says so in its row.
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
	s.view.RLock()
	p := s.publisher(publisher).progress
	again, forgotten := p.again > 0, w.pos <= p.epoch
	s.view.RUnlock()
	if forgotten {
		return AdState{}, false, nil
	}
	if st.Verdict != Pending && !again {
		return st, true, nil
	}
	for _, prefix := range []byte{prefixPending, prefixAgain} {
		row, ok, err := getRow(r, peerPosKey(prefix, publisher, st.Pos), decodeWaiting)
		if err != nil {
			return AdState{}, false, err
		}
		if ok && row.ad.Equals(ad) {
			st.Trouble = row.trouble
			return st, true, nil
		}
	}
	if st.Verdict == Pending {
		st, err = markedDone(r, st, ad)
	}
	return st, err == nil, err
}

// forget makes an entry of pub that is older than what is known of it one that
// says nothing.
func (w *ledgerRow) forget(t *tx, pub peer.ID, number uint32) {
	if w.publisher == number && w.pos <= t.peek(pub).epoch {
		w.verdict = 0
	}
}

// markedDone makes the state of an ad whose row says pending, and that nothing
// waits for, what it is.
func markedDone(r pebble.Reader, st AdState, ad cid.Cid) (AdState, error) {
	var p progressRow
	if err := loadRow(r, peerKey(prefixProgress, st.Publisher), decodeProgress, &p); err != nil {
		return AdState{}, err
	}
	done := st.Pos <= p.mark.Pos
	if !done {
		above, ok, err := getRow(r, peerPosKey(prefixAbove, st.Publisher, st.Pos), decodeRef)
		if err != nil {
			return AdState{}, err
		}
		done = ok && above.ad.Equals(ad)
	}
	if done {
		st.Verdict, st.Time = MarkedDone, time.Time{}
	}
	return st, nil
}
