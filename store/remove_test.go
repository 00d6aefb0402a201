package store

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestRemoveProviderIsOneRowHoweverMuchItHad: what the call writes does not
// grow with what the provider had, and all of it is gone at once.
func TestRemoveProviderIsOneRowHoweverMuchItHad(t *testing.T) {
	logged := func(records int) int64 {
		s := openTest(t, vfs.NewMem())
		c := newChain("pub", "prov")
		for i := range records {
			write(t, s, c.ad(fmt.Sprint(i), "m"), updating(content, ProviderUpdate{Addrs: []string{"/a"}}), testMH(uint64(i)))
		}
		other := newChain("other", "other")
		write(t, s, other.ad("0", "m"), content, testMH(0))
		before := s.log.Next()
		known, err := s.RemoveProvider("prov")
		if err != nil || !known {
			t.Fatalf("remove: %v %v", known, err)
		}
		size := int64(s.log.Next() - before)
		for i := range records {
			values, err := s.Find(testMH(uint64(i)))
			if want := i == 0; err != nil || (len(values) == 1) != want || len(values) > 1 {
				t.Fatalf("found %v %v of a removed provider", values, err)
			}
		}
		if _, ok, err := s.Provider("prov"); ok || err != nil {
			t.Errorf("registry entry is there: %v %v", ok, err)
		}
		if known, err := s.RemoveProvider("prov"); known || err != nil {
			t.Errorf("remove again: %v %v", known, err)
		}
		if err := checkInvariants(s); err != nil {
			t.Error(err)
		}
		return size
	}
	if few, many := logged(1), logged(3000); many > few+64 {
		t.Errorf("%d bytes logged for 3000 records, %d for one", many, few)
	}
}

func TestRemovedProviderComesBackAnew(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := openTest(t, fs)
	c := newChain("prov", "prov") // as publisher it keeps its progress
	write(t, s, c.ad("a", "old"), content, testMH(1), testMH(2))
	if _, err := s.RemoveProvider("prov"); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, fs.CrashClone(vfs.CrashCloneCfg{}))
	mark := s.Progress("prov").Mark
	if mark != c.prev {
		t.Errorf("mark is %v, want %v", mark, c.prev)
	}
	write(t, s, c.ad("a", "new"), content, testMH(2))
	check := func() {
		t.Helper()
		if got := found(t, s, testMH(1)); len(got) != 0 {
			t.Errorf("found %v, which was removed with its provider", got)
		}
		if got := found(t, s, testMH(2)); got["a"] != "new" {
			t.Errorf("found %v, want what came after the removal", got)
		}
		if err := checkInvariants(s); err != nil {
			t.Error(err)
		}
	}
	check()
	if err := s.sweepRemoved(t.Context()); err != nil {
		t.Fatal(err)
	}
	check()
	if n, err := s.Counts(); err != nil || n != (Counts{Postings: 1, Records: 1, Garbage: 2}) {
		t.Errorf("counts %+v %v", n, err)
	}
	if err := s.reclaim(t.Context()); err != nil {
		t.Fatal(err)
	}
	check()
	if n, err := s.Counts(); err != nil || n != (Counts{Postings: 1, Records: 1}) {
		t.Errorf("counts %+v %v after reclaiming", n, err)
	}
}

// TestProviderRemovedUnderAWriter: an ad in work when its provider is removed
// is begun again.
func TestProviderRemovedUnderAWriter(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	ad := newChain("pub", "prov").ad("a", "m")
	w, err := s.Begin(ad)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Put(testMHs(0, 10)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.RemoveProvider("prov"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Commit(content); !errors.Is(err, ErrConflict) {
		t.Fatalf("commit: %v, want ErrConflict", err)
	}
	write(t, s, ad, content, testMHs(0, 10)...)
	if got := found(t, s, testMH(3)); got["a"] != "m" {
		t.Errorf("found %v", got)
	}
}

// TestAppliedAgainAfterRemovalCountsOnce: an ad of a removed provider that is
// applied again brings its postings back, into the counts too.
func TestAppliedAgainAfterRemovalCountsOnce(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	ad := newChain("pub", "prov").ad("a", "m")
	for round := range 3 {
		for range 2 {
			write(t, s, ad, content, testMHs(0, 10)...)
			if n, err := s.Counts(); err != nil || n.Postings != 10 || n.Records != 1 {
				t.Fatalf("round %d: counts %+v %v", round, n, err)
			}
		}
		if _, err := s.RemoveProvider("prov"); err != nil {
			t.Fatal(err)
		}
		if err := s.sweepRemoved(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n, err := s.Counts(); err != nil || n.Postings != 0 || n.Records != 0 || n.Garbage != uint64(10*(round+1)) {
			t.Fatalf("round %d: counts %+v %v after removal", round, n, err)
		}
	}
}
