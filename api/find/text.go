package find

import (
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
)

// maxText bounds the text of a CID, multihash or peer ID before it is decoded,
// because base58 takes time in the square of its length. A multihash with the
// longest digest in use (128 bytes) takes 268 characters in hex.
const maxText = 2048

var (
	errBadMultihash = errors.New("input is not a valid base58 or hex encoded multihash")
	errLongText     = errors.New("too long")
)

// ParseMultihash reads the text of a multihash: base58, or hex if it is not a
// multihash in base58.
func ParseMultihash(s string) (multihash.Multihash, error) {
	if len(s) > maxText {
		return nil, errBadMultihash
	}
	if mh, err := multihash.FromB58String(s); err == nil {
		return mh, nil
	}
	if b, err := hex.DecodeString(s); err == nil {
		if mh, err := multihash.Cast(b); err == nil {
			return mh, nil
		}
	}
	return nil, errBadMultihash
}

// parseCID reads the text of any CID.
func parseCID(s string) (cid.Cid, error) {
	if len(s) > maxText {
		return cid.Undef, cid.ErrInvalidCid{Err: errLongText}
	}
	return cid.Decode(s)
}

// ParseKey reads what people paste: a CID, of which only the multihash counts, or
// a multihash as ParseMultihash does.
func ParseKey(s string) (multihash.Multihash, error) {
	if c, err := parseCID(s); err == nil {
		return c.Hash(), nil
	}
	return ParseMultihash(s)
}

// parsePeerID reads the text of a peer ID in any of its forms.
func parsePeerID(s string) (peer.ID, error) {
	if len(s) > maxText {
		return "", fmt.Errorf("failed to parse peer ID: %w", errLongText)
	}
	return peer.Decode(s)
}

// zeroLength reports whether mh has an empty digest.
func zeroLength(mh multihash.Multihash) bool {
	decoded, err := multihash.Decode(mh)
	return err == nil && decoded.Length == 0
}
