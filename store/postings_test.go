package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/multiformats/go-multihash"
)

func encodeIDs(ids ...uint64) (b []byte) {
	for _, id := range ids {
		b = binary.BigEndian.AppendUint64(b, id)
	}
	return b
}

// mergeAll merges operands the way Pebble does: grouped at random, newer or
// older first, partial results merged again.
func mergeAll(t testing.TB, rng *rand.Rand, operands [][]byte) []byte {
	t.Helper()
	for len(operands) > 1 {
		n := 2 + rng.IntN(len(operands)-1)
		at := rng.IntN(len(operands) - n + 1)
		group := operands[at : at+n]
		older := rng.IntN(2) == 0
		if older {
			slices.Reverse(group)
		}
		m, err := postingMerger.Merge(nil, group[0])
		if err != nil {
			t.Fatal(err)
		}
		for _, op := range group[1:] {
			add := m.MergeNewer
			if older {
				add = m.MergeOlder
			}
			if err := add(op); err != nil {
				t.Fatal(err)
			}
		}
		value, closer, err := m.Finish(rng.IntN(2) == 0)
		if err != nil {
			t.Fatal(err)
		}
		operands = slices.Replace(operands, at, at+n, bytes.Clone(value))
		if err := closer.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return operands[0]
}

func TestMergeIsAUnionHoweverItIsGrouped(t *testing.T) {
	rng := modelSeed(t)
	for range 200 {
		var operands [][]byte
		var want []uint64
		for range 1 + rng.IntN(20) {
			id := uint64(1 + rng.IntN(15))
			operands = append(operands, encodeIDs(id))
			want = append(want, id)
		}
		slices.Sort(want)
		want = slices.Compact(want)
		if got := mergeAll(t, rng, append(operands, operands[0])); !bytes.Equal(got, encodeIDs(want...)) {
			t.Fatalf("merge of %x is %x, want %x", operands, got, encodeIDs(want...))
		}
	}
}

func TestMergeKeepsTheNewestRecordsOfAFullPosting(t *testing.T) {
	rng := modelSeed(t)
	var operands [][]byte
	const n = 3 * maxPostingIDs
	for _, i := range rng.Perm(n) {
		operands = append(operands, encodeIDs(uint64(i+1)))
	}
	got := mergeAll(t, rng, operands)
	if len(got) != maxPostingIDs*recordIDBytes || !bytes.Equal(got[:8], encodeIDs(n-maxPostingIDs+1)) || !bytes.Equal(got[len(got)-8:], encodeIDs(n)) {
		t.Errorf("%d bytes from %x to %x", len(got), got[:8], got[len(got)-8:])
	}
}

func TestMergeRefusesWhatItDidNotWrite(t *testing.T) {
	for _, value := range [][]byte{nil, {1}, make([]byte, 9), make([]byte, (maxPostingIDs+1)*recordIDBytes)} {
		if _, err := postingMerger.Merge(nil, value); !errors.Is(err, ErrCorrupt) {
			t.Errorf("merge of %d bytes: %v, want ErrCorrupt", len(value), err)
		}
	}
}

func TestCorruptRowsAreErrors(t *testing.T) {
	rows := map[string]func(s *Store) []byte{
		"record":   func(*Store) []byte { return idKey(prefixRecord, 1) },
		"context":  func(s *Store) []byte { return s.recordIDKey(2, []byte("a")) }, // the publisher is 1
		"provider": func(*Store) []byte { return peerKey(prefixProvider, "prov") },
		"extended": func(*Store) []byte { return contextKey(prefixExtended, "prov", nil) },
		"ledger":   func(s *Store) []byte { return s.ledgerKey(testCID(1)) },
	}
	for name, key := range rows {
		t.Run(name, func(t *testing.T) {
			s := openTest(t, vfs.NewMem())
			c := newChain("pub", "prov")
			ad := c.ad("a", "m")
			ad.Ad = testCID(1)
			write(t, s, ad, updating(content, ProviderUpdate{Extended: xp("x")}), testMH(1))
			bad := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
			if err := s.db.Set(key(s), bad, pebble.NoSync); err != nil {
				t.Fatal(err)
			}
			_, find := s.Find(testMH(1))
			_, _, prov := s.Provider("prov")
			_, _, state := s.AdState(testCID(1))
			_, again := tryWrite(s, ad, removal)
			if err := errors.Join(find, prov, state, again); !errors.Is(err, ErrCorrupt) {
				t.Errorf("nothing noticed the corrupt row: %v", err)
			}
		})
	}
	t.Run("progress", func(t *testing.T) {
		fs := vfs.NewMem()
		s := openTest(t, fs)
		if err := s.db.Set(peerKey(prefixProgress, "pub"), []byte{9}, pebble.NoSync); err != nil {
			t.Fatal(err)
		}
		if err := s.db.Flush(); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(testConfig(fs)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("open: %v, want ErrCorrupt", err)
		}
	})
}

func TestPutTakesAnyNumberAndRepetition(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	const n = 60000 // several batches
	mhs := testMHs(0, n)
	mhs = append(mhs, mhs[:1000]...)
	given := slices.Clone(mhs)
	write(t, s, newChain("pub", "prov").ad("a", "m"), content, mhs...)
	if !slices.EqualFunc(mhs, given, func(a, b multihash.Multihash) bool { return bytes.Equal(a, b) }) {
		t.Error("put changed its caller's slice")
	}
	if st, err := s.Stats(); err != nil || st.Postings != n || st.Bytes <= 0 {
		t.Errorf("stats %+v %v, want %d postings", st, err, n)
	}
	for _, i := range []int{0, 1, n / 2, n - 1} {
		if got := found(t, s, mhs[i]); got["a"] != "m" {
			t.Errorf("multihash %d: found %v", i, got)
		}
	}
	identity := append([]byte{0, 3}, "abc"...)
	write(t, s, newChain("pub2", "prov").ad("b", "m2"), content, identity)
	if got := found(t, s, identity); got["b"] != "m2" {
		t.Errorf("identity multihash: found %v", got)
	}
}

// TestFindFollowsABoundedNumberOfRecords: a block everyone has does not make a
// lookup endless, and removing what was shown brings up the rest.
func TestFindFollowsABoundedNumberOfRecords(t *testing.T) {
	const maxFound, over = 64, 10
	cfg := testConfig(vfs.NewMem())
	cfg.maxFound = maxFound
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	c := newChain("pub", "prov")
	for i := range maxFound + over {
		write(t, s, c.ad(fmt.Sprint(i), "m"), content, testMH(1))
	}
	values, err := s.Find(testMH(1))
	if err != nil || len(values) != maxFound || string(values[0].ContextID) != "0" {
		t.Fatalf("found %d records, %v; want the %d oldest", len(values), err, maxFound)
	}
	for i := range over {
		write(t, s, c.ad(fmt.Sprint(i), ""), removal)
	}
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	values, err = s.Find(testMH(1))
	if err != nil || len(values) != maxFound || string(values[maxFound-1].ContextID) != fmt.Sprint(maxFound+over-1) {
		t.Fatalf("found %d records after removals, %v", len(values), err)
	}
}

// TestRemovalsNotYetDurableDoNotHideTheRest: IDs of records removed a moment
// ago are still in the index; they must not use up the bound of a lookup, or it
// would be a miss although others provide.
func TestRemovalsNotYetDurableDoNotHideTheRest(t *testing.T) {
	const maxFound, rest = 16, 3
	cfg := testConfig(vfs.NewMem())
	cfg.maxFound = maxFound
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	c := newChain("pub", "prov")
	for i := range maxFound + rest {
		write(t, s, c.ad(fmt.Sprint(i), "m"), content, testMH(1))
	}
	for i := range maxFound {
		write(t, s, c.ad(fmt.Sprint(i), ""), removal)
	}
	values, err := s.Find(testMH(1))
	if err != nil || len(values) != rest {
		t.Fatalf("found %d records, %v; want %d", len(values), err, rest)
	}
}
