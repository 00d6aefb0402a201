package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/libp2p/go-libp2p/core/peer"
)

// ProvidersByPublisher returns the providers of the registry by the publisher
// of their last ad.
func (s *Store) ProvidersByPublisher() (map[peer.ID][]peer.ID, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.exit()
	all := make(map[peer.ID][]peer.ID)
	err := scanPrefix(s.db, []byte{prefixProvider}, func(k, v []byte) error {
		id, err := parsePeerKey(prefixProvider, k)
		if err != nil {
			return err
		}
		w, err := decodeProvider(v)
		all[w.last.publisher] = append(all[w.last.publisher], id)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list providers by publisher: %w", err)
	}
	return all, nil
}

// ServedOnlyBy tells whether gone is true of every publisher that has
// something of provider in the store: its registry entry and all its records.
// It reads the records until it finds one of another publisher.
func (s *Store) ServedOnlyBy(ctx context.Context, provider peer.ID, gone func(publisher peer.ID) bool) (only bool, err error) {
	if err := s.enter(); err != nil {
		return false, err
	}
	defer s.exit()
	snap := s.db.NewSnapshot()
	defer snap.Close()
	w, ok, err := getRow(snap, peerKey(prefixProvider, provider), decodeProvider)
	if err == nil && ok && w.onlyBy(gone) {
		only, err = s.recordsOnlyBy(ctx, snap, provider, gone)
	}
	if err != nil {
		return false, fmt.Errorf("who publishes for provider %s: %w", provider, err)
	}
	return only, nil
}

// onlyBy tells whether all publishers the entry names are gone.
func (w providerRow) onlyBy(gone func(peer.ID) bool) bool {
	for _, g := range []register{w.last, w.addrsFrom} {
		if g.publisher != "" && !gone(g.publisher) {
			return false
		}
		if slices.ContainsFunc(g.seens, func(s seen) bool { return !gone(s.publisher) }) {
			return false
		}
	}
	return true
}

func (s *Store) recordsOnlyBy(ctx context.Context, r pebble.Reader, provider peer.ID, gone func(peer.ID) bool) (bool, error) {
	n, ok, err := getRow(r, peerKey(prefixRenumbered, provider), decodeNumber)
	if err == nil && !ok {
		n, ok, err = getRow(r, peerKey(prefixNumber, provider), decodeNumber)
	}
	if err != nil || !ok {
		return true, err
	}
	only := true
	known := make(map[uint32]bool) // publishers that are gone
	judge := func(by uint32) error {
		if by == 0 || known[by] {
			return nil
		}
		p, err := s.peers.name(r, by)
		if err == nil && !gone(p) {
			only, err = false, errStop
		}
		known[by] = true
		return err
	}
	err = scanPrefix(r, numberKey(prefixContext, n), func(_, v []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		id, err := decodeID(v)
		if err != nil {
			return err
		}
		return judgeRecord(r, id, judge)
	})
	return only, err
}

// judgeRecord shows judge the publishers of a record. An errStop of judge is
// passed on.
func judgeRecord(r pebble.Reader, id uint64, judge func(by uint32) error) error {
	rec, ok, err := getRow(r, idKey(prefixRecord, id), func(b []byte) (recordRow, error) { return decodeRecord(id, b) })
	if err != nil || !ok {
		return err
	}
	for _, by := range []uint32{rec.by, rec.own.publisher} {
		if err := judge(by); err != nil {
			return err
		}
	}
	if rec.others == 0 {
		return nil
	}
	stopped := false
	err = scanPrefix(r, idKey(prefixGeneration, id), func(k, v []byte) error {
		_, gen, err := decodeGenerationRow(k, v)
		if err == nil {
			err = judge(gen.publisher)
		}
		stopped = errors.Is(err, errStop)
		return err
	})
	if err == nil && stopped {
		return errStop
	}
	return err
}

// RetirePublisher removes a publisher that is silent: the given providers, as
// RemoveProvider does, unless somebody else published for one meanwhile; where
// it was reached; and it is PhaseRemoved from then on; and publishers whose ads
// stood as its own are to be looked at again (Revisit), all in one change: after a
// crash all of it has happened or nothing. decide looks at the state the
// publisher has and says whether it is still to be removed. It is durable when
// RetirePublisher returns nil. done is what decide said; progress and ledger
// stay, see RemoveProvider.
func (s *Store) RetirePublisher(publisher peer.ID, providers []peer.ID, gone func(peer.ID) bool, at time.Time, decide func(PublisherState) bool) (st PublisherState, done bool, err error) {
	if err := s.enterWrite(); err != nil {
		return st, false, err
	}
	defer s.exit()
	if err := checkPeer("publisher", publisher); err != nil {
		return st, false, err
	}
	s.admin.Lock()
	defer s.admin.Unlock()
	_, err = s.update(func(t *tx) error {
		if st, err = t.state(publisher); err != nil {
			return err
		}
		if !decide(st) {
			return errStop
		}
		done = true
		for _, p := range providers {
			if err := t.retireProvider(p, gone); err != nil {
				return err
			}
		}
		if err := t.unlean(publisher); err != nil {
			return err
		}
		info := s.publisher(publisher).info
		st.Phase, st.Removed, st.Tried = PhaseRemoved, at, at
		st.Removals++
		st.Addrs, st.LastAd = info.addrs, t.peek(publisher).mark.Ad
		info.addrs = nil
		if err := t.setInfo(publisher, info); err != nil {
			return err
		}
		return t.setState(publisher, st)
	})
	if errors.Is(err, errStop) {
		return st, false, nil
	}
	if err == nil {
		err = s.syncWrites("retire publisher")
	}
	if err != nil {
		return st, false, fmt.Errorf("retire publisher %s: %w", publisher, err)
	}
	s.wakeReclaim()
	return st, done, nil
}

func (t *tx) retireProvider(p peer.ID, gone func(peer.ID) bool) error {
	w, ok, err := getRow(t.b, peerKey(prefixProvider, p), decodeProvider)
	if err != nil || !ok || !w.onlyBy(gone) {
		return err
	}
	_, err = t.removeProvider(p)
	return err
}
