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
func (l *lane) fetchEntries(ctx context.Context, from entriesCursor, put putFunc) error {
	for at := from; at.next.Defined(); {
		if at.chunks >= maxEntryChunks {
			return reject("more than %d entry chunks", maxEntryChunks)
		}
		next, err := l.fetchChunk(ctx, at, put)
		if err != nil {
			return err
		}
		at = next
	}
	return nil
}

// putFunc takes multihashes and the place behind them.
type putFunc func([]multihash.Multihash, *entriesCursor) error

// fetchChunk fetches, decodes and puts one chunk and returns the place behind
// it. Its memory is held meanwhile, and the processor waited for.
func (l *lane) fetchChunk(ctx context.Context, at entriesCursor, put putFunc) (behind entriesCursor, err error) {
	block, err := l.entryBlock(ctx, at.next)
	if err != nil {
		return behind, err
	}
	defer block.Release()
	end, err := l.i.turns.takeFor(ctx, l.publisher, len(block.Bytes))
	if err != nil {
		return behind, err
	}
	defer func() { end() }()
	if l.decoder == nil {
		l.decoder = l.i.decoders.Get().(*schema.ChunkDecoder)
	}
	if len(block.Bytes) >= largeBlock {
		defer func() { l.decoder, l.mhs = nil, nil }() // with buffers of its size, which nobody counts
	}
	chunk, err := l.decoder.Decode(at.next, block.Bytes)
	if err != nil && at.chunks == 0 && errors.Is(err, schema.ErrMalformed) {
		end() // a walk over a HAMT takes turns of its own
		end = func() {}
		return behind, l.fetchOther(ctx, at.next, block, err, put)
	}
	if err != nil {
		return behind, entryError(at.next, err)
	}
	l.mhs = l.mhs[:0]
	for mh := range chunk.All() {
		l.mhs = append(l.mhs, mh)
	}
	l.file.wrote(at.next, block.Bytes)
	l.i.metrics.multihashesSkipped.Add(float64(chunk.Skipped))
	l.st.chunk(len(block.Bytes), len(l.mhs))
	behind = entriesCursor{chunks: at.chunks + 1, next: chunk.Next}
	return behind, put(l.mhs, &behind)
}

// close gives the lane's buffers back.
func (l *lane) close() {
	if l.decoder != nil {
		l.i.decoders.Put(l.decoder)
	}
}

// fetchOther handles a first entries block that is not an entry chunk.
func (l *lane) fetchOther(ctx context.Context, root cid.Cid, block ipnisync.Block, notChunk error, put putFunc) error {
	kind, err := schema.Classify(root, block.Bytes)
	if err != nil || kind != schema.KindHAMT {
		return entryError(root, notChunk)
	}
	ahead := newPrefetch(ctx, l)
	defer ahead.close()
	ahead.give(root, block)
	counted := func(mhs []multihash.Multihash) error {
		end, err := l.i.turns.take(ctx, l.publisher)
		if err != nil {
			return err
		}
		defer end()
		l.st.hamt(len(mhs))
		return put(mhs, nil)
	}
	err = schema.WalkHAMT(ctx, root, ahead.fetch, schema.DefaultHAMTLimits, schema.DefaultLimits, counted)
	if err != nil {
		return entryError(root, err)
	}
	return nil
}

// entryBlock fetches a block of entries, to be released.
func (l *lane) entryBlock(ctx context.Context, c cid.Cid) (ipnisync.Block, error) {
	if block, ok := l.file.fetch(ctx, c); ok {
		return block, nil
	}
	block, err := l.fetch(ctx, c, ipnisync.HintEntryChunk)
	if err != nil {
		return block, fmt.Errorf("fetch entries %s from %s: %w", c, l.publisher, err)
	}
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
