package mirror

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWhatAURLNames(t *testing.T) {
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]place{
		"/a/b":                {dir: "/a/b"},
		"a":                   {dir: filepath.Join(wd, "a")},
		"file:///a/b%20c":     {dir: "/a/b c"},
		"file://localhost/a/": {dir: "/a"},
		"s3://b":              {bucket: "b", endpoint: "s3.amazonaws.com", secure: true},
		"s3://b/p/q/?region=eu-west-1": {bucket: "b", prefix: "p/q", endpoint: "s3.amazonaws.com", secure: true,
			region: "eu-west-1"},
		"s3://b?endpoint=h:9000":       {bucket: "b", endpoint: "h:9000", secure: true, pathStyle: true, region: "us-east-1"},
		"s3://b?endpoint=http://h/":    {bucket: "b", endpoint: "h", pathStyle: true, region: "us-east-1"},
		"s3://b?endpoint=h&region=eu1": {bucket: "b", endpoint: "h", secure: true, pathStyle: true, region: "eu1"},
	} {
		if got, err := parseURL(text); err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", text, got, err, want)
		}
	}
	t.Setenv("AWS_DEFAULT_REGION", "r2")
	if got, err := parseURL("s3://b"); err != nil || got.region != "r2" {
		t.Errorf("region of the environment: %+v, %v", got, err)
	}
}

func TestAURLThatNamesNothingIsRefused(t *testing.T) {
	for _, text := range []string{
		"", "http://h/p", "file://host/p", "file:///p?x=1", "file://", "s3:///p", "s3://b?x=1", "s3://b?region=a&region=b",
		"s3://b?endpoint=ftp://h", "s3://b?endpoint=http://h/p", "s3://b/p#q", "s3://%zz",
		"s3://key:secret@b", "s3://b?endpoint=http://key:secret@h",
	} {
		_, err := parseURL(text)
		if err == nil {
			t.Errorf("%q is taken", text)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%v", err)
		}
	}
}

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
