package schema

import (
	"context"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

func codecOfBool(dagCBOR bool) Codec {
	if dagCBOR {
		return DagCBOR
	}
	return DagJSON
}

// FuzzChunkDecoder compares the fast decoder with the plain one, and both with
// go-ipld-prime's bindnode, which is what the reference uses.
func FuzzChunkDecoder(f *testing.F) {
	for _, v := range chunkVectors(f) {
		for _, c := range v.Chunks {
			f.Add(c.Block.CID.Cid.Type() == cid.DagCBOR, []byte(c.Block.Block), uint8(0), uint8(0), uint16(0))
		}
	}
	for _, v := range negativeVectors(f, "entries") {
		f.Add(v.CID.Cid.Type() == cid.DagCBOR, []byte(v.Hex), uint8(0), uint8(0), uint16(0))
	}
	for _, shape := range jsonShapes {
		f.Add(false, fillShape(shape.text), uint8(1), uint8(64), uint16(2))
	}
	// Reused from input to input, as it is in use.
	decoders := map[Limits]*ChunkDecoder{}
	f.Fuzz(func(t *testing.T, dagCBOR bool, block []byte, minDigest, maxDigest uint8, maxEntries uint16) {
		limits := Limits{int(minDigest), int(maxDigest), int(maxEntries)}.orDefault()
		d, ok := decoders[limits]
		if !ok {
			if len(decoders) > 100 {
				clear(decoders)
			}
			d = NewChunkDecoder(limits)
			decoders[limits] = d
		}
		codec := codecOfBool(dagCBOR)
		c := LinkOf(codec, block)
		e, skipped, err := decodeBoth(t, d, c, block)
		ref, refErr := referenceDecode[referenceChunk](codec, "EntryChunk", block)
		switch {
		case err == nil && refErr != nil:
			t.Fatalf("accepted; the reference refuses: %v", refErr)
		case err != nil && refErr == nil && !stricter(err):
			t.Fatalf("refused: %v; the reference accepts", err)
		case err == nil:
			if len(ref.Entries) != len(e.Entries)+skipped || linkCID(ref.Next) != e.Next {
				t.Fatalf("%d and %d skipped, next %s; reference: %d, next %s", len(e.Entries), skipped, e.Next, len(ref.Entries), ref.Next)
			}
		}
		if kind, kerr := Classify(c, block); err == nil && (kerr != nil || kind != KindEntryChunk) {
			t.Fatalf("Classify: %v, %v", kind, kerr)
		}
	})
}

func FuzzDecodeAdvertisement(f *testing.F) {
	for _, v := range adVectors(f) {
		f.Add(v.Block.CID.Cid.Type() == cid.DagCBOR, []byte(v.Block.Block))
	}
	for _, v := range negativeVectors(f, "ad") {
		f.Add(v.CID.Cid.Type() == cid.DagCBOR, []byte(v.Hex))
	}
	f.Fuzz(func(t *testing.T, dagCBOR bool, block []byte) {
		codec := codecOfBool(dagCBOR)
		c := LinkOf(codec, block)
		ad, err := DecodeAdvertisement(c, block)
		ref, refErr := referenceDecode[referenceAd](codec, "Advertisement", block)
		agree(t, ad, err, func() *Advertisement { return ref.ad() }, refErr)
		if err != nil {
			return
		}
		if kind, err := Classify(c, block); err != nil || kind != KindAdvertisement {
			t.Fatalf("Classify: %v, %v", kind, err)
		}
		if signer, err := ad.Verify(); err == nil && signer == "" {
			t.Fatal("verified without a signer")
		}
		ad.CheckIngest()
		again, err := ad.Encode(DagCBOR)
		if err != nil {
			t.Fatal(err)
		}
		if len(again) > MaxAdBytes {
			return
		}
		second, err := DecodeAdvertisement(LinkOf(DagCBOR, again), again)
		if err != nil {
			t.Fatal(err)
		}
		same(t, "encoded and decoded again", second, ad)
	})
}

func FuzzDecodeSignedHead(f *testing.F) {
	for _, v := range headVectors(f) {
		f.Add([]byte(v.JSON))
	}
	for _, v := range negativeVectors(f, "head") {
		f.Add([]byte(v.Hex))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := DecodeSignedHead(b)
		ref, refErr := referenceDecode[referenceHead](DagJSON, "SignedHead", b)
		agree(t, h, err, func() *SignedHead { return ref.head() }, refErr)
		if err != nil {
			return
		}
		if signer, err := h.Verify(); err == nil && signer == "" {
			t.Fatal("verified without a signer")
		}
		again, err := h.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if len(again) > MaxHeadBytes {
			return
		}
		if _, err := DecodeSignedHead(again); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzWalkHAMT walks a root whose children are all the same node.
func FuzzWalkHAMT(f *testing.F) {
	for _, v := range hamtVectors(f) {
		child := []byte(jsonLeaf(3, 0))
		if len(v.Blocks) > 0 {
			child = fileBlock(f, v.Blocks[0].CID.Cid)
		}
		f.Add(false, fileBlock(f, v.Root.Cid), child)
	}
	f.Add(true, []byte("\xa3\x64hamt\x82\x41\x01\x81\x81\x82\x43\x00\x01a\xf5\x67hashAlg\x18\x22\x6abucketSize\x03"), []byte{})
	f.Fuzz(func(t *testing.T, dagCBOR bool, root, child []byte) {
		c := LinkOf(codecOfBool(dagCBOR), root)
		fetched := 0
		fetch := func(_ context.Context, want cid.Cid, _ []cid.Cid) ([]byte, error) {
			fetched++
			if want == c {
				return root, nil
			}
			return child, nil
		}
		limits := HAMTLimits{MaxDepth: 4, MaxBlocks: 50, MaxBlockBytes: 1 << 16}
		err := WalkHAMT(context.Background(), c, fetch, limits, Limits{}, func(mhs []multihash.Multihash) error {
			if len(mhs) == 0 || len(mhs) > hamtBatch {
				t.Fatalf("batch of %d", len(mhs))
			}
			for _, mh := range mhs {
				if _, err := multihash.Cast(mh); err != nil {
					t.Fatalf("%x: %v", mh, err)
				}
			}
			return nil
		})
		if fetched > limits.MaxBlocks {
			t.Fatalf("%d blocks fetched", fetched)
		}
		if err != nil {
			return
		}
		if kind, err := Classify(c, root); err != nil || kind != KindHAMT {
			t.Fatalf("Classify: %v, %v", kind, err)
		}
	})
}
