package schema

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

// unsigned is a copy of ad without its signatures.
func unsigned(ad *Advertisement) *Advertisement {
	u := *ad
	u.Signature = nil
	if ad.ExtendedProvider != nil {
		xp := ExtendedProvider{Override: ad.ExtendedProvider.Override}
		for _, p := range ad.ExtendedProvider.Providers {
			p.Signature = nil
			xp.Providers = append(xp.Providers, p)
		}
		u.ExtendedProvider = &xp
	}
	return &u
}

func TestAdvertisementsOfTheReference(t *testing.T) {
	for _, v := range adVectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			c, block := v.Block.CID.Cid, []byte(v.Block.Block)
			ad, err := DecodeAdvertisement(c, block)
			if err != nil {
				t.Fatal(err)
			}
			signer, err := ad.Verify()
			if err != nil {
				t.Fatal(err)
			}
			if err := ad.CheckIngest(); err != nil {
				t.Errorf("CheckIngest: %v", err)
			}
			if kind, err := Classify(c, block); err != nil || kind != KindAdvertisement {
				t.Errorf("Classify: %v, %v", kind, err)
			}
			if v.Fields.Provider == "" { // the vector with odd white space has no fields
				same(t, "signer", signer.String(), ad.Provider)
				return
			}
			same(t, "signer", signer.String(), v.Signer)
			same(t, "fields", unsigned(ad), v.Fields.ad())
			checkSignatures(t, ad, v)
			again, err := ad.Encode(Codec(c.Type()))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(again, block) {
				t.Errorf("encoded again:\n%s\nwant\n%s", again, block)
			}
			same(t, "CID", LinkOf(Codec(c.Type()), again), c)
		})
	}
}

func checkSignatures(t *testing.T, ad *Advertisement, v adVector) {
	same(t, "signature", ad.Signature, []byte(v.Sig.Envelope))
	same(t, "preimage", ad.preimage(), []byte(v.Sig.Preimage))
	same(t, "payload", []byte(sha256Multihash(ad.preimage())), []byte(v.Sig.Payload))
	for i, x := range v.Extended {
		p := &ad.ExtendedProvider.Providers[i]
		same(t, "extended signature", p.Signature, []byte(x.Envelope))
		same(t, "extended preimage", ad.extendedPreimage(p), []byte(x.Preimage))
		same(t, "extended payload", []byte(sha256Multihash(ad.extendedPreimage(p))), []byte(x.Payload))
		same(t, "extended signer", p.ID, x.Signer)
	}
}

func TestSigningMakesTheBlocksOfTheReference(t *testing.T) {
	keys := testKeys(t)
	for _, v := range adVectors(t) {
		if v.Quirk || v.Old {
			continue // we do not write these forms
		}
		t.Run(v.Name, func(t *testing.T) {
			ad, err := v.Fields.ad(), error(nil)
			if ad.ExtendedProvider == nil {
				err = ad.Sign(keys[v.Signer])
			} else {
				err = ad.SignWithExtended(keys[v.Signer], func(id string) (crypto.PrivKey, error) {
					return keys[id], nil
				})
			}
			if err != nil {
				t.Fatal(err)
			}
			block, err := ad.Encode(Codec(v.Block.CID.Cid.Type()))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(block, v.Block.Block) {
				t.Errorf("signed block:\n%s\nwant\n%s", block, v.Block.Block)
			}
		})
	}
}

