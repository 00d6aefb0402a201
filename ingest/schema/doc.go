// Package schema is what travels on an advertisement chain: advertisements,
// entry chunks, HAMT entries and signed heads. It encodes, decodes, signs and
// verifies them, and nothing else: fetching, ordering and storing are its
// callers' work.
//
//	signed head ──head──▶ advertisement ──PreviousID──▶ advertisement ─▶ … genesis
//	 (dag-json,               │  │                            │
//	  no CID of its own)      │  └─ExtendedProvider           └─Entries─▶ no-entries CID
//	                          └─Entries─▶ entry chunk ──Next──▶ entry chunk
//	                                  or  HAMT root ──▶ HAMT nodes
//
// # What it promises
//
// The codec of a CID, dag-json or dag-cbor, decides how its block is read.
// Every Decode function that takes a CID first checks the size of the block,
// then that the bytes hash to the CID, then the shape: an unknown, missing,
// repeated or null key is an error, and so are bytes after the node. White
// space and key order are free, as CIDs are over the bytes served. What Encode
// writes is canonical: keys sorted bytewise in dag-json, by length and then
// bytewise in dag-cbor.
//
// All input is taken for hostile. Blocks are at most [MaxBlockBytes] (ads
// [MaxAdBytes], heads [MaxHeadBytes]); nesting, list lengths and the text of
// links and peer IDs are bounded before anything is built from them; nothing
// panics.
//
// [ChunkDecoder] is the hot path of an indexer: one pass over the bytes of an
// entry chunk that hashes and decodes at once, without allocating per
// multihash. [DecodeEntryChunk] reads the same through go-ipld-prime; the two
// accept the same blocks and give the same result, which a fuzz test checks.
//
// # Errors
//
// A caller may test for [ErrMalformed], [ErrBadSignature], [ErrHashMismatch],
// [ErrTooLarge] and [ErrUnsupported]; [Advertisement.CheckIngest] adds
// [ErrOverrideWithoutContext] and [ErrEntriesWithoutMetadata]. All of them
// tell something about the bytes that asking again cannot change, except
// ErrHashMismatch, which tells something about who served them.
//
// Sources: ipni/specs IPNI.md (Advertisements, Entries, Extended Providers)
// and IPNI_HTTP_PROVIDER.md (signed head), as practised by go-libipni v0.8.2.
package schema
