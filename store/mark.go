package store

import (
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// The contiguous mark of a publisher is its newest ad with nothing undone at
// or below it. Ads done above it, ads known and not done, and walks that have
// not come to an end are rows of their own above the mark; when the mark moves
// over them they go.
//
//	 pos  1  2  3  4  5  6  7  8
//	      ✓  ✓  ✓  ·  ✓  ✓  ·  ✓      ✓ done   · pending
//	            ▲     └──┴─────┴── above rows: 5 6 8
//	           mark      pending rows: 4 7
//
// Invariants: every above, pending and scan row has pos > mark.pos; above,
// pending and scans in the progress row are the numbers of those rows.
//
// One change moves the mark over so many rows at most (Config.moveRows), as all
// other changes wait for it: ten million ads may be done above one that was
// not. A mark on its way is a mark like any other. The rest is done by further
// changes in the background, also after a restart.

// moveRows is the default of Config.moveRows.
const moveRows = 4096

// follows decides whether ad is next after the mark: its Prev is the mark; or
// it starts a chain where there was none; or it starts a new chain above the
// mark and nothing between is pending or still to be found.
func (t *tx) follows(pub peer.ID, ad AdRef) (bool, error) {
	w := t.peek(pub)
	if ad.Prev.Defined() {
		return w.mark.Ad.Defined() && ad.Prev.Equals(w.mark.Ad), nil
	}
	if !w.mark.Ad.Defined() {
		return true, nil
	}
	if ad.Pos <= w.mark.Pos {
		return false, nil
	}
	for prefix, n := range map[byte]uint64{prefixPending: w.pending, prefixScan: w.scans} {
		if n == 0 {
			continue
		}
		free := true
		err := scan(t.b, peerPosKey(prefix, pub, w.mark.Pos+1), peerPosKey(prefix, pub, ad.Pos), func(_, _ []byte) error {
			free = false
			return errStop
		})
		if err != nil || !free {
			return false, err
		}
	}
	return true, nil
}

// done records that an ad of pub is done and moves the mark as far as it goes.
// It tells whether the ad was done before.
func (t *tx) done(pub peer.ID, ad AdRef, now time.Time) (before bool, err error) {
	w := t.progress(pub)
	if ad.Pos <= w.mark.Pos {
		return true, nil
	}
	next, err := t.follows(pub, ad)
	if err != nil {
		return false, err
	}
	if next {
		w.height++
		t.passes(pub, w.mark, ad)
		return false, t.moveMark(pub, ad, now)
	}
	key := peerPosKey(prefixPending, pub, ad.Pos)
	if w.pending > 0 {
		pending, ok, err := getRow(t.b, key, decodeWaiting)
		if err != nil {
			return false, err
		}
		if ok && pending.ad.Equals(ad.Ad) {
			w.pending--
			if err := t.delete(key); err != nil {
				return false, err
			}
		}
	}
	key = peerPosKey(prefixAbove, pub, ad.Pos)
	if w.above > 0 {
		if before, err = t.has(key); err != nil {
			return false, err
		}
	}
	if !before {
		w.above++
	}
	return before, t.set(key, refRow{ad.Ad, ad.Prev}.encode())
}

// moveMark sets the mark to ad and moves it on over ads already done that
// follow, or leaves some of that to the mover. Rows the mark has passed are
// dropped.
func (t *tx) moveMark(pub peer.ID, ad AdRef, now time.Time) error {
	w := t.progress(pub)
	from := w.mark.Pos
	w.mark, w.markTime = ad, now
	if err := t.follow(pub, from); err != nil {
		return err
	}
	return t.dropPassed(pub, from)
}

// follow moves the mark on over ads already done, and drops the above rows it
// has passed. Those at or below from are gone.
func (t *tx) follow(pub peer.ID, from Position) error {
	w := t.progress(pub)
	if w.above == 0 {
		return nil
	}
	var passed passedRows
	moved := 0
	start := peerPosKey(prefixAbove, pub, from+1)
	err := scan(t.b, start, keyEnd(peerKey(prefixAbove, pub)), func(k, v []byte) error {
		ref, err := decodeRefRow(prefixAbove, k, v)
		if err != nil {
			return err
		}
		if ref.Pos > w.mark.Pos {
			next, err := t.follows(pub, ref)
			if err != nil {
				return err
			}
			if !next {
				return errStop
			}
			if moved++; moved > t.s.cfg.moveRows {
				t.after(func() { t.s.moveOn(pub) })
				return errStop
			}
			t.passes(pub, w.mark, ref)
			w.mark = ref
			w.height++
		}
		passed.add(k)
		return nil
	})
	if err != nil {
		return err
	}
	return t.drop(passed, start, keyEnd(peerPosKey(prefixAbove, pub, w.mark.Pos)), &w.above)
}

// dropPassed drops the pending ads and walks the mark has passed on its way
// from a position.
func (t *tx) dropPassed(pub peer.ID, from Position) error {
	w := t.progress(pub)
	if err := t.dropRows(prefixPending, pub, from, w.mark.Pos, &w.pending); err != nil {
		return err
	}
	return t.dropRows(prefixScan, pub, from, w.mark.Pos, &w.scans)
}

// dropRows deletes the rows of pub with from < pos ≤ to and takes them off
// count. It starts at the old mark, not at the first key: before it there are
// only deleted rows, which are slow to pass.
func (t *tx) dropRows(prefix byte, pub peer.ID, from, to Position, count *uint64) error {
	if *count == 0 || to <= from {
		return nil
	}
	var rows passedRows
	start, end := peerPosKey(prefix, pub, from+1), keyEnd(peerPosKey(prefix, pub, to))
	if err := scan(t.b, start, end, func(k, _ []byte) error { rows.add(k); return nil }); err != nil {
		return err
	}
	return t.drop(rows, start, end, count)
}

// passedRows are the rows in a range of keys: all, if they are few.
type passedRows struct {
	n    uint64
	keys [][]byte
}

const fewRows = 256

func (p *passedRows) add(k []byte) {
	if p.n++; p.n <= fewRows {
		p.keys = append(p.keys, slices.Clone(k))
	}
}

// drop deletes the rows of a range of keys and takes them off count.
func (t *tx) drop(rows passedRows, start, end []byte, count *uint64) error {
	if rows.n > *count {
		return fmt.Errorf("%d rows from %q, counted %d: %w", rows.n, start, *count, ErrCorrupt)
	}
	*count -= rows.n
	if rows.n > fewRows {
		return t.b.DeleteRange(start, end, nil)
	}
	for _, k := range rows.keys {
		if err := t.delete(k); err != nil {
			return err
		}
	}
	return nil
}

// SetMark declares mark and everything older of the publisher as done,
// whatever was applied; pending ads and walks at or below it are dropped, and
// the mark moves on over ads above that follow and are done. What was noted to
// be applied again stays. An undefined mark.Ad takes the mark away. It may also
// move the mark back. After an error or a crash the mark may be at an ad
// between.
func (s *Store) SetMark(publisher peer.ID, mark AdRef) error {
	if err := s.enterWrite(); err != nil {
		return err
	}
	defer s.exit()
	if err := checkMark(publisher, mark); err != nil {
		return err
	}
	for set := false; !set; {
		_, err := s.update(func(t *tx) (err error) {
			if set, err = t.nearMark(publisher, mark); err == nil && set {
				err = t.setMark(publisher, mark)
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("set mark of %s to %s: %w", publisher, mark.Ad, err)
		}
	}
	return nil
}

// nearMark brings the mark so near to where it is to be set that not many rows
// are to be dropped, or at least nearer.
func (t *tx) nearMark(pub peer.ID, mark AdRef) (near bool, err error) {
	w, limit := t.peek(pub), t.s.cfg.moveRows
	if w.above+w.pending <= uint64(limit) || mark.Pos <= w.mark.Pos {
		return true, nil
	}
	// The lowest ad that has so many rows of its kind below it.
	step := mark
	for _, prefix := range []byte{prefixAbove, prefixPending} {
		n := 0
		err := scan(t.b, peerPosKey(prefix, pub, w.mark.Pos+1), peerPosKey(prefix, pub, step.Pos), func(k, v []byte) (err error) {
			if n++; n < limit {
				return nil
			}
			if step, err = decodeRefRow(prefix, k, v); err == nil {
				err = errStop
			}
			return err
		})
		if err != nil {
			return false, err
		}
	}
	if step == mark {
		return true, nil
	}
	t.jumps(pub, step)
	p := t.progress(pub)
	from := p.mark.Pos
	p.mark, p.markTime = step, time.Now()
	if err := t.dropRows(prefixAbove, pub, from, step.Pos, &p.above); err != nil {
		return false, err
	}
	return false, t.dropPassed(pub, from)
}

func checkMark(publisher peer.ID, mark AdRef) error {
	if err := checkPeer("publisher", publisher); err != nil {
		return err
	}
	if !mark.Ad.Defined() {
		if mark != (AdRef{}) {
			return fmt.Errorf("mark at %d without ad: %w", mark.Pos, ErrInvalid)
		}
		return nil
	}
	return checkRef(mark)
}

func (t *tx) setMark(pub peer.ID, mark AdRef) error {
	t.jumps(pub, mark)
	w := t.progress(pub)
	if !mark.Ad.Defined() {
		w.mark, w.markTime, w.height = AdRef{}, time.Time{}, 0
		return nil
	}
	if mark.Pos > w.mark.Pos {
		w.height++ // what lies between is not counted: nobody has seen it
	}
	if err := t.moveMark(pub, mark, time.Now()); err != nil {
		return err
	}
	if err := t.ledgerIfUnknown(pub, mark, MarkedDone); err != nil {
		return err
	}
	if err := t.dropCursors(pub, mark.Pos); err != nil {
		return err
	}
	return t.sweep(pub)
}
