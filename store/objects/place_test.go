package objects

import (
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
	for text, want := range map[string]Place{
		"/a/b":                {Dir: "/a/b"},
		"a":                   {Dir: filepath.Join(wd, "a")},
		"file:///a/b%20c":     {Dir: "/a/b c"},
		"file://localhost/a/": {Dir: "/a"},
		"s3://b":              {Bucket: "b", Endpoint: "s3.amazonaws.com", Secure: true},
		"s3://b/p/q/?region=eu-west-1": {Bucket: "b", Prefix: "p/q", Endpoint: "s3.amazonaws.com", Secure: true,
			Region: "eu-west-1"},
		"s3://b?endpoint=h:9000":       {Bucket: "b", Endpoint: "h:9000", Secure: true, PathStyle: true, Region: "us-east-1"},
		"s3://b?endpoint=http://h/":    {Bucket: "b", Endpoint: "h", PathStyle: true, Region: "us-east-1"},
		"s3://b?endpoint=h&region=eu1": {Bucket: "b", Endpoint: "h", Secure: true, PathStyle: true, Region: "eu1"},
	} {
		if got, err := Parse(text); err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", text, got, err, want)
		}
	}
	t.Setenv("AWS_DEFAULT_REGION", "r2")
	if got, err := Parse("s3://b"); err != nil || got.Region != "r2" {
		t.Errorf("region of the environment: %+v, %v", got, err)
	}
}

func TestAURLThatNamesNothingIsRefused(t *testing.T) {
	for _, text := range []string{
		"", "http://h/p", "file://host/p", "file:///p?x=1", "file://", "s3:///p", "s3://b?x=1", "s3://b?region=a&region=b",
		"s3://b?endpoint=ftp://h", "s3://b?endpoint=http://h/p", "s3://b/p#q", "s3://%zz",
		"s3://key:secret@b", "s3://b?endpoint=http://key:secret@h",
	} {
		_, err := Parse(text)
		if err == nil {
			t.Errorf("%q is taken", text)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%v", err)
		}
	}
}
