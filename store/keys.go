package store

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// The whole key schema. A key is one prefix byte and its parts; "peer" is one
// length byte and the binary peer ID; numbers are big-endian, so that keys
// sort by them; "hash12" is keyHash. Values are in rows.go.
const (
	prefixAbove      = 'a' // a peer pos8           ad above the mark that is done, by publisher
	prefixAssignment = 'c' // c peer                role and ranges, by publisher
	prefixGeneration = 'd' // d id8 num4 pos8       generation of a record besides its own, by publisher and first position
	prefixPublisher  = 'e' // e peer                publisher's addresses, last error, frozen mark
	prefixProvider   = 'g' // g peer                registry entry, by provider
	prefixCursor     = 'h' // h peer pos8           how far the entries of an ad in work are put, by publisher
	prefixRecord     = 'i' // i id8                 record, or the record a generation belongs to, by record ID
	prefixAnnounced  = 'j' // j peer                newest head announced and not looked at, by publisher
	prefixContext    = 'k' // k num4 hash12         record ID of (provider, context)
	prefixLedger     = 'l' // l hash12              what became of an advertisement, by its CID
	prefixProgress   = 'm' // m peer                contiguous mark and counts, by publisher
	prefixElsewhere  = 'E' // E peer hash12         ad whose content another indexer has, by publisher and CID
	prefixAgain      = 'o' // o peer pos8           ad to be applied although it has a verdict, by publisher
	prefixNumber     = 'p' // p peer                number of a peer
	prefixPeer       = 'q' // q num4                peer of a number
	prefixRevisit    = 'r' // r peer                what is wished of ads with a verdict, by publisher
	prefixScan       = 's' // s peer pos8           where a walk along a chain goes on, by publisher
	prefixTombstone  = 't' // t peer pos8 peer ctx  by publisher: what to tidy up once the mark has passed pos
	prefixRenumbered = 'v' // v peer                number of a provider that was removed at least once
	prefixPending    = 'w' // w peer pos8           ad known and waiting, by publisher
	prefixExtended   = 'x' // x peer ctx            extended providers of (provider, context); ctx empty: whole chain
	prefixDead       = 'y' // y id8                 record ID removed, its postings not yet reclaimed
	prefixRemoved    = 'z' // z num4                provider's number removed, its records not yet swept
	prefixLeans      = 'L' // L peer peer           content of the second's ads stands as the first's, by publishers
	prefixState      = 'S' // S peer                whether a publisher is heard from, by publisher
	prefixPlaces     = 'H' // H peer                what places positions are, by publisher
	prefixRegistered = 'R' // R peer                sequence number of the last register request, by provider

	keyFrozen = "f" // the frozen latch
	keyWhy    = "W" // why the latch was set, if that was said
	keyLogSeq = "b" // number of the last log frame of rows that is in the database
	keyNextID = "n" // first record ID not reserved yet
	keyTotals = "u" // counts for Stats
	keyPolicy = "P" // who may publish for whom, as the caller writes it
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

func idKey(prefix byte, id uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{prefix}, id)
}

func numberKey(prefix byte, n uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{prefix}, n)
}

// keyHashBytes is the length of a keyHash: at 10^10 records and ads two of
// them are equal with probability 1e-9.
const keyHashBytes = 12

// keyHash stands for a context ID or a CID in a key. It is keyed with the
// index secret, so that nobody outside the pool can make two equal.
func (s *Store) keyHash(b []byte) (h [keyHashBytes]byte) {
	var buf [32 + maxCIDBytes]byte
	sum := sha256.Sum256(append(append(buf[:0], s.keySecret[:]...), b...))
	copy(h[:], sum[:])
	return h
}

func (s *Store) recordIDKey(provider uint32, ctx []byte) []byte {
	h := s.keyHash(ctx)
	return append(numberKey(prefixContext, provider), h[:]...)
}

func (s *Store) ledgerKey(ad cid.Cid) []byte {
	h := s.keyHash(ad.Bytes())
	return append([]byte{prefixLedger}, h[:]...)
}

func generationPrefix(record uint64, publisher uint32) []byte {
	return binary.BigEndian.AppendUint32(idKey(prefixGeneration, record), publisher)
}

func generationKey(record uint64, publisher uint32, first Position) []byte {
	return binary.BigEndian.AppendUint64(generationPrefix(record, publisher), uint64(first))
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

func parseIDKey(prefix byte, k []byte) (uint64, error) {
	r := keyReader(prefix, k)
	id := r.uint64()
	return id, r.done("key")
}

func parseNumberKey(prefix byte, k []byte) (uint32, error) {
	r := keyReader(prefix, k)
	n := r.uint32()
	return n, r.done("key")
}

func parseGenerationKey(k []byte) (record uint64, publisher uint32, first Position, err error) {
	r := keyReader(prefixGeneration, k)
	record, publisher, first = r.uint64(), r.uint32(), Position(r.uint64())
	return record, publisher, first, r.done("key")
}

// parseHashKey returns what stands before the hash of a key that ends with one.
func parseHashKey(prefix byte, k []byte, numbered bool) (n uint32, err error) {
	r := keyReader(prefix, k)
	if numbered {
		n = r.uint32()
	}
	r.take(keyHashBytes, keyHashBytes)
	return n, r.done("key")
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
