package schema

import (
	"bytes"
	"errors"
	"testing"

	"github.com/ipfs/go-cid"
)

func TestHeadsOfTheReference(t *testing.T) {
	keys := testKeys(t)
	for _, v := range headVectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			h, err := DecodeSignedHead([]byte(v.JSON))
			if err != nil {
				t.Fatal(err)
			}
			want := &SignedHead{Head: v.Head.Cid, Topic: v.Topic, Pubkey: v.Pubkey, Sig: v.Sig}
			same(t, "head", h, want)
			same(t, "signed bytes", h.preimage(), []byte(v.SignedHex))
			signer, err := h.Verify()
			if err != nil {
				t.Fatal(err)
			}
			same(t, "signer", signer.String(), v.Signer)

			signed, err := SignHead(v.Head.Cid, v.Topic, keys[v.Signer])
			if err != nil {
				t.Fatal(err)
			}
			same(t, "signed head", signed, want)
			if v.Name == "empty-topic" {
				return // a topic that is there but empty; we leave it out
			}
			again, err := h.Encode()
			if err != nil {
				t.Fatal(err)
			}
			same(t, "encoded again", string(again), v.JSON)
		})
	}
}

func TestHeadsAreBounded(t *testing.T) {
	v := headVectors(t)[0].JSON
	fits := append([]byte(v), bytes.Repeat([]byte(" "), MaxHeadBytes-len(v))...)
	if _, err := DecodeSignedHead(fits); err != nil {
		t.Errorf("head of %d bytes: %v", len(fits), err)
	}
	if _, err := DecodeSignedHead(append(fits, ' ')); !errors.Is(err, ErrTooLarge) {
		t.Errorf("head of %d bytes: %v", len(fits)+1, err)
	}
	key, _ := newKey(t)
	if _, err := SignHead(cid.Undef, "", key); !errors.Is(err, ErrMalformed) {
		t.Errorf("SignHead of no CID: %v", err)
	}
}

func TestHeadWithUnreadableKeyIsNotVerified(t *testing.T) {
	h := &SignedHead{Head: NoEntries, Pubkey: []byte("key"), Sig: []byte("sig")}
	if _, err := h.Verify(); !errors.Is(err, ErrBadSignature) {
		t.Error(err)
	}
}
