package postings

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

func mergeValues(t *testing.T, m *pebble.Merger, key []byte, newer bool, values ...[]byte) []byte {
	t.Helper()
	v, err := m.Merge(key, values[0])
	if err != nil {
		t.Fatal(err)
	}
	add := v.MergeOlder
	if newer {
		add = v.MergeNewer
	}
	for _, x := range values[1:] {
		if err := add(x); err != nil {
			t.Fatal(err)
		}
	}
	b, closer, err := v.Finish(false)
	if err != nil {
		t.Fatal(err)
	}
	b = slices.Clone(b)
	if err := closer.Close(); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestMergeIsAUnionOfTheLiving(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	alive := func(id uint64) bool { return id%3 != 0 }
	m := newMerger(alive)
	key := bucketKey(nil, &Hash{1, 2, 3}, 22)
	var e encoder
	for range 300 {
		var values [][]byte
		var want []posting
		for range 1 + rng.IntN(9) {
			ps := randomPostings(rng, rng.IntN(60), 58, 50, 0.3)
			values = append(values, e.encode(nil, ps, 58))
			want = append(want, ps...)
		}
		want = slices.DeleteFunc(want, func(p posting) bool { return !alive(p.id) })
		slices.SortFunc(want, posting.compare)
		want = slices.Compact(want)
		all := mergeValues(t, m, key, false, values...)
		got, _, err := decode(nil, all, 58, nil)
		if err != nil {
			t.Fatal(err)
		}
		if d := diffPostings(got, want); d != "" {
			t.Fatal(d)
		}
		// Associative, commutative, idempotent: the same bytes.
		cut := rng.IntN(len(values)) + 1
		parts := [][]byte{mergeValues(t, m, key, true, values[:cut]...), all}
		if cut < len(values) {
			parts = append(parts, mergeValues(t, m, key, false, values[cut:]...))
		}
		if again := mergeValues(t, m, key, true, parts...); !slices.Equal(again, all) {
			t.Fatal("merged in another order, something else comes out")
		}
	}
}

// TestMergerUnderPebble plays merges, flushes, compactions and reopens
// against a map.
func TestMergerUnderPebble(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	fs := vfs.NewMem()
	dead := make(map[uint64]bool)
	open := func() *pebble.DB {
		known := make(map[uint64]bool)
		for id := range dead {
			known[id] = true
		}
		db, err := pebble.Open("db", &pebble.Options{
			FS: fs, FormatMajorVersion: pebble.FormatNewest, MemTableSize: 1 << 16, L0CompactionThreshold: 2,
			Merger: newMerger(func(id uint64) bool { return !known[id] }), Logger: pebbleLogger{discard},
		})
		if err != nil {
			t.Fatal(err)
		}
		return db
	}
	db := open()
	defer func() { _ = db.Close() }()
	want := make(map[byte]map[posting]bool)
	var e encoder
	for step := range 3000 {
		k := byte(rng.IntN(20))
		key := bucketKey(nil, &Hash{k}, 20)
		switch rng.IntN(40) {
		case 0:
			if err := db.Flush(); err != nil {
				t.Fatal(err)
			}
		case 1:
			if err := db.Compact(context.Background(), []byte{0}, []byte{9}, false); err != nil {
				t.Fatal(err)
			}
		case 2:
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			dead[rng.Uint64N(200)] = true
			db = open()
		default:
			ps := randomPostings(rng, rng.IntN(10), 8, 200, 0.2)
			ps = slices.DeleteFunc(ps, func(p posting) bool { return dead[p.id] })
			if err := db.Merge(key, e.encode(nil, ps, 60), pebble.NoSync); err != nil {
				t.Fatal(err)
			}
			if want[k] == nil {
				want[k] = make(map[posting]bool)
			}
			for _, p := range ps {
				want[k][p] = true
			}
		}
		checkMerged(t, step, db, key, want[k], dead)
	}
}

func checkMerged(t *testing.T, step int, db *pebble.DB, key []byte, want map[posting]bool, dead map[uint64]bool) {
	t.Helper()
	var got []posting
	if v, closer, err := db.Get(key); err == nil {
		if got, _, err = decode(nil, v, 60, nil); err != nil {
			t.Fatal(err)
		}
		_ = closer.Close()
	} else if err != pebble.ErrNotFound {
		t.Fatal(err)
	}
	// A value that compaction has made final is read as it is, so the dead may
	// still be in it; lookups leave them out.
	got = slices.DeleteFunc(got, func(p posting) bool { return dead[p.id] })
	living := 0
	for p := range want {
		if !dead[p.id] {
			living++
		}
	}
	for _, p := range got {
		if !want[p] {
			t.Fatalf("step %d: %v is there", step, p)
		}
	}
	if len(got) != living {
		t.Fatalf("step %d: %d postings, want %d", step, len(got), living)
	}
}
