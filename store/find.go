package store

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
)

// Find returns the records a multihash belongs to, oldest first, at most the
// 16,384 oldest; none if there are none. Their rows are all of one moment during
// the call, the record IDs of one just before. It never writes.
func (s *Store) Find(mh multihash.Multihash) ([]Value, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.exit()
	values, err := s.find(mh)
	switch {
	case err != nil:
		s.metrics.finds.WithLabelValues("error").Inc()
		return nil, fmt.Errorf("find %s: %w", mh, err)
	case len(values) == 0:
		s.metrics.finds.WithLabelValues("miss").Inc()
	default:
		s.metrics.finds.WithLabelValues("hit").Inc()
	}
	return values, nil
}

func (s *Store) find(mh multihash.Multihash) ([]Value, error) {
	if checkMultihash(mh) != nil {
		return nil, nil
	}
	h := s.index.HashOf(mh)
	limit := s.cfg.maxFound
	for try := 1; ; try++ {
		ids, err := s.index.AppendFind(nil, h, limit)
		if err != nil || len(ids) == 0 {
			return nil, err
		}
		values, gone, err := s.readValues(ids)
		// An ID without a row may have been removed between the two reads, and
		// its record put anew: then there are newer IDs to be read. And it may
		// have used up the limit in place of one that lives.
		if err != nil || !gone || try == maxFindTries {
			return values[:min(len(values), s.cfg.maxFound)], err
		}
		if len(ids) == limit {
			limit = 0
		}
	}
}

// defaultMaxFound bounds the records a lookup returns: a block everyone has,
// such as an empty directory, is named by millions of contexts. The oldest are
// kept.
const defaultMaxFound = 16384

// maxFindTries bounds how often a lookup begins again because a record was
// removed under it. IDs that are dead but not yet durably so always look like
// that.
const maxFindTries = 3

func (s *Store) readValues(ids []uint64) (values []Value, gone bool, err error) {
	snap := s.db.NewSnapshot()
	defer snap.Close()
	return readValues(snap, ids)
}

// readValues follows record IDs to their records. IDs of removed records lead
// nowhere; several of one record give one value.
func readValues(r pebble.Reader, ids []uint64) (values []Value, gone bool, err error) {
	type record struct {
		provider peer.ID
		ctx      string
	}
	var known map[record]bool
	for _, id := range ids {
		owner, ok, err := getRow(r, ownerKey(id), decodeOwner)
		if err != nil {
			return nil, false, err
		}
		if !ok {
			gone = true
			continue
		}
		key := record{owner.provider, string(owner.ctx)}
		if known[key] {
			continue
		}
		rec, ok, err := getRow(r, contextKey(prefixRecord, owner.provider, owner.ctx), decodeRecord)
		if err != nil {
			return nil, false, err
		}
		if !ok || !rec.held() {
			continue
		}
		if len(ids) > 1 {
			if known == nil {
				known = make(map[record]bool)
			}
			known[key] = true
		}
		values = append(values, Value{Provider: owner.provider, ContextID: owner.ctx, Metadata: rec.metadata,
			Publisher: rec.publisher, Pos: rec.pos})
	}
	return values, gone, nil
}

func checkMultihash(mh multihash.Multihash) error {
	if len(mh) < 2 || len(mh) > MaxMultihashBytes {
		return fmt.Errorf("multihash of %d bytes: %w", len(mh), ErrInvalid)
	}
	return nil
}
