package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/libp2p/go-libp2p/core/peer"
)

// verifier reads every row of one moment and compares those that must agree.
// What it keeps in memory does not grow with the store.
type verifier struct {
	s   *Store
	r   pebble.Reader
	bad func(key []byte, err error) error // an error of its own ends it

	counted  totals
	lastPeer uint32
	// The publisher whose rows are passed, and their number.
	publisher peer.ID
	rows      uint64
}

// verifyRows calls bad for every row, or part of the key space, that is not
// what the store writes.
func (s *Store) verifyRows(ctx context.Context, r pebble.Reader, bad func(key []byte, err error) error) error {
	v := &verifier{s: s, r: r, bad: bad}
	var t totals
	if err := loadRow(r, []byte(keyTotals), decodeTotals, &t); err == nil { // else it is reported in its turn
		v.lastPeer = t.lastPeer
	}
	for prefix := range 256 {
		if err := v.prefix(ctx, byte(prefix)); err != nil {
			return err
		}
	}
	return v.totals()
}

func (v *verifier) prefix(ctx context.Context, prefix byte) error {
	check := v.check(prefix)
	last := []byte{prefix}
	err := scan(v.r, []byte{prefix}, keyEnd([]byte{prefix}), func(k, value []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		last = append(last[:0], k...)
		err := check(k, value)
		if err == nil || errors.Is(err, errVerifyEnds) {
			return err
		}
		return v.report(k, err)
	})
	switch {
	case errors.Is(err, errVerifyEnds), ctx.Err() != nil:
		return err
	case err != nil:
		// A table that cannot be read: what is behind in this prefix is not
		// looked at.
		return v.report(last, fmt.Errorf("%w: %w", ErrCorrupt, err))
	}
	return v.endPublisher(prefix)
}

// errVerifyEnds wraps an error of bad.
var errVerifyEnds = errors.New("verification ended")

func (v *verifier) report(key []byte, err error) error {
	if err := v.bad(bytes.Clone(key), err); err != nil {
		return fmt.Errorf("%w: %w", errVerifyEnds, err)
	}
	return nil
}

func wrong(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), ErrCorrupt)
}

// check returns what looks at the rows of a prefix.
func (v *verifier) check(prefix byte) func(k, value []byte) error {
	decodes := func(decode func([]byte) error) func(k, value []byte) error {
		return func(k, value []byte) error {
			if _, err := parsePeerKey(prefix, k); err != nil {
				return err
			}
			return decode(value)
		}
	}
	switch prefix {
	case prefixAbove, prefixPending, prefixScan:
		return v.above
	case prefixAgain:
		return v.again
	case prefixTombstone:
		return v.tombstone
	case prefixContext:
		return v.context
	case prefixRecord:
		return v.record
	case prefixGeneration:
		return v.generation
	case prefixDead:
		return v.dead
	case prefixExtended:
		return v.extended
	case prefixLedger:
		return v.ledger
	case prefixCursor:
		return func(k, value []byte) error {
			_, _, err := parsePeerPosKey(prefix, k)
			if err == nil {
				_, err = decodeCursor(value)
			}
			return err
		}
	case prefixNumber:
		return v.number
	case prefixPeer:
		return func(k, value []byte) error {
			n, err := parseNumberKey(prefix, k)
			if err == nil && n > v.lastPeer {
				err = wrong("number %d was not given out", n)
			}
			if err == nil {
				_, err = decodePeer(value)
			}
			return err
		}
	case prefixRemoved:
		return func(k, _ []byte) error { _, err := parseNumberKey(prefix, k); return err }
	case prefixRenumbered:
		return decodes(func(b []byte) error { _, err := decodeNumber(b); return err })
	case prefixProgress:
		return v.counts
	case prefixProvider:
		return decodes(func(b []byte) error { _, err := decodeProvider(b); return err })
	case prefixPublisher:
		return decodes(func(b []byte) error { _, err := decodePublisher(b); return err })
	case prefixAnnounced:
		return decodes(func(b []byte) error { _, err := decodeAnnounced(b); return err })
	case prefixAssignment:
		return decodes(func(b []byte) error { _, err := decodeAssignment(b); return err })
	case prefixElsewhere:
		return func(k, _ []byte) error { _, err := parseElsewhereKey(k); return err }
	case prefixState:
		return decodes(func(b []byte) error { _, err := decodeState(b); return err })
	case prefixRevisit:
		return decodes(func(b []byte) error { _, err := decodeRevisit(b); return err })
	case prefixLeans:
		return func(k, _ []byte) error { _, _, err := parseLeansKey(k); return err }
	case prefixPlaces:
		return decodes(func(b []byte) error { _, err := decodeRuns(b); return err })
	case prefixRegistered:
		return decodes(func(b []byte) error { _, err := decodeRegistered(b); return err })
	}
	single := map[string]func(b []byte) error{
		keyFrozen: func(b []byte) error { _, err := decodeLatch(b); return err },
		keyWhy:    func(b []byte) error { _, err := decodeWhy(b); return err },
		keyLogSeq: func(b []byte) error { _, err := decodeLogSeq(b); return err },
		keyNextID: func(b []byte) error { _, err := decodeNextID(b); return err },
		keyTotals: func(b []byte) error { _, err := decodeTotals(b); return err },
		keyPolicy: checkPolicy,
	}
	return func(k, value []byte) error {
		if decode := single[string(k)]; decode != nil {
			return decode(value)
		}
		return wrong("unknown row")
	}
}

