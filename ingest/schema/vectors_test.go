package schema

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/multiformats/go-multihash"
)

// Vectors as they lie in testdata; see the README there.

type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

type base64Bytes []byte

func (b *base64Bytes) UnmarshalText(text []byte) (err error) {
	*b, err = base64.StdEncoding.DecodeString(string(text))
	return err
}

type blockVector struct {
	CID   cidText  `json:"cid"`
	Block hexBytes `json:"block_hex"`
}

type cidText struct{ Cid cid.Cid }

func (c *cidText) UnmarshalText(text []byte) (err error) {
	c.Cid, err = cid.Decode(string(text))
	return err
}

type adVector struct {
	Name     string
	Block    blockVector
	Fields   adFields
	Signer   string
	Quirk    bool
	Old      bool `json:"deprecated"`
	Sig      signatureVector
	Extended []signatureVector `json:"extended_signatures"`
}

type signatureVector struct {
	Preimage hexBytes `json:"preimage_hex"`
	Payload  hexBytes `json:"payload_multihash_hex"`
	Envelope hexBytes `json:"envelope_hex"`
	Signer   string
}

type adFields struct {
	PreviousID       cidText
	Provider         string
	Addresses        []string
	Entries          cidText
	ContextID        base64Bytes `json:"ContextID_b64"`
	Metadata         base64Bytes `json:"Metadata_b64"`
	IsRm             bool
	ExtendedProvider *struct {
		Override  bool
		Providers []struct {
			ID        string
			Addresses []string
			Metadata  base64Bytes `json:"Metadata_b64"`
		}
	}
}

// ad is the unsigned ad with these fields.
func (f adFields) ad() *Advertisement {
	ad := &Advertisement{
		PreviousID: f.PreviousID.Cid,
		Provider:   f.Provider,
		Addresses:  f.Addresses,
		Entries:    f.Entries.Cid,
		ContextID:  f.ContextID,
		Metadata:   f.Metadata,
		IsRm:       f.IsRm,
	}
	if f.ExtendedProvider == nil {
		return ad
	}
	ad.ExtendedProvider = &ExtendedProvider{Override: f.ExtendedProvider.Override}
	for _, p := range f.ExtendedProvider.Providers {
		ad.ExtendedProvider.Providers = append(ad.ExtendedProvider.Providers, Provider{
			ID: p.ID, Addresses: p.Addresses, Metadata: p.Metadata,
		})
	}
	return ad
}

func adVectors(t testing.TB) []adVector {
	var f struct {
		Vectors []struct {
			adVector
			Signature signatureVector
		}
	}
	load(t, "ads.json", &f)
	var ads []adVector
	for _, v := range f.Vectors {
		v.Sig = v.Signature
		ads = append(ads, v.adVector)
	}
	return ads
}

type chunkVector struct {
	Name   string
	Chunks []struct {
		Block       blockVector
		Multihashes []string `json:"multihashes_b58"`
	}
	Indexed []string   `json:"indexed_b58"`
	Skipped []hexBytes `json:"skipped_hex"`
}

func chunkVectors(t testing.TB) []chunkVector {
	var f struct{ Vectors []chunkVector }
	load(t, "entries.json", &f)
	return f.Vectors
}

type hamtVector struct {
	Name        string
	Root        cidText
	Blocks      []blockVector
	Multihashes []string `json:"multihashes_b58"`
	SameAs      string   `json:"same_multihashes_as"`
}

func hamtVectors(t testing.TB) []hamtVector {
	var f struct{ Vectors []hamtVector }
	load(t, "hamt.json", &f)
	return f.Vectors
}

type headVector struct {
	Name      string
	Head      cidText
	JSON      string
	Topic     string
	Signer    string
	Pubkey    hexBytes `json:"pubkey_hex"`
	Sig       hexBytes `json:"sig_hex"`
	SignedHex hexBytes `json:"signed_bytes_hex"`
}

func headVectors(t testing.TB) []headVector {
	var f struct{ Vectors []headVector }
	load(t, "heads.json", &f)
	return f.Vectors
}

type negativeVector struct {
	Name, Kind string
	CID        cidText
	Hex        hexBytes
}

func negativeVectors(t testing.TB, kind string) []negativeVector {
	var f struct{ Vectors []negativeVector }
	load(t, "negative.json", &f)
	var of []negativeVector
	for _, v := range f.Vectors {
		if v.Kind == kind {
			of = append(of, v)
		}
	}
	if len(of) == 0 {
		t.Fatalf("no negative vectors of kind %s", kind)
	}
	return of
}

// testKeys are the private keys of the vectors by peer ID.
func testKeys(t testing.TB) map[string]crypto.PrivKey {
	var f struct {
		Keys []struct {
			PeerID  string      `json:"peer_id"`
			Private base64Bytes `json:"private_key_b64"`
		}
	}
	load(t, "keys.json", &f)
	keys := map[string]crypto.PrivKey{}
	for _, k := range f.Keys {
		key, err := crypto.UnmarshalPrivateKey(k.Private)
		if err != nil {
			t.Fatal(err)
		}
		keys[k.PeerID] = key
	}
	return keys
}

func load(t testing.TB, name string, into any) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

func parseB58(t testing.TB, texts []string) []multihash.Multihash {
	t.Helper()
	var mhs []multihash.Multihash
	for _, s := range texts {
		mh, err := multihash.FromB58String(s)
		if err != nil {
			t.Fatal(err)
		}
		mhs = append(mhs, mh)
	}
	return mhs
}

// same fails the test when two values differ, nil and empty being the same.
func same(t testing.TB, what string, got, want any) {
	t.Helper()
	opts := cmp.Options{cmpopts.EquateEmpty(), cmp.Comparer(func(a, b cid.Cid) bool { return a == b })}
	if diff := cmp.Diff(want, got, opts); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}
