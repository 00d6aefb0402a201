package store

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

func writeFile(t *testing.T, fs vfs.FS, name, text string) {
	t.Helper()
	f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// contents returns names and sizes of a directory's files.
func contents(t *testing.T, fs vfs.FS, dir string) map[string]int64 {
	t.Helper()
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	m := make(map[string]int64)
	for _, name := range names {
		info, err := fs.Stat(fs.PathJoin(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		m[name] = info.Size()
	}
	return m
}

func TestNewerFormatIsRefusedAndLeftAlone(t *testing.T) {
	fs := vfs.NewMem()
	if err := openTest(t, fs).Close(); err != nil {
		t.Fatal(err)
	}
	writeFile(t, fs, "data/FORMAT", fmt.Sprintf("signpost-store %d\n", FormatNumber+1))
	before := contents(t, fs, "data")
	if _, err := Open(testConfig(fs)); !errors.Is(err, ErrNewerFormat) || !strings.Contains(err.Error(), fmt.Sprintf("format %d", FormatNumber+1)) {
		t.Errorf("open: %v, want ErrNewerFormat that names the format", err)
	}
	if after := contents(t, fs, "data"); !maps.Equal(before, after) {
		t.Errorf("files were %v, are %v", before, after)
	}
}

func TestOlderFormatThatIsNotReadIsRefusedAndLeftAlone(t *testing.T) {
	fs := vfs.NewMem()
	if err := openTest(t, fs).Close(); err != nil {
		t.Fatal(err)
	}
	writeFile(t, fs, "data/FORMAT", "signpost-store 2\n")
	before := contents(t, fs, "data")
	if _, err := Open(testConfig(fs)); !errors.Is(err, ErrOldFormat) || !strings.Contains(err.Error(), "format 2") {
		t.Errorf("open: %v, want ErrOldFormat that names the format", err)
	}
	if after := contents(t, fs, "data"); !maps.Equal(before, after) {
		t.Errorf("files were %v, are %v", before, after)
	}
}

// TestFormat3IsTakenAsItIs: a directory of format 3 gets the new number once
// nothing refuses it any more, and has what it had.
func TestFormat3IsTakenAsItIs(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := openTest(t, fs)
	c := newChain("pub", "prov")
	write(t, s, c.ad("a", "m"), content, testMH(1))
	if err := errors.Join(s.AddPending("pub", []AdRef{c.next(), c.next()}), s.Close()); err != nil {
		t.Fatal(err)
	}
	writeFile(t, fs, "data/FORMAT", "signpost-store 3\n")
	other := testConfig(fs)
	other.Secret = []byte("another")
	if _, err := Open(other); !errors.Is(err, ErrOtherSecret) {
		t.Errorf("open with another secret: %v", err)
	}
	if n, err := readFormat(fs, "data"); n != 3 || err != nil {
		t.Errorf("after a refusal: format %d, %v", n, err)
	}
	s = openTest(t, fs)
	if n, err := readFormat(fs.CrashClone(vfs.CrashCloneCfg{}), "data"); n != FormatNumber || err != nil {
		t.Errorf("after a crash: format %d, %v", n, err)
	}
	if err := s.SetTrouble("pub", c.prev, Trouble{Attempts: 1}); err != nil {
		t.Fatal(err)
	}
	if p := s.Progress("pub"); p.Mark.Pos != 10 || p.Pending != 2 || found(t, s, testMH(1))["a"] != "m" {
		t.Errorf("progress %+v", p)
	}
	if err := checkInvariants(s); err != nil {
		t.Error(err)
	}
}

func TestDamagedOrForeignDirectoryIsRefused(t *testing.T) {
	for _, text := range []string{"", "signpost-store", "signpost-store x\n", "signpost-store 0\n", "something else\n", strings.Repeat("1", 100)} {
		fs := vfs.NewMem()
		if err := fs.MkdirAll("data", 0o755); err != nil {
			t.Fatal(err)
		}
		writeFile(t, fs, "data/FORMAT", text)
		if _, err := Open(testConfig(fs)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("open with format %q: %v, want ErrCorrupt", text, err)
		}
	}
	fs := vfs.NewMem()
	db, err := pebble.Open("data", &pebble.Options{FS: fs, FormatMajorVersion: pebble.FormatNewest, Logger: pebbleLogger{testConfig(fs).withDefaults().Logger}})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(testConfig(fs)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("open another program's database: %v, want ErrCorrupt", err)
	}
}

func TestDirectoryInUseIsRefused(t *testing.T) {
	for name, fs := range map[string]vfs.FS{"memory": vfs.NewMem(), "disk": vfs.Default} {
		cfg := testConfig(fs)
		if fs == vfs.Default {
			cfg.Dir = t.TempDir()
		}
		s, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Open(cfg); !errors.Is(err, ErrInUse) {
			t.Errorf("%s: second open: %v, want ErrInUse", name, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s, err = Open(cfg)
		if err != nil {
			t.Fatalf("%s: open after close: %v", name, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLockHeldForAMomentIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewMem()
		if err := fs.MkdirAll("data", 0o755); err != nil {
			t.Fatal(err)
		}
		held, err := pebble.LockDirectory("data", fs)
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Second, func() { _ = held.Close() })
		lock, err := lockDir(fs, "data", lockPatience)
		if err != nil {
			t.Fatal(err)
		}
		if err := lock.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestOpenMakesParentsThatSurvivePowerLoss(t *testing.T) {
	fs := vfs.NewCrashableMem()
	cfg := testConfig(fs)
	cfg.Dir = "/a/b/c"
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	clone := fs.CrashClone(vfs.CrashCloneCfg{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := clone.List("/a/b/c")
	if err != nil || !slices.Contains(names, formatFile) {
		t.Errorf("after power loss: %v, %v", names, err)
	}
}

func TestOpenJudgesItsConfig(t *testing.T) {
	if _, err := Open(Config{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("open without directory: %v, want ErrInvalid", err)
	}
}
