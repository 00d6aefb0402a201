package postings

import (
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// findPlainly is the plain way: have Pebble unite the bucket, decode all of it.
// It sees buckets only.
func (x *Index) findPlainly(t testing.TB, h Hash, limit int) (ids []uint64) {
	t.Helper()
	width := x.meta.Load().regions[h.region()].width
	value, closer, err := x.db.Get(bucketKey(nil, &h, width))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = closer.Close() }()
	ps, _, err := decode(nil, value, HashBits-width, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range ps {
		if p.suffix == suffixOf(&h, width) && (x.cfg.Alive == nil || x.cfg.Alive(p.id)) {
			ids = append(ids, p.id)
		}
	}
	if limit > 0 {
		ids = ids[:min(limit, len(ids))]
	}
	return ids
}

// TestLookupsAgreeWithThePlainWay: random states of several levels, with
// hashes in many records, dead records, empty operands, splits and values that
// compaction has made final.
func TestLookupsAgreeWithThePlainWay(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	var dead sync.Map
	const hashes, records = 3000, 300
	x := openTest(t, Config{FS: vfs.NewMem(), Dir: "data", MemoryBytes: 1, fill: 1, patience: 1,
		Alive: func(id uint64) bool { _, is := dead.Load(id); return !is }})
	pos := uint64(0)
	for range soak(12) {
		for range rng.IntN(40) {
			pos++
			first := rng.Uint64N(hashes)
			id := rng.Uint64N(records)
			if !x.cfg.Alive(id) {
				continue
			}
			put(t, x, pos, id, testHashes(first, rng.Uint64N(min(hashes-first, 200)+1))...)
			if rng.IntN(3) == 0 {
				put(t, x, pos, id, testHash(7)) // in very many
			}
		}
		flush(t, x)
		switch rng.IntN(6) {
		case 0:
			if err := x.Compact(t.Context()); err != nil {
				t.Fatal(err)
			}
		case 1:
			if _, err := x.Reclaim(t.Context(), 0.01); err != nil {
				t.Fatal(err)
			}
		case 2:
			dead.Store(rng.Uint64N(records), true)
		}
		var asked []Hash
		limit := rng.IntN(3) * rng.IntN(20)
		for range 300 {
			asked = append(asked, testHash(rng.Uint64N(hashes+hashes/10)))
		}
		asked = append(asked, testHash(7), testHash(7))
		all, err := x.FindBatch(asked, limit)
		if err != nil {
			t.Fatal(err)
		}
		for i, h := range asked {
			want := x.findPlainly(t, h, limit)
			got, err := x.AppendFind(nil, h, limit)
			if err != nil || !slices.Equal(got, want) || !slices.Equal(all[i], want) {
				t.Fatalf("%x: %d and in a batch %d, %v, want %d", h, got, all[i], err, want)
			}
		}
	}
}

// TestLookupsWriteNothing: readers are used again, with batches that stay
// small, and the database never learns of them.
func TestLookupsWriteNothing(t *testing.T) {
	x := openTest(t, memConfig())
	fill(t, x, 50)
	before := x.db.Metrics()
	hs := testHashes(0, 1000)
	for i := range uint64(3000) {
		if _, err := x.Find(testHash(i)); err != nil {
			t.Fatal(err)
		}
	}
	for range 30 {
		if _, err := x.FindBatch(hs, 0); err != nil {
			t.Fatal(err)
		}
	}
	r := x.borrow()
	if !r.batch.Empty() || cap(r.batch.Repr()) > 1<<20 {
		t.Errorf("a batch between lookups has %d bytes of %d", r.batch.Len(), cap(r.batch.Repr()))
	}
	x.give(r)
	after := x.db.Metrics()
	if before.MemTable.Size != after.MemTable.Size || before.WAL.BytesWritten != after.WAL.BytesWritten ||
		before.Ingest.Count != after.Ingest.Count || before.Flush.Count != after.Flush.Count {
		t.Errorf("before\n%v\nafter\n%v", before, after)
	}
}

// TestLookupsBesideSplits: a lookup reads the bucket that is right at its
// instant while regions get wider keys, one by one and in batches.
func TestLookupsBesideSplits(t *testing.T) {
	x := openTest(t, memConfig())
	const records = 30
	fill(t, x, records)
	var stop atomic.Bool
	var readers sync.WaitGroup
	for r := range 3 {
		readers.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(r), 1))
			for !stop.Load() && !t.Failed() {
				i := rng.Uint64N(records * 100)
				if got, err := x.Find(testHash(i)); err != nil || !slices.Equal(got, []uint64{i / 100}) {
					t.Errorf("%d: %v, %v", i, got, err)
				}
				all, err := x.FindBatch(testHashes(i, 20), 0)
				for k, got := range all {
					if n := i + uint64(k); n < records*100 && !slices.Equal(got, []uint64{n / 100}) {
						t.Errorf("batch: %d: %v", n, got)
					}
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	for width := uint(minWidth + splitBits); width <= 22; width += splitBits {
		for region := 0; region < regions; region += 4 {
			x.ingesting.Lock()
			err := x.rewrite(region, width)
			x.ingesting.Unlock()
			if err != nil {
				t.Error(err)
			}
		}
	}
	stop.Store(true)
	readers.Wait()
}

// TestMovingLookup is the way of a lookup while its region is being changed.
func TestMovingLookup(t *testing.T) {
	x := openTest(t, memConfig())
	fill(t, x, 3)
	put(t, x, 4, 9, testHash(5))
	var all []int
	for region := range regions {
		all = append(all, region)
	}
	err := x.ingestOver(x.newTables(), x.meta.Load(), all, func(paths []string) error {
		wantIDs(t, x, testHash(5), 0, 9)
		wantIDs(t, x, testHash(205), 2)
		wantIDs(t, x, testHash(1<<40))
		if got, err := x.AppendFind([]uint64{8}, testHash(5), 1); err != nil || !slices.Equal(got, []uint64{8, 0}) {
			t.Errorf("%v, %v", got, err)
		}
		all, err := x.FindBatch([]Hash{testHash(5), testHash(205)}, 1)
		if err != nil || !slices.Equal(all[0], []uint64{0}) || !slices.Equal(all[1], []uint64{2}) {
			t.Errorf("%v, %v", all, err)
		}
		return x.db.Ingest(t.Context(), paths)
	})
	if err != nil {
		t.Fatal(err)
	}
	if it, _, err := x.ingests.reader(); it != nil || err != nil {
		t.Errorf("held after the ingest: %v, %v", it, err)
	}
}

// TestALookupBesideIngestAndCompaction: compactions that begin and end while
// an ingest is under way send lookups to the state from before.
func TestALookupBesideIngestAndCompaction(t *testing.T) {
	x := openTest(t, memConfig())
	fill(t, x, 3)
	err := x.ingestOver(x.newTables(), x.meta.Load(), nil, func(paths []string) error {
		turn := x.ingests.turn.Load()
		if !x.ingests.clean(turn) {
			t.Error("nothing happened, but lookups are not good")
		}
		x.ingests.begun.Add(1)
		if !x.ingests.clean(turn) {
			t.Error("nothing ended, but lookups are not good")
		}
		x.ingests.ended.Add(1)
		if x.ingests.clean(turn) {
			t.Error("a compaction began and ended, but lookups are good")
		}
		wantIDs(t, x, testHash(5), 0)
		wantIDs(t, x, testHash(1<<40))
		return x.db.Ingest(t.Context(), paths)
	})
	if err != nil {
		t.Fatal(err)
	}
	wantIDs(t, x, testHash(5), 0)
}

func TestQueryIsNoBucket(t *testing.T) {
	m := newMerger(nil)
	key := bucketKey(nil, &Hash{1}, 22)
	var e encoder
	bucket := e.encode(nil, []posting{{5, 6}}, 58)
	query := addSuffix(beginQuery(nil, 0), 5)
	old := slices.Clone(query)
	old[1]++ // of another process
	for name, b := range map[string][]byte{"of another process": old, "cut": query[:len(query)-1], "short": {0}} {
		if _, err := m.Merge(key, b); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, ops := range map[string][2][]byte{
		"under a bucket": {bucket, query}, "under a query": {query, query},
	} {
		v, err := m.Merge(key, ops[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := v.MergeOlder(ops[1]); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	v, err := m.Merge(key, query)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.MergeNewer(bucket); !errors.Is(err, ErrCorrupt) {
		t.Errorf("under something newer: %v", err)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for range 1000 {
		b := e.encode(nil, randomPostings(rng, 1+rng.IntN(300), 58, 50, 0.3), 58)
		if isQuery(b) {
			t.Fatalf("a bucket looks like a query: %x", b)
		}
	}
}

// TestAQueryInATableIsDamage: it is refused by compactions and lookups.
func TestAQueryInATableIsDamage(t *testing.T) {
	x := openTest(t, memConfig())
	fill(t, x, 3)
	h := testHash(5)
	b := x.newTables()
	w, err := b.writer()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Merge(bucketKey(nil, &h, minWidth), addSuffix(beginQuery(nil, 0), 5)); err != nil {
		t.Fatal(err)
	}
	if err := x.ingest(b, x.meta.Load()); err != nil {
		t.Fatal(err)
	}
	if _, err := x.Find(h); !errors.Is(err, ErrCorrupt) {
		t.Errorf("find: %v", err)
	}
	if _, err := x.FindBatch([]Hash{h}, 0); !errors.Is(err, ErrCorrupt) {
		t.Errorf("batch: %v", err)
	}
}

func TestFindAllocatesLittle(t *testing.T) {
	if raceEnabled {
		t.Skip("pools are not what they are under the race detector")
	}
	x := openTest(t, memConfig())
	fill(t, x, 100)
	if err := x.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	ids := make([]uint64, 0, 8)
	for _, h := range []Hash{testHash(5), testHash(1 << 40)} {
		n := testing.AllocsPerRun(500, func() {
			var err error
			if ids, err = x.AppendFind(ids[:0], h, 0); err != nil {
				t.Fatal(err)
			}
		})
		// All by Pebble: two for the batch, one for each level.
		if n > 3 {
			t.Errorf("%v allocations a lookup", n)
		}
	}
}
