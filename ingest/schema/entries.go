package schema

import (
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	"github.com/multiformats/go-multihash"
)

// EntryChunk is one link of a list of multihashes.
//
//	type EntryChunk struct {
//		Entries [Bytes]
//		Next    optional Link
//	}
//
// Source: IPNI.md, Entries.
type EntryChunk struct {
	// Entries are whole multihashes: code, length, digest.
	Entries []multihash.Multihash
	// Next is the following chunk, Undef in the last.
	Next cid.Cid
}

// Limits bounds what is taken from entries. A zero MaxDigest or MaxEntries
// stands for the default.
type Limits struct {
	// MinDigest and MaxDigest bound the digests that are taken, in bytes. A
	// multihash outside is skipped like one that cannot be decoded.
	MinDigest, MaxDigest int
	// MaxEntries bounds the list of one chunk or HAMT node, skipped ones
	// included. A longer list is an ErrTooLarge.
	MaxEntries int
}

// DefaultLimits takes every digest of up to 128 bytes, as the longest in the
// multicodec table have 128, and identity multihashes above that are content
// rather than its name. 262,144 entries are more than the 233,016 sha2-256
// multihashes that fit in a dag-cbor chunk of MaxBlockBytes, and 16 times what
// publishers put in a chunk.
var DefaultLimits = Limits{MinDigest: 0, MaxDigest: 128, MaxEntries: 1 << 18}

func (l Limits) orDefault() Limits {
	if l.MaxDigest == 0 {
		l.MaxDigest = DefaultLimits.MaxDigest
	}
	if l.MaxEntries == 0 {
		l.MaxEntries = DefaultLimits.MaxEntries
	}
	return l
}

// takesDigest reports whether digests of n bytes are within the limits.
func (l Limits) takesDigest(n int) bool { return l.MinDigest <= n && n <= l.MaxDigest }

// takes reports whether b is one multihash that the limits allow. It accepts
// what multihash.Cast accepts, without making errors for what it does not.
func (l Limits) takes(b []byte) bool {
	_, n, ok := cutUvarint(b)
	if !ok {
		return false
	}
	b = b[n:]
	size, n, ok := cutUvarint(b)
	return ok && size == uint64(len(b)-n) && l.takesDigest(int(size))
}

// cutUvarint reads the unsigned varint at the start of b and its length. Like
// go-varint it wants the shortest form and at most 63 bits.
func cutUvarint(b []byte) (v uint64, n int, ok bool) {
	for i := range min(len(b), 9) {
		c := b[i]
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			return v, i + 1, i == 0 || c != 0
		}
	}
	return 0, 0, false
}

// DecodeEntryChunk reads the chunk named by c through go-ipld-prime, with
// DefaultLimits: multihashes that are none, or outside the limits, are left
// out. It is the plain form of ChunkDecoder, and its measure. The result shares
// no memory with block.
//
// Errors: ErrTooLarge, ErrUnsupported, ErrHashMismatch, ErrMalformed.
func DecodeEntryChunk(c cid.Cid, block []byte) (*EntryChunk, error) {
	e, _, err := decodeChunk(c, block, DefaultLimits)
	return e, err
}

// decodeChunk is DecodeEntryChunk with limits; it also counts what it skipped.
func decodeChunk(c cid.Cid, block []byte, limits Limits) (e *EntryChunk, skipped int, err error) {
	codec, err := openBlock(c, block, MaxBlockBytes)
	if err != nil {
		return nil, 0, fmt.Errorf("decode entry chunk: %w", err)
	}
	e = new(EntryChunk)
	if err := decodeNode(codec, block, e.slot(codec, limits, &skipped)); err != nil {
		return nil, 0, fmt.Errorf("decode entry chunk %s: %w", c, err)
	}
	return e, skipped, nil
}

func (e *EntryChunk) slot(codec Codec, limits Limits, skipped *int) datamodel.NodeAssembler {
	var each datamodel.NodeAssembler = multihashSlot{at("multihash"), func(b []byte) {
		if !limits.takes(b) {
			*skipped++
			return
		}
		e.Entries = append(e.Entries, b)
	}}
	return structSlot{at("entry chunk"), []field{
		{"Entries", false, listSlot{at("Entries"), limits.MaxEntries, func() datamodel.NodeAssembler { return each }}},
		{"Next", true, linkSlot{at("Next"), codec, &e.Next}},
	}}
}

// multihashSlot hands on bytes, each time fresh ones.
type multihashSlot struct {
	refuse
	take func([]byte)
}

func (s multihashSlot) AssignBytes(b []byte) error { s.take(b); return nil }

// Encode writes the chunk in canonical form; LinkOf(codec, bytes) is its CID.
func (e *EntryChunk) Encode(codec Codec) ([]byte, error) {
	keys := 1
	if e.Next.Defined() {
		keys++
	}
	b, err := encodeMap(codec, keys, func(ma datamodel.MapAssembler) {
		qp.MapEntry(ma, "Entries", qp.List(int64(len(e.Entries)), func(la datamodel.ListAssembler) {
			for _, mh := range e.Entries {
				qp.ListEntry(la, qp.Bytes(mh))
			}
		}))
		if e.Next.Defined() {
			qp.MapEntry(ma, "Next", link(e.Next))
		}
	})
	if err != nil {
		return nil, fmt.Errorf("encode entry chunk: %w", err)
	}
	return b, nil
}
