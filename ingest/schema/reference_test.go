package schema

import (
	"bytes"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/codec/dagjson"
	"github.com/ipld/go-ipld-prime/datamodel"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/bindnode"
	ipldschema "github.com/ipld/go-ipld-prime/schema"
	schemadmt "github.com/ipld/go-ipld-prime/schema/dmt"
	schemadsl "github.com/ipld/go-ipld-prime/schema/dsl"
)

// The schema as the reference has it, for bindnode: a decoder that shares no
// line with ours above the codecs, to compare with.
const referenceSchema = `
type ExtendedProvider struct {
	Providers [Provider]
	Override Bool
}
type Provider struct {
	ID String
	Addresses [String]
	Metadata Bytes
	Signature Bytes
}
type Advertisement struct {
	PreviousID optional Link
	Provider String
	Addresses [String]
	Signature Bytes
	Entries Link
	ContextID Bytes
	Metadata Bytes
	IsRm Bool
	ExtendedProvider optional ExtendedProvider
}
type EntryChunk struct {
	Entries [Bytes]
	Next optional Link
}
type SignedHead struct {
	head Link
	topic optional String
	pubkey Bytes
	sig Bytes
}
`

type (
	referenceAd struct {
		PreviousID       datamodel.Link
		Provider         string
		Addresses        []string
		Signature        []byte
		Entries          datamodel.Link
		ContextID        []byte
		Metadata         []byte
		IsRm             bool
		ExtendedProvider *referenceExtended
	}
	referenceExtended struct {
		Providers []Provider
		Override  bool
	}
	referenceChunk struct {
		Entries [][]byte
		Next    datamodel.Link
	}
	referenceHead struct {
		Head   datamodel.Link
		Topic  *string
		Pubkey []byte
		Sig    []byte
	}
)

var referenceTypes = func() *ipldschema.TypeSystem {
	dmt, err := schemadsl.ParseBytes([]byte(referenceSchema))
	if err != nil {
		panic(err)
	}
	ts := new(ipldschema.TypeSystem)
	ts.Init()
	if err := schemadmt.Compile(ts, dmt); err != nil {
		panic(err)
	}
	return ts
}()

// referenceDecode reads block as the reference does, hash aside.
func referenceDecode[T any](codec Codec, name string, block []byte) (*T, error) {
	nb := bindnode.Prototype((*T)(nil), referenceTypes.TypeByName(name)).Representation().NewBuilder()
	var err error
	if codec == DagJSON {
		err = dagjson.Decode(nb, bytes.NewReader(block))
	} else {
		err = dagcbor.Decode(nb, bytes.NewReader(block))
	}
	if err != nil {
		return nil, err
	}
	return bindnode.Unwrap(nb.Build()).(*T), nil
}

func linkCID(l datamodel.Link) cid.Cid {
	if l == nil {
		return cid.Undef
	}
	return l.(cidlink.Link).Cid
}

func (r *referenceAd) ad() *Advertisement {
	ad := &Advertisement{
		PreviousID: linkCID(r.PreviousID),
		Provider:   r.Provider,
		Addresses:  r.Addresses,
		Signature:  r.Signature,
		Entries:    linkCID(r.Entries),
		ContextID:  r.ContextID,
		Metadata:   r.Metadata,
		IsRm:       r.IsRm,
	}
	if r.ExtendedProvider != nil {
		ad.ExtendedProvider = &ExtendedProvider{r.ExtendedProvider.Providers, r.ExtendedProvider.Override}
	}
	return ad
}

func (r *referenceHead) head() *SignedHead {
	h := &SignedHead{Head: linkCID(r.Head), Pubkey: r.Pubkey, Sig: r.Sig}
	if r.Topic != nil {
		h.Topic = *r.Topic
	}
	return h
}

// stricter reports whether err is of a kind that we refuse and the reference
// accepts: keys given twice in dag-json, and what is above our limits.
func stricter(err error) bool {
	for _, why := range []string{"second key", "link of ", "too large"} {
		if strings.Contains(err.Error(), why) {
			return true
		}
	}
	return false
}

// agree fails the test when one of two decoders accepts what the other refuses,
// or they read different things.
func agree[T any](t *testing.T, ours T, err error, theirs func() T, theirErr error) {
	t.Helper()
	switch {
	case err == nil && theirErr == nil:
		same(t, "ours and the reference's", ours, theirs())
	case err == nil:
		t.Errorf("accepted; the reference refuses: %v", theirErr)
	case theirErr == nil && !stricter(err):
		t.Errorf("refused: %v; the reference accepts", err)
	}
}
