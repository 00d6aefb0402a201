package snapshot

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/signpost-index/signpost/store"
)

func rename(t testing.TB, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// fileOf is where a directory keeps a file of a snapshot.
func fileOf(t testing.TB, place string, m Manifest, path string) string {
	t.Helper()
	for _, f := range m.Files {
		if f.Path == path {
			return filepath.Join(place, filesDir, f.SHA256)
		}
	}
	t.Fatalf("the snapshot has no %s", path)
	return ""
}

// TestDamageAtThePlaceIsNotRestored: no store appears, and the error names the
// file.
func TestDamageAtThePlaceIsNotRestored(t *testing.T) {
	for name, damage := range map[string]func(file string, b []byte) error{
		"flipped bit": func(file string, b []byte) error { b[len(b)/2] ^= 1; return os.WriteFile(file, b, 0o600) },
		"cut short":   func(file string, b []byte) error { return os.WriteFile(file, b[:len(b)-1], 0o600) },
		"longer":      func(file string, b []byte) error { return os.WriteFile(file, append(b, 0), 0o600) },
		"missing":     func(file string, _ []byte) error { return os.Remove(file) },
	} {
		t.Run(name, func(t *testing.T) {
			place := filepath.Join(t.TempDir(), "place")
			m := take(t, place, checkpoint("a", "b")).Manifest
			file := fileOf(t, place, m, "store/rows/b.sst")
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := damage(file, b); err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(t.TempDir(), "data")
			cfg := RestoreConfig{URL: place, Dir: dir, Secret: testSecret}
			if _, err = Restore(t.Context(), cfg); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "store/rows/b.sst") {
				t.Errorf("%v, want ErrDamaged that names the file", err)
			}
			if _, err := os.Stat(filepath.Join(dir, "store")); err == nil {
				t.Error("there is a store")
			}
			// The next snapshot heals a file of another size.
			if name != "flipped bit" {
				take(t, place, checkpoint("a", "b"))
				if _, err := Restore(t.Context(), cfg); err != nil {
					t.Errorf("after another snapshot: %v", err)
				}
			}
		})
	}
}

// TestARestoreThatWasKilledIsBegunAgain: what it left is no store, and goes.
func TestARestoreThatWasKilledIsBegunAgain(t *testing.T) {
	eachPlace(t, func(t *testing.T, url string) {
		c := checkpoint("a", "b")
		take(t, url, c)
		dir := filepath.Join(t.TempDir(), "data")
		left := filepath.Join(dir, restoring, "store", "rows")
		if err := os.MkdirAll(left, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{filepath.Join(left, "x.sst"), filepath.Join(dir, SecretFile)} {
			if err := os.WriteFile(file, []byte("half"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Restore(t.Context(), RestoreConfig{URL: url, Dir: dir, Secret: testSecret}); err != nil {
			t.Fatal(err)
		}
		if got := readTree(t, dir); len(got) != len(c)+1 || got[SecretFile] != string(testSecret) {
			t.Errorf("%d files", len(got))
		}
	})
}

// TestRestoreRefusesUnharmed: the data directory is as it was, and so is the
// place.
func TestRestoreRefusesUnharmed(t *testing.T) {
	place := filepath.Join(t.TempDir(), "place")
	take(t, place, checkpoint("a"))
	newer := filepath.Join(t.TempDir(), "newer")
	take(t, newer, checkpoint("a"), func(c *TakeConfig) { c.Head.Format = store.FormatNumber + 1 })
	older := filepath.Join(t.TempDir(), "older")
	take(t, older, checkpoint("a"), func(c *TakeConfig) { c.Head.Format = 1 })
	full := tree{"x": "y"}.write(t)
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, tc := range map[string]struct {
		ctx  context.Context
		cfg  RestoreConfig
		want error
	}{
		"newer format":    {t.Context(), RestoreConfig{URL: newer}, store.ErrNewerFormat},
		"ancient format":  {t.Context(), RestoreConfig{URL: older}, store.ErrOldFormat},
		"other secret":    {t.Context(), RestoreConfig{URL: place, Secret: []byte("other")}, store.ErrOtherSecret},
		"no secret":       {t.Context(), RestoreConfig{URL: place}, ErrNoSecret},
		"full directory":  {t.Context(), RestoreConfig{URL: place, Dir: full, Secret: testSecret}, ErrNotEmpty},
		"no snapshot":     {t.Context(), RestoreConfig{URL: t.TempDir()}, ErrNotFound},
		"unknown":         {t.Context(), RestoreConfig{URL: place, ID: "20200102T150405.000Z"}, ErrNotFound},
		"out of place":    {t.Context(), RestoreConfig{URL: place, ID: "../files/x"}, ErrNotFound},
		"cancelled":       {canceled, RestoreConfig{URL: place, Secret: testSecret}, context.Canceled},
		"place not there": {t.Context(), RestoreConfig{URL: filepath.Join(t.TempDir(), "no")}, os.ErrNotExist},
	} {
		t.Run(name, func(t *testing.T) {
			before := readTree(t, place)
			if tc.cfg.Dir == "" {
				tc.cfg.Dir = filepath.Join(t.TempDir(), "data")
			}
			if _, err := Restore(tc.ctx, tc.cfg); !errors.Is(err, tc.want) {
				t.Errorf("%v, want %v", err, tc.want)
			}
			if _, err := os.Stat(filepath.Join(tc.cfg.Dir, "store")); err == nil {
				t.Error("there is a store")
			}
			if len(readTree(t, place)) != len(before) {
				t.Error("the place was changed")
			}
		})
	}
	if got := readTree(t, full); len(got) != 1 || got["x"] != "y" {
		t.Errorf("the full directory has %v", got)
	}
}

// TestAHostileManifestLeadsNowhere: what it names is in the data directory.
func TestAHostileManifestLeadsNowhere(t *testing.T) {
	good := take(t, filepath.Join(t.TempDir(), "place"), checkpoint("a")).Manifest
	for name, change := range map[string]func(*Manifest){
		"parent":        func(m *Manifest) { m.Files[0].Path = "store/../../x" },
		"absolute":      func(m *Manifest) { m.Files[0].Path = "/etc/passwd" },
		"other file":    func(m *Manifest) { m.Files[0].Path = "x" },
		"backslash":     func(m *Manifest) { m.Files[0].Path = `store/..\x` },
		"no name":       func(m *Manifest) { m.Files[0].Path = "" },
		"store itself":  func(m *Manifest) { m.Files[0].Path = "store/" },
		"twice":         func(m *Manifest) { m.Files = append(m.Files, m.Files[0]) },
		"negative size": func(m *Manifest) { m.Files[0].Bytes = -1 },
		"bad hash":      func(m *Manifest) { m.Files[0].SHA256 = "../" + m.Files[0].SHA256[3:] },
		"no format":     func(m *Manifest) { m.Files = nil },
		"other ID":      func(m *Manifest) { m.ID = "x" },
	} {
		m := good
		m.Files = append([]File(nil), good.Files...)
		change(&m)
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeManifest(strings.NewReader(string(b)), good.ID); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v, want ErrDamaged", name, err)
		}
	}
	for _, text := range []string{"", "{", "[]", `{"Files":7}`} {
		if _, err := decodeManifest(strings.NewReader(text), good.ID); !errors.Is(err, ErrDamaged) {
			t.Errorf("%q: %v, want ErrDamaged", text, err)
		}
	}
	if _, err := decodeManifest(strings.NewReader(`{"Version":2}`), good.ID); !errors.Is(err, store.ErrNewerFormat) {
		t.Errorf("newer manifest: %v", err)
	}
}
