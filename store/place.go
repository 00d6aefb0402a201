package store

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
)

// ChainID names a publisher's chain on every node alike: 16 bytes of a hash of
// the publisher and the chain's first ad.
type ChainID [16]byte

// Place is where in its chain an ad is, on every node alike: Height counts the
// ads from the chain's first, which has 1. The zero Place is one not known. Of two
// ads of one chain the one with the greater height is the newer.
type Place struct {
	Chain  ChainID
	Height uint64
}

// A position is one node's own. What place it is becomes known when the mark
// passes it, counting from the chain's first ad, or from the mark of another
// indexer that says its place. Positions come in runs with one step between
// them, so a chain takes one run, and one more for each walk of several ads:
//
//	pos     2^32-2  2^32-1  2^32 │ 2·2^32  3·2^32 │ 4·2^32-1  4·2^32
//	height  1       2       3    │ 4       5      │ 6         7
//	run     from 2^32-2, step 1  │ step 2^32      │ step 1
//
// Of more than maxRuns the oldest are forgotten.

const maxRuns = 1024

// run is of positions from pos to end, step by step; without end to the mark, and
// only the last. step is 0 as long as there is one. Those of height 0 are not known.
type run struct {
	pos, step, end Position
	Place
}

// runs are a publisher's, ascending. They are replaced, never edited.
type runs []run

// at is the place of a position at or below the mark.
func (rs runs) at(pos Position) Place {
	n, found := slices.BinarySearchFunc(rs, pos, func(r run, pos Position) int {
		switch {
		case r.pos < pos:
			return -1
		case r.pos > pos:
			return 1
		}
		return 0
	})
	if found {
		return rs[n].Place
	}
	if n == 0 {
		return Place{}
	}
	r := rs[n-1]
	if r.Height == 0 || r.step == 0 || r.end != 0 && pos > r.end || (pos-r.pos)%r.step != 0 {
		return Place{}
	}
	r.Height += uint64((pos - r.pos) / r.step)
	return r.Place
}

// ended has no run that goes on above the mark.
func (rs runs) ended(mark Position) runs {
	n := len(rs)
	if n == 0 || rs[n-1].end != 0 {
		return rs
	}
	rs = slices.Clone(rs)
	rs[n-1].end = mark
	return rs
}

// with has a run more, of one position above the mark.
func (rs runs) with(mark Position, r run) runs {
	rs = rs.ended(mark)
	if len(rs) > 0 && r.Height == 0 && rs[len(rs)-1].Height == 0 {
		return rs
	}
	if len(rs) == maxRuns {
		rs = rs[1:]
	}
	return append(slices.Clip(rs), r)
}

// next has a position more, of the ad after the one at from.
func (rs runs) next(from, to Position) runs {
	if len(rs) == 0 {
		return rs
	}
	last := rs[len(rs)-1]
	switch {
	case last.Height == 0:
		return rs
	case last.end != 0:
		return rs.with(from, run{pos: to})
	case last.step == 0 && last.pos == from:
		rs = slices.Clone(rs)
		rs[len(rs)-1].step = to - from
		return rs
	case last.step == to-from:
		return rs
	}
	place := rs.at(from)
	place.Height++
	if place.Height == 1 { // from is not in the run
		place = Place{}
	}
	return rs.with(from, run{pos: to, Place: place})
}

// before has only what is below a position, if that is at or below the mark.
func (rs runs) before(pos, mark Position) runs {
	n := len(rs)
	for n > 0 && rs[n-1].pos >= pos {
		n--
	}
	rs = rs[:n:n]
	if n > 0 && rs[n-1].end == 0 {
		return rs.ended(min(mark, pos-1))
	}
	if n > 0 && rs[n-1].end >= pos {
		rs = slices.Clone(rs)
		rs[n-1].end = pos - 1
	}
	return rs
}

func (rs runs) encode() []byte {
	b := binary.AppendUvarint(nil, uint64(len(rs)))
	var chain ChainID
	for _, r := range rs {
		b = appendPos(appendPos(appendPos(b, r.pos), r.step), r.end)
		b = appendBool(binary.AppendUvarint(b, r.Height), r.Chain != chain)
		if r.Chain != chain {
			b = append(b, r.Chain[:]...)
			chain = r.Chain
		}
	}
	return b
}

