package store

import (
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// MaxElsewhere bounds the ads of a publisher whose content another indexer has.
const MaxElsewhere = 1024

func (s *Store) elsewhereKey(pub peer.ID, ad cid.Cid) []byte {
	h := s.keyHash(ad.Bytes())
	return append(peerKey(prefixElsewhere, pub), h[:]...)
}

func parseElsewhereKey(k []byte) (peer.ID, error) {
	r := keyReader(prefixElsewhere, k)
	p := r.peerPart()
	r.take(keyHashBytes, keyHashBytes)
	return p, r.done("key")
}

func (s *Store) loadElsewhere() error {
	s.elsewhere = make(map[peer.ID]int)
	return scanPrefix(s.db, []byte{prefixElsewhere}, func(k, _ []byte) error {
		pub, err := parseElsewhereKey(k)
		s.elsewhere[pub]++
		return err
	})
}

// HeldElsewhere tells whether the indexer a publisher was taken over from has
// the content of an ad. Commit of the ad ends that.
func (s *Store) HeldElsewhere(publisher peer.ID, ad cid.Cid) (bool, error) {
	if err := s.enter(); err != nil {
		return false, err
	}
	defer s.exit()
	s.view.RLock()
	n := s.elsewhere[publisher]
	s.view.RUnlock()
	if n == 0 || checkCID("ad", ad) != nil {
		return false, nil
	}
	held, err := has(s.db, s.elsewhereKey(publisher, ad))
	if err != nil {
		return false, fmt.Errorf("look whether ad %s is held elsewhere: %w", ad, err)
	}
	return held, nil
}

// setElsewhere replaces what is held elsewhere of a publisher.
func (t *tx) setElsewhere(pub peer.ID, ads []cid.Cid) error {
	all := peerKey(prefixElsewhere, pub)
	if t.s.elsewhere[pub] > 0 {
		if err := t.b.DeleteRange(all, keyEnd(all), nil); err != nil {
			return err
		}
	}
	keys := make(map[string]bool)
	for _, ad := range ads {
		k := t.s.elsewhereKey(pub, ad)
		keys[string(k)] = true
		if err := t.set(k, nil); err != nil {
			return err
		}
	}
	t.after(func() {
		if t.s.elsewhere[pub] = len(keys); len(keys) == 0 {
			delete(t.s.elsewhere, pub)
		}
	})
	return nil
}

func (t *tx) isElsewhere(pub peer.ID, ad cid.Cid) (bool, error) {
	if t.s.elsewhere[pub] == 0 {
		return false, nil
	}
	return t.has(t.s.elsewhereKey(pub, ad))
}

func (t *tx) dropElsewhere(pub peer.ID, ad cid.Cid) error {
	known, err := t.isElsewhere(pub, ad)
	if err != nil || !known {
		return err
	}
	key := t.s.elsewhereKey(pub, ad)
	t.after(func() {
		if t.s.elsewhere[pub]--; t.s.elsewhere[pub] == 0 {
			delete(t.s.elsewhere, pub)
		}
	})
	return t.delete(key)
}
