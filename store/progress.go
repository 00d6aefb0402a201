package store

import (
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/libp2p/go-libp2p/core/peer"
)

// The contiguous mark of a publisher is its newest ad with nothing undone at
// or below it. Ads done above it, and ads known and not done, are rows of
// their own above the mark; when the mark moves over them they go.
//
//	 pos  1  2  3  4  5  6  7  8
//	      ✓  ✓  ✓  ·  ✓  ✓  ·  ✓      ✓ done   · pending
//	            ▲     └──┴─────┴── above rows: 5 6 8
//	           mark      pending rows: 4 7
//
// Invariants: every above and pending row has pos > mark.pos; above and
// pending in the progress row are the numbers of those rows.

// follows decides whether ad is next after the mark: its Prev is the mark; or
// it starts a chain where there was none; or it starts a new chain above the
// mark and nothing between is pending.
func (t *tx) follows(pub peer.ID, ad AdRef) (bool, error) {
	w := t.peek(pub)
	if ad.Prev.Defined() {
		return w.mark.Ad.Defined() && ad.Prev.Equals(w.mark.Ad), nil
	}
	if !w.mark.Ad.Defined() {
		return true, nil
	}
	if ad.Pos <= w.mark.Pos || w.pending == 0 {
		return ad.Pos > w.mark.Pos, nil
	}
	free := true
	err := scan(t.b, peerPosKey(prefixPending, pub, w.mark.Pos+1), peerPosKey(prefixPending, pub, ad.Pos), func(_, _ []byte) error {
		free = false
		return errStop
	})
	return free, err
}

// done records that an ad of pub is done and moves the mark as far as it goes.
func (t *tx) done(pub peer.ID, ad AdRef, now time.Time) error {
	w := t.progress(pub)
	if ad.Pos <= w.mark.Pos {
		return nil
	}
	next, err := t.follows(pub, ad)
	if err != nil {
		return err
	}
	if next {
		return t.moveMark(pub, ad, now)
	}
	key := peerPosKey(prefixPending, pub, ad.Pos)
	pending, ok, err := getRow(t.b, key, decodeRef)
	if err != nil {
		return err
	}
	if ok && pending.ad.Equals(ad.Ad) {
		w.pending--
		if err := t.delete(key); err != nil {
			return err
		}
	}
	key = peerPosKey(prefixAbove, pub, ad.Pos)
	known, err := t.has(key)
	if err != nil {
		return err
	}
	if !known {
		w.above++
	}
	return t.set(key, refRow{ad.Ad, ad.Prev}.encode())
}

