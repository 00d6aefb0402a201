package api

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestFilesAreReadAgainWhenTheyChange: soon, and what is wrong with them changes nothing.
func TestFilesAreReadAgainWhenTheyChange(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	write := func(text string) {
		t.Helper()
		if err := errors.Join(os.WriteFile(file+".new", []byte(text), 0o600), os.Rename(file+".new", file)); err != nil {
			t.Fatal(err)
		}
	}
	load := func() (string, error) {
		b, err := os.ReadFile(file)
		if err == nil && strings.Contains(string(b), "wrong") {
			err = errors.New("it is wrong")
		}
		return string(b), err
	}
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		if _, err := Reload("a file", nil, load, file); err == nil {
			t.Error("no error for a file that is not there")
		}
		write("first")
		r, err := Reload("a file", slog.New(slog.NewTextHandler(&log, nil)), load, file)
		if err != nil {
			t.Fatal(err)
		}
		for _, step := range []struct{ written, want, logged string }{
			{"second!", "second!", "read again"},
			{"wrong", "second!", "it is wrong"},
			{"third", "third", "read again"},
		} {
			write(step.written)
			log.Reset()
			time.Sleep(reloadEvery)
			if got := r.Get(); got != step.want || !strings.Contains(log.String(), step.logged) {
				t.Errorf("after %q: %q, want %q; log %q", step.written, got, step.want, &log)
			}
		}
		write("wrong")
		if err := r.Now(); err == nil || r.Get() != "third" {
			t.Errorf("at once: %v, %q", err, r.Get())
		}
		log.Reset()
		time.Sleep(time.Minute)
		if r.Get(); log.Len() != 0 {
			t.Errorf("told again of a file that has not changed: %s", &log)
		}
	})
}
