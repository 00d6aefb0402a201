package postings

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestSpansAreAUnion(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var ss spans
		var all []span
		for range 1 + rng.IntN(20) {
			s := span{first: rng.Uint64N(100)}
			s.last = s.first + rng.Uint64N(10)
			if rng.IntN(10) == 0 {
				s = span{math.MaxUint64 - rng.Uint64N(10), math.MaxUint64}
			}
			all = append(all, s)
			ss = ss.with(s)
		}
		for i := 1; i < len(ss); i++ {
			if ss[i-1].last+1 >= ss[i].first {
				t.Fatalf("%v", ss)
			}
		}
		for v := range uint64(120) {
			for _, v := range []uint64{v, math.MaxUint64 - v} {
				want := slices.ContainsFunc(all, func(s span) bool { return s.first <= v && v <= s.last })
				if ss.has(v) != want {
					t.Fatalf("%d in %v: %v", v, all, !want)
				}
			}
		}
		got, rest, ok := decodeSpans(append(ss.encode(nil), 7))
		if !ok || len(rest) != 1 || !slices.Equal(got, ss) {
			t.Fatalf("%v came back as %v, %v, %d bytes left", ss, got, ok, len(rest))
		}
	}
}

func TestSpansAreBounded(t *testing.T) {
	var ss spans
	for i := range uint64(3 * maxSpans) {
		ss = ss.with(span{i << 40, i<<40 + i})
	}
	if len(ss) != maxSpans {
		t.Errorf("%d spans", len(ss))
	}
	for i := range uint64(3 * maxSpans) {
		if !ss.has(i<<40) || !ss.has(i<<40+i) {
			t.Fatalf("%d was lost", i)
		}
	}
}

func TestShareOfSpans(t *testing.T) {
	for want, ss := range map[float64]spans{
		0:    nil,
		1:    {{0, math.MaxUint64}},
		0.5:  {{1 << 63, math.MaxUint64}},
		0.75: {{0, 1<<63 - 1}, {1<<63 + 1<<62, math.MaxUint64}},
	} {
		if got := ss.share(); math.Abs(got-want) > 1e-12 {
			t.Errorf("%v: %v, want %v", ss, got, want)
		}
	}
}

// TestMetaRowsOfBothFormats: a row without lost spans is what format 1 wrote.
func TestMetaRowsOfBothFormats(t *testing.T) {
	m := &meta{fingerprint: 7, flushed: 8}
	for i := range m.regions {
		m.regions[i] = regionMeta{width: minWidth + uint(i%3), entries: uint64(i)}
	}
	for format, lost := range map[byte]spans{1: nil, 2: {{3, 9}, {1 << 50, 1 << 60}}} {
		m.lost = lost
		b := m.encode()
		if b[0] != format {
			t.Errorf("%v: format %d", lost, b[0])
		}
		got, err := decodeMeta(b)
		if err != nil || got.regions != m.regions || got.flushed != 8 || !slices.Equal(got.lost, lost) {
			t.Errorf("%v: %+v, %v", lost, got, err)
		}
		for cut := range b {
			if _, err := decodeMeta(b[:cut]); err == nil {
				t.Errorf("format %d cut at %d is read", format, cut)
			}
		}
	}
}