// moveMark sets the mark to ad and moves it on over ads already done that
// follow. Rows the mark has passed are dropped.
func (t *tx) moveMark(pub peer.ID, ad AdRef, now time.Time) error {
	w := t.progress(pub)
	from := w.mark.Pos
	w.mark, w.markTime = ad, now
	if w.above > 0 {
		err := scan(t.b, peerPosKey(prefixAbove, pub, from+1), keyEnd(peerKey(prefixAbove, pub)), func(k, v []byte) error {
			ref, err := decodeRefRow(prefixAbove, k, v)
			if err != nil || ref.Pos <= w.mark.Pos {
				return err
			}
			next, err := t.follows(pub, ref)
			if err == nil && !next {
				err = errStop
			}
			if err == nil {
				w.mark = ref
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	if err := t.dropRows(prefixAbove, pub, from, w.mark.Pos, &w.above); err != nil {
		return err
	}
	return t.dropRows(prefixPending, pub, from, w.mark.Pos, &w.pending)
}

// dropRows deletes the rows of pub with from < pos ≤ to and takes them off
// count. It starts at the old mark, not at the first key: before it there are
// only deleted rows, which are slow to pass.
func (t *tx) dropRows(prefix byte, pub peer.ID, from, to Position, count *uint64) error {
	if *count == 0 || to <= from {
		return nil
	}
	const few = 256
	start, end := peerPosKey(prefix, pub, from+1), keyEnd(peerPosKey(prefix, pub, to))
	var keys [][]byte
	n := uint64(0)
	err := scan(t.b, start, end, func(k, _ []byte) error {
		if n++; n <= few {
			keys = append(keys, append([]byte(nil), k...))
		}
		return nil
	})
	if err != nil {
		return err
	}
	if n > *count {
		return fmt.Errorf("%d rows from %q, counted %d: %w", n, start, *count, ErrCorrupt)
	}
	*count -= n
	if n > few {
		return t.b.DeleteRange(start, end, nil)
	}
	for _, k := range keys {
		if err := t.delete(k); err != nil {
			return err
		}
	}
	return nil
}

func decodeRefRow(prefix byte, k, v []byte) (AdRef, error) {
	_, pos, err := parsePeerPosKey(prefix, k)
	if err != nil {
		return AdRef{}, err
	}
	row, err := decodeRef(v)
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

// pendingChunk is how many ads AddPending writes at a time, so that commits
// get their turn.
const pendingChunk = 1000

// AddPending remembers ads that were scanned and are not applied yet. Ads at
// or below the mark and ads already done are passed over; repeating it
// changes nothing. Commit and SetMark remove them.
func (s *Store) AddPending(publisher peer.ID, ads []AdRef) error {
	if err := s.enterWrite(); err != nil {
		return err
	}
	defer s.exit()
	if err := checkPeer("publisher", publisher); err != nil {
		return err
	}
	for _, ad := range ads {
		if err := checkRef(ad); err != nil {
			return err
		}
	}
	for len(ads) > 0 {
		n := min(len(ads), pendingChunk)
		if _, err := s.update(func(t *tx) error { return t.addPending(publisher, ads[:n]) }); err != nil {
			return fmt.Errorf("add pending ads of %s: %w", publisher, err)
		}
		ads = ads[n:]
	}
	return nil
}

func (t *tx) addPending(pub peer.ID, ads []AdRef) error {
	w := t.progress(pub)
	for _, ad := range ads {
		if ad.Pos <= w.mark.Pos {
			continue
		}
		if above, ok, err := getRow(t.b, peerPosKey(prefixAbove, pub, ad.Pos), decodeRef); err != nil {
			return err
		} else if ok && above.ad.Equals(ad.Ad) {
			continue
		}
		key := peerPosKey(prefixPending, pub, ad.Pos)
		known, err := t.has(key)
		if err != nil {
			return err
		}
		if !known {
			w.pending++
		}
		if err := t.set(key, refRow{ad.Ad, ad.Prev}.encode()); err != nil {
			return err
		}
		if err := t.ledgerIfUnknown(pub, ad, Pending); err != nil {
			return err
		}
	}
	return nil
}

// NextPending returns up to limit pending ads of a publisher with a position
// above after and above the mark, ascending.
func (s *Store) NextPending(publisher peer.ID, after Position, limit int) ([]AdRef, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.exit()
	s.view.RLock()
	after = max(after, s.publisher(publisher).progress.mark.Pos)
	s.view.RUnlock()
	refs, err := listRefs(s.db, prefixPending, publisher, after, limit)
	if err != nil {
		return nil, fmt.Errorf("list pending ads of %s: %w", publisher, err)
	}
	return refs, nil
}

func listRefs(r pebble.Reader, prefix byte, pub peer.ID, after Position, limit int) ([]AdRef, error) {
	var refs []AdRef
	if limit <= 0 || after >= MaxPosition {
		return nil, nil
	}
	err := scan(r, peerPosKey(prefix, pub, after+1), keyEnd(peerKey(prefix, pub)), func(k, v []byte) error {
		ref, err := decodeRefRow(prefix, k, v)
		if err != nil {
			return err
		}
		if refs = append(refs, ref); len(refs) == limit {
			return errStop
		}
		return nil
	})
	return refs, err
}

// SetMark declares mark and everything older of the publisher as done,
// whatever was applied; pending ads at or below it are dropped, and the mark
// moves on over ads above that follow and are done. An undefined mark.Ad
// takes the mark away. It may also move the mark back.
func (s *Store) SetMark(publisher peer.ID, mark AdRef) error {
	if err := s.enterWrite(); err != nil {
		return err
	}
	defer s.exit()
	if err := checkMark(publisher, mark); err != nil {
		return err
	}
	if _, err := s.update(func(t *tx) error { return t.setMark(publisher, mark) }); err != nil {
		return fmt.Errorf("set mark of %s to %s: %w", publisher, mark.Ad, err)
	}
	return nil
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
	if !mark.Ad.Defined() {
		w := t.progress(pub)
		w.mark, w.markTime = AdRef{}, time.Time{}
		return nil
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
