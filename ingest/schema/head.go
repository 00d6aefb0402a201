package schema

import (
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

// MaxHeadBytes bounds a signed head. With the largest RSA key one has 3 KB.
const MaxHeadBytes = 64 << 10

// SignedHead is how a publisher names the newest ad of its chain. It is always
// dag-json and has no CID. Source: IPNI_HTTP_PROVIDER.md.
//
//	type SignedHead struct {
//		head   Link
//		topic  optional String
//		pubkey Bytes
//		sig    Bytes
//	}
type SignedHead struct {
	// Head is the newest ad.
	Head cid.Cid
	// Topic is the gossip topic the chain is announced on; empty stands for
	// absent, which means the main one. It is signed, and compared with nothing.
	Topic string
	// Pubkey is the publisher's key as libp2p protobuf.
	Pubkey []byte
	// Sig is the key's signature over the bytes of Head and Topic.
	Sig []byte
}

// SignHead makes the signed head of a chain.
func SignHead(head cid.Cid, topic string, key crypto.PrivKey) (*SignedHead, error) {
	if !head.Defined() {
		return nil, fmt.Errorf("sign head: %w: undefined CID", ErrMalformed)
	}
	pub, err := crypto.MarshalPublicKey(key.GetPublic())
	if err != nil {
		return nil, fmt.Errorf("sign head %s: %w", head, err)
	}
	h := &SignedHead{Head: head, Topic: topic, Pubkey: pub}
	if h.Sig, err = key.Sign(h.preimage()); err != nil {
		return nil, fmt.Errorf("sign head %s: %w", head, err)
	}
	return h, nil
}

// DecodeSignedHead reads the answer of a publisher. It checks size and shape,
// not the signature. Errors: ErrTooLarge, ErrMalformed.
func DecodeSignedHead(b []byte) (*SignedHead, error) {
	if len(b) > MaxHeadBytes {
		return nil, fmt.Errorf("decode head: %w: %d bytes, limit %d", ErrTooLarge, len(b), MaxHeadBytes)
	}
	h := new(SignedHead)
	if err := decodeNode(DagJSON, b, h.slot()); err != nil {
		return nil, fmt.Errorf("decode head: %w", err)
	}
	return h, nil
}

func (h *SignedHead) slot() datamodel.NodeAssembler {
	return structSlot{at("signed head"), []field{
		{"head", false, linkSlot{at("head"), DagJSON, &h.Head}},
		{"topic", true, stringSlot{at("topic"), &h.Topic}},
		{"pubkey", false, bytesSlot{at("pubkey"), &h.Pubkey}},
		{"sig", false, bytesSlot{at("sig"), &h.Sig}},
	}}
}

// Encode writes the head as canonical dag-json, without topic if it is empty.
func (h *SignedHead) Encode() ([]byte, error) {
	keys := 3
	if h.Topic != "" {
		keys++
	}
	b, err := encodeMap(DagJSON, keys, func(ma datamodel.MapAssembler) {
		qp.MapEntry(ma, "head", link(h.Head))
		if h.Topic != "" {
			qp.MapEntry(ma, "topic", qp.String(h.Topic))
		}
		qp.MapEntry(ma, "pubkey", qp.Bytes(h.Pubkey))
		qp.MapEntry(ma, "sig", qp.Bytes(h.Sig))
	})
	if err != nil {
		return nil, fmt.Errorf("encode head: %w", err)
	}
	return b, nil
}

// Verify checks the signature and returns the signer, which the caller must
// compare with the publisher it asked. Errors: ErrBadSignature.
func (h *SignedHead) Verify() (peer.ID, error) {
	if len(h.Pubkey) == 0 || len(h.Sig) == 0 {
		return "", fmt.Errorf("%w: head without key or signature", ErrBadSignature)
	}
	key, err := crypto.UnmarshalPublicKey(h.Pubkey)
	if err != nil {
		return "", fmt.Errorf("%w: key of head: %v", ErrBadSignature, err)
	}
	ok, err := key.Verify(h.preimage(), h.Sig)
	if err != nil {
		return "", fmt.Errorf("%w: head: %v", ErrBadSignature, err)
	}
	if !ok {
		return "", fmt.Errorf("%w: head %s", ErrBadSignature, h.Head)
	}
	signer, err := peer.IDFromPublicKey(key)
	if err != nil {
		return "", fmt.Errorf("%w: key of head: %v", ErrBadSignature, err)
	}
	return signer, nil
}

// preimage is what the head's signature covers.
func (h *SignedHead) preimage() []byte {
	return append(h.Head.Bytes(), h.Topic...)
}
