package schema

import (
	"errors"
	"testing"
)

// What we make of each bad advertisement of the vectors. An ad passes three
// gates, decode, Verify and CheckIngest; it is refused at one of them with the
// given error, or passes all and is signed by signer.
var negativeAds = map[string]struct {
	gate   string
	err    error
	signer string // of those that pass Verify
}{
	"ad-bad-signature":            {"verify", ErrBadSignature, ""},
	"ad-tampered-metadata":        {"verify", ErrBadSignature, ""},
	"ad-tampered-isrm":            {"verify", ErrBadSignature, ""},
	"ad-tampered-context-id":      {"", nil, providerID},
	"ad-wrong-key":                {"", nil, strangerID},
	"ad-wrong-domain":             {"verify", ErrBadSignature, ""},
	"ad-empty-signature":          {"verify", ErrBadSignature, ""},
	"ad-garbage-signature":        {"verify", ErrBadSignature, ""},
	"ad-context-id-65":            {"verify", ErrMalformed, ""},
	"ad-metadata-1025":            {"verify", ErrMalformed, ""},
	"ad-bad-provider-id":          {"verify", ErrMalformed, ""},
	"ad-entries-without-metadata": {"ingest", ErrEntriesWithoutMetadata, providerID},
	"xp-tampered-address":         {"verify", ErrBadSignature, ""},
	"xp-tampered-override":        {"verify", ErrBadSignature, ""},
	"xp-tampered-context":         {"verify", ErrBadSignature, ""},
	"xp-missing-main-provider":    {"verify", ErrMalformed, ""},
	"xp-signed-by-stranger":       {"verify", ErrBadSignature, ""},
	"xp-on-remove":                {"verify", ErrMalformed, ""},
	"xp-override-without-context": {"ingest", ErrOverrideWithoutContext, providerID},
	"xp-without-address":          {"", nil, providerID},
	"ad-truncated-cbor":           {"decode", ErrMalformed, ""},
	"ad-cid-mismatch":             {"decode", ErrHashMismatch, ""},
	"ad-cbor-trailing-byte":       {"decode", ErrMalformed, ""},
	"ad-json-under-cbor-cid":      {"decode", ErrMalformed, ""},
	"ad-json-trailing":            {"decode", ErrMalformed, ""},
	"ad-missing-isrm":             {"decode", ErrMalformed, ""},
	"ad-extra-field":              {"decode", ErrMalformed, ""},
	"ad-null-previous":            {"decode", ErrMalformed, ""},
	"ad-null-extended-provider":   {"decode", ErrMalformed, ""},
	"ad-null-metadata":            {"decode", ErrMalformed, ""},
	"ad-addresses-string":         {"decode", ErrMalformed, ""},
	"ad-padded-base64":            {"", nil, providerID},
}

const (
	providerID = "12D3KooWF2uBBKjGJA7LqUWjAcXcnwkAjXjBQDKFTafDkfgCUJDw"
	strangerID = "12D3KooWAT6v4tnGjEs9azNk6Xv5k9GKWxW19rzB3REo7j1gVSd6"
)

func TestBadAdvertisements(t *testing.T) {
	vectors := negativeVectors(t, "ad")
	if len(vectors) != len(negativeAds) {
		t.Errorf("%d vectors, %d expectations", len(vectors), len(negativeAds))
	}
	for _, v := range vectors {
		t.Run(v.Name, func(t *testing.T) {
			want, ok := negativeAds[v.Name]
			if !ok {
				t.Fatal("no expectation")
			}
			gate, signer, err := passGates(v)
			if gate != want.gate || signer != want.signer || !errors.Is(err, want.err) {
				t.Errorf("gate %q, signer %q, error %v; want %q, %q, %v", gate, signer, err, want.gate, want.signer, want.err)
			}
		})
	}
}

// passGates tells which gate stops an ad.
func passGates(v negativeVector) (gate, signer string, err error) {
	ad, err := DecodeAdvertisement(v.CID.Cid, v.Hex)
	if err != nil {
		return "decode", "", err
	}
	id, err := ad.Verify()
	if err != nil {
		return "verify", "", err
	}
	if err := ad.CheckIngest(); err != nil {
		return "ingest", id.String(), err
	}
	return "", id.String(), nil
}

func TestBadEntryChunks(t *testing.T) {
	d := NewChunkDecoder(DefaultLimits)
	for _, v := range negativeVectors(t, "entries") {
		t.Run(v.Name, func(t *testing.T) {
			if e, err := DecodeEntryChunk(v.CID.Cid, v.Hex); !errors.Is(err, ErrMalformed) {
				t.Errorf("DecodeEntryChunk: %v, %v", e, err)
			}
			if c, err := d.Decode(v.CID.Cid, v.Hex); !errors.Is(err, ErrMalformed) {
				t.Errorf("ChunkDecoder: %v, %v", c, err)
			}
		})
	}
}

var negativeHeads = map[string]struct {
	gate   string
	err    error
	signer string
}{
	"head-other-key":     {"", nil, strangerID},
	"head-bad-signature": {"verify", ErrBadSignature, ""},
	"head-topic-swapped": {"verify", ErrBadSignature, ""},
	"head-no-signature":  {"verify", ErrBadSignature, ""},
	"head-no-pubkey":     {"verify", ErrBadSignature, ""},
	"head-missing-field": {"decode", ErrMalformed, ""},
	"head-wrong-shape":   {"decode", ErrMalformed, ""},
	"head-bare-cid":      {"decode", ErrMalformed, ""},
}

func TestBadHeads(t *testing.T) {
	vectors := negativeVectors(t, "head")
	if len(vectors) != len(negativeHeads) {
		t.Errorf("%d vectors, %d expectations", len(vectors), len(negativeHeads))
	}
	for _, v := range vectors {
		t.Run(v.Name, func(t *testing.T) {
			want, ok := negativeHeads[v.Name]
			if !ok {
				t.Fatal("no expectation")
			}
			gate, signer := "decode", ""
			h, err := DecodeSignedHead(v.Hex)
			if err == nil {
				gate = "verify"
				id, verr := h.Verify()
				if err = verr; err == nil {
					gate, signer = "", id.String()
				}
			}
			if gate != want.gate || signer != want.signer || !errors.Is(err, want.err) {
				t.Errorf("gate %q, signer %q, error %v; want %q, %q, %v", gate, signer, err, want.gate, want.signer, want.err)
			}
		})
	}
}
