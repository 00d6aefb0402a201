package announce

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multiaddr"
)

// Limits of the reference decoder (announce.md, section 1), so that a message
// one indexer takes another takes too. maxCidBytes is likewise the reference's.
const (
	maxAddrs        = 8192
	maxByteString   = 2 << 20
	maxTextBytes    = 8192
	maxCidBytes     = 512
	cborTagCid      = 42
	cborNull        = 0xf6
	minElements     = 3
	maxElements     = 4
	cborHeadBytes   = 9 // most bytes of an item's header
	cborUint8Value  = 24
	cborUint64Value = 27
)

// The major types of CBOR that a message uses (RFC 8949, section 3.1).
const (
	majorBytes = 2
	majorText  = 3
	majorArray = 4
	majorTag   = 6
)

// EncodeCBOR returns the message in its canonical CBOR form. It is an error if
// the message has no CID or exceeds a limit that receivers have.
func (m *Message) EncodeCBOR() ([]byte, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	elements := uint64(minElements)
	if m.OrigPeer != "" {
		elements = maxElements
	}
	b := appendHead(nil, majorArray, elements)
	b = appendHead(b, majorTag, cborTagCid)
	b = appendHead(b, majorBytes, uint64(1+m.Cid.ByteLen()))
	b = append(b, 0) // multibase prefix "identity" of a CID in CBOR
	b = append(b, m.Cid.Bytes()...)
	b = appendHead(b, majorArray, uint64(len(m.Addrs)))
	for _, addr := range m.Addrs {
		raw := addr.Bytes()
		b = appendHead(b, majorBytes, uint64(len(raw)))
		b = append(b, raw...)
	}
	b = appendHead(b, majorBytes, uint64(len(m.ExtraData)))
	b = append(b, m.ExtraData...)
	if m.OrigPeer != "" {
		b = appendHead(b, majorText, uint64(len(m.OrigPeer)))
		b = append(b, m.OrigPeer...)
	}
	if len(b) > MaxMessageBytes {
		return nil, fmt.Errorf("encode announce of %s: %d bytes, more than %d", m.Cid, len(b), MaxMessageBytes)
	}
	return b, nil
}

// check holds what both encodings demand of a message.
func (m *Message) check() error {
	switch {
	case !m.Cid.Defined():
		return fmt.Errorf("encode announce: no CID")
	case m.Cid.ByteLen() >= maxCidBytes:
		return fmt.Errorf("encode announce: CID of %d bytes", m.Cid.ByteLen())
	case len(m.Addrs) > maxAddrs:
		return fmt.Errorf("encode announce of %s: %d addresses, more than %d", m.Cid, len(m.Addrs), maxAddrs)
	case len(m.OrigPeer) > maxTextBytes:
		return fmt.Errorf("encode announce of %s: OrigPeer of %d bytes", m.Cid, len(m.OrigPeer))
	}
	for _, addr := range m.Addrs {
		if len(addr) == 0 {
			return fmt.Errorf("encode announce of %s: empty address", m.Cid)
		}
	}
	return nil
}

// appendHead appends the header of a CBOR item in its shortest form.
func appendHead(b []byte, major byte, value uint64) []byte {
	major <<= 5
	switch {
	case value < cborUint8Value:
		return append(b, major|byte(value))
	case value <= math.MaxUint8:
		return append(b, major|24, byte(value))
	case value <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(b, major|25), uint16(value))
	case value <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(b, major|26), uint32(value))
	}
	return binary.BigEndian.AppendUint64(append(b, major|27), value)
}

// DecodeCBOR reads a message from its CBOR form. Bytes after it are ignored, as
// the reference does; CBOR null in place of ExtraData is accepted, which the
// reference does not. An address with a protocol this program does not know is
// left out, a malformed address makes the whole message malformed. Headers must
// be in their shortest form. The message keeps no part of b. Errors match
// [ErrMalformed].
func DecodeCBOR(b []byte) (*Message, error) {
	d := decoder{rest: b}
	elements, err := d.head(majorArray, "cbor input should be of type array")
	if err != nil {
		return nil, err
	}
	if elements < minElements {
		return nil, malformedf("cbor input had too few fields")
	}
	if elements > maxElements {
		return nil, malformedf("cbor input had too many fields")
	}
	var m Message
	if m.Cid, err = d.cid(); err != nil {
		return nil, err
	}
	raw, err := d.addrs()
	if err != nil {
		return nil, err
	}
	extra, err := d.extraData()
	if err != nil {
		return nil, err
	}
	if len(extra) > 0 {
		m.ExtraData = append([]byte(nil), extra...)
	}
	if elements == maxElements {
		text, err := d.str(majorText, maxTextBytes, "OrigPeer should be a text string")
		if err != nil {
			return nil, err
		}
		m.OrigPeer = string(text)
	}
	if m.Addrs, err = parseAddrs(raw); err != nil {
		return nil, err
	}
	return &m, nil
}

// decoder reads CBOR items off the front of rest.
type decoder struct {
	rest []byte
}

