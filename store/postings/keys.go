package postings

import (
	"encoding/binary"
	"fmt"
)

// Key prefixes. Buckets and the rest do not share a key range, so Pebble never
// looks at the one for the other.
const (
	prefixMeta   = 0x00
	prefixBucket = 0x01
)

const (
	regions  = 256
	minWidth = 16 // so that a suffix has at most 64 bits
	maxWidth = 40
)

// metaKey holds the one row beside the buckets.
var metaKey = []byte{prefixMeta}

// bucketKey writes the key of the bucket at a width that hash h is in.
//
//	+------+--------+-------+---------------------------------------+
//	| 0x01 | region | width | bits 8 … width of the hash, left in   |
//	| (1B) |  (1B)  | (1B)  | as few bytes as hold them             |
//	+------+--------+-------+---------------------------------------+
//
// The width comes before the bits so that a split is one range delete of the
// keys with the old width.
func bucketKey(dst []byte, h *Hash, width uint) []byte {
	rest := binary.BigEndian.Uint64(h[1:9]) &^ (1<<(72-width) - 1)
	dst = append(dst, prefixBucket, h[0], byte(width))
	for n := width - 8; n > 0; n -= min(n, 8) {
		dst = append(dst, byte(rest>>56))
		rest <<= 8
	}
	return dst
}

// samePrefix tells whether two hashes are in one bucket at a width.
func samePrefix(a, b *Hash, width uint) bool { return (a.prefix()^b.prefix())>>(64-width) == 0 }

// suffixOf is the part of the hash that its bucket's key does not say.
func suffixOf(h *Hash, width uint) uint64 { return h.low() & suffixMask(HashBits-width) }

// keySuffixWidth is the number of bits of the suffixes in the bucket at key.
func keySuffixWidth(key []byte) (uint, error) {
	if len(key) < 3 || key[0] != prefixBucket {
		return 0, fmt.Errorf("%w: merge at key %x", ErrCorrupt, key)
	}
	width := uint(key[2])
	if width < minWidth || width > maxWidth || len(key) != 3+int(width-8+7)/8 {
		return 0, fmt.Errorf("%w: bucket key %x", ErrCorrupt, key)
	}
	return HashBits - width, nil
}

// parseBucketKey gives back the bits of the hash a bucket key holds, the rest
// zero, and the width.
func parseBucketKey(key []byte) (h Hash, width uint, err error) {
	suffix, err := keySuffixWidth(key)
	if err != nil {
		return h, 0, err
	}
	h[0] = key[1]
	copy(h[1:], key[3:])
	return h, HashBits - suffix, nil
}

// withSuffix puts a suffix of width bits into the hash of a bucket key.
func (h Hash) withSuffix(suffix uint64, width uint) Hash {
	low := h.low()&^suffixMask(width) | suffix
	binary.BigEndian.PutUint64(h[2:], low)
	return h
}

// regionSpan is the key range of a region's buckets of all widths.
func regionSpan(region int) (start, end []byte) {
	start = []byte{prefixBucket, byte(region)}
	if region == regions-1 {
		return start, []byte{prefixBucket + 1}
	}
	return start, []byte{prefixBucket, byte(region + 1)}
}

// meta is the row at metaKey. It rides in every ingest, so it is always about
// exactly the buckets that are there.
type meta struct {
	fingerprint uint64
	flushed     uint64 // everything put at or below is in the buckets
	regions     [regions]regionMeta
	lost        spans // where postings may be missing
}

type regionMeta struct {
	width uint
	// entries were put since the region was last counted: repetitions and
	// dead ones are in it.
	entries uint64
}

// formatNumber of the keys and values.
//
//	1  buckets of Rice-coded runs, 256 regions
//	2  the meta row has lost spans; written only if there are some
const formatNumber = 2

// +--------+-------------+---------+--------------------------------+ - - - - - - - - - - - - - - - - - - - +
// | format | fingerprint | flushed | 256 × ( width | entries )      | spans | spans × ( gap | last - first  |
// | uvarint| (8B, LE)    | uvarint |         (1B)    uvarint        | uvarint          uvarint  uvarint )   |
// +--------+-------------+---------+--------------------------------+ - - - - - - - - - - - - - - - - - - - +
//
// The dashed part is there from format 2 on. A gap is the distance from the
// end of the span before, or from zero, to the first of the span.
func (m *meta) encode() []byte {
	format := uint64(1)
	if len(m.lost) > 0 {
		format = 2
	}
	b := binary.AppendUvarint(nil, format)
	b = binary.LittleEndian.AppendUint64(b, m.fingerprint)
	b = binary.AppendUvarint(b, m.flushed)
	for _, r := range m.regions {
		b = append(b, byte(r.width))
		b = binary.AppendUvarint(b, r.entries)
	}
	if format > 1 {
		b = m.lost.encode(b)
	}
	return b
}

func decodeMeta(b []byte) (*meta, error) {
	bad := fmt.Errorf("%w: meta row", ErrCorrupt)
	format, b, ok := uvarint(b)
	if !ok {
		return nil, bad
	}
	if format > formatNumber {
		return nil, fmt.Errorf("%w: %d, this program knows up to %d", ErrNewerFormat, format, formatNumber)
	}
	if format < 1 || len(b) < 8 {
		return nil, bad
	}
	m := &meta{fingerprint: binary.LittleEndian.Uint64(b)}
	if m.flushed, b, ok = uvarint(b[8:]); !ok {
		return nil, bad
	}
	for i := range m.regions {
		if len(b) == 0 || b[0] < minWidth || b[0] > maxWidth {
			return nil, bad
		}
		m.regions[i].width = uint(b[0])
		if m.regions[i].entries, b, ok = uvarint(b[1:]); !ok {
			return nil, bad
		}
	}
	if format > 1 {
		if m.lost, b, ok = decodeSpans(b); !ok {
			return nil, bad
		}
	}
	if len(b) != 0 {
		return nil, bad
	}
	return m, nil
}

// miss is the error, if any, of a lookup that found nothing for h.
func (m *meta) miss(h *Hash) error {
	if len(m.lost) > 0 && m.lost.has(h.prefix()) {
		return fmt.Errorf("read bucket of %x: %w", *h, ErrLost)
	}
	return nil
}

// misses is miss for hashes of one bucket, and about the first without an
// answer.
func (m *meta) misses(answers [][]uint64, hs []Hash, order []int) error {
	for _, i := range order {
		if len(answers[i]) == 0 {
			return m.miss(&hs[i])
		}
	}
	return nil
}
