package keyset

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"
)

// ErrMalformed: bytes are not a part.
var ErrMalformed = errors.New("malformed part of a key set")

// stride is how many steps of the high part share an entry of the directory.
const stride = 256

// Part is a set of numbers below a width. It does not change. The zero Part is
// not to be used; nil is an empty one.
type Part struct {
	n, width uint64
	low      uint
	high     []uint64 // n ones and a zero for each step
	lows     []uint64
	dir      []uint32 // where the ones of every stride-th step begin
}

// steps is the number of high parts there are.
func (p *Part) steps() uint64 { return (p.width-1)>>p.low + 1 }

func (p *Part) highWords() uint64 { return (p.n + p.steps() + 63) / 64 }
func (p *Part) lowWords() uint64  { return (p.n*uint64(p.low)+63)/64 + 1 } // one more to read beyond

// NewPart is the set of values, which ascend and are below width. Repetitions
// are left out.
func NewPart(values []uint64, width uint64) *Part {
	values = slices.Compact(values)
	if len(values) == 0 {
		return nil
	}
	p := &Part{n: uint64(len(values)), width: width}
	if q := width / p.n; q > 1 {
		p.low = uint(bits.Len64(q) - 1)
	}
	p.high = make([]uint64, p.highWords())
	p.lows = make([]uint64, p.lowWords())
	mask := uint64(1)<<p.low - 1
	for i, v := range values {
		at := v>>p.low + uint64(i)
		p.high[at/64] |= 1 << (at % 64)
		if p.low > 0 {
			at = uint64(i) * uint64(p.low)
			p.lows[at/64] |= (v & mask) << (at % 64)
			if at%64+uint64(p.low) > 64 {
				p.lows[at/64+1] |= (v & mask) >> (64 - at%64)
			}
		}
	}
	p.index()
	return p
}

// index makes the directory and counts ones and zeros.
func (p *Part) index() (ones, zeros uint64) {
	p.dir = append(make([]uint32, 0, p.steps()/stride+1), 0)
	for i, w := range p.high {
		n := uint64(bits.OnesCount64(w))
		before := zeros
		ones += n
		zeros += 64 - n
		for next := uint64(len(p.dir)) * stride; next > before && next <= zeros; next += stride {
			p.dir = append(p.dir, uint32(i*64)+uint32(nthZero(w, uint(next-before)))+1)
		}
	}
	return ones, zeros
}

// nthZero is the place of the n-th zero of a word, counted from 1, if it has so many.
func nthZero(w uint64, n uint) uint {
	w = ^w
	for ; n > 1; n-- {
		w &= w - 1
	}
	return uint(bits.TrailingZeros64(w))
}

// Len is the number of values in the set.
func (p *Part) Len() uint64 {
	if p == nil {
		return 0
	}
	return p.n
}

// Bytes is the memory it takes.
func (p *Part) Bytes() uint64 {
	if p == nil {
		return 0
	}
	return 8*uint64(len(p.high)+len(p.lows)) + 4*uint64(len(p.dir)) + 96
}

func (p *Part) lowAt(i uint64) uint64 {
	at := i * uint64(p.low)
	w := p.lows[at/64] >> (at % 64)
	if at%64+uint64(p.low) > 64 {
		w |= p.lows[at/64+1] << (64 - at%64)
	}
	return w & (1<<p.low - 1)
}

// Has tells whether v is in the set.
func (p *Part) Has(v uint64) bool {
	if p == nil || v >= p.width {
		return false
	}
	step := v >> p.low
	at := uint64(p.dir[step/stride])
	// Skip the zeros of the steps between.
	for left := step % stride; left > 0; {
		w := p.high[at/64] | (1<<(at%64) - 1) // what is before does not count
		zeros := uint64(64 - bits.OnesCount64(w))
		if zeros < left {
			left -= zeros
			at = at&^63 + 64
			continue
		}
		at = at&^63 + uint64(nthZero(w, uint(left))) + 1
		left = 0
	}
	want := v & (1<<p.low - 1)
	for i := at - step; p.high[at/64]>>(at%64)&1 == 1; i, at = i+1, at+1 {
		if low := p.lowAt(i); low >= want {
			return low == want
		}
	}
	return false
}

// AppendValues appends all values to dst, ascending.
func (p *Part) AppendValues(dst []uint64) []uint64 {
	if p == nil {
		return dst
	}
	dst = slices.Grow(dst, int(p.n))
	i := uint64(0)
	for n, w := range p.high {
		for ; w != 0 && i < p.n; w &= w - 1 {
			at := uint64(n*64 + bits.TrailingZeros64(w))
			dst = append(dst, (at-i)<<p.low|p.lowAt(i))
			i++
		}
	}
	return dst
}

// Append writes the part as bytes; an empty one is a zero.
func (p *Part) Append(dst []byte) []byte {
	if p == nil {
		return append(dst, 0)
	}
	dst = binary.AppendUvarint(dst, p.n)
	dst = binary.AppendUvarint(dst, p.width)
	dst = append(dst, byte(p.low))
	for _, ws := range [][]uint64{p.high, p.lows} {
		for _, w := range ws {
			dst = binary.LittleEndian.AppendUint64(dst, w)
		}
	}
	return dst
}

// ParsePart reads what Append wrote, of a width that is known. What comes from
// elsewhere is checked as far as Has and AppendValues need it: a wrong part may
// say anything of a value, but does no harm.
func ParsePart(b []byte, width uint64) (*Part, error) {
	p := &Part{}
	var n int
	if p.n, n = binary.Uvarint(b); n <= 0 {
		return nil, fmt.Errorf("%w: no number of values", ErrMalformed)
	}
	b = b[n:]
	if p.n == 0 {
		if len(b) > 0 {
			return nil, fmt.Errorf("%w: %d bytes after an empty one", ErrMalformed, len(b))
		}
		return nil, nil
	}
	if p.width, n = binary.Uvarint(b); n <= 0 || len(b) <= n || p.width != width || b[n] > 48 {
		return nil, fmt.Errorf("%w: width", ErrMalformed)
	}
	p.low = uint(b[n])
	b = b[n+1:]
	if uint64(len(b)) < p.n/8 || uint64(len(b)) < p.steps()/8 || uint64(len(b)) != 8*(p.highWords()+p.lowWords()) {
		return nil, fmt.Errorf("%w: %d bytes for %d values", ErrMalformed, len(b), p.n)
	}
	words := make([]uint64, len(b)/8)
	for i := range words {
		words[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	high := p.highWords()
	p.high, p.lows = words[:high:high], words[high:]
	if ones, zeros := p.index(); ones != p.n || zeros < p.steps() {
		return nil, fmt.Errorf("%w: %d values, %d said", ErrMalformed, ones, p.n)
	}
	return p, nil
}

// Merge is the union of a part and values, which ascend and are below width.
func Merge(p *Part, values []uint64, width uint64) *Part {
	if p == nil {
		return NewPart(values, width)
	}
	old := p.AppendValues(nil)
	all := make([]uint64, 0, len(old)+len(values))
	for len(old) > 0 && len(values) > 0 {
		if old[0] <= values[0] {
			all, old = append(all, old[0]), old[1:]
		} else {
			all, values = append(all, values[0]), values[1:]
		}
	}
	all = append(append(all, old...), values...)
	return NewPart(all, width)
}
