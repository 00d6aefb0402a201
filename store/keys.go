package store

import (
	"encoding/binary"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// The whole key schema. A key is one prefix byte and its parts; "peer" is one
// length byte and the binary peer ID; numbers are big-endian, so that keys
// sort by them. Values are in rows.go, the posting's in postings.go.
const (
	prefixAbove      = 'a' // a peer pos8           ad above the mark that is done, by publisher
	prefixAssignment = 'c' // c peer                assignment, by publisher
	prefixGeneration = 'd' // d peer ctx peer pos8  generation of (provider, context), by publisher and first position
	prefixPublisher  = 'e' // e peer                publisher's addresses, last error, frozen mark
	prefixProvider   = 'g' // g peer                registry entry, by provider
	prefixOwner      = 'i' // i id8                 record ID -> generation it stands for
	prefixLedger     = 'l' // l cid                 what became of an advertisement
	prefixProgress   = 'm' // m peer                contiguous mark and counts, by publisher
	prefixRecord     = 's' // s peer ctx            metadata and positions of (provider, context)
	prefixTombstone  = 't' // t peer pos8 peer ctx  by publisher: what to tidy up once the mark has passed pos
	prefixPending    = 'w' // w peer pos8           ad known and waiting, by publisher
	prefixExtended   = 'x' // x peer ctx            extended providers of (provider, context); ctx empty: whole chain

	keyFrozen = "f" // the frozen latch
	keyLogSeq = "b" // number of the last log frame of rows that is in the database
	keyNextID = "n" // first record ID not reserved yet
	keyTotals = "u" // counts for Stats
)

const (
	// MaxContextIDBytes and MaxMetadataBytes are the bounds of the wire
	// format: advertisement.md §6.
	MaxContextIDBytes = 64
	MaxMetadataBytes  = 1024
	// MaxMultihashBytes bounds a posting's key: two varints and a digest of
	// at most 128 bytes come nowhere near it.
	MaxMultihashBytes = 300

	maxPeerBytes = 128
	maxCIDBytes  = 160
)

func appendPeer(k []byte, p peer.ID) []byte {
	k = append(k, byte(len(p)))
	return append(k, p...)
}

// appendContext writes a context ID as a key part: one length byte, the bytes.
func appendContext(k []byte, ctx []byte) []byte {
	k = append(k, byte(len(ctx)))
	return append(k, ctx...)
}

func peerKey(prefix byte, p peer.ID) []byte {
	return appendPeer(append(make([]byte, 0, 2+len(p)+8), prefix), p)
}

func peerPosKey(prefix byte, p peer.ID, pos Position) []byte {
	return binary.BigEndian.AppendUint64(peerKey(prefix, p), uint64(pos))
}

func contextKey(prefix byte, provider peer.ID, ctx []byte) []byte {
	k := make([]byte, 0, 3+len(provider)+len(ctx)+64)
	return appendContext(appendPeer(append(k, prefix), provider), ctx)
}

func ownerKey(id uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{prefixOwner}, id)
}

func ledgerKey(ad cid.Cid) []byte {
	return append([]byte{prefixLedger}, ad.Bytes()...)
}

func generationPrefix(provider peer.ID, ctx []byte, publisher peer.ID) []byte {
	return appendPeer(contextKey(prefixGeneration, provider, ctx), publisher)
}

func generationKey(provider peer.ID, ctx []byte, publisher peer.ID, minPos Position) []byte {
	return binary.BigEndian.AppendUint64(generationPrefix(provider, ctx, publisher), uint64(minPos))
}

func tombstoneKey(publisher peer.ID, pos Position, provider peer.ID, ctx []byte) []byte {
	return appendContext(appendPeer(peerPosKey(prefixTombstone, publisher, pos), provider), ctx)
}

// keyEnd is the first key after all keys that begin with k. k must not be all
// 0xff, which no key of the schema is.
func keyEnd(k []byte) []byte {
	end := append([]byte(nil), k...)
	for i := len(end) - 1; i >= 0; i-- {
		end[i]++
		if end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}

// The parse functions are the inverses; they reject anything the functions
// above would not have written.

func parsePeerKey(prefix byte, k []byte) (peer.ID, error) {
	r := keyReader(prefix, k)
	p := r.peerPart()
	return p, r.done("key")
}

func parsePeerPosKey(prefix byte, k []byte) (peer.ID, Position, error) {
	r := keyReader(prefix, k)
	p, pos := r.peerPart(), Position(r.uint64())
	return p, pos, r.done("key")
}

func parseContextKey(prefix byte, k []byte) (provider peer.ID, ctx []byte, err error) {
	r := keyReader(prefix, k)
	provider, ctx = r.peerPart(), r.contextPart()
	return provider, ctx, r.done("key")
}

func parseGenerationKey(k []byte) (provider peer.ID, ctx []byte, publisher peer.ID, minPos Position, err error) {
	r := keyReader(prefixGeneration, k)
	provider, ctx = r.peerPart(), r.contextPart()
	publisher, minPos = r.peerPart(), Position(r.uint64())
	return provider, ctx, publisher, minPos, r.done("key")
}

func parseTombstoneKey(k []byte) (publisher peer.ID, pos Position, provider peer.ID, ctx []byte, err error) {
	r := keyReader(prefixTombstone, k)
	publisher, pos = r.peerPart(), Position(r.uint64())
	provider, ctx = r.peerPart(), r.contextPart()
	return publisher, pos, provider, ctx, r.done("key")
}

func keyReader(prefix byte, k []byte) *reader {
	r := &reader{b: k}
	if r.byte() != prefix {
		r.fail()
	}
	return r
}

func (r *reader) peerPart() peer.ID {
	return peer.ID(r.take(int(r.byte()), maxPeerBytes))
}

func (r *reader) contextPart() []byte {
	return r.take(int(r.byte()), MaxContextIDBytes)
}

func checkPeer(what string, p peer.ID) error {
	if len(p) == 0 || len(p) > maxPeerBytes {
		return fmt.Errorf("%s ID of %d bytes: %w", what, len(p), ErrInvalid)
	}
	return nil
}

func checkCID(what string, c cid.Cid) error {
	if !c.Defined() || c.ByteLen() > maxCIDBytes {
		return fmt.Errorf("%s CID of %d bytes: %w", what, c.ByteLen(), ErrInvalid)
	}
	return nil
}