func decodeRuns(b []byte) (runs, error) {
	r := &reader{b: b}
	n := r.uvarint()
	if n > maxRuns {
		r.fail()
	}
	var rs runs
	var chain ChainID
	for range n {
		w := run{pos: r.pos(), step: r.pos(), end: r.pos(), Place: Place{Height: r.uvarint()}}
		if r.bool() {
			before := chain
			copy(chain[:], r.take(len(chain), len(chain)))
			if chain == before {
				r.fail()
			}
		}
		w.Chain = chain
		var before Position
		if len(rs) > 0 {
			before = rs[len(rs)-1].end
		}
		switch {
		case w.pos <= before, len(rs) > 0 && before == 0, w.end != 0 && w.end < w.pos, w.Height == 0 && w.step != 0:
			r.fail()
		}
		if r.bad {
			return nil, r.done("places")
		}
		rs = append(rs, w)
	}
	return rs, r.done("places")
}

// chainOf names the chain of a publisher that begins with an ad.
func chainOf(pub peer.ID, first AdRef) (c ChainID) {
	h := sha256.New()
	h.Write(appendPeer([]byte("signpost chain\x00"), pub))
	h.Write(first.Ad.Bytes())
	copy(c[:], h.Sum(nil))
	return c
}

// runs are a publisher's as this change leaves them so far.
func (t *tx) runs(pub peer.ID) runs {
	if rs, ok := t.runsOf[pub]; ok {
		return rs
	}
	if p := t.s.publishers[pub]; p != nil {
		return p.runs
	}
	return nil
}

// setRuns has them written at the end.
func (t *tx) setRuns(pub peer.ID, rs runs) {
	before := t.runs(pub)
	if len(rs) == len(before) && (len(rs) == 0 || rs[0] == before[0] && rs[len(rs)-1] == before[len(rs)-1]) {
		return
	}
	if t.runsOf == nil {
		t.runsOf = make(map[peer.ID]runs)
	}
	t.runsOf[pub] = rs
}

// passes notes that the mark goes on from one ad to the next of its chain, or
// to the first of another.
func (t *tx) passes(pub peer.ID, from, to AdRef) {
	if to.Prev.Defined() {
		t.setRuns(pub, t.runs(pub).next(from.Pos, to.Pos))
		return
	}
	t.setRuns(pub, t.runs(pub).with(from.Pos, run{pos: to.Pos, Place: Place{chainOf(pub, to), 1}}))
}

// jumps notes that the mark is set to an ad whose place is not known, or taken away.
func (t *tx) jumps(pub peer.ID, to AdRef) {
	if !to.Ad.Defined() {
		t.setRuns(pub, nil)
		return
	}
	if from := t.peek(pub).mark; from.Pos != to.Pos || !from.Ad.Equals(to.Ad) {
		t.setRuns(pub, t.runs(pub).before(to.Pos, from.Pos).with(from.Pos, run{pos: to.Pos}))
	}
}

// isAt notes the place of the mark, which somebody else has said.
func (t *tx) isAt(pub peer.ID, pos Position, place Place) {
	if place.Height == 0 || place.Height > uint64(MaxPosition)/2 {
		return // no chain is that long
	}
	t.setRuns(pub, t.runs(pub).before(pos, pos).with(pos, run{pos: pos, Place: place}))
}

// finishRuns writes the runs that changed.
func (t *tx) finishRuns() error {
	for pub, rs := range t.runsOf {
		if err := t.setOrDelete(peerKey(prefixPlaces, pub), len(rs) > 0, rs.encode()); err != nil {
			return err
		}
		t.after(func() {
			p := t.s.publisher(pub)
			p.runs = rs
			t.s.publishers[pub] = p
		})
	}
	return nil
}

func (s *Store) loadRuns() error {
	return scanPrefix(s.db, []byte{prefixPlaces}, func(k, v []byte) error {
		id, err := parsePeerKey(prefixPlaces, k)
		if err != nil {
			return err
		}
		p := s.publisher(id)
		p.runs, err = decodeRuns(v)
		s.publishers[id] = p
		return err
	})
}

// PlaceOf returns the place of a position of a publisher, such as that of a
// Value; zero if it is above the mark, or not known: so are those before the
// last 1,024 walks of several ads, and those after an ad that SetMark has set.
func (s *Store) PlaceOf(publisher peer.ID, pos Position) Place {
	s.view.RLock()
	p := s.publishers[publisher]
	s.view.RUnlock()
	if p == nil || pos > p.progress.mark.Pos {
		return Place{}
	}
	return p.runs.at(pos)
}
