package mirror

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// place is where a mirror is, as its URL says.
type place struct {
	dir string // absolute; empty: a bucket

	bucket, prefix   string // prefix without slashes at its ends
	endpoint, region string // endpoint: host[:port]
	secure           bool   // https
	pathStyle        bool
}

func (p place) String() string {
	if p.dir != "" {
		return p.dir
	}
	return "s3://" + strings.TrimSuffix(p.bucket+"/"+p.prefix, "/")
}

func (p place) open(ctx context.Context, cfg Config) (files, error) {
	if p.dir != "" {
		return openDirectory(p.dir, cfg)
	}
	return openBucket(ctx, p, cfg)
}

// parseURL reads Config.URL. A URL with a name or password in it is refused
// without being repeated, as errors end up in logs.
func parseURL(text string) (place, error) {
	if text == "" {
		return place{}, errors.New("mirror: no URL")
	}
	if !strings.Contains(text, "://") {
		return placeOfDir(text)
	}
	u, err := url.Parse(text)
	if err != nil {
		return place{}, errors.New("mirror: URL cannot be parsed")
	}
	if u.User != nil {
		return place{}, errors.New("mirror: URL with credentials; they belong in the environment or the shared files")
	}
	if u.Fragment != "" {
		return place{}, fmt.Errorf("mirror: URL %q: a # must be written %%23", text)
	}
	switch u.Scheme {
	case "file":
		if (u.Host != "" && u.Host != "localhost") || u.RawQuery != "" || u.Path == "" {
			return place{}, fmt.Errorf("mirror: URL %q: a directory is file:///path", text)
		}
		return placeOfDir(filepath.FromSlash(u.Path))
	case "s3":
		return placeOfBucket(u)
	}
	return place{}, fmt.Errorf("mirror: URL %q: scheme is neither file nor s3", text)
}

func placeOfDir(path string) (place, error) {
	dir, err := filepath.Abs(path)
	if err != nil {
		return place{}, fmt.Errorf("mirror: directory %q: %w", path, err)
	}
	return place{dir: dir}, nil
}

func placeOfBucket(u *url.URL) (place, error) {
	p := place{bucket: u.Host, prefix: strings.Trim(u.Path, "/"), endpoint: "s3.amazonaws.com", secure: true}
	if p.bucket == "" {
		return place{}, fmt.Errorf("mirror: URL %q: no bucket", u)
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return place{}, fmt.Errorf("mirror: URL %q: %w", u, err)
	}
	for key, values := range query {
		if (key != "region" && key != "endpoint") || len(values) != 1 {
			return place{}, fmt.Errorf("mirror: URL %q: parameter %s; there are region and endpoint, each once", u, key)
		}
	}
	p.region = query.Get("region")
	for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION"} {
		if p.region == "" {
			p.region = os.Getenv(name)
		}
	}
	if endpoint := query.Get("endpoint"); endpoint != "" {
		return p.at(endpoint)
	}
	return p, nil
}

// at is p at another server than Amazon's.
func (p place) at(endpoint string) (place, error) {
	if !strings.Contains(endpoint, "://") {
		endpoint = "https://" + endpoint
	}
	e, err := url.Parse(endpoint)
	if err != nil || e.User != nil {
		return place{}, errors.New("mirror: endpoint is not a base URL without credentials")
	}
	if (e.Scheme != "http" && e.Scheme != "https") || e.Host == "" || strings.Trim(e.Path, "/") != "" || e.RawQuery != "" {
		return place{}, fmt.Errorf("mirror: endpoint %q: it is http[s]://host[:port]", endpoint)
	}
	p.endpoint, p.secure, p.pathStyle = e.Host, e.Scheme == "https", true
	if p.region == "" {
		p.region = "us-east-1" // what such servers take for "none"
	}
	return p, nil
}

// Dir is the directory that a mirror's URL names, absolute; "" for a bucket and
// for what is no URL of a mirror.
func Dir(url string) string {
	p, err := parseURL(url)
	if err != nil {
		return ""
	}
	return p.dir
}
