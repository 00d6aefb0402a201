package store

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestChangesOfARecordCostTheSameHoweverLargeItIs: new metadata for a record and
// its removal write as much for a hundred thousand multihashes as for one.
func TestChangesOfARecordCostTheSameHoweverLargeItIs(t *testing.T) {
	cost := func(n uint64) (update, remove int64) {
		s := openTest(t, vfs.NewMem())
		c := newChain("pub", "prov")
		write(t, s, c.ad("a", "m1"), content, testMHs(0, n)...)
		at := s.log.Next()
		write(t, s, c.ad("a", "m2"), metadata)
		update = int64(s.log.Next() - at)
		if got := found(t, s, testMH(n-1)); got["a"] != "m2" {
			t.Errorf("found %v after an update", got)
		}
		at = s.log.Next()
		write(t, s, c.ad("a", ""), removal)
		remove = int64(s.log.Next() - at)
		if got := found(t, s, testMH(n-1)); len(got) != 0 {
			t.Errorf("found %v after the removal", got)
		}
		return update, remove
	}
	update1, remove1 := cost(1)
	update, remove := cost(100_000)
	const slack = 16 // numbers of other lengths
	if update > update1+slack || remove > remove1+slack {
		t.Errorf("%d and %d bytes logged for an update and a removal, for one multihash %d and %d", update, remove, update1, remove1)
	}
}

// TestManyRecordsOfOneMultihash: from one record to thousands the answer is
// exact up to its bound, its neighbours are found, and removing them all leaves
// a miss.
func TestManyRecordsOfOneMultihash(t *testing.T) {
	const records, limit = 2000, 1500
	cfg := testConfig(vfs.NewMem())
	cfg.maxFound = limit
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c := newChain("pub", "prov")
	everyone := testMH(1 << 40)
	for i := range uint64(records) {
		ctx := string(testMH(i)[2:18])
		write(t, s, c.ad(ctx, "m"), content, everyone, testMH(i))
		if i%500 == 499 {
			if err := s.tidyLog(t.Context(), true); err != nil {
				t.Fatal(err)
			}
		}
		if i == 0 || i == 1 || i == 99 || i == limit-1 || i == records-1 {
			if got, err := s.Find(everyone); err != nil || len(got) != int(min(i+1, limit)) {
				t.Fatalf("%d found of %d records, %v", len(got), i+1, err)
			}
		}
	}
	for i := uint64(0); i < records; i += 97 {
		if got := found(t, s, testMH(i)); len(got) != 1 {
			t.Errorf("found %v of what one record has", got)
		}
	}
	for i := range uint64(records) {
		write(t, s, c.ad(string(testMH(i)[2:18]), ""), removal)
	}
	if got, err := s.Find(everyone); err != nil || len(got) != 0 {
		t.Errorf("%d found after all were removed, %v", len(got), err)
	}
	if err := s.reclaim(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := checkInvariants(s); err != nil {
		t.Error(err)
	}
}