// counts: where a publisher's progress counts rows there are some. How many is
// compared when they are passed.
func (v *verifier) counts(k, value []byte) error {
	pub, err := parsePeerKey(prefixProgress, k)
	if err != nil {
		return err
	}
	w, err := decodeProgress(value)
	if err != nil {
		return err
	}
	for prefix, n := range w.rows() {
		some := false
		err := scanPrefix(v.r, peerKey(prefix, pub), func(_, _ []byte) error { some = true; return errStop })
		if err != nil {
			return err
		}
		if n > 0 && !some {
			return wrong("counts %d rows %q, there are none", n, prefix)
		}
	}
	return nil
}

// rows are the numbers of a publisher's rows by their prefix.
func (w progressRow) rows() map[byte]uint64 {
	return map[byte]uint64{prefixAbove: w.above, prefixPending: w.pending, prefixTombstone: w.tombs,
		prefixAgain: w.again, prefixScan: w.scans}
}

// count counts the rows of one publisher after the other.
func (v *verifier) count(prefix byte, pub peer.ID) error {
	if pub != v.publisher {
		if err := v.endPublisher(prefix); err != nil {
			return err
		}
		v.publisher = pub
	}
	v.rows++
	return nil
}

// endPublisher compares the number of a publisher's rows with its progress.
func (v *verifier) endPublisher(prefix byte) error {
	pub, rows := v.publisher, v.rows
	v.publisher, v.rows = "", 0
	if rows == 0 {
		return nil
	}
	w, err := v.progress(pub)
	if err != nil {
		return v.report(peerKey(prefixProgress, pub), err)
	}
	if want := w.rows()[prefix]; want != rows {
		return v.report(peerKey(prefix, pub), wrong("%d rows, progress counts %d", rows, want))
	}
	return nil
}

func (v *verifier) progress(pub peer.ID) (w progressRow, err error) {
	err = loadRow(v.r, peerKey(prefixProgress, pub), decodeProgress, &w)
	return w, err
}

// above: the row is above the mark, and counted.
func (v *verifier) above(k, value []byte) error {
	pub, pos, err := parsePeerPosKey(k[0], k)
	if err != nil {
		return err
	}
	if err := v.count(k[0], pub); err != nil {
		return err
	}
	w, err := v.progress(pub)
	if err != nil {
		return err
	}
	if pos <= w.mark.Pos {
		return wrong("position %d at or below mark %d", pos, w.mark.Pos)
	}
	switch k[0] {
	case prefixAbove:
		_, err = decodeRef(value)
	case prefixPending:
		_, err = decodeWaiting(value)
	case prefixScan:
		_, err = decodeScan(value)
	}
	return err
}

// again: the ad is not pending too.
func (v *verifier) again(k, value []byte) error {
	pub, pos, err := parsePeerPosKey(prefixAgain, k)
	if err != nil {
		return err
	}
	if err := v.count(prefixAgain, pub); err != nil {
		return err
	}
	if _, err := decodeWaiting(value); err != nil {
		return err
	}
	pending, err := has(v.r, peerPosKey(prefixPending, pub, pos))
	if err == nil && pending {
		err = wrong("is pending too")
	}
	return err
}

func (v *verifier) tombstone(k, _ []byte) error {
	pub, _, _, _, err := parseTombstoneKey(k)
	if err != nil {
		return err
	}
	return v.count(prefixTombstone, pub)
}

// context: the row of (provider, context) leads to its record.
func (v *verifier) context(k, value []byte) error {
	n, err := parseHashKey(prefixContext, k, true)
	if err != nil {
		return err
	}
	id, err := decodeID(value)
	if err != nil {
		return err
	}
	rec, ok, err := v.recordOf(id)
	if err == nil && (!ok || rec.provider != n || !bytes.Equal(v.s.recordIDKey(n, rec.ctx), k)) {
		err = wrong("leads to record %d, which is another or missing", id)
	}
	return err
}

func (v *verifier) recordOf(id uint64) (recordRow, bool, error) {
	return getRow(v.r, idKey(prefixRecord, id), func(b []byte) (recordRow, error) { return decodeRecord(id, b) })
}

