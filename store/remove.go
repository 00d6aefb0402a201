package store

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
)

// RemoveProvider removes a provider: its registry entry, its extended
// providers and all its records, as of now, in the same time however many
// there are. What they took on disk comes back in the background. Progress of
// publishers and the ledger stay, so what was applied does not come back by
// itself; ads applied from now on, also again, begin anew. It is durable when
// RemoveProvider returns nil. known is false if nothing was stored of it.
func (s *Store) RemoveProvider(provider peer.ID) (known bool, err error) {
	if err := s.enterWrite(); err != nil {
		return false, err
	}
	defer s.exit()
	if err := checkPeer("provider", provider); err != nil {
		return false, err
	}
	s.admin.Lock()
	defer s.admin.Unlock()
	_, err = s.update(func(t *tx) (err error) {
		known, err = t.removeProvider(provider)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("remove provider %s: %w", provider, err)
	}
	if err := s.syncWrites("remove provider"); err != nil {
		return false, err
	}
	s.wakeReclaim()
	return known, nil
}

func (t *tx) removeProvider(p peer.ID) (known bool, err error) {
	if known, err = t.has(peerKey(prefixProvider, p)); err != nil {
		return false, err
	}
	if err := t.delete(peerKey(prefixProvider, p)); err != nil {
		return false, err
	}
	ext := peerKey(prefixExtended, p)
	if err := t.b.DeleteRange(ext, keyEnd(ext), nil); err != nil {
		return false, err
	}
	n, err := t.providerNumber(p)
	if err != nil || n == 0 {
		return known, err
	}
	holds := false
	prefix := numberKey(prefixContext, n)
	if err := scanPrefix(t.b, prefix, func(_, _ []byte) error { holds = true; return errStop }); err != nil || !holds {
		return known, err
	}
	next, err := t.newNumber(p)
	if err != nil {
		return false, err
	}
	t.after(func() {
		t.s.peers.providers.Add(p, next)
		t.s.peers.setRemoved(n, true)
	})
	if err := t.set(peerKey(prefixRenumbered, p), appendNumber(next)); err != nil {
		return false, err
	}
	return true, t.set(numberKey(prefixRemoved, n), nil)
}

// sweepRecords bounds the records one change sweeps, so that commits get
// their turn.
const sweepRecords = 256

// sweepRemoved deletes the rows of removed providers, and with that marks the
// postings of their records as garbage.
func (s *Store) sweepRemoved(ctx context.Context) error {
	for n := range *s.peers.removed.Load() {
		for done := false; !done; {
			if err := errors.Join(ctx.Err(), s.disk.err()); err != nil {
				return err
			}
			_, err := s.update(func(t *tx) (err error) {
				done, err = t.sweepProvider(n)
				return err
			})
			if err != nil {
				return fmt.Errorf("sweep removed provider: %w", err)
			}
		}
	}
	return nil
}

// sweepProvider deletes some records of a provider number and tells whether
// these were the last.
func (t *tx) sweepProvider(n uint32) (done bool, err error) {
	type row struct {
		key []byte
		id  uint64
	}
	var rows []row
	err = scanPrefix(t.b, numberKey(prefixContext, n), func(k, v []byte) error {
		id, err := decodeID(v)
		if rows = append(rows, row{slices.Clone(k), id}); err == nil && len(rows) == sweepRecords {
			err = errStop
		}
		return err
	})
	if err != nil {
		return false, err
	}
	for _, row := range rows {
		if err := t.sweepRecord(row.id); err != nil {
			return false, err
		}
		if err := t.delete(row.key); err != nil {
			return false, err
		}
	}
	if len(rows) == sweepRecords {
		return false, nil
	}
	t.after(func() { t.s.peers.setRemoved(n, false) })
	return true, t.delete(numberKey(prefixRemoved, n))
}

func (t *tx) sweepRecord(id uint64) error {
	rec, ok, err := t.recordOf(id)
	if err != nil || !ok {
		return err
	}
	var gens []generation
	if err := t.generations(id, rec, func(g generation) error { gens = append(gens, g); return nil }); err != nil {
		return err
	}
	for _, g := range gens {
		if err := t.endGeneration(id, &rec, g); err != nil {
			return err
		}
	}
	if rec.held() {
		t.totals.records -= min(1, t.totals.records)
	}
	return t.delete(idKey(prefixRecord, id))
}
