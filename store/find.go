package store

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/store/postings"
)

// Find returns the records a multihash belongs to, oldest first, at most the
// 16,384 oldest; none if there are none. The answer is that of one moment
// during the call. It never writes.
func (s *Store) Find(mh multihash.Multihash) ([]Value, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.exit()
	return s.find(mh)
}

func (s *Store) find(mh multihash.Multihash) ([]Value, error) {
	if checkMultihash(mh) != nil {
		return nil, nil
	}
	h := s.index.HashOf(mh)
	var values []Value
	err := s.atOneMoment(func(l *lookup, limit int) (more bool, err error) {
		if l.ids, err = s.index.AppendFind(l.ids[:0], h, limit); err != nil {
			return false, err
		}
		if len(l.ids) > fewIDs {
			if err := l.readAhead(l.ids); err != nil {
				return false, err
			}
		}
		values, err = l.values(values[:0], l.ids)
		return limit > 0 && len(l.ids) == limit && len(values) < limit, err
	})
	s.countFinds(err, values)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", mh, err)
	}
	return values[:min(len(values), s.cfg.maxFound)], nil
}

// MaxBatch is how many multihashes FindBatch takes.
const MaxBatch = 1000

// UndecidedError says that some multihashes of a batch could not be looked up,
// by their places in it. The answers of all others are right.
type UndecidedError struct {
	Keys []int
	Err  error // of one of them
}

func (e *UndecidedError) Error() string {
	return fmt.Sprintf("%d of the batch could not be looked up: %v", len(e.Keys), e.Err)
}

// Unwrap returns Err.
func (e *UndecidedError) Unwrap() error { return e.Err }

// FindBatch is Find for up to MaxBatch multihashes: the i-th answer is that of
// mhs[i], all are of one moment, and the disk is read in the order of keys. If
// some of it is damaged it comes with an UndecidedError, and the answers are
// each of a moment of its own.
func (s *Store) FindBatch(mhs []multihash.Multihash) ([][]Value, error) {
	if len(mhs) > MaxBatch {
		return nil, fmt.Errorf("find %d multihashes, at most %d: %w", len(mhs), MaxBatch, ErrInvalid)
	}
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.exit()
	answers := make([][]Value, len(mhs))
	at := make([]int, 0, len(mhs)) // of hs, in mhs
	sound := make([]multihash.Multihash, 0, len(mhs))
	for i, mh := range mhs {
		if checkMultihash(mh) == nil {
			at, sound = append(at, i), append(sound, mh)
		}
	}
	hs := s.index.HashAll(nil, sound)
	err := s.atOneMoment(func(l *lookup, limit int) (more bool, err error) {
		found, err := s.index.FindBatch(hs, limit)
		if err != nil {
			return false, err
		}
		if err := l.readAhead(slices.Concat(found...)); err != nil {
			return false, err
		}
		for i, ids := range found {
			values, err := l.values(nil, ids)
			if err != nil {
				return false, err
			}
			more = more || limit > 0 && len(ids) == limit && len(values) < limit
			answers[at[i]] = values[:min(len(values), s.cfg.maxFound)]
		}
		return more, nil
	})
	if errors.Is(err, postings.ErrCorrupt) {
		return s.findEach(mhs)
	}
	s.countFinds(err, answers...)
	if err != nil {
		return nil, fmt.Errorf("find %d multihashes: %w", len(mhs), err)
	}
	return answers, nil
}

// findEach is FindBatch for a damaged index: one key's damage is no other's.
// The caller has entered.
func (s *Store) findEach(mhs []multihash.Multihash) ([][]Value, error) {
	answers := make([][]Value, len(mhs))
	var undecided UndecidedError
	for i, mh := range mhs {
		var err error
		if answers[i], err = s.find(mh); err != nil {
			undecided.Keys, undecided.Err = append(undecided.Keys, i), err
		}
	}
	if len(undecided.Keys) == 0 { // the damage was taken away meanwhile
		return answers, nil
	}
	return answers, &undecided
}

func (s *Store) countFinds(err error, answers ...[]Value) {
	for _, values := range answers {
		switch {
		case err != nil:
			s.metrics.findErrors.Inc()
		case len(values) == 0:
			s.metrics.misses.Inc()
		default:
			s.metrics.hits.Inc()
		}
	}
}

// defaultMaxFound bounds the records a lookup returns: a block everyone has,
// such as an empty directory, is named by millions of contexts. The oldest are
// kept.
const defaultMaxFound = 16384

// maxFindTries bounds how often a lookup begins again because IDs became dead
// under it, which happens once a sync at most. Then it holds that up, so that
// the answer is right however long it takes.
const maxFindTries = 4

