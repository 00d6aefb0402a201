package store

import (
	"fmt"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/multiformats/go-multihash"
)

// TestSpaceComesBackByItself removes half of the records of a frozen store and
// waits for what the store does then without being asked.
func TestSpaceComesBackByItself(t *testing.T) {
	cfg := testConfig(vfs.NewMem())
	cfg.MemoryBytes = 16 << 20
	cfg.minReclaim = 1000
	reclaimed := make(chan struct{}, 1)
	cfg.onReclaimed = func() { reclaimed <- struct{}{} }
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const records, each = 100, 12000 // enough for buckets to weigh little
	c := newChain("pub", "prov")
	for i := range uint64(records) {
		write(t, s, c.ad(fmt.Sprint(i), "m"), content, testMHs(i*each, each)...)
	}
	settle := func() int64 {
		t.Helper()
		if err := s.tidyLog(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		if err := s.index.Compact(t.Context()); err != nil {
			t.Fatal(err)
		}
		return s.settledBytes()
	}
	full := settle()
	if err := s.Freeze(testTime); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < records; i += 2 {
		write(t, s, c.ad(fmt.Sprint(i), ""), removal)
	}
	if n, err := s.Counts(); err != nil || n.Garbage != records/2*each || n.Postings != records/2*each {
		t.Fatalf("counts %+v %v", n, err)
	}
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	s.wakeReclaim()
	<-reclaimed
	half := s.settledBytes()
	t.Logf("%d bytes, after removing half of the records %d: %.1f %% less", full, half, 100-100*float64(half)/float64(full))
	if float64(half) > 0.55*float64(full) {
		t.Errorf("%d bytes of %d are left", half, full)
	}
	if n, err := s.Counts(); err != nil || n.Garbage != 0 || n.Records != records/2 {
		t.Errorf("counts %+v %v", n, err)
	}
	for i := range uint64(records) {
		if got := len(found(t, s, testMH(i*each+7))); got != int(i%2) {
			t.Fatalf("record %d: %d found", i, got)
		}
	}
	if err := checkInvariants(s); err != nil {
		t.Error(err)
	}
}

// settledBytes are those of tables in use.
func (s *Store) settledBytes() int64 {
	st, err := s.index.Stats(0)
	if err != nil {
		return 0
	}
	return int64(st.Bytes - st.ObsoleteBytes)
}

// TestReclaimKeepsWhatIsNotDurablyRemoved: a pass that runs while removals are
// not durable takes nothing a power loss would bring back.
func TestReclaimKeepsWhatIsNotDurablyRemoved(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := openTest(t, fs)
	c := newChain("pub", "prov")
	write(t, s, c.ad("a", "m"), content, testMHs(0, 100)...)
	write(t, s, c.ad("b", "m"), content, testMHs(0, 100)...)
	write(t, s, c.ad("a", ""), removal)
	if err := s.reclaim(t.Context()); err != nil { // syncs the first removal
		t.Fatal(err)
	}
	write(t, s, c.ad("b", ""), removal)
	if err := s.index.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.index.Reclaim(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, fs.CrashClone(vfs.CrashCloneCfg{}))
	for i := range uint64(100) {
		got := found(t, s, testMH(i))
		if len(got) > 1 || (len(got) == 1 && got["b"] != "m") {
			t.Fatalf("found %v", got)
		}
		if p := s.Progress("pub"); p.Mark.Pos < 40 && len(got) != 1 {
			t.Fatalf("multihash %d is lost although its removal is", i)
		}
	}
}

// TestFindIsOfOneMoment moves a multihash from record to record, always into
// the next before it is removed from the last, with syncs in between: a lookup
// at any time finds it.
func TestFindIsOfOneMoment(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	c := newChain("pub", "prov")
	mhs := []multihash.Multihash{testMH(1), testMH(2)}
	write(t, s, c.ad("0", "m"), content, mhs...)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			values, err := s.Find(mhs[0])
			if err != nil || len(values) == 0 || len(values) > 2 {
				t.Errorf("found %v, %v", values, err)
				return
			}
			both, err := s.FindBatch(mhs)
			if err != nil || len(both[0]) == 0 || !slices.EqualFunc(both[0], both[1], func(a, b Value) bool { return a.Pos == b.Pos }) {
				t.Errorf("found %v, %v", both, err)
				return
			}
		}
	}()
	for i := range 400 {
		write(t, s, c.ad(fmt.Sprint(i+1), "m"), content, mhs...)
		write(t, s, c.ad(fmt.Sprint(i), ""), removal)
		if i%3 == 0 {
			if err := s.Sync(); err != nil {
				t.Fatal(err)
			}
		}
		if i%40 == 0 {
			if err := s.reclaim(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	close(stop)
	<-done
}

func TestFindBatchAnswersAsFind(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	c := newChain("pub", "prov")
	for i := range uint64(50) {
		write(t, s, c.ad(fmt.Sprint(i), "m"), content, testMHs(i*5, 10)...)
		if i%7 == 3 {
			write(t, s, c.ad(fmt.Sprint(i-1), ""), removal)
		}
		if i%20 == 19 {
			if err := s.tidyLog(t.Context(), true); err != nil {
				t.Fatal(err)
			}
		}
	}
	mhs := append(testMHs(0, 300), nil, multihash.Multihash{1}, testMH(3))
	got, err := s.FindBatch(mhs)
	if err != nil || len(got) != len(mhs) {
		t.Fatal(len(got), err)
	}
	hits := 0
	for i, mh := range mhs {
		want, err := s.Find(mh)
		if err != nil {
			t.Fatal(err)
		}
		hits += len(want)
		if fmt.Sprint(got[i]) != fmt.Sprint(want) {
			t.Errorf("multihash %d: %v, want %v", i, got[i], want)
		}
	}
	if hits < 300 {
		t.Errorf("only %d found", hits)
	}
	if _, err := s.FindBatch(make([]multihash.Multihash, MaxBatch+1)); err == nil {
		t.Error("a batch that is too large was taken")
	}
}

// TestFindUnderEndlessRemovals: IDs that become dead under every try of a lookup
// do not make it give up being exact: it holds them up and ends.
func TestFindUnderEndlessRemovals(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	id := uint64(1 << 40) // of nobody
	tries := 0
	err := s.atOneMoment(func(*lookup, int) (bool, error) {
		if tries++; tries < maxFindTries {
			s.dead.add([]uint64{id + uint64(tries)})
		} else if s.dead.hold.TryLock() {
			t.Error("the last try does not hold up what it depends on")
		}
		return false, nil
	})
	if err != nil || tries != maxFindTries {
		t.Errorf("%d tries, %v", tries, err)
	}
	s.dead.add([]uint64{id}) // not held any more
}
