package postings

import (
	"encoding/binary"
	"math"
	"slices"
)

// span is a part of the hash space: the hashes whose first 64 bits are in
// [first, last]. It does not depend on how wide bucket keys are.
type span struct{ first, last uint64 }

// spans are sorted and neither overlap nor touch. They are replaced, never
// changed.
type spans []span

// maxSpans bounds the spans an index remembers.
const maxSpans = 1024

// with returns the union with another span, in at most maxSpans: the nearest
// neighbours are joined, with what is between them, while there are more.
func (ss spans) with(s span) spans {
	all := append(slices.Clone(ss), s)
	slices.SortFunc(all, func(a, b span) int {
		if a.first < b.first {
			return -1
		}
		return 1
	})
	joined := all[:1]
	for _, s := range all[1:] {
		if top := &joined[len(joined)-1]; top.last == math.MaxUint64 || s.first <= top.last+1 {
			top.last = max(top.last, s.last)
		} else {
			joined = append(joined, s)
		}
	}
	for len(joined) > maxSpans {
		at := 1
		for i := range joined[1:] {
			if joined[i+1].first-joined[i].last < joined[at].first-joined[at-1].last {
				at = i + 1
			}
		}
		joined[at-1].last = joined[at].last
		joined = slices.Delete(joined, at, at+1)
	}
	return joined
}

func (ss spans) has(v uint64) bool {
	_, found := slices.BinarySearchFunc(ss, v, func(s span, v uint64) int {
		switch {
		case s.last < v:
			return -1
		case s.first > v:
			return 1
		}
		return 0
	})
	return found
}

// share is the part of the hash space that is in the spans, 0 to 1.
func (ss spans) share() (part float64) {
	for _, s := range ss {
		part += math.Ldexp(float64(s.last-s.first)+1, -64)
	}
	return part
}

func (ss spans) encode(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(ss)))
	end := uint64(0)
	for _, s := range ss {
		b = binary.AppendUvarint(b, s.first-end)
		b = binary.AppendUvarint(b, s.last-s.first)
		end = s.last
	}
	return b
}

func decodeSpans(b []byte) (ss spans, rest []byte, ok bool) {
	n, b, ok := uvarint(b)
	if !ok || n == 0 || n > maxSpans {
		return nil, nil, false
	}
	end := uint64(0)
	for i := range n {
		var gap, length uint64
		if gap, b, ok = uvarint(b); !ok {
			return nil, nil, false
		}
		if length, b, ok = uvarint(b); !ok {
			return nil, nil, false
		}
		s := span{first: end + gap}
		s.last = s.first + length
		if s.first < end || s.last < s.first || i > 0 && gap < 2 {
			return nil, nil, false
		}
		ss, end = append(ss, s), s.last
	}
	return ss, b, true
}
