package deny

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"log/slog"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/api/find"
)

// kind counts the kinds of entries, in the order in which they are looked at.
type kind int

const (
	ofMultihash kind = iota
	ofDoubleHash
	ofProvider
	ofContext
	kinds
)

var kindNames = [kinds]find.DenyKind{find.DenyMultihash, find.DenyDoubleHash, find.DenyProvider, find.DenyContext}

// digest stands for what an entry names: the first half of a SHA-256. To find
// something else that has a digest of the list takes 2^128 tries over the number
// of entries.
type digest [16]byte

// set is a list as it is looked up in. It is not changed once it is in force.
type set struct {
	entries [kinds]map[digest]uint32 // to the place of the reason
	reasons []string
	doubles doubleForms
	sum     string // SHA-256 of the file, in hex
	texts   int64  // bytes of reasons
}

// doubleForms are the forms of double hashes in a list.
type doubleForms struct{ salted, base58, legacy bool }

// The ways to hash a multihash twice.
//
// salted: IPNI's reader privacy, the second multihash is 0x56, 32, and this.
// base58, legacy: IPIP-383 and what came before it, a denylist of IPFS: of the
// multihash as text, and of a CID version 1 as text, whose codec has to be guessed.
var (
	saltDoubleHash = append([]byte("CR_DOUBLEHASH"), make([]byte, 64-len("CR_DOUBLEHASH"))...)
	legacyCodecs   = []uint64{cid.DagProtobuf, cid.Raw, cid.DagCBOR, cid.DagJSON}
)

// maxTextMultihash is how long a multihash may be to be hashed as text, which
// takes time in the square of it. No index has a longer one.
const maxTextMultihash = 256

func salted(mh multihash.Multihash) [32]byte {
	return sha256.Sum256(append(saltDoubleHash[:64:64], mh...))
}

func digestOf(parts ...[]byte) (d digest) {
	h := sha256.New()
	for _, p := range parts {
		h.Write(p)
	}
	copy(d[:], h.Sum(nil))
	return d
}

func ofPeer(id peer.ID) digest { return digestOf([]byte(id)) }

func ofPeerContext(id peer.ID, contextID []byte) digest {
	return digestOf(binary.AppendUvarint(nil, uint64(len(id))), []byte(id), contextID)
}

// match is an entry that applies.
type match struct {
	kind   kind
	text   string // what was matched, for the log; of a double hash nothing else
	reason string
}

func (m *match) err() *find.DeniedError {
	return &find.DeniedError{Kind: kindNames[m.kind], Reason: m.reason}
}

// before orders matches, so that what is told does not depend on who came first.
func (m *match) before(o *match) bool {
	if m.kind != o.kind {
		return m.kind < o.kind
	}
	return m.text < o.text
}

func (s *set) get(k kind, d digest) (reason string, ok bool) {
	n, ok := s.entries[k][d]
	if !ok {
		return "", false
	}
	return s.reasons[n], true
}

// key is the entry that denies mh; nil for none.
func (s *set) key(mh multihash.Multihash) *match {
	if len(s.entries[ofMultihash]) > 0 {
		if reason, ok := s.get(ofMultihash, digestOf(mh)); ok {
			return &match{ofMultihash, mh.B58String(), reason}
		}
	}
	if len(s.entries[ofDoubleHash]) == 0 {
		return nil
	}
	for _, sum := range s.doubles.of(mh) {
		if reason, ok := s.get(ofDoubleHash, digest(sum[:16])); ok {
			return &match{ofDoubleHash, hex.EncodeToString(sum[:]), reason}
		}
	}
	return nil
}

// of are the double hashes of mh, of the forms in the list.
func (f doubleForms) of(mh multihash.Multihash) (sums [][32]byte) {
	if f.salted {
		sums = append(sums, salted(mh))
	}
	if len(mh) > maxTextMultihash {
		return sums
	}
	if f.base58 {
		sums = append(sums, sha256.Sum256([]byte(mh.B58String())))
	}
	if f.legacy {
		for _, codec := range legacyCodecs {
			sums = append(sums, sha256.Sum256([]byte(cid.NewCidV1(codec, mh).String()+"/")))
		}
	}
	return sums
}

// provider is the entry that denies all of a provider; nil for none.
func (s *set) provider(id peer.ID) *match {
	if len(s.entries[ofProvider]) == 0 {
		return nil
	}
	if reason, ok := s.get(ofProvider, ofPeer(id)); ok {
		return &match{ofProvider, id.String(), reason}
	}
	return nil
}

// result is the entry that denies a result; nil for none.
func (s *set) result(r *find.ProviderResult) *match {
	if m := s.provider(r.Provider.ID); m != nil || len(s.entries[ofContext]) == 0 {
		return m
	}
	if reason, ok := s.get(ofContext, ofPeerContext(r.Provider.ID, r.ContextID)); ok {
		return &match{ofContext, r.Provider.ID.String() + " " + hex.EncodeToString(r.ContextID), reason}
	}
	return nil
}

func (s *set) len() (n int) {
	for _, m := range s.entries {
		n += len(m)
	}
	return n
}

// counts is a number for each kind.
type counts [kinds]int

// LogValue names the kinds there are some of.
func (c counts) LogValue() slog.Value {
	var attrs []slog.Attr
	for k, n := range c {
		if n != 0 {
			attrs = append(attrs, slog.Int(string(kindNames[k]), n))
		}
	}
	if len(attrs) == 0 {
		return slog.IntValue(0)
	}
	return slog.GroupValue(attrs...)
}

func (s *set) counts() (c counts) {
	for k, m := range s.entries {
		c[k] = len(m)
	}
	return c
}

// changes is what next has and s has not, the reverse, and how many entries have
// another reason.
func (s *set) changes(next *set) (added, removed counts, reasons int) {
	for k, m := range next.entries {
		both := 0
		for d, n := range m {
			old, ok := s.entries[k][d]
			switch {
			case !ok:
				added[k]++
				continue
			case s.reasons[old] != next.reasons[n]:
				reasons++
			}
			both++
		}
		removed[k] = len(s.entries[k]) - both
	}
	return added, removed, reasons
}

// entryBytes is what an entry takes: 20 bytes, in a map that is half full.
const entryBytes = 48

func (s *set) bytes() int64 { return int64(s.len())*entryBytes + s.texts + int64(len(s.reasons))*16 }