// head reads an item's header and returns its value. Any other major type than
// the wanted one is the error wrongType. Indefinite lengths are refused.
func (d *decoder) head(major byte, wrongType string) (uint64, error) {
	if len(d.rest) == 0 {
		return 0, truncated()
	}
	first := d.rest[0]
	if first>>5 != major {
		return 0, malformedf("%s", wrongType)
	}
	low := first & 0x1f
	if low < cborUint8Value {
		d.rest = d.rest[1:]
		return uint64(low), nil
	}
	if low > cborUint64Value {
		return 0, malformedf("cbor header %#02x is not allowed", first)
	}
	n := 1 << (low - cborUint8Value) // 1, 2, 4 or 8 bytes follow
	if len(d.rest) < 1+n {
		return 0, truncated()
	}
	var value uint64
	for _, c := range d.rest[1 : 1+n] {
		value = value<<8 | uint64(c)
	}
	if shortest := len(appendHead(make([]byte, 0, cborHeadBytes), major, value)); shortest != 1+n {
		return 0, malformedf("cbor input was not canonical")
	}
	d.rest = d.rest[1+n:]
	return value, nil
}

// str reads a byte or text string. The result points into the input.
func (d *decoder) str(major byte, limit uint64, wrongType string) ([]byte, error) {
	n, err := d.head(major, wrongType)
	if err != nil {
		return nil, err
	}
	if n > limit {
		return nil, malformedf("string in announce message is %d bytes, more than %d", n, limit)
	}
	if n > uint64(len(d.rest)) {
		return nil, truncated()
	}
	s := d.rest[:n]
	d.rest = d.rest[n:]
	return s, nil
}

func (d *decoder) cid() (cid.Cid, error) {
	tag, err := d.head(majorTag, "Cid should be a cbor tag")
	if err != nil {
		return cid.Undef, err
	}
	if tag != cborTagCid {
		return cid.Undef, malformedf("Cid has cbor tag %d instead of %d", tag, cborTagCid)
	}
	raw, err := d.str(majorBytes, maxCidBytes, "Cid should be a byte string")
	if err != nil {
		return cid.Undef, err
	}
	if len(raw) == 0 || raw[0] != 0 {
		return cid.Undef, malformedf("Cid in cbor should begin with a zero byte")
	}
	c, err := cid.Cast(raw[1:])
	if err != nil {
		return cid.Undef, malformedf("bad Cid in announce message: %w", err)
	}
	return c, nil
}

// addrs reads the array of binary multiaddrs; they point into the input.
func (d *decoder) addrs() ([][]byte, error) {
	n, err := d.head(majorArray, "Addrs should be an array")
	if err != nil {
		return nil, err
	}
	if n > maxAddrs {
		return nil, malformedf("announce message has %d addresses, more than %d", n, maxAddrs)
	}
	if n > uint64(len(d.rest)) {
		return nil, truncated() // every element takes a byte
	}
	if n == 0 {
		return nil, nil
	}
	addrs := make([][]byte, n)
	for i := range addrs {
		if addrs[i], err = d.str(majorBytes, maxByteString, "an address should be a byte string"); err != nil {
			return nil, err
		}
	}
	return addrs, nil
}

func (d *decoder) extraData() ([]byte, error) {
	if len(d.rest) > 0 && d.rest[0] == cborNull {
		d.rest = d.rest[1:]
		return nil, nil
	}
	return d.str(majorBytes, maxByteString, "ExtraData should be a byte string")
}

func truncated() error { return malformedf("%w", io.ErrUnexpectedEOF) }

// parseAddrs turns binary multiaddrs into addresses, leaving out those with an
// unknown protocol.
func parseAddrs(raw [][]byte) ([]multiaddr.Multiaddr, error) {
	var addrs []multiaddr.Multiaddr
	for _, b := range raw {
		addr, err := multiaddr.NewMultiaddrBytes(b)
		if err == nil {
			addrs = append(addrs, addr)
			continue
		}
		if !hasUnknownProtocol(b) {
			return nil, malformedf("could not decode addrs from announce message: %w", err)
		}
	}
	return addrs, nil
}

// hasUnknownProtocol reports whether b is a multiaddr that is well formed up to
// a protocol code this program does not know. What follows that code cannot be
// judged.
func hasUnknownProtocol(b []byte) bool {
	for at := 0; at < len(b); {
		code, n, err := multiaddr.ReadVarintCode(b[at:])
		if err != nil {
			return false
		}
		p := multiaddr.ProtocolWithCode(code)
		if p.Code == 0 {
			if at == 0 {
				return true
			}
			_, err := multiaddr.NewMultiaddrBytes(b[:at])
			return err == nil
		}
		at += n
		size := p.Size / 8 // Size is in bits
		if p.Size == multiaddr.LengthPrefixedVarSize {
			if size, n, err = multiaddr.ReadVarintCode(b[at:]); err != nil {
				return false
			}
			at += n
		}
		if size > len(b)-at {
			return false
		}
		at += size
	}
	return false
}
