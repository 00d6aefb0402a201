package mirror

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestOpenChecksThatTheMirrorIsThere(t *testing.T) {
	srv, _ := s3Server(t)
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, cfg := range []Config{
		{URL: "s3://others?endpoint=" + srv.URL},
		{URL: filepath.Join(t.TempDir(), "missing")},
		{URL: file},
		{URL: file, SpoolDir: t.TempDir()},
		{URL: t.TempDir(), SpoolDir: file},
		{URL: t.TempDir(), MaxFileBytes: -1},
	} {
		m, err := Open(t.Context(), cfg)
		if err == nil {
			m.Close()
			t.Errorf("%+v is opened", cfg)
		}
		if errors.Is(err, ErrNotFound) {
			t.Errorf("%+v: %v, which is for files", cfg, err)
		}
	}
}
