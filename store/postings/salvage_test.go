package postings

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

func damagedConfig() Config {
	return Config{FS: vfs.NewMem(), Dir: "data", MemoryBytes: 1, LeaveDamage: true}
}

const (
	salvageRecords = 400
	salvageHashes  = salvageRecords * 100
	salvageStep    = 37 // one of so many is looked up
)

// fillForDamage puts 400 records of 100 hashes, compacted, and 20 later ones
// that have some of the hashes too, in another level.
func fillForDamage(t *testing.T, x *Index) {
	t.Helper()
	fill(t, x, salvageRecords)
	if err := x.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	for id := range uint64(20) {
		put(t, x, salvageRecords+id+1, 1000+id, testHashes(id*100, 50)...)
	}
	flush(t, x)
}

func salvageWant(n uint64) (ids []uint64) {
	if n < salvageHashes {
		ids = append(ids, n/100)
	}
	if n < 2000 && n%100 < 50 {
		ids = append(ids, 1000+n/100)
	}
	return ids
}

// closeAndBreak closes an index and damages the largest of its tables.
func closeAndBreak(t *testing.T, x *Index, do breaks) {
	t.Helper()
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	opts := x.pebbleOptions()
	opts.ReadOnly = true // so that no compaction takes the table away
	db, err := pebble.Open(x.dbDir(), opts)
	if err != nil {
		t.Fatal(err)
	}
	levels, err := db.SSTables()
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	path, size := "", int64(0)
	for _, info := range slices.Concat(levels...) {
		if int64(info.Size) > size {
			path, size = x.cfg.FS.PathJoin(x.dbDir(), info.BackingSSTNum.String()+".sst"), int64(info.Size)
		}
	}
	do(t, x.cfg.FS, path, size, layoutOf(t, x, path))
}

