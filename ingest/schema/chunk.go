package schema

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"iter"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

// ChunkDecoder reads entry chunks in one pass over their bytes. It walks the
// usual byte patterns itself, white space and key order as they come, and hands
// what is unusual (escaped text, hostile input) to go-ipld-prime, so that it
// accepts exactly what DecodeEntryChunk accepts, with the same result. The
// block is hashed window by window just before it is walked, while the bytes
// are in the processor's cache. It keeps its buffers from one chunk to the next
// and allocates nothing per multihash.
//
// A ChunkDecoder is for one goroutine.
type ChunkDecoder struct {
	limits Limits
	sha    hash.Hash // sha2-256, reset before use
	sum    [64]byte
	w      window
	buf    []byte // decoded multihashes of a dag-json chunk
	chunk  Chunk
}

// Chunk is a decoded entry chunk. It and all that comes from it are valid until
// the decoder's next Decode; the multihashes of a dag-cbor chunk also lie in
// the block that was decoded, which must not be changed before.
type Chunk struct {
	// Next is the following chunk, Undef in the last.
	Next cid.Cid
	// Skipped is the number of entries that are no multihashes or outside the
	// limits. They are left out.
	Skipped int

	buf   []byte // what spans point into
	spans []span
}

// span is a place in a buffer of at most MaxBlockBytes.
type span struct{ off, n uint32 }

// NewChunkDecoder makes a decoder that takes what limits allow.
func NewChunkDecoder(limits Limits) *ChunkDecoder {
	return &ChunkDecoder{limits: limits.orDefault(), sha: sha256.New()}
}

// Len is the number of multihashes.
func (c *Chunk) Len() int { return len(c.spans) }

// Multihash is the i-th multihash, 0 ≤ i < Len.
func (c *Chunk) Multihash(i int) multihash.Multihash {
	s := c.spans[i]
	return c.buf[s.off : s.off+s.n : s.off+s.n]
}

// All yields the multihashes in order.
func (c *Chunk) All() iter.Seq[multihash.Multihash] {
	return func(yield func(multihash.Multihash) bool) {
		for i := range c.spans {
			if !yield(c.Multihash(i)) {
				return
			}
		}
	}
}

// Decode reads the chunk named by c. Size, hash and shape are checked. After an
// error the previous chunk is not valid any more either.
//
// Errors: ErrTooLarge, ErrUnsupported, ErrHashMismatch, ErrMalformed.
func (d *ChunkDecoder) Decode(c cid.Cid, block []byte) (*Chunk, error) {
	if len(block) > MaxBlockBytes {
		return d.decodePlain(c, block)
	}
	codec, err := codecOf(c)
	if err != nil {
		return nil, fmt.Errorf("decode entry chunk: %w", err)
	}
	code, digest, err := linkHash(c)
	if err != nil {
		return nil, fmt.Errorf("decode entry chunk: %w", err)
	}
	h := d.sha
	if code == multihash.SHA2_256 {
		h.Reset()
	} else if h, err = newHash(c, code); err != nil {
		return nil, fmt.Errorf("decode entry chunk: %w", err)
	}
	d.w = window{b: block, h: h}
	d.chunk = Chunk{spans: d.chunk.spans[:0]}
	if !d.walk(codec) {
		return d.decodePlain(c, block)
	}
	if err := d.w.check(c, digest, d.sum[:0]); err != nil {
		return nil, fmt.Errorf("decode entry chunk: %w", err)
	}
	return &d.chunk, nil
}

// walk reads the block into d.chunk. When it returns false, nothing is known
// but that the block is unusual.
func (d *ChunkDecoder) walk(codec Codec) bool {
	if codec == DagCBOR {
		d.chunk.buf = d.w.b
		return d.walkCBOR()
	}
	// Base64 gives three bytes for four; decode46 writes a few too many.
	if need := len(d.w.b)/4*3 + 64; cap(d.buf) < need {
		d.buf = make([]byte, need)
	}
	d.buf = d.buf[:cap(d.buf)]
	d.chunk.buf = d.buf
	return d.walkJSON()
}

// decodePlain is Decode by way of go-ipld-prime.
func (d *ChunkDecoder) decodePlain(c cid.Cid, block []byte) (*Chunk, error) {
	e, skipped, err := decodeChunk(c, block, d.limits)
	if err != nil {
		return nil, err
	}
	d.buf = d.buf[:0]
	d.chunk.spans = d.chunk.spans[:0]
	for _, mh := range e.Entries {
		d.chunk.spans = append(d.chunk.spans, span{uint32(len(d.buf)), uint32(len(mh))})
		d.buf = append(d.buf, mh...)
	}
	d.chunk.buf, d.chunk.Next, d.chunk.Skipped = d.buf, e.Next, skipped
	return &d.chunk, nil
}
