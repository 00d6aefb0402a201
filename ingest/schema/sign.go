package schema

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"
	"github.com/multiformats/go-multihash"
	"github.com/multiformats/go-varint"
)

// Signatures of ads and extended providers are libp2p envelopes over the
// sha2-256 multihash of a preimage, under one domain and a payload type each:
//
//	ad:                PreviousID Entries Provider Addresses… Metadata IsRm
//	extended provider: PreviousID Entries Provider ContextID
//	                   ID Addresses… Metadata Override
//
// without separators; the last field of both is one byte, 0 or 1. The ad's
// signature covers neither ContextID nor ExtendedProvider: for these one has to
// trust the chain's head, which names the ad by its CID.
const (
	envelopeDomain      = "indexer"
	adPayloadType       = "/indexer/ingest/adSignature"
	extendedPayloadType = "/indexer/ingest/extendedProviderSignature"
)

// Sign validates the ad and sets its Signature to one by key, which need not be
// the provider's. An ad with extended providers needs SignWithExtended.
func (a *Advertisement) Sign(key crypto.PrivKey) error {
	if a.ExtendedProvider != nil {
		return errors.New("sign ad: it has extended providers, whose keys must sign too")
	}
	return a.sign(key)
}

// SignWithExtended validates the ad, and sets the Signature of every extended
// provider and of the ad. The ad is signed by main. keyOf gives the key of each
// extended provider, named by its ID as it stands there; it is not asked for
// the entry that main itself is.
func (a *Advertisement) SignWithExtended(main crypto.PrivKey, keyOf func(id string) (crypto.PrivKey, error)) error {
	if a.ExtendedProvider == nil {
		return errors.New("sign ad: it has no extended providers")
	}
	if err := a.Validate(); err != nil {
		return fmt.Errorf("sign ad: %w", err)
	}
	for i := range a.ExtendedProvider.Providers {
		if err := a.signExtended(&a.ExtendedProvider.Providers[i], main, keyOf); err != nil {
			return err
		}
	}
	return a.sign(main)
}

func (a *Advertisement) sign(key crypto.PrivKey) error {
	if err := a.Validate(); err != nil {
		return fmt.Errorf("sign ad: %w", err)
	}
	sig, err := seal(key, adPayloadType, a.preimage())
	if err != nil {
		return fmt.Errorf("sign ad of provider %s: %w", a.Provider, err)
	}
	a.Signature = sig
	return nil
}

func (a *Advertisement) signExtended(p *Provider, main crypto.PrivKey, keyOf func(id string) (crypto.PrivKey, error)) error {
	id, err := parsePeerID(p.ID)
	if err != nil {
		return fmt.Errorf("sign extended provider: %w", err)
	}
	key := main
	if !id.MatchesPrivateKey(main) {
		if key, err = keyOf(p.ID); err != nil {
			return fmt.Errorf("sign extended provider: key of %s: %w", p.ID, err)
		}
		if !id.MatchesPrivateKey(key) {
			return fmt.Errorf("sign extended provider: key of %s is of another peer", p.ID)
		}
	}
	sig, err := seal(key, extendedPayloadType, a.extendedPreimage(p))
	if err != nil {
		return fmt.Errorf("sign extended provider %s: %w", p.ID, err)
	}
	p.Signature = sig
	return nil
}

// Verify validates the ad and checks its signature and those of its extended
// providers. It returns who signed the ad; whether that peer may publish for
// the provider is for the caller to decide. An extended provider must be signed
// by its own key: the specification says so, though the reference does not look.
//
// Errors: what Validate returns, or ErrBadSignature.
func (a *Advertisement) Verify() (signer peer.ID, err error) {
	if err := a.Validate(); err != nil {
		return "", err
	}
	signer, err = verifyEnvelope(a.Signature, a.preimage())
	if err != nil {
		return "", err
	}
	if a.ExtendedProvider == nil {
		return signer, nil
	}
	for i := range a.ExtendedProvider.Providers {
		if err := a.verifyExtended(&a.ExtendedProvider.Providers[i]); err != nil {
			return "", err
		}
	}
	return signer, nil
}

func (a *Advertisement) verifyExtended(p *Provider) error {
	signer, err := verifyEnvelope(p.Signature, a.extendedPreimage(p))
	if err != nil {
		return fmt.Errorf("extended provider %s: %w", p.ID, err)
	}
	id, err := parsePeerID(p.ID)
	if err != nil {
		return fmt.Errorf("extended provider %w", err)
	}
	if signer != id {
		return fmt.Errorf("%w: extended provider %s is signed by %s", ErrBadSignature, p.ID, signer)
	}
	return nil
}

// preimage is what the ad's signature covers.
func (a *Advertisement) preimage() []byte {
	var b []byte
	b = append(b, a.PreviousID.Bytes()...)
	b = append(b, a.Entries.Bytes()...)
	b = append(b, a.Provider...)
	for _, addr := range a.Addresses {
		b = append(b, addr...)
	}
	b = append(b, a.Metadata...)
	return appendBool(b, a.IsRm)
}

// extendedPreimage is what the signature of the extended provider p covers.
func (a *Advertisement) extendedPreimage(p *Provider) []byte {
	var b []byte
	b = append(b, a.PreviousID.Bytes()...)
	b = append(b, a.Entries.Bytes()...)
	b = append(b, a.Provider...)
	b = append(b, a.ContextID...)
	b = append(b, p.ID...)
	for _, addr := range p.Addresses {
		b = append(b, addr...)
	}
	b = append(b, p.Metadata...)
	return appendBool(b, a.ExtendedProvider.Override)
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

// envelope is what goes into a libp2p envelope: it implements record.Record.
type envelope struct {
	payloadType string
	payload     []byte
}

func (e *envelope) Domain() string                 { return envelopeDomain }
func (e *envelope) Codec() []byte                  { return []byte(e.payloadType) }
func (e *envelope) MarshalRecord() ([]byte, error) { return e.payload, nil }
func (e *envelope) UnmarshalRecord(b []byte) error { e.payload = b; return nil }

func seal(key crypto.PrivKey, payloadType string, preimage []byte) ([]byte, error) {
	env, err := record.Seal(&envelope{payloadType, sha256Multihash(preimage)}, key)
	if err != nil {
		return nil, err
	}
	return env.Marshal()
}

// verifyEnvelope checks that sealed is an envelope over preimage and returns
// its signer. The payload type is not compared, as the reference does not
// either; it is part of what is signed.
func verifyEnvelope(sealed, preimage []byte) (peer.ID, error) {
	var e envelope
	env, err := record.ConsumeTypedEnvelope(sealed, &e)
	if err != nil {
		return "", fmt.Errorf("%w: %v", ErrBadSignature, err)
	}
	if !payloadMatches(e.payload, preimage) {
		return "", fmt.Errorf("%w: it signs other values", ErrBadSignature)
	}
	signer, err := peer.IDFromPublicKey(env.PublicKey)
	if err != nil {
		return "", fmt.Errorf("%w: signer: %v", ErrBadSignature, err)
	}
	return signer, nil
}

// payloadMatches accepts, besides the sha2-256 multihash, the deprecated form
// in live chains: the preimage itself where the digest should be.
func payloadMatches(payload, preimage []byte) bool {
	if want := sha256Multihash(preimage); len(payload) == len(want) {
		return bytes.Equal(payload, want)
	}
	want := append([]byte{multihash.SHA2_256}, varint.ToUvarint(uint64(len(preimage)))...)
	return bytes.Equal(payload, append(want, preimage...))
}
