package store

import (
	"fmt"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
)

// A large ad is not begun from its start again after a crash: with its Puts
// its writer leaves cursors, rows that say up to where the entries are put.
// The log has them in the order they were made, so a cursor never stands
// without the postings before it. There is one row an ad in work.

// MaxCursorBytes bounds a cursor.
const MaxCursorBytes = 512

// PutTo is Put that also remembers cursor, which the caller can read as it
// likes: when the ad is begun again after an error or a crash, Resume returns
// the cursor of the last PutTo that survived, and only what comes after it has
// to be put.
func (w *AdWriter) PutTo(mhs []multihash.Multihash, cursor []byte) error {
	if len(cursor) > MaxCursorBytes {
		return fmt.Errorf("cursor of %d bytes: %w", len(cursor), ErrInvalid)
	}
	if err := w.Put(mhs); err != nil || w.id == 0 {
		return err
	}
	if err := w.enter(); err != nil {
		return err
	}
	defer w.s.exit()
	row := cursorRow{ad: w.ad.Ad, id: w.id, first: w.min, puts: w.puts, cursor: cursor}
	_, err := w.s.update(func(t *tx) error {
		key := peerPosKey(prefixCursor, w.ad.Publisher, w.ad.Pos)
		known, err := t.has(key)
		if err != nil {
			return err
		}
		if !known {
			t.after(func() { t.s.cursors++ })
		}
		return t.set(key, row.encode())
	})
	if err != nil {
		return fmt.Errorf("remember how far ad %s is put: %w", w.ad.Ad, err)
	}
	return nil
}

// Resume returns the cursor an earlier attempt at this ad left, and takes what
// was put before it as put by this writer; nil if there is none, or if a
// removal has taken what was put. It is called before the first Put.
func (w *AdWriter) Resume() (cursor []byte, err error) {
	if w.ended || w.prepared {
		return nil, errEnded
	}
	if err := w.enter(); err != nil {
		return nil, err
	}
	defer w.s.exit()
	if checkRecord(w.ad) != nil {
		return nil, nil
	}
	err = w.s.look(func(t *tx) (err error) {
		cursor, err = t.resume(w)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("resume ad %s: %w", w.ad.Ad, err)
	}
	return cursor, nil
}

func (t *tx) resume(w *AdWriter) ([]byte, error) {
	row, ok, err := getRow(t.b, peerPosKey(prefixCursor, w.ad.Publisher, w.ad.Pos), decodeCursor)
	if err != nil || !ok || !row.ad.Equals(w.ad.Ad) {
		return nil, err
	}
	id, rec, err := t.record(w.ad.Provider, w.ad.ContextID)
	if err != nil || id == 0 {
		return nil, err
	}
	pub, err := t.number(w.ad.Publisher)
	if err != nil {
		return nil, err
	}
	gen, ok, err := t.generation(id, rec, pub, row.first)
	if err != nil || !ok || gen.id != row.id || gen.max < w.ad.Pos {
		return nil, err
	}
	w.prepared, w.id, w.min, w.puts = true, row.id, row.first, row.puts
	return slices.Clone(row.cursor), nil
}

// dropCursor forgets how far an ad was put.
func (t *tx) dropCursor(pub peer.ID, pos Position) error {
	if t.s.cursors == 0 { // as with small ads
		return nil
	}
	key := peerPosKey(prefixCursor, pub, pos)
	ok, err := t.has(key)
	if err != nil || !ok {
		return err
	}
	t.after(func() { t.s.cursors-- })
	return t.delete(key)
}

// dropCursors forgets how far the ads of a publisher up to a position were put.
func (t *tx) dropCursors(pub peer.ID, to Position) error {
	var keys [][]byte
	err := scan(t.b, peerKey(prefixCursor, pub), keyEnd(peerPosKey(prefixCursor, pub, to)), func(k, _ []byte) error {
		keys = append(keys, slices.Clone(k))
		return nil
	})
	t.after(func() { t.s.cursors -= len(keys) })
	for _, k := range keys {
		if err == nil {
			err = t.delete(k)
		}
	}
	return err
}

// loadCursors counts the rows.
func (s *Store) loadCursors() error {
	s.cursors = 0
	return scanPrefix(s.db, []byte{prefixCursor}, func(_, _ []byte) error { s.cursors++; return nil })
}
