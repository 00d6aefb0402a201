package postings

import (
	"errors"
	"math"
	"sync/atomic"
	"testing"
)

// fill puts records of 100 hashes each.
func fill(t testing.TB, x *Index, records uint64) {
	t.Helper()
	for id := range records {
		put(t, x, id+1, id, testHashes(id*100, 100)...)
	}
	flush(t, x)
}

func TestStatsAreNearTheTruth(t *testing.T) {
	x := openTest(t, memConfig())
	const records = 600
	fill(t, x, records)
	put(t, x, records+1, records, testHashes(0, 15_000)...) // the same hashes again
	flush(t, x)
	put(t, x, records+2, 1, testHash(1))
	s, err := x.Stats(1000)
	if err != nil {
		t.Fatal(err)
	}
	if s.Entries != 75_000 || s.InMemory != 1 || s.Flushed != records+1 || s.MinWidth != minWidth || s.Bytes == 0 {
		t.Errorf("%+v", s)
	}
	near := func(name string, got uint64, want float64) {
		if math.Abs(float64(got)-want) > 6*s.Error*want {
			t.Errorf("%s: %d, want %.0f within %.1f %%", name, got, want, 600*s.Error)
		}
	}
	near("living", s.Living, 75_000)
	near("hashes", s.Hashes, 60_000)
}