// atOneMoment runs find with a lookup of one moment and says to how many
// records it keeps. The moment is that of a snapshot of the rows, which is
// taken before the index is read. What is put later has IDs the snapshot does
// not know, or belongs to an ad that is not committed, so it does no harm; but
// if an ID became dead after the snapshot was taken, the index may have
// dropped what the snapshot still shows, and all begins again.
//
// find tells that there may be more than the limit let through, as IDs that
// are removed and not durably so count for the index: then it runs without.
func (s *Store) atOneMoment(find func(l *lookup, limit int) (more bool, err error)) error {
	limit := s.cfg.maxFound
	for try := 1; ; try++ {
		if try == maxFindTries {
			s.dead.hold.RLock()
			defer s.dead.hold.RUnlock()
		}
		epoch := s.dead.epoch.Load()
		l := s.newLookup()
		more, err := find(l, limit)
		if err = errors.Join(err, l.close()); err != nil {
			return err
		}
		switch {
		case more && limit > 0:
			limit = 0
		case s.dead.epoch.Load() == epoch:
			return nil
		}
	}
}

// lookup reads the rows of one moment.
type lookup struct {
	s       *Store
	snap    *pebble.Snapshot
	removed [2]*map[uint32]bool // provider numbers removed just before and after the moment
	ids     []uint64
	known   map[uint64]recordRow // records read ahead, by any of their IDs
}

func (s *Store) newLookup() *lookup {
	before := s.peers.removed.Load()
	snap := s.db.NewSnapshot()
	return &lookup{s: s, snap: snap, removed: [2]*map[uint32]bool{before, s.peers.removed.Load()}}
}

func (l *lookup) close() error { return l.snap.Close() }

// values appends what record IDs lead to, ascending: IDs of removed records
// lead nowhere, several of one record give one value.
func (l *lookup) values(dst []Value, ids []uint64) ([]Value, error) {
	var seen map[uint64]bool
	if len(ids) > 1 {
		seen = make(map[uint64]bool, len(ids))
	}
	for _, id := range ids {
		recID, rec, ok, err := l.record(id)
		if err != nil {
			return dst, err
		}
		if !ok || !rec.held() || seen[recID] {
			continue
		}
		if seen != nil {
			seen[recID] = true
		}
		if gone, err := l.gone(rec.provider); err != nil || gone {
			if err != nil {
				return dst, err
			}
			continue
		}
		v := Value{ContextID: rec.ctx, Metadata: rec.metadata, Pos: rec.pos}
		if v.Provider, err = l.s.peers.name(l.snap, rec.provider); err != nil {
			return dst, err
		}
		if v.Publisher, err = l.s.peers.name(l.snap, rec.by); err != nil {
			return dst, err
		}
		dst = append(dst, v)
	}
	return dst, nil
}

// record follows the ID of a posting to its record; ok is false if that was
// removed.
func (l *lookup) record(id uint64) (recID uint64, rec recordRow, ok bool, err error) {
	if rec, ok := l.known[id]; ok {
		return id, rec, rec.own.id == id, nil
	}
	recID = id
	row, ok, err := getRow(l.snap, idKey(prefixRecord, id), func(b []byte) (rec recordRow, err error) {
		if isForward(b) {
			recID, err = decodeForward(b)
			return rec, err
		}
		return decodeRecord(id, b)
	})
	switch {
	case err != nil || !ok:
		return 0, row, false, err
	case recID == id:
		// The row of a record whose own generation was removed may still be there.
		return id, row, row.own.id == id, nil
	}
	row, ok, err = getRow(l.snap, idKey(prefixRecord, recID), func(b []byte) (recordRow, error) { return decodeRecord(recID, b) })
	if err == nil && !ok {
		err = fmt.Errorf("record %d, that of ID %d, is missing: %w", recID, id, ErrCorrupt)
	}
	return recID, row, ok, err
}

// fewIDs are read one by one; of more, rows that lie together are read at once.
const fewIDs = 8

// readAhead reads the rows of many IDs, which it does not change, in their
// order.
func (l *lookup) readAhead(ids []uint64) (err error) {
	all := slices.Compact(slices.Sorted(slices.Values(ids)))
	l.known = make(map[uint64]recordRow, len(all))
	it, err := l.snap.NewIter(bounds([]byte{prefixRecord}, []byte{prefixRecord + 1}))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for _, id := range all {
		key := idKey(prefixRecord, id)
		if !it.SeekGE(key) {
			break
		}
		if !bytes.Equal(it.Key(), key) {
			continue
		}
		b, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		if isForward(b) {
			continue
		}
		if l.known[id], err = decodeRecord(id, b); err != nil {
			return fmt.Errorf("row %q: %w", key, err)
		}
	}
	return it.Error()
}

// gone tells whether a provider's number was removed at the moment of the
// lookup. What was removed before or after can be swept by now, or not be seen
// by the snapshot; the snapshot decides.
func (l *lookup) gone(provider uint32) (bool, error) {
	if !(*l.removed[0])[provider] && !(*l.removed[1])[provider] {
		return false, nil
	}
	_, closer, err := l.snap.Get(numberKey(prefixRemoved, provider))
	if errors.Is(err, pebble.ErrNotFound) {
		// Either it was removed after the moment, or its sweep had ended: then
		// no record of it is in the snapshot.
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, closer.Close()
}

func checkMultihash(mh multihash.Multihash) error {
	if len(mh) < 2 || len(mh) > MaxMultihashBytes {
		return fmt.Errorf("multihash of %d bytes: %w", len(mh), ErrInvalid)
	}
	return nil
}
