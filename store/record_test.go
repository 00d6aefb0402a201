package store

import (
	"errors"
	"fmt"
	"maps"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/libp2p/go-libp2p/core/peer"
)

// doing is one ad of a small chain, by position.
type doing struct {
	pub peer.ID
	pos Position
	e   Effect
}

func (d doing) ad() Ad {
	ad := Ad{Publisher: d.pub, Provider: "prov", ContextID: []byte("ctx"), Metadata: fmt.Appendf(nil, "%s%d", string(d.pub), d.pos)}
	ad.AdRef = AdRef{Ad: testCID(uint64(d.pub[0])<<32 | uint64(d.pos)), Pos: d.pos}
	if d.pos > 1 {
		ad.Prev = testCID(uint64(d.pub[0])<<32 | uint64(d.pos-1))
	}
	return ad
}

// TestPublishersOfOneRecord tells what counts between two publishers of one
// provider: the order of application, but within a publisher that of its chain.
// The multihash an ad puts is its position, plus 100 for publisher q.
func TestPublishersOfOneRecord(t *testing.T) {
	p := func(pos Position, e Effect) doing { return doing{"p", pos, e} }
	q := func(pos Position, e Effect) doing { return doing{"q", pos, e} }
	for _, tc := range []struct {
		name     string
		do       []doing
		found    []uint64
		metadata string
	}{
		{"the later applied has the metadata", []doing{p(1, content), q(1, content)}, []uint64{1, 101}, "q1"},
		{"and so the other way round", []doing{q(1, content), p(1, content)}, []uint64{1, 101}, "p1"},
		{"an older ad of the same publisher does not take it back", []doing{p(2, content), q(1, content), p(1, content)}, []uint64{1, 2, 101}, "q1"},
		{"a removal takes what all did before", []doing{p(1, content), q(1, content), p(2, removal)}, nil, ""},
		{"what comes after stays", []doing{p(1, removal), q(1, content)}, []uint64{101}, "q1"},
		{"what a removal took of another stays removed", []doing{q(2, content), p(1, removal), q(1, content)}, nil, ""},
		{"but not what is newer than that", []doing{q(2, content), p(1, removal), q(1, content), q(3, content)}, []uint64{103}, "q3"},
		{"a late removal takes only its publisher's", []doing{p(1, content), p(3, content), q(1, content), p(2, removal)}, []uint64{3, 101}, "q1"},
		{"a removal applied again takes nothing newer", []doing{p(1, removal), q(1, content), p(2, content), p(1, removal)}, []uint64{2, 101}, "p2"},
		{"content applied again does not win again", []doing{p(1, content), q(1, content), p(1, content)}, []uint64{1, 101}, "q1"},
		{"metadata applied again does not win again", []doing{p(1, content), p(2, metadata), p(1, content)}, []uint64{1}, "p2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := openTest(t, vfs.NewMem())
			for _, d := range tc.do {
				n := uint64(d.pos)
				if d.pub == "q" {
					n += 100
				}
				if d.e.Kind == EffectContent {
					write(t, s, d.ad(), d.e, testMH(n))
				} else {
					write(t, s, d.ad(), d.e)
				}
			}
			got, want := make(map[uint64]string), make(map[uint64]string)
			for n := range uint64(110) {
				if m, ok := found(t, s, testMH(n))["ctx"]; ok {
					got[n] = m
				}
			}
			for _, n := range tc.found {
				want[n] = tc.metadata
			}
			if !maps.Equal(got, want) {
				t.Errorf("found %v, want %v", got, want)
			}
			if err := checkInvariants(s); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestRemovalByAnotherPublisherMeanwhileIsAConflict(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	ad := doing{"q", 1, content}.ad()
	w, err := s.Begin(ad)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Put(testMHs(1, 1)); err != nil {
		t.Fatal(err)
	}
	write(t, s, doing{"p", 1, removal}.ad(), removal)
	if _, err := w.Commit(content); !errors.Is(err, ErrConflict) {
		t.Fatalf("commit: %v, want ErrConflict", err)
	}
	if p := s.Progress("q"); p.Mark.Ad.Defined() {
		t.Error("an ad that was not committed moved the mark")
	}
	write(t, s, ad, content, testMH(1))
	if got := found(t, s, testMH(1)); got["ctx"] != "q1" {
		t.Errorf("found %v after beginning again", got)
	}
}

func TestGenerations(t *testing.T) {
	generations := func(s *Store) (n int) {
		t.Helper()
		err := scanPrefix(s.db, []byte{prefixRecord}, func(k, v []byte) error {
			id, err := parseIDKey(prefixRecord, k)
			if isForward(v) {
				n++
				return err
			}
			rec, err := decodeRecord(id, v)
			if rec.own.id != 0 {
				n++
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	s := openTest(t, vfs.NewMem())
	for pos := Position(1); pos <= 5; pos++ {
		write(t, s, doing{"p", pos, content}.ad(), content, testMH(uint64(pos)))
	}
	if n := generations(s); n != 1 {
		t.Errorf("%d generations of ads in order, want 1", n)
	}
	for _, pos := range []Position{9, 8, 7, 6} {
		write(t, s, doing{"p", pos, content}.ad(), content, testMH(uint64(pos)))
	}
	if n := generations(s); n != 4 {
		t.Errorf("%d generations, want 4: 1–6, 7, 8, 9", n)
	}
	write(t, s, doing{"p", 10, content}.ad(), content, testMH(10))
	if n := generations(s); n != 4 {
		t.Errorf("%d generations, want 4: the last ad joins 9", n)
	}
	write(t, s, doing{"p", 12, removal}.ad(), removal)
	if n := generations(s); n != 0 {
		t.Errorf("%d generations after the removal", n)
	}
	write(t, s, doing{"p", 11, content}.ad(), content, testMH(11))
	if n := generations(s); n != 0 || len(found(t, s, testMH(11))) != 0 {
		t.Errorf("%d generations of what was removed before it came", n)
	}
}

func TestAdBegunAgainUsesItsGeneration(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := openTest(t, fs)
	ad := doing{"p", 1, content}.ad()
	half := func(s *Store) uint64 {
		t.Helper()
		w, err := s.Begin(ad)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Abort()
		if err := w.Put(testMHs(1, 10)); err != nil {
			t.Fatal(err)
		}
		return w.id
	}
	id := half(s)
	if again := half(s); again != id {
		t.Errorf("record ID %d when begun again, was %d", again, id)
	}
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, fs.CrashClone(vfs.CrashCloneCfg{}))
	if again := half(s); again != id {
		t.Errorf("record ID %d after power loss, was %d", again, id)
	}
	if got := found(t, s, testMH(1)); len(got) != 0 {
		t.Errorf("found %v of a record without metadata", got)
	}
	write(t, s, ad, content, testMHs(1, 10)...)
	if st, err := s.Stats(); err != nil || st.Postings != 10 || st.Records != 1 {
		t.Errorf("stats %+v %v, want 10 postings of one record", st, err)
	}
}

func TestRejectedAdLeavesNothing(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	write(t, s, doing{"p", 1, content}.ad(), content, testMH(1))
	w, err := s.Begin(doing{"p", 3, content}.ad())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Put(testMHs(3, 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Commit(Effect{Verdict: Rejected, Reason: "second chunk malformed"}); err != nil {
		t.Fatal(err)
	}
	if got := found(t, s, testMH(3)); len(got) != 0 {
		t.Errorf("found %v of a rejected ad", got)
	}
}

// TestTombstonesGoWhenTheMarkHasPassed removes many records ahead of the mark
// and then lets it pass.
func TestTombstonesGoWhenTheMarkHasPassed(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	rows := func() (n int) {
		t.Helper()
		for _, prefix := range []byte{prefixTombstone, prefixRecord, prefixExtended} {
			if err := scanPrefix(s.db, []byte{prefix}, func(_, _ []byte) error { n++; return nil }); err != nil {
				t.Fatal(err)
			}
		}
		return n
	}
	const n = 300
	ad := func(pos Position) Ad {
		d := doing{"p", pos, removal}.ad()
		d.ContextID = fmt.Appendf(nil, "ctx-%d", pos)
		return d
	}
	for pos := Position(2); pos <= n; pos++ {
		write(t, s, ad(pos), removal)
	}
	if got := rows(); got != 2*(n-1) {
		t.Errorf("%d rows, want a tombstone and a record for each", got)
	}
	first := doing{"p", 1, content}.ad()
	first.ContextID = ad(7).ContextID
	write(t, s, first, content, testMH(1))
	if got := found(t, s, testMH(1)); len(got) != 0 {
		t.Errorf("found %v, which a newer ad had removed", got)
	}
	for pos := Position(n + 1); pos < n+10; pos++ {
		write(t, s, ad(pos), removal)
	}
	if got := rows(); got != 0 {
		t.Errorf("%d rows left", got)
	}
	if err := checkInvariants(s); err != nil {
		t.Error(err)
	}
}