func TestReclaimGivesSpaceBack(t *testing.T) {
	cfg := memConfig()
	var dead atomic.Bool
	cfg.Alive = func(id uint64) bool { return id%2 == 0 || !dead.Load() }
	x := openTest(t, cfg)
	const records = 4000
	fill(t, x, records)
	if err := x.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	before, files := x.tableBytes(), x.nextFile
	if n, err := x.Reclaim(t.Context(), 0.1); err != nil || n != 0 {
		t.Fatalf("reclaimed %d of nothing, %v", n, err)
	}
	if x.nextFile != files {
		t.Errorf("%d tables were written to find nothing", x.nextFile-files)
	}
	dead.Store(true)
	n, err := x.Reclaim(t.Context(), 0.1)
	if err != nil || n != records*100/2 {
		t.Fatalf("reclaimed %d, %v", n, err)
	}
	if after := x.tableBytes(); float64(after) > 0.6*float64(before) {
		t.Errorf("%d bytes, before %d", after, before)
	}
	for id := range uint64(records) {
		if id%2 == 0 {
			wantIDs(t, x, testHash(id*100), id)
		} else {
			wantIDs(t, x, testHash(id*100))
		}
	}
	if s, err := x.Stats(0); err != nil || s.Entries != records*100/2 {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestReclaimOfWhatWasNeverMerged: entries as the flush left them.
func TestReclaimOfWhatWasNeverMerged(t *testing.T) {
	cfg := memConfig()
	cfg.MemoryBytes = 64 << 20
	var dead atomic.Bool
	cfg.Alive = func(id uint64) bool { return id%2 == 0 || !dead.Load() }
	x := openTest(t, cfg)
	const records = 2000
	fill(t, x, records)
	before := x.tableBytes()
	dead.Store(true)
	n, err := x.Reclaim(t.Context(), 0.1)
	if err != nil || n != records*100/2 {
		t.Fatalf("reclaimed %d, %v", n, err)
	}
	if after := x.tableBytes(); float64(after) > 0.7*float64(before) {
		t.Errorf("%d bytes, before %d", after, before)
	}
}

// TestASampleTellsCleanRegions from those that are worth a scan.
func TestASampleTellsCleanRegions(t *testing.T) {
	cfg := memConfig()
	var dead atomic.Bool
	cfg.Alive = func(id uint64) bool { return id%2 == 0 || !dead.Load() }
	x := openTest(t, cfg)
	fill(t, x, 3000)
	clean := func() (n int) {
		for region := range regions {
			is, err := x.isClean(region, 0.3)
			if err != nil {
				t.Fatal(err)
			}
			if is {
				n++
			}
		}
		return n
	}
	if n := clean(); n < regions/2 {
		t.Errorf("%d regions without garbage are known to be clean", n)
	}
	dead.Store(true)
	if n := clean(); n > regions/10 {
		t.Errorf("%d regions with half garbage are held to be clean", n)
	}
}

// TestReclaimPassesOverDamage and reclaims the rest.
func TestReclaimPassesOverDamage(t *testing.T) {
	cfg := damagedConfig()
	var dead atomic.Bool
	cfg.Alive = func(id uint64) bool { return id%2 == 0 || !dead.Load() }
	x := openTest(t, cfg)
	fillForDamage(t, x)
	closeAndBreak(t, x, damages[1].do)
	x = openTest(t, cfg)
	dead.Store(true)
	n, err := x.Reclaim(t.Context(), 0.1)
	if !errors.Is(err, ErrCorrupt) || n < salvageHashes/3 {
		t.Errorf("reclaimed %d, %v", n, err)
	}
	if s, err := x.Stats(1000); err != nil || s.Living == 0 {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestStatsSayHowWrongTheyMayBe: the estimates are within the error said about
// as often as a standard error has it.
func TestStatsSayHowWrongTheyMayBe(t *testing.T) {
	x := openTest(t, memConfig())
	fill(t, x, 600)
	within := 0
	rounds := soak(50)
	for range rounds {
		s, err := x.Stats(300)
		if err != nil {
			t.Fatal(err)
		}
		if s.Error <= 0 || s.Error > 0.2 {
			t.Fatalf("error %v", s.Error)
		}
		if math.Abs(float64(s.Living)-60_000) < s.Error*60_000 {
			within++
		}
	}
	// 68 % of a normal distribution.
	if within < rounds/2 {
		t.Errorf("%d of %d estimates within a standard error", within, rounds)
	}
}

func TestCheckpointIsAnIndex(t *testing.T) {
	cfg := memConfig()
	x := openTest(t, cfg)
	fill(t, x, 50)
	put(t, x, 51, 99, testHash(1))
	if err := x.Checkpoint("copy"); err != nil {
		t.Fatal(err)
	}
	cfg.Dir = "copy"
	y := openTest(t, cfg)
	if y.Flushed() != 50 {
		t.Errorf("flushed %d, want 50", y.Flushed())
	}
	wantIDs(t, y, testHash(1), 0)
	wantIDs(t, x, testHash(1), 0, 99)
}

func TestCheckNamesDamage(t *testing.T) {
	cfg := memConfig()
	cfg.LeaveDamage = true
	x := openTest(t, cfg)
	fill(t, x, 300)
	h := Hash{7, 7}
	count := func() (n int) {
		err := x.Check(t.Context(), func(d Damage) error {
			if !errors.Is(d.Err, ErrCorrupt) || d.None || d.First != h || d.Last != (Hash{7, 7, 255, 255, 255, 255, 255, 255, 255, 255}) {
				t.Errorf("%+v", d)
			}
			n++
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := count(); n != 0 {
		t.Fatalf("%d damaged in a sound index", n)
	}
	// A bucket that no encoder writes.
	tables := x.newTables()
	w, err := tables.writer()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Set(bucketKey(nil, &h, minWidth), []byte{0xff}); err != nil {
		t.Fatal(err)
	}
	if err := x.ingest(tables, x.meta.Load()); err != nil {
		t.Fatal(err)
	}
	if n := count(); n != 1 {
		t.Errorf("%d damaged, want 1", n)
	}
	if _, err := x.Find(h); !errors.Is(err, ErrCorrupt) {
		t.Errorf("find in a damaged bucket: %v", err)
	}
	wantIDs(t, x, testHash(5), 0)
}

// tableBytes is the size of the tables in use.
func (x *Index) tableBytes() (n int64) {
	for _, l := range x.db.Metrics().Levels {
		n += int64(l.TablesSize)
	}
	return n
}

// TestReclaimThatWasStoppedIsMadeGood: a pass that ended between marking regions
// and compacting them leaves nothing of the dead once the next has returned:
// then their IDs are forgotten, and nothing would ever drop them again.
func TestReclaimThatWasStoppedIsMadeGood(t *testing.T) {
	cfg := memConfig()
	var dead atomic.Bool
	cfg.Alive = func(id uint64) bool { return id%2 == 0 || !dead.Load() }
	x := openTest(t, cfg)
	const records = 400
	fill(t, x, records)
	if err := x.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	dead.Store(true)
	for region := range regions { // all that the stopped pass came to
		if _, err := x.touch(region, 0); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := x.Reclaim(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	dead.Store(false) // forgotten
	for id := range uint64(records) {
		if id%2 == 0 {
			wantIDs(t, x, testHash(id*100), id)
		} else {
			wantIDs(t, x, testHash(id*100))
		}
	}
}
