package postings

import (
	"encoding/binary"
	"slices"
	"unsafe"

	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/store/keyset"
)

// HashBits is the length of a Hash.
const HashBits = 80

// Hash is what the index knows of a multihash: the first 80 bits of
// SipHash-2-4-128 of its bytes under the secret. Digests in advertisements are
// verified by nobody, so an unkeyed truncation could be collided on purpose.
type Hash [HashBits / 8]byte

// Secret keys the hashes. Indexes with different secrets cannot read each other.
type Secret [16]byte

// HashOf hashes a whole multihash. It does not allocate.
func (s *Secret) HashOf(mh multihash.Multihash) (h Hash) {
	a, b := keyset.Hash128(binary.LittleEndian.Uint64(s[:8]), binary.LittleEndian.Uint64(s[8:]), mh)
	binary.LittleEndian.PutUint64(h[:8], a)
	h[8], h[9] = byte(b), byte(b>>8)
	return h
}

// HashAll appends the hashes of mhs to dst.
func (s *Secret) HashAll(dst []Hash, mhs []multihash.Multihash) []Hash {
	from := len(dst)
	dst = slices.Grow(dst, len(mhs))[:from+len(mhs)]
	for i, mh := range mhs {
		dst[from+i] = s.HashOf(mh)
	}
	return dst
}

// HashBytes returns hashes as bytes, one after the other, without copying.
func HashBytes(hs []Hash) []byte {
	if len(hs) == 0 {
		return nil
	}
	return unsafe.Slice(&hs[0][0], len(hs)*len(hs[0]))
}

// fingerprint tells secrets apart without telling them.
func (s *Secret) fingerprint() uint64 {
	a, b := keyset.Hash128(binary.LittleEndian.Uint64(s[:8]), binary.LittleEndian.Uint64(s[8:]), []byte("signpost postings fingerprint"))
	return a ^ b
}

// top are the first 16 bits of the hash, low the other 64.
func (h *Hash) top() uint16 { return binary.BigEndian.Uint16(h[:2]) }
func (h *Hash) low() uint64 { return binary.BigEndian.Uint64(h[2:]) }

// prefix are the first 64 bits.
func (h *Hash) prefix() uint64 { return binary.BigEndian.Uint64(h[:8]) }

// hashAt is the first hash with a prefix.
func hashAt(prefix uint64) (h Hash) {
	binary.BigEndian.PutUint64(h[:8], prefix)
	return h
}

// region is the part of the hash space the hash is in.
func (h *Hash) region() int { return int(h[0]) }

// Prefix are the first 64 bits of the hash.
func (h *Hash) Prefix() uint64 { return h.prefix() }
