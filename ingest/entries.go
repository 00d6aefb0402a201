package ingest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/ingest/ipnisync"
	"github.com/signpost-index/signpost/ingest/schema"
)

// entriesCursor is a place between two chunks of an ad's entries.
type entriesCursor struct {
	chunks uint64  // passed
	next   cid.Cid // undefined: there are no more
}

func (c entriesCursor) encode() []byte {
	return append(binary.AppendUvarint(nil, c.chunks), c.next.Bytes()...)
}

// decodeEntriesCursor returns the place a cursor says, or the start of the
// entries for one that says nothing.
func decodeEntriesCursor(b []byte, root cid.Cid) entriesCursor {
	start := entriesCursor{next: root}
	chunks, n := binary.Uvarint(b)
	if n <= 0 || chunks == 0 {
		return start
	}
	if n == len(b) {
		return entriesCursor{chunks: chunks}
	}
	next, err := cid.Cast(b[n:])
	if err != nil {
		return start
	}
	return entriesCursor{chunks: chunks, next: next}
}

// fetchEntries hands the multihashes from a place on to put, chunk by chunk,
// with the place behind them; that is nil where none can be named, in a HAMT.
// The slice and its elements are valid only during the call. A rejection means
// the entries can never be read; any other error may pass.
func (s *chainSync) fetchEntries(ctx context.Context, from entriesCursor, put func([]multihash.Multihash, *entriesCursor) error) error {
	var mhs []multihash.Multihash
	n := from.chunks
	for c := from.next; c.Defined(); n++ {
		if n >= maxEntryChunks {
			return reject("more than %d entry chunks", maxEntryChunks)
		}
		block, err := s.entryBlock(ctx, c)
		if err != nil {
			return err
		}
		chunk, err := s.decoder.Decode(c, block)
		if err != nil && n == 0 && errors.Is(err, schema.ErrMalformed) {
			return s.fetchOther(ctx, c, block, err, put)
		}
		if err != nil {
			return entryError(c, err)
		}
		mhs = mhs[:0]
		for mh := range chunk.All() {
			mhs = append(mhs, mh)
		}
		s.i.metrics.multihashesSkipped.Add(float64(chunk.Skipped))
		s.st.chunk(len(block), len(mhs))
		c = chunk.Next
		if err := put(mhs, &entriesCursor{chunks: n + 1, next: c}); err != nil {
			return err
		}
	}
	return nil
}

// fetchOther handles a first entries block that is not an entry chunk.
func (s *chainSync) fetchOther(ctx context.Context, root cid.Cid, block []byte, notChunk error, put func([]multihash.Multihash, *entriesCursor) error) error {
	kind, err := schema.Classify(root, block)
	if err != nil || kind != schema.KindHAMT {
		return entryError(root, notChunk)
	}
	first := block
	fetch := func(ctx context.Context, c cid.Cid) ([]byte, error) {
		if c == root && first != nil {
			b := first
			first = nil
			return b, nil
		}
		return s.entryBlock(ctx, c)
	}
	counted := func(mhs []multihash.Multihash) error {
		s.st.hamt(len(mhs))
		return put(mhs, nil)
	}
	err = schema.WalkHAMT(ctx, root, fetch, schema.DefaultHAMTLimits, schema.DefaultLimits, counted)
	if err != nil {
		return entryError(root, err)
	}
	return nil
}

func (s *chainSync) entryBlock(ctx context.Context, c cid.Cid) ([]byte, error) {
	block, err := s.pub.Block(ctx, c, ipnisync.HintEntryChunk)
	if errors.Is(err, ipnisync.ErrNotFound) {
		return nil, reject("entries %s: %w", c, err)
	}
	if err != nil {
		return nil, fmt.Errorf("fetch entries %s from %s: %w", c, s.publisher, err)
	}
	s.i.metrics.bytesFetched.Add(float64(len(block)))
	return block, nil
}

// entryError sorts decode errors: bytes that match their CID and still do not
// decode never will; a wrong hash may be a fault on the way.
func entryError(c cid.Cid, err error) error {
	for _, never := range []error{schema.ErrMalformed, schema.ErrUnsupported, schema.ErrTooLarge} {
		if errors.Is(err, never) {
			return reject("entries %s: %w", c, err)
		}
	}
	return fmt.Errorf("entries %s: %w", c, err)
}
