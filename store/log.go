package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/signpost-index/signpost/store/postings"
	"github.com/signpost-index/signpost/store/wal"
)

// The store has one write-ahead log for its two databases, so that rows and
// postings have one order: what is left of the log after a crash is a prefix
// of what was written, and a mark in it has its postings before it.
//
//	change of rows ──► frame of kind rows:     seq8, Pebble batch
//	Put            ──► frame of kind postings: id8, hashes of 10 bytes
//
// The rows' database has no log of its own. Each of its batches carries the
// number of its frame (keyLogSeq), so that a replay knows where it stopped.
// The index says up to which position it has flushed (postings.Flushed).

const (
	kindRows     = 1
	kindPostings = 2

	// hashesPerFrame bounds a frame of postings to about 2.5 MiB.
	hashesPerFrame = 1 << 18
)

// errLog is for frames no store wrote.
func errLog(pos wal.Pos) error { return fmt.Errorf("log frame at %d: %w", pos, ErrCorrupt) }

// logRows appends a batch to the log and applies it. The caller holds mu, so
// that the order of frames is that of the database.
func (s *Store) logRows(b *pebble.Batch) error {
	seq := s.rowSeq + 1
	if err := b.Set([]byte(keyLogSeq), binary.BigEndian.AppendUint64(nil, seq), nil); err != nil {
		return err
	}
	var head [8]byte
	binary.BigEndian.PutUint64(head[:], seq)
	if _, err := s.log.Append(kindRows, head[:], b.Repr()); err != nil {
		return err
	}
	s.rowSeq = seq
	return s.db.Apply(b, pebble.NoSync)
}

// logPostings appends hashes of one record ID to the log and puts them into
// the index. It waits while the index is full.
func (s *Store) logPostings(id uint64, hs []postings.Hash) error {
	var head [8]byte
	binary.BigEndian.PutUint64(head[:], id)
	for len(hs) > 0 {
		n := min(len(hs), hashesPerFrame)
		if err := s.putLogged(id, head[:], hs[:n]); err != nil {
			return err
		}
		s.syncer.wrote(n * len(postings.Hash{}))
		hs = hs[n:]
	}
	return nil
}

func (s *Store) putLogged(id uint64, head []byte, hs []postings.Hash) error {
	s.posting.Lock()
	defer s.posting.Unlock()
	pos, err := s.log.Append(kindPostings, head, postings.HashBytes(hs))
	if err != nil {
		return err
	}
	if err := s.index.Put(uint64(pos), id, hs); err != nil {
		return err
	}
	s.tail.add(hs)
	return nil
}

// replayRows brings the rows' database up to the end of the log.
func (s *Store) replayRows() error {
	s.rowSeq = 0
	if err := loadRow(s.db, []byte(keyLogSeq), decodeLogSeq, &s.rowSeq); err != nil {
		return inPart("rows", err)
	}
	return s.replay(func(pos wal.Pos, kind byte, payload []byte) error {
		if kind != kindRows {
			return nil
		}
		if len(payload) < 8 {
			return errLog(pos)
		}
		seq := binary.BigEndian.Uint64(payload)
		if seq <= s.rowSeq {
			return nil
		}
		if seq != s.rowSeq+1 {
			return fmt.Errorf("rows %d after %d: %w", seq, s.rowSeq, errLog(pos))
		}
		b := s.db.NewBatch()
		if err := b.SetRepr(append([]byte(nil), payload[8:]...)); err != nil {
			return errors.Join(errLog(pos), err, b.Close())
		}
		if err := s.db.Apply(b, pebble.NoSync); err != nil {
			return err
		}
		s.rowSeq = seq
		return b.Close()
	})
}

// replayPostings repeats the Puts the index has not flushed.
func (s *Store) replayPostings() error {
	var hs []postings.Hash
	return s.replay(func(pos wal.Pos, kind byte, payload []byte) error {
		if kind != kindPostings || uint64(pos) <= s.index.Flushed() {
			return nil
		}
		if len(payload) < 8 || (len(payload)-8)%len(postings.Hash{}) != 0 {
			return errLog(pos)
		}
		id := binary.BigEndian.Uint64(payload)
		hs = hs[:0]
		for raw := payload[8:]; len(raw) > 0; raw = raw[len(postings.Hash{}):] {
			hs = append(hs, postings.Hash(raw))
		}
		return s.index.Put(uint64(pos), id, hs)
	})
}

func (s *Store) replay(fn func(pos wal.Pos, kind byte, payload []byte) error) error {
	if err := s.log.Replay(0, fn); err != nil {
		return inPart("log", fmt.Errorf("replay log: %w", err))
	}
	return nil
}

func decodeLogSeq(b []byte) (uint64, error) {
	r := &reader{b: b}
	seq := r.uint64()
	return seq, r.done("log sequence number")
}

// tidyLog drops the part of the log that both databases have. With force it
// makes them have it first.
func (s *Store) tidyLog(ctx context.Context, force bool) error {
	s.tidying.Lock()
	defer s.tidying.Unlock()
	if force {
		if err := s.index.Flush(ctx); err != nil {
			return err
		}
	}
	s.mu.Lock()
	rows := s.log.Next() // every frame of rows below is in the database's memory
	s.mu.Unlock()
	if err := s.db.Flush(); err != nil {
		return err
	}
	if err := s.disk.err(); err != nil {
		return err
	}
	return s.log.Drop(min(rows, wal.Pos(s.index.Flushed())+1))
}

// logSegments is how many segments make a log of the size at which the janitor
// shortens it: the one being written always stays.
const logSegments = 4

// janitor keeps the log short until ctx ends.
func (s *Store) janitor(ctx context.Context, wake <-chan struct{}) {
	type state struct {
		next    wal.Pos
		flushed uint64
	}
	var seen state // when the log was last shortened
	for {
		select {
		case <-ctx.Done():
			return
		case <-wake:
		}
		size, now := s.log.Size(), state{s.log.Next(), s.index.Flushed()}
		if size < s.logBytes || now == seen || s.disk.err() != nil {
			continue
		}
		seen = now
		if err := s.tidyLog(ctx, size > 2*s.logBytes); err != nil && ctx.Err() == nil && s.disk.err() == nil {
			s.metrics.backgroundErrors.Inc()
			s.cfg.Logger.Warn("log could not be shortened, it is tried again", "bytes", size, "err", err)
		}
	}
}
