package store

import (
	"fmt"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// RemovedAt tells whether a removal of (provider, context) at or above pos by
// this publisher was applied and is still remembered: an ad at pos then has no
// effect on the record. A removal is forgotten when the mark has passed it.
func (s *Store) RemovedAt(publisher, provider peer.ID, contextID []byte, pos Position) (bool, error) {
	if err := s.enter(); err != nil {
		return false, err
	}
	defer s.exit()
	if err := checkRecord(Ad{Provider: provider, ContextID: contextID}); err != nil {
		return false, err
	}
	removed := false
	err := s.look(func(t *tx) error {
		_, rec, err := t.record(provider, contextID)
		removed = pos <= rec.seens.of(publisher).removed
		return err
	})
	if err != nil {
		return false, fmt.Errorf("look for a removal by %s: %w", publisher, err)
	}
	return removed, nil
}

// Stands tells whether the content an ad with this CID brought is in the store
// now because of this very ad, applied by whatever publisher: the ledger says
// applied, its record is held, and the generation of that publisher covering
// its position still exists. by names the publisher. Of an ad that brought no
// multihash it may say no.
func (s *Store) Stands(ad cid.Cid, provider peer.ID, contextID []byte) (by peer.ID, ok bool, err error) {
	if err := s.enter(); err != nil {
		return "", false, err
	}
	defer s.exit()
	if checkCID("ad", ad) != nil || checkRecord(Ad{Provider: provider, ContextID: contextID}) != nil {
		return "", false, nil
	}
	err = s.look(func(t *tx) (err error) {
		by, ok, err = t.stands(ad, provider, contextID)
		return err
	})
	if err != nil {
		return "", false, fmt.Errorf("look whether ad %s stands: %w", ad, err)
	}
	return by, ok, nil
}

func (t *tx) stands(ad cid.Cid, provider peer.ID, ctx []byte) (by peer.ID, ok bool, err error) {
	w, ok, err := getRow(t.b, t.s.ledgerKey(ad), decodeLedger)
	if err != nil || !ok || w.verdict != Applied {
		return "", false, err
	}
	id, rec, err := t.record(provider, ctx)
	if err != nil || !rec.held() {
		return "", false, err
	}
	gen, ok, err := t.generationAt(id, rec, w.publisher, w.pos)
	if err != nil || !ok || gen.max < w.pos {
		return "", false, err
	}
	by, err = t.s.peers.name(t.b, w.publisher)
	return by, err == nil, err
}

// standsForOther tells whether an ad's ledger entry is that of another
// publisher who has applied it, or passed it over as superseded, and still has
// it in what is done of its chain. Such an entry stays, whatever becomes of the
// ad in the chain of pub: it says where the ad's content came from.
func (t *tx) standsForOther(pub uint32, ad cid.Cid, w ledgerRow) (bool, error) {
	if w.publisher == pub || (w.verdict != Applied && w.verdict != Superseded) {
		return false, nil
	}
	other, err := t.s.peers.name(t.b, w.publisher)
	if err != nil {
		return false, err
	}
	if p := t.peek(other); w.pos <= p.mark.Pos {
		return w.pos > p.epoch, nil
	}
	return t.isAbove(other, AdRef{Ad: ad, Pos: w.pos})
}

// ledgerPending makes the entry of an ad that is to be applied again pending.
func (t *tx) ledgerPending(pub peer.ID, ad AdRef) error {
	n, err := t.makeNumber(pub)
	if err != nil {
		return err
	}
	w, _, err := getRow(t.b, t.s.ledgerKey(ad.Ad), decodeLedger)
	if err != nil || w.verdict == Applied {
		return err
	}
	if others, err := t.standsForOther(n, ad.Ad, w); err != nil || others {
		return err
	}
	return t.setLedger(ad.Ad, ledgerRow{publisher: n, pos: ad.Pos, verdict: Pending, time: time.Now()})
}
