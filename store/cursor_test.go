package store

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// putPart begins an ad, resumes it and puts its chunks from where the cursor
// says up to and without chunk end. It returns the writer and how many it put.
func putPart(t *testing.T, s *Store, ad Ad, end int) (w *AdWriter, puts int) {
	t.Helper()
	w, err := s.Begin(ad)
	if err != nil {
		t.Fatal(err)
	}
	cursor, err := w.Resume()
	if err != nil {
		t.Fatal(err)
	}
	from := 0
	if cursor != nil {
		if _, err := fmt.Sscan(string(cursor), &from); err != nil {
			t.Fatal(err)
		}
	}
	for i := from; i < end; i++ {
		if err := w.PutTo(testMHs(uint64(i)*100, 10), fmt.Append(nil, i+1)); err != nil {
			t.Fatal(err)
		}
		puts++
	}
	return w, puts
}

// TestLargeAdResumesFromItsCursor: after power loss an ad in work goes on after
// the last chunk that survived, and ends as if it had been put once.
func TestLargeAdResumesFromItsCursor(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := openTest(t, fs)
	ad := newChain("pub", "prov").ad("a", "m")
	w, n := putPart(t, s, ad, 3)
	if n != 3 {
		t.Fatalf("%d chunks put at first", n)
	}
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := w.PutTo(testMHs(300, 10), []byte("4")); err != nil { // lost
		t.Fatal(err)
	}
	s = openTest(t, fs.CrashClone(vfs.CrashCloneCfg{}))
	w, n = putPart(t, s, ad, 6)
	if n != 3 {
		t.Errorf("%d chunks put again, want chunks 3, 4 and 5", n)
	}
	if _, err := w.Commit(content); err != nil {
		t.Fatal(err)
	}
	for i := range uint64(6) {
		for j := range uint64(10) {
			if got := found(t, s, testMH(i*100+j)); got["a"] != "m" {
				t.Fatalf("multihash %d of chunk %d: found %v", j, i, got)
			}
		}
	}
	if n, err := s.Counts(); err != nil || n.Postings != 60 {
		t.Errorf("counts %+v %v, want 60 postings", n, err)
	}
	if err := checkInvariants(s); err != nil {
		t.Error(err)
	}
	if _, n = putPart(t, s, ad, 2); n != 2 {
		t.Errorf("%d chunks put of an ad that was committed, want all 2", n)
	}
}

func TestCursorIsNotUsedForAnythingElse(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, s *Store, ad *Ad){
		"another ad at the position": func(t *testing.T, s *Store, ad *Ad) { ad.Ad = testCID(77) },
		"another context":            func(t *testing.T, s *Store, ad *Ad) { ad.ContextID = []byte("b") },
		"the record was removed": func(t *testing.T, s *Store, ad *Ad) {
			write(t, s, newChain("other", "prov").ad("a", ""), removal)
		},
		"the provider was removed": func(t *testing.T, s *Store, ad *Ad) {
			if _, err := s.RemoveProvider("prov"); err != nil {
				t.Fatal(err)
			}
		},
		"the mark has passed": func(t *testing.T, s *Store, ad *Ad) {
			if err := s.SetMark("pub", ad.AdRef); err != nil {
				t.Fatal(err)
			}
		},
		"it was rejected": func(t *testing.T, s *Store, ad *Ad) {
			write(t, s, *ad, Effect{Verdict: Rejected, Reason: "test"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := openTest(t, vfs.NewMem())
			ad := newChain("pub", "prov").ad("a", "m")
			putPart(t, s, ad, 3)
			change(t, s, &ad)
			w, n := putPart(t, s, ad, 4)
			if n != 4 {
				t.Errorf("%d chunks put, want all 4", n)
			}
			if _, err := w.Commit(content); err != nil {
				t.Fatal(err)
			}
			for i := range uint64(4) {
				if got := found(t, s, testMH(i*100)); got[string(ad.ContextID)] != "m" {
					t.Errorf("chunk %d: found %v", i, got)
				}
			}
			if err := checkInvariants(s); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestCursorIsBounded(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	w, err := s.Begin(newChain("pub", "prov").ad("a", "m"))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.PutTo(testMHs(0, 1), []byte(strings.Repeat("x", MaxCursorBytes+1))); !errors.Is(err, ErrInvalid) {
		t.Errorf("%v, want ErrInvalid", err)
	}
}
