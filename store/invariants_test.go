package store

import (
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"
)

// checkInvariants reads every row and compares those that must agree.
func checkInvariants(s *Store) error {
	snap := s.db.NewSnapshot()
	defer snap.Close()

	type gen struct {
		provider peer.ID
		ctx      string
	}
	var (
		owners   = make(map[uint64]gen)
		gens     = make(map[uint64]gen)
		progress = make(map[peer.ID]progressRow)
		above    = make(map[peer.ID]uint64)
		pending  = make(map[peer.ID]uint64)
		tombs    = make(map[peer.ID]uint64)
		pointed  = make(map[string]bool)
		want     totals
		have     totals
		reserved uint64 = 1
	)
	if err := loadRow(snap, []byte(keyTotals), decodeTotals, &have); err != nil {
		return err
	}
	if err := loadRow(snap, []byte(keyNextID), decodeNextID, &reserved); err != nil {
		return err
	}
	bad := func(k []byte, format string, args ...any) error {
		return fmt.Errorf("row %q: %s", k, fmt.Sprintf(format, args...))
	}
	ref := func(k, v []byte, count map[peer.ID]uint64) error {
		pub, pos, err := parsePeerPosKey(k[0], k)
		if err != nil {
			return err
		}
		count[pub]++
		if mark := progress[pub].mark.Pos; pos <= mark {
			return bad(k, "pos %d at or below mark %d", pos, mark)
		}
		_, err = decodeRef(v)
		return err
	}
	check := map[byte]func(k, v []byte) error{
		prefixProgress: func(k, v []byte) error {
			pub, err := parsePeerKey(prefixProgress, k)
			if err != nil {
				return err
			}
			progress[pub], err = decodeProgress(v)
			return err
		},
		prefixAbove:   func(k, v []byte) error { return ref(k, v, above) },
		prefixPending: func(k, v []byte) error { return ref(k, v, pending) },
		prefixTombstone: func(k, _ []byte) error {
			pub, _, provider, ctx, err := parseTombstoneKey(k)
			tombs[pub]++
			pointed[string(contextKey(0, provider, ctx))] = true
			return err
		},
		prefixOwner: func(k, v []byte) error {
			r := keyReader(prefixOwner, k)
			id := r.uint64()
			if err := r.done("key"); err != nil {
				return err
			}
			o, err := decodeOwner(v)
			owners[id] = gen{o.provider, string(o.ctx)}
			if id >= reserved {
				return bad(k, "ID %d not reserved", id)
			}
			return err
		},
		prefixGeneration: func(k, v []byte) error {
			provider, ctx, _, first, err := parseGenerationKey(k)
			if err != nil {
				return err
			}
			g, err := decodeGeneration(v)
			if err != nil {
				return err
			}
			if _, twice := gens[g.id]; twice || g.max < first {
				return bad(k, "ID %d twice, or max %d < first %d", g.id, g.max, first)
			}
			gens[g.id] = gen{provider, string(ctx)}
			want.postings += g.postings
			return nil
		},
		prefixRecord: func(k, v []byte) error {
			rec, err := decodeRecord(v)
			if err != nil {
				return err
			}
			if rec.held() {
				want.records++
			} else if len(rec.seens) == 0 || !pointed[string(append([]byte{0}, k[1:]...))] {
				return bad(k, "tombstone nothing points to")
			}
			return nil
		},
		prefixExtended: func(k, v []byte) error {
			x, err := decodeExtended(v)
			if err == nil && !x.held() && !pointed[string(append([]byte{0}, k[1:]...))] {
				return bad(k, "tombstone nothing points to")
			}
			return err
		},
		prefixProvider:   func(_, v []byte) error { _, err := decodeProvider(v); return err },
		prefixPublisher:  func(_, v []byte) error { _, err := decodePublisher(v); return err },
		prefixLedger:     func(_, v []byte) error { _, err := decodeLedger(v); return err },
		prefixAssignment: func(_, v []byte) error { _, err := decodeAssignment(v); return err },
		keyFrozen[0]:     func(_, v []byte) error { _, err := decodeLatch(v); return err },
		keyLogSeq[0]:     func(_, v []byte) error { _, err := decodeLogSeq(v); return err },
		keyNextID[0]:     func(_, _ []byte) error { return nil },
		keyTotals[0]:     func(_, _ []byte) error { return nil },
	}
	for _, first := range []byte{prefixProgress, prefixTombstone} { // others compare with these
		if err := scanPrefix(snap, []byte{first}, check[first]); err != nil {
			return err
		}
	}
	clear(tombs)
	err := scan(snap, []byte{0}, []byte{0xff}, func(k, v []byte) error {
		f := check[k[0]]
		if f == nil {
			return bad(k, "unknown prefix")
		}
		return f(k, v)
	})
	if err != nil {
		return err
	}
	for id, g := range gens {
		if owners[id] != g {
			return fmt.Errorf("generation %d of %v is owned by %v", id, g, owners[id])
		}
	}
	if len(owners) != len(gens) {
		return fmt.Errorf("%d owners of %d generations", len(owners), len(gens))
	}
	if want != have {
		return fmt.Errorf("totals are %+v, rows say %+v", have, want)
	}
	for pub, p := range progress {
		if p.above != above[pub] || p.pending != pending[pub] || p.tombs != tombs[pub] {
			return fmt.Errorf("publisher %q counts %+v, rows: above %d pending %d tombs %d", string(pub), p, above[pub], pending[pub], tombs[pub])
		}
	}
	return nil
}
