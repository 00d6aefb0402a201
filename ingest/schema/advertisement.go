package schema

import (
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Advertisement is one link of an advertisement chain: one change to what a
// provider offers. It is not safe for concurrent writing.
//
//	type Advertisement struct {
//		PreviousID       optional Link
//		Provider         String
//		Addresses        [String]
//		Signature        Bytes
//		Entries          Link
//		ContextID        Bytes
//		Metadata         Bytes
//		IsRm             Bool
//		ExtendedProvider optional ExtendedProvider
//	}
//
// Source: IPNI.md, Advertisements.
type Advertisement struct {
	// PreviousID is the ad before this one, Undef at the start of a chain.
	PreviousID cid.Cid
	// Provider is the peer ID, as text, of who serves the content.
	Provider string
	// Addresses are multiaddrs, as text, at which the provider serves it.
	// They are not checked here; the list may be empty.
	Addresses []string
	// Signature is a libp2p envelope, see Verify.
	Signature []byte
	// Entries is the first entry chunk, a HAMT root, or NoEntries.
	Entries cid.Cid
	// ContextID names, with Provider, what this ad is about: at most
	// MaxContextIDBytes, may be empty.
	ContextID []byte
	// Metadata says how to retrieve the content: at most MaxMetadataBytes, may
	// be empty. Package metadata reads it.
	Metadata []byte
	// IsRm marks the removal of everything under ContextID.
	IsRm bool
	// ExtendedProvider is nil when the ad does not change the extended
	// providers of its context ID.
	ExtendedProvider *ExtendedProvider
}

// ExtendedProvider is the set of further providers of the chain, when the ad
// has no context ID, or else of the ad's context ID.
//
//	type ExtendedProvider struct {
//		Providers [Provider]
//		Override  Bool
//	}
type ExtendedProvider struct {
	// Providers is the set. An empty list removes the set.
	Providers []Provider
	// Override hides the chain's set for this context ID.
	Override bool
}

// Provider is one extended provider.
//
//	type Provider struct {
//		ID        String
//		Addresses [String]
//		Metadata  Bytes
//		Signature Bytes
//	}
type Provider struct {
	// ID is the peer ID as text.
	ID string
	// Addresses are multiaddrs as text. Without any the entry has no effect.
	Addresses []string
	// Metadata, when empty, is inherited from the ad that matched.
	Metadata []byte
	// Signature is a libp2p envelope by ID's own key, see Verify.
	Signature []byte
}

// DecodeAdvertisement reads the block named by c. Size, hash and shape are
// checked, see the package comment; values and signatures are not: that is
// Verify. The result shares no memory with block.
//
// Errors: ErrTooLarge, ErrUnsupported, ErrHashMismatch, ErrMalformed.
func DecodeAdvertisement(c cid.Cid, block []byte) (*Advertisement, error) {
	codec, err := openBlock(c, block, MaxAdBytes)
	if err != nil {
		return nil, fmt.Errorf("decode ad: %w", err)
	}
	ad := new(Advertisement)
	if err := decodeNode(codec, block, ad.slot(codec)); err != nil {
		return nil, fmt.Errorf("decode ad %s: %w", c, err)
	}
	return ad, nil
}

// maxAddresses bounds the addresses of one provider, maxExtended the extended
// providers of one ad. Both are far above what is in use; they keep the work
// and the memory that a megabyte of the smallest elements would ask for small.
const (
	maxAddresses = 4096
	maxExtended  = 4096
)

func (a *Advertisement) slot(codec Codec) datamodel.NodeAssembler {
	return structSlot{at("advertisement"), []field{
		{"PreviousID", true, linkSlot{at("PreviousID"), codec, &a.PreviousID}},
		{"Provider", false, stringSlot{at("Provider"), &a.Provider}},
		{"Addresses", false, stringListSlot("Addresses", &a.Addresses)},
		{"Signature", false, bytesSlot{at("Signature"), &a.Signature}},
		{"Entries", false, linkSlot{at("Entries"), codec, &a.Entries}},
		{"ContextID", false, bytesSlot{at("ContextID"), &a.ContextID}},
		{"Metadata", false, bytesSlot{at("Metadata"), &a.Metadata}},
		{"IsRm", false, boolSlot{at("IsRm"), &a.IsRm}},
		{"ExtendedProvider", true, extendedSlot{at("ExtendedProvider"), &a.ExtendedProvider}},
	}}
}

// extendedSlot makes the ExtendedProvider when its map begins.
type extendedSlot struct {
	refuse
	dst **ExtendedProvider
}

func (s extendedSlot) BeginMap(sizeHint int64) (datamodel.MapAssembler, error) {
	xp := new(ExtendedProvider)
	*s.dst = xp
	return structSlot{s.refuse, []field{
		{"Providers", false, listSlot{at("Providers"), maxExtended, func() datamodel.NodeAssembler {
			xp.Providers = append(xp.Providers, Provider{})
			return xp.Providers[len(xp.Providers)-1].slot()
		}}},
		{"Override", false, boolSlot{at("Override"), &xp.Override}},
	}}.BeginMap(sizeHint)
}

func (p *Provider) slot() datamodel.NodeAssembler {
	return structSlot{at("extended provider"), []field{
		{"ID", false, stringSlot{at("ID"), &p.ID}},
		{"Addresses", false, stringListSlot("Addresses", &p.Addresses)},
		{"Metadata", false, bytesSlot{at("Metadata"), &p.Metadata}},
		{"Signature", false, bytesSlot{at("Signature"), &p.Signature}},
	}}
}

func stringListSlot(place string, dst *[]string) listSlot {
	return listSlot{at(place), maxAddresses, func() datamodel.NodeAssembler {
		*dst = append(*dst, "")
		return stringSlot{at(place), &(*dst)[len(*dst)-1]}
	}}
}

// Encode writes the ad in canonical form; LinkOf(codec, bytes) is its CID. It
// does not judge the values, but Entries must be a link.
func (a *Advertisement) Encode(codec Codec) ([]byte, error) {
	keys := 7
	if a.PreviousID.Defined() {
		keys++
	}
	if a.ExtendedProvider != nil {
		keys++
	}
	b, err := encodeMap(codec, keys, func(ma datamodel.MapAssembler) {
		if a.PreviousID.Defined() {
			qp.MapEntry(ma, "PreviousID", link(a.PreviousID))
		}
		qp.MapEntry(ma, "Provider", qp.String(a.Provider))
		qp.MapEntry(ma, "Addresses", stringList(a.Addresses))
		qp.MapEntry(ma, "Signature", qp.Bytes(a.Signature))
		qp.MapEntry(ma, "Entries", link(a.Entries))
		qp.MapEntry(ma, "ContextID", qp.Bytes(a.ContextID))
		qp.MapEntry(ma, "Metadata", qp.Bytes(a.Metadata))
		qp.MapEntry(ma, "IsRm", qp.Bool(a.IsRm))
		if a.ExtendedProvider != nil {
			qp.MapEntry(ma, "ExtendedProvider", a.ExtendedProvider.node())
		}
	})
	if err != nil {
		return nil, fmt.Errorf("encode ad of provider %.64q: %w", a.Provider, err)
	}
	return b, nil
}

func (xp *ExtendedProvider) node() qp.Assemble {
	return qp.Map(2, func(ma datamodel.MapAssembler) {
		qp.MapEntry(ma, "Override", qp.Bool(xp.Override))
		qp.MapEntry(ma, "Providers", qp.List(int64(len(xp.Providers)), func(la datamodel.ListAssembler) {
			for i := range xp.Providers {
				qp.ListEntry(la, xp.Providers[i].node())
			}
		}))
	})
}

func (p *Provider) node() qp.Assemble {
	return qp.Map(4, func(ma datamodel.MapAssembler) {
		qp.MapEntry(ma, "ID", qp.String(p.ID))
		qp.MapEntry(ma, "Addresses", stringList(p.Addresses))
		qp.MapEntry(ma, "Metadata", qp.Bytes(p.Metadata))
		qp.MapEntry(ma, "Signature", qp.Bytes(p.Signature))
	})
}

// ProviderID is Provider as a peer ID, or an ErrMalformed.
func (a *Advertisement) ProviderID() (peer.ID, error) {
	id, err := parsePeerID(a.Provider)
	if err != nil {
		return "", fmt.Errorf("provider %w", err)
	}
	return id, nil
}

// maxPeerIDText bounds the text of a peer ID, as base58 takes quadratic time to
// read. The longest in use has 62 characters (an Ed25519 key in CID form).
const maxPeerIDText = 256

func parsePeerID(text string) (peer.ID, error) {
	if len(text) > maxPeerIDText {
		return "", fmt.Errorf("%w: peer ID of %d characters", ErrMalformed, len(text))
	}
	id, err := peer.Decode(text)
	if err != nil {
		return "", fmt.Errorf("%w: peer ID %q: %v", ErrMalformed, text, err)
	}
	return id, nil
}
