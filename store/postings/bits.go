package postings

import (
	"encoding/binary"
	"math/bits"
)

// bitWriter appends bits to buf, the lowest bit of a byte first.
type bitWriter struct {
	buf []byte
	acc uint64
	n   uint // bits in acc, < 64
}

// write appends the low n bits of v; v has no others. n ≤ 64.
func (w *bitWriter) write(v uint64, n uint) {
	w.acc |= v << (w.n & 63)
	if w.n+n < 64 {
		w.n += n
		return
	}
	w.buf = binary.LittleEndian.AppendUint64(w.buf, w.acc)
	w.acc = v >> (64 - w.n)
	w.n += n - 64
}

// rice appends v with k low bits.
func (w *bitWriter) rice(v uint64, k uint) {
	q := v >> k
	low := v & (1<<k - 1)
	if q+uint64(k) < 63 {
		w.write((low<<1|1)<<q, uint(q)+1+k)
		return
	}
	for q >= 63 {
		w.write(0, 63)
		q -= 63
	}
	w.write(1<<q, uint(q)+1)
	w.write(low, k)
}

// gamma appends v ≥ 1 in Elias's gamma code.
func (w *bitWriter) gamma(v uint64) {
	n := uint(bits.Len64(v))
	w.write(1<<(n-1), n)
	w.write(v&^(1<<(n-1)), n-1)
}

// finish pads to a whole byte.
func (w *bitWriter) finish() []byte {
	for ; w.n > 8; w.n -= 8 {
		w.buf = append(w.buf, byte(w.acc))
		w.acc >>= 8
	}
	if w.n > 0 {
		w.buf = append(w.buf, byte(w.acc))
	}
	w.acc, w.n = 0, 0
	return w.buf
}

// bitReader reads what bitWriter wrote. Beyond the end it reads zeros; over()
// tells.
type bitReader struct {
	buf []byte
	off uint // bits
}

// peek returns the next 64 bits.
func (r *bitReader) peek() uint64 {
	p, shift := r.off>>3, r.off&7
	if p+9 <= uint(len(r.buf)) {
		b := r.buf[p : p+9]
		return binary.LittleEndian.Uint64(b)>>shift | uint64(b[8])<<(64-shift)
	}
	return r.peekEnd()
}

func (r *bitReader) peekEnd() uint64 {
	var b [9]byte
	if p := r.off >> 3; p < uint(len(r.buf)) {
		copy(b[:], r.buf[p:])
	}
	shift := r.off & 7
	return binary.LittleEndian.Uint64(b[:])>>shift | uint64(b[8])<<(64-shift)
}

func (r *bitReader) read(n uint) uint64 {
	v := r.peek() & (1<<n - 1)
	r.off += n
	return v
}

// unary reads zeros up to a one and returns their number.
func (r *bitReader) unary() uint64 {
	w := r.peek()
	if w != 0 {
		q := uint(bits.TrailingZeros64(w))
		r.off += q + 1
		return uint64(q)
	}
	var q uint64
	for w == 0 && !r.over() {
		q += 64
		r.off += 64
		w = r.peek()
	}
	n := uint(bits.TrailingZeros64(w))
	r.off += n + 1
	return q + uint64(n)
}

func (r *bitReader) rice(k uint) uint64 {
	if w := r.peek(); w != 0 {
		if q := uint(bits.TrailingZeros64(w)); q+k < 63 {
			r.off += q + 1 + k
			return uint64(q)<<(k&63) | w>>((q+1)&63)&(1<<(k&63)-1)
		}
	}
	q := r.unary()
	return q<<k | r.read(k)
}

func (r *bitReader) gamma() uint64 {
	n := uint(r.unary())
	if n > 63 {
		r.off = uint(len(r.buf))*8 + 1
		return 1
	}
	return r.read(n) | 1<<n
}

// over: something was read that is not there.
func (r *bitReader) over() bool { return r.off > uint(len(r.buf))*8 }

// left is the number of bits not yet read.
func (r *bitReader) left() uint64 {
	if r.over() {
		return 0
	}
	return uint64(len(r.buf))*8 - uint64(r.off)
}

// atEnd: all bytes were read, none missed, and the padding is zero.
func (r *bitReader) atEnd() bool {
	return !r.over() && r.left() < 8 && r.peek() == 0
}

// riceParam is the best number of low bits for the gaps of n values spread
// evenly over [0, 2^width): the k with the mean gap at most 2^k / 0.48, from
// the golden ratio rule for geometric gaps.
func riceParam(width uint, n uint64) uint {
	t := n*2 + (n*5+63)/64 // n / 0.4812, rounded up
	e := uint(bits.Len64(t - 1))
	if e > width {
		return 0
	}
	return min(width-e+1, 63)
}
