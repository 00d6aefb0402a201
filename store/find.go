package store

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
)

// Find returns the records a multihash belongs to, oldest first, as they all
// were at one moment during the call; none if there are none. It never
// writes.
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
	// Most lookups are misses, and a miss is the same at one moment as at
	// another: only a hit needs several rows of the same moment.
	ids, err := lookupPostings(s.db, mh)
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	snap := s.db.NewSnapshot()
	defer snap.Close()
	if ids, err = lookupPostings(snap, mh); err != nil {
		return nil, err
	}
	return readValues(snap, ids)
}

// readValues follows record IDs to their records. IDs of removed records lead
// nowhere; several of one record give one value.
func readValues(r pebble.Reader, ids []uint64) ([]Value, error) {
	type record struct {
		provider peer.ID
		ctx      string
	}
	var (
		values []Value
		known  map[record]bool
	)
	for _, id := range ids {
		owner, ok, err := getRow(r, ownerKey(id), decodeOwner)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		key := record{owner.provider, string(owner.ctx)}
		if known[key] {
			continue
		}
		rec, ok, err := getRow(r, contextKey(prefixRecord, owner.provider, owner.ctx), decodeRecord)
		if err != nil {
			return nil, err
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
	return values, nil
}
