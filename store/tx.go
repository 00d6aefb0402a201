package store

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/libp2p/go-libp2p/core/peer"
)

// tx is one change of rows: it reads its own writes and is applied as one
// atomic batch. It exists only while mu is held.
type tx struct {
	s       *Store
	b       *pebble.Batch
	ids     idAllocator
	totals  totals
	changed map[peer.ID]*progressRow
	runsOf  map[peer.ID]runs // of those whose runs change
	applied []func()         // what to do in memory once it is applied
	dead    []uint64         // record IDs it removes
}

// update runs fn and applies what it did as one batch, unless fn returns an
// error. It returns the commit's number. The result is visible at once and
// durable with the next sync.
func (s *Store) update(fn func(*tx) error) (Seq, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.disk.err(); err != nil {
		return 0, err // nothing may begin after rest
	}
	t := &tx{s: s, b: s.db.NewIndexedBatch(), ids: s.ids, totals: s.totals}
	err := fn(t)
	if err == nil {
		err = t.finish()
	}
	if err != nil {
		return 0, errors.Join(err, t.b.Close())
	}
	if err := s.apply(t.b); err != nil {
		return 0, err
	}
	s.ids, s.totals = t.ids, t.totals
	s.view.Lock()
	s.shown = t.totals
	for _, f := range t.applied {
		f()
	}
	s.view.Unlock()
	s.changes.Add(1)
	return s.syncer.committed(t.dead), nil
}

// look runs fn, which only reads, on what is committed. What fn would have done
// when applied is not done.
func (s *Store) look(fn func(*tx) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &tx{s: s, b: s.db.NewIndexedBatch()}
	return errors.Join(fn(t), t.b.Close())
}

// finish writes the rows that change with many others.
func (t *tx) finish() error {
	for id, w := range t.changed {
		if err := t.set(peerKey(prefixProgress, id), w.encode()); err != nil {
			return err
		}
		t.after(func() {
			p := t.s.publisher(id)
			p.progress = *w
			t.s.publishers[id] = p
		})
	}
	if err := t.finishRuns(); err != nil {
		return err
	}
	if t.totals == t.s.totals {
		return nil
	}
	return t.set([]byte(keyTotals), t.totals.encode())
}

// peek returns a publisher's progress as this change leaves it so far.
func (t *tx) peek(id peer.ID) progressRow {
	if w := t.changed[id]; w != nil {
		return *w
	}
	if p := t.s.publishers[id]; p != nil {
		return p.progress
	}
	return progressRow{}
}

// progress returns a publisher's progress to be changed; it is written at the
// end.
func (t *tx) progress(id peer.ID) *progressRow {
	w := t.changed[id]
	if w == nil {
		row := t.peek(id)
		w = &row
		if t.changed == nil {
			t.changed = make(map[peer.ID]*progressRow)
		}
		t.changed[id] = w
	}
	return w
}

// apply logs and writes a batch and closes it. A failed disk shows here at the
// latest with the next batch. The caller holds mu.
func (s *Store) apply(b *pebble.Batch) error {
	n := b.Len()
	err := s.logRows(b)
	if cerr := b.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = s.disk.err()
	}
	if err != nil {
		return fmt.Errorf("write batch: %w", err)
	}
	s.syncer.wrote(n)
	return nil
}

// after has f run once the change is applied.
func (t *tx) after(f func()) { t.applied = append(t.applied, f) }

func (t *tx) set(key, value []byte) error { return t.b.Set(key, value, nil) }
func (t *tx) delete(key []byte) error     { return t.b.Delete(key, nil) }

func (t *tx) has(key []byte) (bool, error) {
	_, closer, err := t.b.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, closer.Close()
}

// getRow reads and decodes one row.
func getRow[T any](r pebble.Reader, key []byte, decode func([]byte) (T, error)) (row T, ok bool, err error) {
	value, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return row, false, nil
	}
	if err != nil {
		return row, false, err
	}
	row, err = decode(value)
	if err != nil {
		err = fmt.Errorf("row %q: %w", key, err)
	}
	return row, err == nil, errors.Join(err, closer.Close())
}

// loadRow is getRow for a row whose absence is its zero value.
func loadRow[T any](r pebble.Reader, key []byte, decode func([]byte) (T, error), row *T) error {
	v, ok, err := getRow(r, key, decode)
	if ok {
		*row = v
	}
	return err
}

func bounds(start, end []byte) *pebble.IterOptions {
	return &pebble.IterOptions{LowerBound: start, UpperBound: end}
}

// errStop ends a scan early without being an error.
var errStop = errors.New("stop")

// scan calls fn for the rows with start ≤ key < end, in order. Key and value
// are valid during the call; fn returns errStop to end.
func scan(r pebble.Reader, start, end []byte, fn func(key, value []byte) error) error {
	it, err := r.NewIter(bounds(start, end))
	if err != nil {
		return err
	}
	for valid := it.First(); valid && err == nil; valid = it.Next() {
		var value []byte
		if value, err = it.ValueAndErr(); err == nil {
			err = fn(it.Key(), value)
		}
	}
	if errors.Is(err, errStop) {
		return it.Close()
	}
	return errors.Join(err, it.Close())
}

func scanPrefix(r pebble.Reader, prefix []byte, fn func(key, value []byte) error) error {
	return scan(r, prefix, keyEnd(prefix), fn)
}

// scanBack is scan from the last row to the first.
func scanBack(r pebble.Reader, start, end []byte, fn func(key, value []byte) error) error {
	it, err := r.NewIter(bounds(start, end))
	if err != nil {
		return err
	}
	for valid := it.Last(); valid && err == nil; valid = it.Prev() {
		var value []byte
		if value, err = it.ValueAndErr(); err == nil {
			err = fn(it.Key(), value)
		}
	}
	if errors.Is(err, errStop) {
		return it.Close()
	}
	return errors.Join(err, it.Close())
}