func TestEveryKeyTypeSignsAndVerifies(t *testing.T) {
	for _, typ := range []struct{ typ, bits int }{
		{crypto.Ed25519, 0}, {crypto.Secp256k1, 0}, {crypto.ECDSA, 0}, {crypto.RSA, 2048},
	} {
		t.Run(fmt.Sprint("type ", typ.typ), func(t *testing.T) {
			key, _, err := crypto.GenerateKeyPairWithReader(typ.typ, typ.bits, rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			id, err := peer.IDFromPrivateKey(key)
			if err != nil {
				t.Fatal(err)
			}
			ad := newAd(id)
			ad.ExtendedProvider = &ExtendedProvider{Providers: []Provider{{ID: id.String(), Metadata: []byte{1}}}}
			if err := ad.SignWithExtended(key, noKey); err != nil {
				t.Fatal(err)
			}
			for _, codec := range []Codec{DagJSON, DagCBOR} {
				block, err := ad.Encode(codec)
				if err != nil {
					t.Fatal(err)
				}
				got, err := DecodeAdvertisement(LinkOf(codec, block), block)
				if err != nil {
					t.Fatal(err)
				}
				same(t, "ad", got, ad)
				if signer, err := got.Verify(); err != nil || signer != id {
					t.Errorf("Verify: %s, %v, want %s", signer, err, id)
				}
			}
			head, err := SignHead(LinkOf(DagJSON, nil), "/topic", key)
			if err != nil {
				t.Fatal(err)
			}
			if signer, err := head.Verify(); err != nil || signer != id {
				t.Errorf("Verify head: %s, %v, want %s", signer, err, id)
			}
		})
	}
}

func noKey(id string) (crypto.PrivKey, error) { return nil, fmt.Errorf("no key of %s", id) }

// newAd is a valid unsigned ad.
func newAd(provider peer.ID) *Advertisement {
	return &Advertisement{
		Provider:  provider.String(),
		Addresses: []string{"/ip4/192.0.2.1/tcp/3104/http"},
		Entries:   LinkOf(DagCBOR, []byte("entries")),
		ContextID: []byte("context"),
		Metadata:  []byte{0x80, 0x12},
	}
}

func newKey(t testing.TB) (crypto.PrivKey, peer.ID) {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, id
}

func TestSignRefusesWhatNobodyWouldAccept(t *testing.T) {
	key, id := newKey(t)
	_, other := newKey(t)
	strangerKey, _ := newKey(t)
	withExtended := func(providers ...Provider) func(*Advertisement) {
		return func(ad *Advertisement) { ad.ExtendedProvider = &ExtendedProvider{Providers: providers} }
	}
	stranger := func(string) (crypto.PrivKey, error) { return strangerKey, nil }
	for _, tt := range []struct {
		name     string
		change   func(*Advertisement)
		extended bool
		keyOf    func(string) (crypto.PrivKey, error)
		want     string
	}{
		{"long context ID", func(ad *Advertisement) { ad.ContextID = make([]byte, 65) }, false, nil, "context ID of 65 bytes"},
		{"long metadata", func(ad *Advertisement) { ad.Metadata = make([]byte, 1025) }, false, nil, "metadata of 1025 bytes"},
		{"no entries", func(ad *Advertisement) { ad.Entries = cid.Undef }, false, nil, "no entries link"},
		{"no provider", func(ad *Advertisement) { ad.Provider = "" }, false, nil, "peer ID"},
		{"Sign with extended providers", withExtended(Provider{ID: id.String()}), false, nil, "whose keys must sign"},
		{"SignWithExtended without", func(*Advertisement) {}, true, noKey, "no extended providers"},
		{"removal with extended providers", func(ad *Advertisement) {
			withExtended(Provider{ID: id.String()})(ad)
			ad.IsRm = true
		}, true, noKey, "on a removal"},
		{"own provider missing", withExtended(Provider{ID: other.String()}), true, noKey, "without the ad's own"},
		{"bad extended ID", withExtended(Provider{ID: id.String()}, Provider{ID: "x"}), true, noKey, "peer ID"},
		{"key unknown", withExtended(Provider{ID: id.String()}, Provider{ID: other.String()}), true, noKey, "no key of"},
		{"key of another", withExtended(Provider{ID: id.String()}, Provider{ID: other.String()}), true, stranger, "of another peer"},
		{"long extended metadata", withExtended(Provider{ID: id.String(), Metadata: make([]byte, 1025)}), true, noKey, "metadata of 1025"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ad := newAd(id)
			tt.change(ad)
			err := error(nil)
			if tt.extended {
				err = ad.SignWithExtended(key, tt.keyOf)
			} else {
				err = ad.Sign(key)
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestAnEmptyExtendedListNeedsNoProvider(t *testing.T) {
	key, id := newKey(t)
	ad := newAd(id)
	ad.ExtendedProvider = &ExtendedProvider{}
	if err := ad.SignWithExtended(key, noKey); err != nil {
		t.Fatal(err)
	}
	if _, err := ad.Verify(); err != nil {
		t.Error(err)
	}
}

func TestDecodeAdvertisementChecksSizeCodecAndHashFirst(t *testing.T) {
	_, id := newKey(t)
	block, err := newAd(id).Encode(DagJSON)
	if err != nil {
		t.Fatal(err)
	}
	big := append(bytes.Repeat([]byte(" "), MaxAdBytes), block...)
	for _, tt := range []struct {
		name  string
		c     cid.Cid
		block []byte
		want  error
	}{
		{"large", LinkOf(DagJSON, big), big, ErrTooLarge},
		{"raw", cid.NewCidV1(cid.Raw, sha256Multihash(block)), block, ErrUnsupported},
		{"CIDv0", cid.NewCidV0(sha256Multihash(block)), block, ErrUnsupported},
		{"undefined", cid.Undef, block, ErrUnsupported},
		{"no-entries", NoEntries, nil, ErrUnsupported},
		{"other bytes", LinkOf(DagJSON, []byte("other")), block, ErrHashMismatch},
		{"not dag-json", LinkOf(DagJSON, []byte("other")), []byte("other"), ErrMalformed},
		{"empty", LinkOf(DagJSON, nil), nil, ErrMalformed},
		{"empty dag-cbor", LinkOf(DagCBOR, nil), nil, ErrMalformed},
		{"wrong codec", LinkOf(DagCBOR, block), block, ErrMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := DecodeAdvertisement(tt.c, tt.block); !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
		})
	}
}
