package schema

import (
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/ipfs/go-cid"
)

// Kind is what a block of a chain looks like.
type Kind int

const (
	// KindUnknown is anything but a map.
	KindUnknown Kind = iota
	// KindAdvertisement is a map with the key Signature.
	KindAdvertisement
	// KindHAMT is a map with the key hamt.
	KindHAMT
	// KindEntryChunk is any other map.
	KindEntryChunk
)

// String names the kind.
func (k Kind) String() string {
	switch k {
	case KindAdvertisement:
		return "advertisement"
	case KindHAMT:
		return "HAMT"
	case KindEntryChunk:
		return "entry chunk"
	}
	return "unknown"
}

// Classify tells what the block named by c should be decoded as. It reads no
// more of the block than it takes to know: a map with a list under Entries is an
// entry chunk or nothing, whatever else is in it. So that a block gets a kind
// does not make it a good one, and the hash is not looked at.
//
// Errors: ErrUnsupported for the codec, ErrMalformed when the keys cannot be
// read, ErrTooLarge.
func Classify(c cid.Cid, block []byte) (Kind, error) {
	if len(block) > MaxBlockBytes {
		return KindUnknown, fmt.Errorf("classify %s: %w: %d bytes, limit %d", c, ErrTooLarge, len(block), MaxBlockBytes)
	}
	codec, err := codecOf(c)
	if err != nil {
		return KindUnknown, fmt.Errorf("classify: %w", err)
	}
	var kind Kind
	var ok bool
	if codec == DagJSON {
		kind, ok = classifyJSON(block)
	} else {
		kind, ok = classifyCBOR(block)
	}
	if !ok {
		return KindUnknown, fmt.Errorf("classify %s: %w: unreadable %s", c, ErrMalformed, codec)
	}
	return kind, nil
}

// kindOf is the kind that a key decides; list tells that its value is a list.
func kindOf(key []byte, list bool) (kind Kind, decided bool) {
	switch string(key) {
	case "Signature":
		return KindAdvertisement, true
	case "hamt":
		return KindHAMT, true
	case "Entries":
		return KindEntryChunk, list
	}
	return KindUnknown, false
}

// skipper walks over encoded values without building them. ok turns false, for
// good, when the bytes are not what they should be; pos never passes the end.
// It need not refuse all that the decoders refuse.
type skipper struct {
	b   []byte
	pos int
	ok  bool
}

// peek is the next byte, 0 at the end.
func (s *skipper) peek() byte {
	if s.pos >= len(s.b) {
		s.ok = false
		return 0
	}
	return s.b[s.pos]
}

func (s *skipper) skip(n uint64) {
	if n > uint64(len(s.b)-s.pos) {
		s.ok = false
		return
	}
	s.pos += int(n)
}

func classifyJSON(block []byte) (Kind, bool) {
	s := jsonSkipper{skipper{b: block, ok: true}}
	if s.token() != '{' {
		return KindUnknown, s.ok
	}
	s.pos++
	for s.ok {
		switch s.token() {
		case '}':
			return KindEntryChunk, s.ok
		case ',':
			s.pos++
		case '"':
			key := s.text()
			if s.token() != ':' {
				return KindUnknown, false
			}
			s.pos++
			if kind, decided := kindOf(key, s.token() == '['); decided {
				return kind, s.ok
			}
			s.value()
		default:
			s.ok = false
		}
	}
	return KindUnknown, false
}

type jsonSkipper struct{ skipper }

// token is the next byte that is not white space; it is not consumed.
func (s *jsonSkipper) token() byte {
	for {
		switch b := s.peek(); b {
		case ' ', '\t', '\r', '\n':
			s.pos++
		default:
			return b
		}
	}
}

// text consumes a string and returns it; of one with a bad escape, nothing.
func (s *jsonSkipper) text() (text []byte) {
	start, escaped := s.pos, false
	for s.pos++; s.ok; s.pos++ {
		switch s.peek() {
		case '\\':
			escaped = true
			s.pos++
		case '"':
			s.pos++
			if !escaped {
				return s.b[start+1 : s.pos-1]
			}
			var v string
			s.ok = json.Unmarshal(s.b[start:s.pos], &v) == nil
			return []byte(v)
		}
	}
	return nil
}

// value consumes a value: all up to the comma or bracket that ends it. Of
// brackets only the number counts, as mismatched ones are for the decoder to
// find.
func (s *jsonSkipper) value() {
	for depth := 0; s.ok; {
		switch s.token() {
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return
			}
			depth--
		case ',':
			if depth == 0 {
				return
			}
		case '"':
			s.text()
			continue
		}
		s.pos++
	}
}

func classifyCBOR(block []byte) (Kind, bool) {
	s := cborSkipper{skipper{b: block, ok: true}}
	if s.peek()>>5 != cborMap {
		return KindUnknown, s.ok
	}
	_, n := s.head()
	for ; n > 0 && s.ok; n-- {
		major, size := s.head()
		if major != cborText {
			return KindUnknown, false
		}
		start := s.pos
		if s.skip(size); !s.ok {
			return KindUnknown, false
		}
		if kind, decided := kindOf(s.b[start:s.pos], s.peek()>>5 == cborArray); decided {
			return kind, s.ok
		}
		s.value()
	}
	return KindEntryChunk, s.ok
}

// Major types of CBOR, the upper three bits of a head. Source: RFC 8949, 3.1.
const (
	cborBytes = 2
	cborText  = 3
	cborArray = 4
	cborMap   = 5
	cborTag   = 6
)

type cborSkipper struct{ skipper }

// head consumes a head: major type and argument.
func (s *cborSkipper) head() (major byte, arg uint64) {
	b := s.peek()
	major, info := b>>5, b&0x1f
	start := s.pos + 1
	switch {
	case info < 24:
		arg = uint64(info)
		s.skip(1)
	case info < 28:
		size := uint64(1) << (info - 24)
		if s.skip(1 + size); s.ok {
			var be [8]byte
			copy(be[8-size:], s.b[start:s.pos])
			arg = binary.BigEndian.Uint64(be[:])
		}
	default:
		s.ok = false
	}
	return major, arg
}

// value consumes a value. left counts the items still to come, of all levels
// together; each has at least one byte, which bounds it.
func (s *cborSkipper) value() {
	for left := uint64(1); left > 0 && s.ok; left-- {
		major, arg := s.head()
		switch major {
		case cborBytes, cborText:
			s.skip(arg)
		case cborArray, cborMap:
			items := arg << (major - cborArray)
			if arg > uint64(len(s.b)) {
				s.ok = false
				return
			}
			left += items
		case cborTag:
			left++
		}
	}
}