// layoutOf finds where the blocks of a table are.
func layoutOf(t *testing.T, x *Index, path string) *sstable.Layout {
	t.Helper()
	f, err := x.cfg.FS.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	var file objstorage.Readable
	if file, err = sstable.NewSimpleReadable(f); err != nil {
		t.Fatal(err)
	}
	r, err := sstable.NewReader(context.Background(), file, x.opts.MakeReaderOptions())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	l, err := r.Layout()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func flip(t *testing.T, fs vfs.FS, path string, at uint64) {
	t.Helper()
	f, err := fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	b := []byte{0}
	if _, err := f.ReadAt(b, int64(at)); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b, int64(at)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// rewriteFile gives a file other contents.
func rewriteFile(t *testing.T, fs vfs.FS, path string, change func([]byte) []byte) {
	t.Helper()
	f, err := fs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	g, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Write(change(b)); err != nil {
		t.Fatal(err)
	}
	_ = g.Close()
}

type breaks func(t *testing.T, fs vfs.FS, path string, size int64, l *sstable.Layout)

// damages are ways in which a table can be damaged.
var damages = []struct {
	name  string
	share float64 // most that may be lost of the hash space
	do    breaks
}{
	{"first data block", 0.1, func(t *testing.T, fs vfs.FS, path string, _ int64, l *sstable.Layout) {
		flip(t, fs, path, l.Data[0].Offset+100)
	}},
	{"data block", 0.1, func(t *testing.T, fs vfs.FS, path string, _ int64, l *sstable.Layout) {
		flip(t, fs, path, l.Data[len(l.Data)/2].Offset+100)
	}},
	{"last data block", 0.1, func(t *testing.T, fs vfs.FS, path string, _ int64, l *sstable.Layout) {
		flip(t, fs, path, l.Data[len(l.Data)-1].Offset+10)
	}},
	{"some data blocks", 0.2, func(t *testing.T, fs vfs.FS, path string, _ int64, l *sstable.Layout) {
		for i := 3; i < len(l.Data); i += 9 {
			flip(t, fs, path, l.Data[i].Offset+10)
		}
	}},
	{"index", 1, func(t *testing.T, fs vfs.FS, path string, _ int64, l *sstable.Layout) {
		flip(t, fs, path, l.Index[0].Offset+3)
	}},
	{"properties", 1, func(t *testing.T, fs vfs.FS, path string, _ int64, l *sstable.Layout) {
		flip(t, fs, path, l.Properties.Offset+3)
	}},
	{"meta index", 1, func(t *testing.T, fs vfs.FS, path string, _ int64, l *sstable.Layout) {
		flip(t, fs, path, l.MetaIndex.Offset+3)
	}},
	{"footer", 1, func(t *testing.T, fs vfs.FS, path string, size int64, _ *sstable.Layout) {
		flip(t, fs, path, uint64(size)-3)
	}},
	{"cut", 1, func(t *testing.T, fs vfs.FS, path string, _ int64, _ *sstable.Layout) {
		rewriteFile(t, fs, path, func(b []byte) []byte { return b[:len(b)/2] })
	}},
	{"empty", 1, func(t *testing.T, fs vfs.FS, path string, _ int64, _ *sstable.Layout) {
		rewriteFile(t, fs, path, func(b []byte) []byte { return nil })
	}},
	{"gone", 1, func(t *testing.T, fs vfs.FS, path string, _ int64, _ *sstable.Layout) {
		if err := fs.Remove(path); err != nil {
			t.Fatal(err)
		}
	}},
}

// TestDamageIsNamedSalvagedAndRemembered: a damaged table costs an error, never
// a miss; Check says where; Salvage keeps the rest and remembers, through
// reopening, splits and compactions, until all is put again.
func TestDamageIsNamedSalvagedAndRemembered(t *testing.T) {
	for _, d := range damages {
		if raceEnabled && d.share == 1 && d.name != "index" {
			continue // like that one
		}
		t.Run(d.name, func(t *testing.T) {
			cfg := damagedConfig()
			x := openTest(t, cfg)
			fillForDamage(t, x)
			closeAndBreak(t, x, d.do)

			x = openTest(t, cfg)
			found := checkAll(t, x)
			if len(found) == 0 {
				t.Fatal("no damage is named")
			}
			errs := wantRightOrError(t, x, found)
			if errs == 0 {
				t.Error("no lookup met the damage")
			}
			again, err := x.Salvage(t.Context())
			if err != nil || len(again) != len(found) {
				t.Fatalf("salvaged %d places of %d, %v", len(again), len(found), err)
			}
			if left := checkAll(t, x); len(left) > 0 {
				t.Fatalf("left: %+v", left)
			}
			lost := wantSalvaged(t, x, found)
			if lost == 0 || lost > int(d.share*salvageHashes)+salvageStep {
				t.Errorf("%d hashes lost", lost)
			}
			t.Logf("%d errors, %d hashes lost", errs, lost)
			if err := x.Compact(t.Context()); err != nil {
				t.Errorf("compact: %v", err)
			}
			wantSalvaged(t, x, found)
			if err := x.Close(); err != nil {
				t.Fatal(err)
			}
			x = openTest(t, cfg)
			x.ingesting.Lock()
			for region := 0; region < regions; region += 8 {
				if err := x.rewrite(region, minWidth+splitBits); err != nil {
					t.Fatal(err)
				}
			}
			x.ingesting.Unlock()
			wantSalvaged(t, x, found)
			s, err := x.Stats(100)
			if share := float64(lost) / salvageHashes; err != nil || s.LostSpans == 0 || s.LostShare < share-0.05 || s.LostShare > share+0.05 {
				t.Errorf("%+v, %v, want a share of %.3f", s, err, share)
			}
			wantRestored(t, x, found)
		})
	}
}

func checkAll(t *testing.T, x *Index) (found []Damage) {
	t.Helper()
	err := x.Check(t.Context(), func(d Damage) error {
		if !errors.Is(d.Err, ErrCorrupt) || !strings.HasSuffix(d.Table, ".sst") {
			t.Errorf("%+v", d)
		}
		found = append(found, d)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func isIn(h Hash, found []Damage) bool {
	return slices.ContainsFunc(found, func(d Damage) bool {
		return !d.None && slices.Compare(d.First[:], h[:]) <= 0 && slices.Compare(h[:], d.Last[:]) <= 0
	})
}

// nextBucket is a hash in the bucket after that of another, at minWidth.
func nextBucket(h Hash) Hash { return hashAt(h.prefix() + 1<<(64-minWidth)) }

// wantRightOrError finds everything in an index with damage. The bucket before
// a damaged one may fail too: Pebble looks whether there is more of it.
func wantRightOrError(t *testing.T, x *Index, found []Damage) (errs int) {
	t.Helper()
	var hs []Hash
	for n := uint64(0); n < salvageHashes+500; n += salvageStep {
		h := testHash(n)
		hs = append(hs, h)
		got, err := x.Find(h)
		near := nextBucket(h)
		switch {
		case err == nil && !slices.Equal(got, salvageWant(n)):
			t.Fatalf("%d: got %d, want %d", n, got, salvageWant(n))
		case err != nil && !errors.Is(err, ErrCorrupt):
			t.Fatalf("%d: %v", n, err)
		case err != nil && !isIn(h, found) && !isIn(near, found):
			t.Fatalf("%d is not damaged, but %v", n, err)
		case err == nil && isIn(h, found) && n >= 2000 && n < salvageHashes:
			t.Fatalf("%d is in a damaged bucket, but was found", n)
		case err != nil:
			errs++
		}
	}
	answers, err := x.FindBatch(hs, 0)
	if !errors.Is(err, ErrCorrupt) || len(answers) != len(hs) {
		t.Fatalf("batch: %d answers, %v", len(answers), err)
	}
	for i, got := range answers {
		want := salvageWant(uint64(i * salvageStep))
		if !slices.Equal(got, want) && (len(got) > 0 || !isIn(hs[i], found) && !isIn(nextBucket(hs[i]), found)) {
			t.Fatalf("batch: %d: got %d, want %d", i, got, want)
		}
	}
	return errs
}

// wantSalvaged: what is not lost is as it was.
func wantSalvaged(t *testing.T, x *Index, found []Damage) (lost int) {
	t.Helper()
	for n := uint64(0); n < salvageHashes; n += salvageStep {
		h := testHash(n)
		want := salvageWant(n)
		got, err := x.Find(h)
		if isIn(h, found) {
			lost += salvageStep
			if len(got) == 0 != errors.Is(err, ErrLost) || len(got) > 0 && err != nil {
				t.Fatalf("lost %d: %d, %v", n, got, err)
			}
			for _, id := range got {
				if !slices.Contains(want, id) {
					t.Fatalf("lost %d: %d", n, got)
				}
			}
			continue
		}
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("%d: got %d, %v, want %d", n, got, err, want)
		}
	}
	return lost
}

func wantRestored(t *testing.T, x *Index, found []Damage) {
	t.Helper()
	pos := x.Flushed()
	for n := range uint64(salvageHashes) {
		if h := testHash(n); isIn(h, found) {
			pos++
			for _, id := range salvageWant(n) {
				put(t, x, pos, id, h)
			}
		}
	}
	flush(t, x)
	absent, lost := uint64(1<<40), false
	for ; absent < 1<<40+200_000 && !lost; absent++ {
		if lost = isIn(testHash(absent), found); lost {
			if _, err := x.Find(testHash(absent)); !errors.Is(err, ErrLost) {
				t.Errorf("absent: %v", err)
			}
			answers, err := x.FindBatch([]Hash{testHash(5), testHash(absent)}, 0)
			if !errors.Is(err, ErrLost) || len(answers) != 2 || !slices.Equal(answers[0], salvageWant(5)) {
				t.Errorf("absent: %v, %v", answers, err)
			}
		}
	}
	if !lost {
		t.Fatal("no absent hash in what was lost")
	}
	for n := uint64(0); n < salvageHashes; n += salvageStep {
		wantIDs(t, x, testHash(n), salvageWant(n)...)
	}
	if err := x.MarkWhole(); err != nil {
		t.Fatal(err)
	}
	wantIDs(t, x, testHash(absent-1))
	if s, err := x.Stats(0); err != nil || s.LostSpans != 0 || s.LostShare != 0 {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestTheMetaRowHasATableOfItsOwn, so that damage among the buckets leaves the
// index to be opened.
func TestTheMetaRowHasATableOfItsOwn(t *testing.T) {
	x := openTest(t, memConfig())
	fillForDamage(t, x)
	if err := x.db.Compact(t.Context(), []byte{0}, []byte{9}, true); err != nil {
		t.Fatal(err)
	}
	list, err := x.liveTables()
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range list {
		if info.Smallest.UserKey[0] != info.Largest.UserKey[0] {
			t.Errorf("a table from %x to %x", info.Smallest.UserKey, info.Largest.UserKey)
		}
	}
}

func TestSalvageOfASoundIndexDoesNothing(t *testing.T) {
	x := openTest(t, damagedConfig())
	fillForDamage(t, x)
	before := fmt.Sprint(x.db.Metrics().Ingest.Count)
	found, err := x.Salvage(t.Context())
	if err != nil || len(found) > 0 || fmt.Sprint(x.db.Metrics().Ingest.Count) != before {
		t.Errorf("%v, %v", found, err)
	}
	if err := x.MarkWhole(); err != nil {
		t.Error(err)
	}
	wantIDs(t, x, testHash(5), salvageWant(5)...)
}

// TestDamageDoesNotStopPuts: compactions and flushes that meet damage have it
// taken away, and go on.
func TestDamageDoesNotStopPuts(t *testing.T) {
	for _, d := range damages {
		if d.name != "data block" && d.name != "footer" && d.name != "first data block" {
			continue
		}
		t.Run(d.name, func(t *testing.T) {
			cfg := damagedConfig()
			x := openTest(t, cfg)
			fillForDamage(t, x)
			closeAndBreak(t, x, d.do)
			cfg.LeaveDamage = false
			x = openTest(t, cfg)
			pos := x.Flushed()
			for id := range uint64(3 * maxSublevels) {
				pos++
				put(t, x, pos, 5000+id, testHashes(1<<30, 300)...)
				flush(t, x)
			}
			for n := range uint64(300) {
				got, err := x.Find(testHash(1<<30 + n))
				if err != nil || len(got) != 3*maxSublevels {
					t.Fatalf("%d: %d, %v", n, got, err)
				}
			}
			if _, err := x.Salvage(t.Context()); err != nil { // what nobody met
				t.Fatal(err)
			}
			if s, err := x.Stats(10); err != nil || s.LostSpans == 0 {
				t.Errorf("%+v, %v", s, err)
			}
			for n := uint64(0); n < salvageHashes; n += salvageStep {
				got, err := x.Find(testHash(n))
				if want := salvageWant(n); !slices.Equal(got, want) && len(got) >= len(want) || len(got) == 0 && !errors.Is(err, ErrLost) {
					t.Fatalf("%d: %d, %v", n, got, err)
				}
			}
		})
	}
}

// TestLookupsBesideSalvage: at no moment is what was damaged a miss.
func TestLookupsBesideSalvage(t *testing.T) {
	cfg := damagedConfig()
	x := openTest(t, cfg)
	fillForDamage(t, x)
	closeAndBreak(t, x, damages[3].do)
	x = openTest(t, cfg)
	found := checkAll(t, x)
	var stop atomic.Bool
	var readers sync.WaitGroup
	for r := range 2 {
		readers.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(r), 1))
			for !stop.Load() && !t.Failed() {
				n := rng.Uint64N(salvageHashes)
				h, want := testHash(n), salvageWant(n)
				got, err := x.Find(h)
				if len(got) == 0 && !errors.Is(err, ErrCorrupt) || len(got) > len(want) ||
					err != nil && !isIn(h, found) && !isIn(nextBucket(h), found) {
					t.Errorf("%d: %d, %v", n, got, err)
				}
				answers, err := x.FindBatch([]Hash{h}, 0)
				if err != nil && !errors.Is(err, ErrCorrupt) || err == nil && len(answers[0]) == 0 {
					t.Errorf("batch: %d: %v, %v", n, answers, err)
				}
			}
		})
	}
	for range 3 {
		if _, err := x.Salvage(t.Context()); err != nil {
			t.Error(err)
		}
	}
	stop.Store(true)
	readers.Wait()
	wantSalvaged(t, x, found)
}

// TestPowerLossAfterSalvage: what Salvage did is durable when it returns.
func TestPowerLossAfterSalvage(t *testing.T) {
	disk := vfs.NewCrashableMem()
	cfg := damagedConfig()
	cfg.FS = disk
	x := openTest(t, cfg)
	fillForDamage(t, x)
	closeAndBreak(t, x, damages[1].do)
	x = openTest(t, cfg)
	found, err := x.Salvage(t.Context())
	if err != nil || len(found) == 0 {
		t.Fatalf("%v, %v", found, err)
	}
	cfg.FS = disk.CrashClone(vfs.CrashCloneCfg{})
	x = openTest(t, cfg)
	if left := checkAll(t, x); len(left) > 0 {
		t.Errorf("left: %+v", left)
	}
	if wantSalvaged(t, x, found) == 0 {
		t.Error("nothing is lost")
	}
}

// TestSalvageOfTheMetaRow: while the index is open its row is known.
func TestSalvageOfTheMetaRow(t *testing.T) {
	cfg := damagedConfig()
	x := openTest(t, cfg)
	fillForDamage(t, x)
	list, err := x.liveTables()
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range list {
		if info.Smallest.UserKey[0] == prefixMeta {
			flip(t, cfg.FS, x.cfg.FS.PathJoin(x.dbDir(), info.BackingSSTNum.String()+".sst"), info.Size-3)
		}
	}
	found, err := x.Salvage(t.Context())
	if err != nil || len(found) == 0 || !found[0].None {
		t.Fatalf("%+v, %v", found, err)
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	x = openTest(t, cfg)
	if x.Flushed() != salvageRecords+20 {
		t.Errorf("flushed %d", x.Flushed())
	}
	wantIDs(t, x, testHash(5), salvageWant(5)...)
	if s, err := x.Stats(0); err != nil || s.LostSpans != 0 {
		t.Errorf("%+v, %v", s, err)
	}
}