// record: its context leads back to it, its generations are as it counts them,
// its peers have names.
func (v *verifier) record(k, value []byte) error {
	id, err := parseIDKey(prefixRecord, k)
	if err != nil {
		return err
	}
	if reserved, _, err := getRow(v.r, []byte(keyNextID), decodeNextID); err != nil || id >= reserved {
		return errors.Join(err, wrong("ID is not given out"))
	}
	if isForward(value) {
		return v.forward(id, value)
	}
	rec, err := decodeRecord(id, value)
	if err != nil {
		return err
	}
	if back, _, err := getRow(v.r, v.s.recordIDKey(rec.provider, rec.ctx), decodeID); err != nil || back != id {
		return errors.Join(err, wrong("its context leads to record %d", back))
	}
	others := uint64(0)
	err = scanPrefix(v.r, idKey(prefixGeneration, id), func(_, _ []byte) error { others++; return nil })
	if err != nil {
		return err
	}
	if others != rec.others || rec.empty() || rec.own.first > rec.own.max {
		return wrong("%d other generations, it counts %d; empty %v", others, rec.others, rec.empty())
	}
	if rec.own.id != 0 {
		if dead, err := has(v.r, idKey(prefixDead, id)); err != nil || dead {
			return errors.Join(err, wrong("its own generation is removed"))
		}
	}
	v.counted.postings += rec.own.postings
	if !rec.held() {
		return v.onlyRemembers(rec)
	}
	v.counted.records++
	for _, n := range []uint32{rec.provider, rec.by} {
		if _, err := v.s.peers.name(v.r, n); err != nil {
			return err
		}
	}
	return nil
}

// onlyRemembers checks that the rows which will tidy up a record without
// metadata are there.
func (v *verifier) onlyRemembers(rec recordRow) error {
	provider, err := v.s.peers.name(v.r, rec.provider)
	if err != nil {
		return err
	}
	for _, seen := range rec.seens {
		ok, err := has(v.r, tombstoneKey(seen.publisher, seen.last, provider, rec.ctx))
		if err != nil {
			return err
		}
		if ok {
			return nil
		}
	}
	if len(rec.seens) == 0 {
		return nil
	}
	// What a removed provider left goes with the sweep.
	removed, err := has(v.r, numberKey(prefixRemoved, rec.provider))
	if err == nil && !removed {
		err = wrong("tombstone nothing points to")
	}
	return err
}

func has(r pebble.Reader, key []byte) (bool, error) {
	_, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, closer.Close()
}

func (v *verifier) forward(id uint64, value []byte) error {
	recID, err := decodeForward(value)
	if err != nil {
		return err
	}
	found := false
	err = scanPrefix(v.r, idKey(prefixGeneration, recID), func(k, value []byte) error {
		_, gen, err := decodeGenerationRow(k, value)
		if err == nil && gen.id == id {
			found, err = true, errStop
		}
		return err
	})
	if err == nil && !found {
		err = wrong("leads to record %d, which has no such generation", recID)
	}
	if err != nil {
		return err
	}
	if dead, err := has(v.r, idKey(prefixDead, id)); err != nil || dead {
		return errors.Join(err, wrong("its generation is removed"))
	}
	return nil
}

func (v *verifier) generation(k, value []byte) error {
	recID, gen, err := decodeGenerationRow(k, value)
	if err != nil {
		return err
	}
	if gen.max < gen.first {
		return wrong("ends at %d, before it begins", gen.max)
	}
	v.counted.postings += gen.postings
	if _, ok, err := v.recordOf(recID); err != nil || !ok {
		return errors.Join(err, wrong("generation of record %d, which is missing", recID))
	}
	back, _, err := getRow(v.r, idKey(prefixRecord, gen.id), decodeForward)
	if err == nil && back != recID {
		err = wrong("its ID %d leads to record %d", gen.id, back)
	}
	return err
}

func (v *verifier) dead(k, value []byte) error {
	if _, err := parseIDKey(prefixDead, k); err != nil {
		return err
	}
	n, err := decodeDead(value)
	v.counted.dead += n
	return err
}

func (v *verifier) extended(k, value []byte) error {
	provider, ctx, err := parseContextKey(prefixExtended, k)
	if err != nil {
		return err
	}
	x, err := decodeExtended(value)
	if err != nil || x.held() {
		return err
	}
	for _, seen := range x.seens {
		ok, err := has(v.r, tombstoneKey(seen.publisher, seen.last, provider, ctx))
		if err != nil {
			return err
		}
		if ok {
			return nil
		}
	}
	return wrong("tombstone nothing points to")
}

func (v *verifier) ledger(k, value []byte) error {
	if _, err := parseHashKey(prefixLedger, k, false); err != nil {
		return err
	}
	w, err := decodeLedger(value)
	if err == nil {
		_, err = v.s.peers.name(v.r, w.publisher)
	}
	return err
}

func (v *verifier) number(k, value []byte) error {
	p, err := parsePeerKey(prefixNumber, k)
	if err != nil {
		return err
	}
	n, err := decodeNumber(value)
	if err != nil {
		return err
	}
	name, ok, err := getRow(v.r, numberKey(prefixPeer, n), decodePeer)
	if err == nil && (!ok || name != p) {
		err = wrong("number %d is that of %q", n, string(name))
	}
	return err
}

// totals compares the counts with what was counted.
func (v *verifier) totals() error {
	var t totals
	if err := loadRow(v.r, []byte(keyTotals), decodeTotals, &t); err != nil {
		return v.report([]byte(keyTotals), err)
	}
	t.lastPeer = 0
	if t != v.counted {
		return v.report([]byte(keyTotals), wrong("counts are %+v, rows say %+v", t, v.counted))
	}
	return nil
}
