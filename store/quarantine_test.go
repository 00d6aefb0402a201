package store

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/libp2p/go-libp2p/core/peer"
)

// damagedStore makes a store on disk, closes it and damages it. It has 40 ads of
// 100 multihashes of "pub", which it owns, and holds "held".
func damagedStore(t *testing.T, compact bool, damage func(dir string) error) Config {
	t.Helper()
	cfg := testConfig(vfs.Default)
	cfg.Dir = filepath.Join(t.TempDir(), "store")
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(s.Assign(Assignment{Publisher: "pub", Time: time.Now()}), s.SetPublisherAddrs("pub", []string{"/dns4/a/tcp/1"}),
		s.Assign(Assignment{Publisher: "held", Time: time.Now()}), s.SetPolicy([]byte(`{"a":1}`)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.CloseRoles([]peer.ID{"held"}, time.Now()); err != nil {
		t.Fatal(err)
	}
	c := newChain("pub", "prov")
	for i := range uint64(40) {
		write(t, s, c.ad(fmt.Sprint(i), "m"), content, testMHs(i*100, 100)...)
	}
	if compact {
		if err := errors.Join(s.Compact(t.Context()), s.tidyLog(t.Context(), true), s.db.Flush()); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := damage(cfg.Dir); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// flip damages the largest file that matches, in its middle; flipEnd at its end,
// so that a table does not open.
func flip(pattern string) func(dir string) error {
	return flipAt(pattern, func(n int) int { return n / 2 })
}
func flipEnd(pattern string) func(dir string) error {
	return flipAt(pattern, func(n int) int { return n - 3 })
}

func flipAt(pattern string, at func(n int) int) func(dir string) error {
	return func(dir string) error {
		file, err := largest(dir, pattern)
		if err != nil {
			return err
		}
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		b[at(len(b))] ^= 0x55
		return os.WriteFile(file, b, 0o600)
	}
}

func largest(dir, pattern string) (file string, err error) {
	names, err := filepath.Glob(filepath.Join(dir, filepath.FromSlash(pattern)))
	most := int64(-1)
	for _, name := range names {
		if info, statErr := os.Stat(name); statErr == nil && info.Size() > most {
			file, most = name, info.Size()
		}
	}
	if file == "" {
		err = fmt.Errorf("no %s: %w", pattern, fs.ErrNotExist)
	}
	return file, err
}

func removeAll(pattern string) func(dir string) error {
	return func(dir string) error {
		names, err := filepath.Glob(filepath.Join(dir, filepath.FromSlash(pattern)))
		for _, name := range names {
			err = errors.Join(err, os.Remove(name))
		}
		if len(names) == 0 {
			err = fs.ErrNotExist
		}
		return err
	}
}

func dirDamages(t *testing.T, cfg Config) (ds []Damage) {
	t.Helper()
	if err := CheckDir(t.Context(), cfg, func(d Damage) error { ds = append(ds, d); return nil }); err != nil {
		t.Fatal(err)
	}
	return ds
}

func filesOf(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files := make(map[string][]byte)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "LOCK" {
			return err
		}
		files[path], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func mustBeSame(t *testing.T, before, after map[string][]byte) {
	t.Helper()
	if len(before) != len(after) {
		t.Errorf("%d files, were %d", len(after), len(before))
	}
	for path, b := range before {
		if !bytes.Equal(b, after[path]) {
			t.Errorf("%s was changed", path)
		}
	}
}

func nothing(string) error { return nil }

// TestCheckDirChangesNothing: not a sound store, nor a damaged one.
func TestCheckDirChangesNothing(t *testing.T) {
	for name, damage := range map[string]func(string) error{
		"sound": nothing, "damaged": flipEnd("postings/buckets/*.sst"), "no manifest": removeAll("rows/MANIFEST-*"),
	} {
		t.Run(name, func(t *testing.T) {
			cfg := damagedStore(t, true, damage)
			before := filesOf(t, cfg.Dir)
			if ds := dirDamages(t, cfg); (len(ds) == 0) != (name == "sound") {
				t.Error(ds)
			}
			mustBeSame(t, before, filesOf(t, cfg.Dir))
		})
	}
}

// TestQuarantineLeavesASoundStoreAlone and makes no directory.
func TestQuarantineLeavesASoundStoreAlone(t *testing.T) {
	cfg := damagedStore(t, true, nothing)
	before := filesOf(t, cfg.Dir)
	aside := filepath.Join(t.TempDir(), "aside")
	q, err := Quarantine(t.Context(), cfg, aside)
	if err != nil || len(q.Damages) > 0 || len(q.Aside) > 0 || q.Anew {
		t.Errorf("%+v, %v", q, err)
	}
	mustBeSame(t, before, filesOf(t, cfg.Dir))
	if _, err := os.Stat(aside); err == nil {
		t.Error("there is a quarantine")
	}
}

// TestDamagedTablesAreNamedAndSetAside: whatever is damaged, the check names its
// part, and afterwards the store opens, is sound but for what it says it has
// lost, and knows who has to be indexed again.
func TestDamagedTablesAreNamedAndSetAside(t *testing.T) {
	for name, tc := range map[string]struct {
		compact bool
		damage  func(string) error
		part    string
		anew    bool
	}{
		"block of postings":    {true, flip("postings/buckets/*.sst"), "postings", false},
		"footer of postings":   {true, flipEnd("postings/buckets/*.sst"), "postings", false},
		"table of postings":    {true, removeAll("postings/buckets/*.sst"), "postings", true},
		"manifest of postings": {true, removeAll("postings/buckets/MANIFEST-*"), "postings", true},
		"block of rows":        {true, flip("rows/*.sst"), "rows", true},
		"table of rows":        {true, removeAll("rows/*.sst"), "rows", true},
		"manifest of rows":     {true, removeAll("rows/MANIFEST-*"), "rows", true},
		"frame of the log":     {false, flip("log/*"), "log", false},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := damagedStore(t, tc.compact, tc.damage)
			before := filesOf(t, cfg.Dir)
			ds := dirDamages(t, cfg)
			if !slices.ContainsFunc(ds, func(d Damage) bool { return d.Part == tc.part }) {
				t.Errorf("%v does not name %s", ds, tc.part)
			}
			aside := filepath.Join(filepath.Dir(cfg.Dir), "quarantine", "1")
			q, err := Quarantine(t.Context(), cfg, aside)
			if err != nil {
				t.Fatal(err)
			}
			if q.Anew != tc.anew && name != "table of postings" {
				t.Errorf("begun anew: %v", q.Anew)
			}
			for _, d := range dirDamages(t, cfg) {
				if d.Part != partLost {
					t.Errorf("afterwards: %v", d)
				}
			}
			mustBeAside(t, before, cfg.Dir, aside, q)
			s, err := Open(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if err := checkInvariants(s); err != nil {
				t.Error(err)
			}
			mustFollow(t, s, name, q)
		})
	}
}

// mustBeAside: each file that is not as it was is in the quarantine as it was.
func mustBeAside(t *testing.T, before map[string][]byte, dir, aside string, q Quarantined) {
	t.Helper()
	if len(q.Aside) == 0 {
		t.Log("nothing is aside")
	}
	for _, path := range q.Aside {
		if !strings.HasPrefix(path, aside) {
			t.Errorf("%s is not in the quarantine", path)
		}
		if info, err := os.Stat(path); err != nil || info.IsDir() {
			if err != nil {
				t.Error(err)
			}
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(slices.Collect(mapValues(before)), func(old []byte) bool { return bytes.Equal(old, b) }) {
			t.Errorf("%s is not what it was", path)
		}
	}
	if q.Anew {
		for path, b := range before {
			rel, err := filepath.Rel(dir, path)
			if err != nil {
				t.Fatal(err)
			}
			moved := slices.ContainsFunc(q.Aside, func(to string) bool {
				got, err := os.ReadFile(filepath.Join(to, rel))
				return err == nil && bytes.Equal(got, b)
			})
			if !moved {
				t.Errorf("%s is not aside as it was", rel)
			}
		}
	}
}

func mapValues(m map[string][]byte) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for _, v := range m {
			if !yield(v) {
				return
			}
		}
	}
}

// mustFollow: who was followed is, and what is not found is no miss, or comes
// from the chain.
func mustFollow(t *testing.T, s *Store, name string, q Quarantined) {
	t.Helper()
	if strings.HasSuffix(name, "rows") && name != "manifest of rows" {
		return // what named them may be what is lost
	}
	if a, ok := s.Assignment("pub"); !ok || a.Role != RoleOwner {
		t.Errorf("assignment %+v", a)
	}
	if got := s.PublisherAddrs("pub"); !slices.Equal(got, []string{"/dns4/a/tcp/1"}) {
		t.Errorf("addresses %v", got)
	}
	if policy, err := s.Policy(); err != nil || string(policy) != `{"a":1}` {
		t.Errorf("policy %s, %v", policy, err)
	}
	mark := s.Progress("pub").Mark.Pos
	if q.Anew {
		if mark != 0 || !slices.Contains(q.Publishers, "pub") || !slices.Contains(q.GivenUp, "held") {
			t.Errorf("mark %d, %+v", mark, q)
		}
		return
	}
	if q.LostShare > 0 {
		wish, ok, err := s.Revisit("pub")
		if err != nil || !ok || !wish.All || !slices.Contains(q.Publishers, "pub") {
			t.Errorf("not marked: %+v %v %v", wish, ok, err)
		}
	}
	for i := range uint64(mark/10) * 100 {
		if v, err := s.Find(testMH(i)); len(v) == 0 && err == nil {
			t.Fatalf("multihash %d at or below the mark is a miss", i)
		}
	}
}

// TestWhatCannotBeJudgedIsLeftAlone by check and quarantine.
func TestWhatCannotBeJudgedIsLeftAlone(t *testing.T) {
	format := func(text string) func(string) error {
		return func(dir string) error { return os.WriteFile(filepath.Join(dir, formatFile), []byte(text), 0o600) }
	}
	for name, tc := range map[string]struct {
		damage func(string) error
		change func(*Config)
		check  error
		moves  error
	}{
		"newer format":      {format("signpost-store 99\n"), func(*Config) {}, ErrNewerFormat, ErrNewerFormat},
		"ancient format":    {format("signpost-store 1\n"), func(*Config) {}, ErrOldFormat, ErrOldFormat},
		"unreadable format": {format("?"), func(*Config) {}, nil, ErrCorrupt},
		"no format":         {removeAll(formatFile), func(*Config) {}, nil, ErrCorrupt},
		"other secret":      {nothing, func(c *Config) { c.Secret = []byte("another") }, ErrOtherSecret, ErrOtherSecret},
		"no store":          {func(dir string) error { return os.RemoveAll(dir) }, func(*Config) {}, fs.ErrNotExist, fs.ErrNotExist},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := damagedStore(t, true, tc.damage)
			tc.change(&cfg)
			var before map[string][]byte
			if name != "no store" {
				before = filesOf(t, cfg.Dir)
			}
			if err := CheckDir(t.Context(), cfg, func(Damage) error { return nil }); !errors.Is(err, tc.check) {
				t.Errorf("check: %v, want %v", err, tc.check)
			}
			if _, err := Quarantine(t.Context(), cfg, filepath.Join(t.TempDir(), "q")); !errors.Is(err, tc.moves) {
				t.Errorf("quarantine: %v, want %v", err, tc.moves)
			}
			if before != nil {
				mustBeSame(t, before, filesOf(t, cfg.Dir))
			}
		})
	}
}

func TestCheckDirWaitsForNoRunningNode(t *testing.T) {
	cfg := damagedStore(t, false, nothing)
	cfg.lockPatience = time.Millisecond
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := CheckDir(t.Context(), cfg, func(Damage) error { return nil }); !errors.Is(err, ErrInUse) {
		t.Errorf("%v, want ErrInUse", err)
	}
}

// TestAStoreBegunAnewGetsItsNameAfterAKill between the two renames.
func TestAStoreBegunAnewGetsItsNameAfterAKill(t *testing.T) {
	cfg := damagedStore(t, true, nothing)
	if err := os.Rename(cfg.Dir, cfg.Dir+newSuffix); err != nil {
		t.Fatal(err)
	}
	if q, err := Quarantine(t.Context(), cfg, filepath.Join(t.TempDir(), "q")); err != nil || len(q.Damages) > 0 {
		t.Fatalf("%+v, %v", q, err)
	}
	if ds := dirDamages(t, cfg); len(ds) > 0 {
		t.Error(ds)
	}
}

// TestCheckDirOfAnOlderFormat: it is checked as it would be upgraded, and is not.
func TestCheckDirOfAnOlderFormat(t *testing.T) {
	cfg := damagedStore(t, true, func(dir string) error {
		return os.WriteFile(filepath.Join(dir, formatFile), []byte("signpost-store 5\n"), 0o600)
	})
	before := filesOf(t, cfg.Dir)
	if ds := dirDamages(t, cfg); len(ds) > 0 {
		t.Error(ds)
	}
	mustBeSame(t, before, filesOf(t, cfg.Dir))
}
