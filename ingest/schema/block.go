package schema

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"hash"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

const (
	// MaxBlockBytes bounds any block of a chain. The specification suggests
	// 4 MB for an entry chunk; publishers' default of 16,384 sha2-256
	// multihashes makes 1.1 MB in dag-json.
	MaxBlockBytes = 8 << 20
	// MaxAdBytes bounds an advertisement block. With the largest metadata and
	// a handful of addresses one has about 3 KB, each extended provider adds
	// about 2 KB at most.
	MaxAdBytes = 1 << 20
)

// Codec is the multicodec number of a block's encoding, as in its CID.
type Codec uint64

// The codecs chains are made of.
const (
	DagJSON Codec = cid.DagJSON
	DagCBOR Codec = cid.DagCBOR
)

// String is the multicodec name of the codec.
func (c Codec) String() string {
	switch c {
	case DagJSON:
		return "dag-json"
	case DagCBOR:
		return "dag-cbor"
	}
	return fmt.Sprintf("codec 0x%x", uint64(c))
}

// NoEntries is the link of an advertisement that carries no entries: CIDv1,
// raw, sha2-256 of nothing truncated to 16 bytes. It is compared as a whole
// and never fetched. Source: IPNI.md, Entries.
var NoEntries = cid.NewCidV1(cid.Raw, multihash.Multihash("\x12\x10\xe3\xb0\xc4\x42\x98\xfc\x1c\x14\x9a\xfb\xf4\xc8\x99\x6f\xb9\x24"))

// LinkOf is the CID of a block: CIDv1, the codec, sha2-256.
func LinkOf(codec Codec, block []byte) cid.Cid {
	return cid.NewCidV1(uint64(codec), sha256Multihash(block))
}

// CheckBlock reports whether block is what c names: nil, ErrHashMismatch, or
// ErrUnsupported when the hash of c is not a full-length cryptographic one.
// Identity CIDs are refused too: a link is there to be fetched.
func CheckBlock(c cid.Cid, block []byte) error {
	code, digest, err := linkHash(c)
	if err != nil {
		return err
	}
	if code == multihash.SHA2_256 {
		sum := sha256.Sum256(block)
		return compareDigest(c, digest, sum[:])
	}
	h, err := newHash(c, code)
	if err != nil {
		return err
	}
	h.Write(block)
	return compareDigest(c, digest, h.Sum(nil))
}

// linkHash takes the hash function and the digest from a CID whose hash is
// strong enough to check a block with.
func linkHash(c cid.Cid) (code uint64, digest []byte, err error) {
	if !c.Defined() {
		return 0, nil, fmt.Errorf("%w: undefined CID", ErrUnsupported)
	}
	dm, err := multihash.Decode(c.Hash())
	if err != nil {
		return 0, nil, fmt.Errorf("%w: %s: %v", ErrUnsupported, c, err)
	}
	if size, ok := digestBytes(dm.Code); !ok || dm.Length != size {
		return 0, nil, fmt.Errorf("%w: %s: hash function 0x%x with %d digest bytes", ErrUnsupported, c, dm.Code, dm.Length)
	}
	return dm.Code, dm.Digest, nil
}

// digestBytes is the full digest length of each hash function accepted in the
// links of a chain.
func digestBytes(code uint64) (size int, ok bool) {
	switch code {
	case multihash.SHA2_256, multihash.SHA3_256, multihash.KECCAK_256, multihash.BLAKE3,
		blake2b256, multihash.BLAKE2S_MAX:
		return 32, true
	case multihash.SHA3_384:
		return 48, true
	case multihash.SHA2_512, multihash.SHA3_512, multihash.KECCAK_512, multihash.BLAKE2B_MAX:
		return 64, true
	}
	return 0, false
}

// blake2b256 is blake2b with 32 digest bytes; the multihash package names only
// the ends of the range.
const blake2b256 = multihash.BLAKE2B_MIN + 31

func newHash(c cid.Cid, code uint64) (hash.Hash, error) {
	h, err := multihash.GetHasher(code)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %v", ErrUnsupported, c, err)
	}
	return h, nil
}

func compareDigest(c cid.Cid, want, got []byte) error {
	if !bytes.Equal(want, got) {
		return fmt.Errorf("%w: %s", ErrHashMismatch, c)
	}
	return nil
}

// sha256Multihash is the multihash of b: 12 20 and the 32 digest bytes.
func sha256Multihash(b []byte) multihash.Multihash {
	sum := sha256.Sum256(b)
	return append(multihash.Multihash{multihash.SHA2_256, sha256.Size}, sum[:]...)
}

// codecOf is the codec of a CID, or ErrUnsupported.
func codecOf(c cid.Cid) (Codec, error) {
	if !c.Defined() {
		return 0, fmt.Errorf("%w: undefined CID", ErrUnsupported)
	}
	codec := Codec(c.Type())
	if codec != DagJSON && codec != DagCBOR {
		return 0, fmt.Errorf("%w: %s: %s", ErrUnsupported, c, codec)
	}
	return codec, nil
}

// openBlock does what comes before decoding: size, codec, hash.
func openBlock(c cid.Cid, block []byte, maxBytes int) (Codec, error) {
	if len(block) > maxBytes {
		return 0, fmt.Errorf("%w: %s: %d bytes, limit %d", ErrTooLarge, c, len(block), maxBytes)
	}
	codec, err := codecOf(c)
	if err != nil {
		return 0, err
	}
	return codec, CheckBlock(c, block)
}
