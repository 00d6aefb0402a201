package schema

import "encoding/binary"

// Multihashes in dag-json are standard base64 without padding, nearly always 46
// characters for the 34 bytes of a sha2-256 multihash. Of the time to decode a
// chunk, hashing it takes two thirds and cannot be shortened; of the rest
// encoding/base64 would be most. A table of character pairs needs less than half
// its time (BenchmarkBase64).

// base64Pair gives the 12 bits of two characters, the first in the low byte of
// the index, or badPair. Of its 128 KiB valid input touches 12, which stay in
// the first-level cache.
var base64Pair = makeBase64Pair()

const badPair = 1 << 15

func makeBase64Pair() *[1 << 16]uint16 {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	t := new([1 << 16]uint16)
	for i := range t {
		t[i] = badPair
	}
	for i, a := range []byte(alphabet) {
		for j, b := range []byte(alphabet) {
			t[uint16(a)|uint16(b)<<8] = uint16(i<<6 | j)
		}
	}
	return t
}

// decode46 reads 46 characters into the first 34 bytes of dst; the six after
// them are overwritten. Like encoding/base64 it ignores the last four bits. It
// reports whether all characters are base64.
func decode46(dst *[40]byte, src *[46]byte) bool {
	t := base64Pair
	var bad uint16
	for i := range 5 {
		x := binary.LittleEndian.Uint64(src[8*i : 8*i+8])
		a, b, c, d := t[uint16(x)], t[uint16(x>>16)], t[uint16(x>>32)], t[uint16(x>>48)]
		bad |= a | b | c | d
		binary.BigEndian.PutUint64(dst[6*i:6*i+8], uint64(a)<<52|uint64(b)<<40|uint64(c)<<28|uint64(d)<<16)
	}
	x := binary.LittleEndian.Uint64(src[38:])
	a, b, c := t[uint16(x>>16)], t[uint16(x>>32)], t[uint16(x>>48)]
	bad |= a | b | c
	binary.BigEndian.PutUint64(dst[30:38], uint64(a)<<52|uint64(b)<<40|uint64(c)<<28)
	return bad < badPair
}
