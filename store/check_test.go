package store

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

func damages(t *testing.T, s *Store) (ds []Damage) {
	t.Helper()
	if err := s.Check(t.Context(), func(d Damage) error { ds = append(ds, d); return nil }); err != nil {
		t.Fatal(err)
	}
	return ds
}

func checkedStore(t *testing.T, fs vfs.FS) *Store {
	s := openTest(t, fs)
	c := newChain("pub", "prov")
	for i := range uint64(40) {
		write(t, s, c.ad(fmt.Sprint(i), "m"), updating(content, ProviderUpdate{Extended: xp("x")}), testMHs(i*100, 100)...)
	}
	write(t, s, c.ad("0", ""), removal)
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCheckOfASoundStoreFindsNothing(t *testing.T) {
	s := checkedStore(t, vfs.NewMem())
	if ds := damages(t, s); len(ds) > 0 {
		t.Error(ds)
	}
	if err := s.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	if ds := damages(t, s); len(ds) > 0 {
		t.Error(ds)
	}
}

// TestCheckNamesDamagedRows: a row that does not decode, one that is missing
// and one too many are each named, and cost no others.
func TestCheckNamesDamagedRows(t *testing.T) {
	for name, tc := range map[string]struct {
		damage func(s *Store) error
		names  string
	}{
		"does not decode": {func(s *Store) error { return s.db.Set(idKey(prefixRecord, 7), []byte{0xff}, pebble.NoSync) }, `row "i\x00\x00\x00\x00\x00\x00\x00\a"`},
		"is missing":      {func(s *Store) error { return s.db.Delete(idKey(prefixRecord, 7), pebble.NoSync) }, `row "k`},
		"is not counted": {func(s *Store) error {
			w := s.publishers["pub"].progress
			w.pending = 3
			return s.db.Set(peerKey(prefixProgress, "pub"), w.encode(), pebble.NoSync)
		}, `row "m\x03pub"`},
		"walk below the mark": {func(s *Store) error {
			return s.db.Set(peerPosKey(prefixScan, "pub", 20), scanRow{next: testCID(1)}.encode(), pebble.NoSync)
		}, `row "s\x03pub`},
		"walk that is not counted": {func(s *Store) error {
			return s.db.Set(peerPosKey(prefixScan, "pub", 1<<40), scanRow{next: testCID(1)}.encode(), pebble.NoSync)
		}, `row "s\x03pub`},
		"waits twice": {func(s *Store) error {
			ref := AdRef{Ad: testCID(1), Pos: 1 << 40}
			if err := s.AddPending("pub", []AdRef{ref}); err != nil {
				return err
			}
			return s.db.Set(peerPosKey(prefixAgain, "pub", ref.Pos), refRow{ad: ref.Ad}.encode(), pebble.NoSync)
		}, `row "o\x03pub`},
		"announced head without a CID": {func(s *Store) error {
			return s.db.Set(peerKey(prefixAnnounced, "pub"), []byte{0, 0, 0}, pebble.NoSync)
		}, `row "j\x03pub`},
		"is too many": {func(s *Store) error { return s.db.Set([]byte("?"), nil, pebble.NoSync) }, `row "?"`},
		"no count":    {func(s *Store) error { return s.db.Delete([]byte(keyTotals), pebble.NoSync) }, `row "u"`},
	} {
		t.Run(name, func(t *testing.T) {
			s := checkedStore(t, vfs.NewMem())
			if err := tc.damage(s); err != nil {
				t.Fatal(err)
			}
			ds := damages(t, s)
			if len(ds) == 0 || len(ds) > 3 {
				t.Errorf("%d damages: %v", len(ds), ds)
			}
			found := false
			for _, d := range ds {
				found = found || strings.Contains(d.String(), tc.names) && errors.Is(d.Err, ErrCorrupt)
			}
			if !found {
				t.Errorf("%v does not name %s", ds, tc.names)
			}
		})
	}
}

func TestCheckEndsWithItsCaller(t *testing.T) {
	s := checkedStore(t, vfs.NewMem())
	if err := s.db.Delete(idKey(prefixRecord, 7), pebble.NoSync); err != nil {
		t.Fatal(err)
	}
	enough := errors.New("enough")
	if err := s.Check(t.Context(), func(Damage) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("%v, want the caller's error", err)
	}
}
