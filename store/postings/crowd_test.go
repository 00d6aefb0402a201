package postings

import (
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestOneHashInAHundredThousandRecords: a hash that very many records have, put
// over many flushes among others, costs below a byte an ID, and its neighbours
// and who asks for few of the IDs do not pay for it.
func TestOneHashInAHundredThousandRecords(t *testing.T) {
	crowd(t, 100_000)
}

func TestOneHashInAMillionRecords(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("takes seconds")
	}
	crowd(t, 1_000_000)
}

func crowd(t *testing.T, records uint64) {
	x := openTest(t, Config{FS: vfs.NewMem(), Dir: "data", MemoryBytes: 16 << 20})
	crowded := testHash(0)
	// The others are in the same bucket: the first 64 bits as they are.
	neighbour := func(n uint64) Hash {
		h := crowded
		h[8], h[9] = h[8]+byte(n>>8), h[9]+byte(n)
		return h
	}
	const step = 50
	others := uint64(0)
	for id := range records {
		hs := []Hash{crowded}
		if id%(records/400) == 0 {
			others++
			hs = append(hs, neighbour(others))
		}
		put(t, x, id+1, step*id, hs...)
		if id%(records/30) == 0 {
			flush(t, x)
		}
	}
	flush(t, x)
	check := func(when string) {
		t.Helper()
		got, err := x.Find(crowded)
		if err != nil || uint64(len(got)) != records || !slices.IsSorted(got) || got[records-1] != step*(records-1) {
			t.Fatalf("%s: %d IDs, %v", when, len(got), err)
		}
		for _, limit := range []int{1, 7, 1000} {
			few, err := x.AppendFind(nil, crowded, limit)
			if err != nil || !slices.Equal(few, got[:limit]) {
				t.Errorf("%s: limit %d: %d, %v", when, limit, few, err)
			}
		}
		for n := uint64(1); n <= others; n++ {
			wantIDs(t, x, neighbour(n), step*(records/400)*(n-1))
		}
		wantIDs(t, x, neighbour(others+1))
	}
	check("flushed")
	if err := x.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	check("compacted")

	width := x.meta.Load().regions[crowded.region()].width
	b, err := x.rawBucket(bucketKey(nil, &crowded, width))
	if err != nil {
		t.Fatal(err)
	}
	if bytes := float64(len(b)) / float64(records+others); bytes >= 1 {
		t.Errorf("%.3f bytes an ID", bytes)
	}
	bits := func(h Hash, limit int) uint64 {
		want := filter{limit: limit}
		if _, err := find(nil, b, HashBits-width, suffixOf(&h, width), &want); err != nil {
			t.Fatal(err)
		}
		return want.bits
	}
	// 400 neighbours of one ID each, before or behind the crowd.
	const most = 400 * 100
	for _, n := range []uint64{1, others / 2, others, others + 1, 60_000} {
		if got := bits(neighbour(n), 1<<30); got > most {
			t.Errorf("%d bits read for a neighbour", got)
		}
	}
	for _, limit := range []int{1, 10, 1000} {
		if got := bits(crowded, limit); got > most+uint64(limit)*10 {
			t.Errorf("%d bits read for %d IDs", got, limit)
		}
	}
}
