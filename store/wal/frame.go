package wal

import (
	"encoding/binary"
	"hash/crc32"
)

// Pos is a place in the log: see the package comment. Zero is none.
type Pos uint64

const (
	// MaxFrameBytes is the largest payload of a frame.
	MaxFrameBytes = 64 << 20
	// MaxKind is the highest kind a caller may use.
	MaxKind = markKind - 1

	markKind    = 255
	frameHeader = 9                 // length, crc, kind
	lengthed    = 8                 // of which length does not count
	markBytes   = frameHeader + 8   // a whole mark
	maxPos      = Pos(1<<63 - 1)    // no position is above, so sums do not overflow
	sealedBytes = 1 + 8 + 4 + 4     // kind, position, length, salt
	maxLength   = MaxFrameBytes + 1 // kind and payload
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sealer adds to the checksum of a payload what ties a frame to its place. It
// keeps the bytes it sums so that they need no allocation; not safe for
// concurrent use.
type sealer struct{ b [sealedBytes]byte }

func (s *sealer) seal(sum uint32, kind byte, pos Pos, length, salt uint32) uint32 {
	s.b[0] = kind
	binary.BigEndian.PutUint64(s.b[1:], uint64(pos))
	binary.BigEndian.PutUint32(s.b[9:], length)
	binary.BigEndian.PutUint32(s.b[13:], salt)
	return crc32.Update(sum, castagnoli, s.b[:])
}

// appendHeader appends all of a frame but its payload, whose checksum is sum.
func (s *sealer) appendHeader(buf []byte, sum uint32, kind byte, pos Pos, payloadBytes int, salt uint32) []byte {
	length := uint32(payloadBytes) + 1
	buf = binary.BigEndian.AppendUint32(buf, length)
	buf = binary.BigEndian.AppendUint32(buf, s.seal(sum, kind, pos, length, salt))
	return append(buf, kind)
}

// valid tells whether frame, of its full length, stands at pos.
func (s *sealer) valid(frame []byte, pos Pos, salt uint32) bool {
	length, crc := binary.BigEndian.Uint32(frame), binary.BigEndian.Uint32(frame[4:])
	sum := crc32.Update(0, castagnoli, frame[frameHeader:])
	return s.seal(sum, frame[lengthed], pos, length, salt) == crc
}
