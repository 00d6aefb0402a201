package objects

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// Place is a directory, or a part of a bucket.
type Place struct {
	Dir string // absolute; empty: a bucket

	Bucket, Prefix   string // prefix without slashes at its ends
	Endpoint, Region string // Endpoint: host[:port]
	Secure           bool   // https
	PathStyle        bool
}

// String names the Place without its parameters.
func (p Place) String() string {
	if p.Dir != "" {
		return p.Dir
	}
	return "s3://" + strings.TrimSuffix(p.Bucket+"/"+p.Prefix, "/")
}

// Parse reads the URL of a place: a path, file:///path, or
// s3://BUCKET/PREFIX[?endpoint=URL][&region=NAME]. A URL with a name or password
// in it is refused without being repeated, as errors end up in logs.
func Parse(text string) (Place, error) {
	if text == "" {
		return Place{}, errors.New("no URL")
	}
	if !strings.Contains(text, "://") {
		return ofDir(text)
	}
	u, err := url.Parse(text)
	if err != nil {
		return Place{}, errors.New("URL cannot be parsed")
	}
	if u.User != nil {
		return Place{}, errors.New("URL with credentials; they belong in the environment or the shared files")
	}
	if u.Fragment != "" {
		return Place{}, fmt.Errorf("URL %q: a # must be written %%23", text)
	}
	switch u.Scheme {
	case "file":
		if (u.Host != "" && u.Host != "localhost") || u.RawQuery != "" || u.Path == "" {
			return Place{}, fmt.Errorf("URL %q: a directory is file:///path", text)
		}
		return ofDir(filepath.FromSlash(u.Path))
	case "s3":
		return ofBucket(u)
	}
	return Place{}, fmt.Errorf("URL %q: scheme is neither file nor s3", text)
}

func ofDir(path string) (Place, error) {
	dir, err := filepath.Abs(path)
	if err != nil {
		return Place{}, fmt.Errorf("directory %q: %w", path, err)
	}
	return Place{Dir: dir}, nil
}

func ofBucket(u *url.URL) (Place, error) {
	p := Place{Bucket: u.Host, Prefix: strings.Trim(u.Path, "/"), Endpoint: "s3.amazonaws.com", Secure: true}
	if p.Bucket == "" {
		return Place{}, fmt.Errorf("URL %q: no bucket", u)
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return Place{}, fmt.Errorf("URL %q: %w", u, err)
	}
	for key, values := range query {
		if (key != "region" && key != "endpoint") || len(values) != 1 {
			return Place{}, fmt.Errorf("URL %q: parameter %s; there are region and endpoint, each once", u, key)
		}
	}
	p.Region = query.Get("region")
	for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION"} {
		if p.Region == "" {
			p.Region = os.Getenv(name)
		}
	}
	if endpoint := query.Get("endpoint"); endpoint != "" {
		return p.at(endpoint)
	}
	return p, nil
}

// at is p at another server than Amazon's.
func (p Place) at(endpoint string) (Place, error) {
	if !strings.Contains(endpoint, "://") {
		endpoint = "https://" + endpoint
	}
	e, err := url.Parse(endpoint)
	if err != nil || e.User != nil {
		return Place{}, errors.New("endpoint is not a base URL without credentials")
	}
	if (e.Scheme != "http" && e.Scheme != "https") || e.Host == "" || strings.Trim(e.Path, "/") != "" || e.RawQuery != "" {
		return Place{}, fmt.Errorf("endpoint %q: it is http[s]://host[:port]", endpoint)
	}
	p.Endpoint, p.Secure, p.PathStyle = e.Host, e.Scheme == "https", true
	if p.Region == "" {
		p.Region = "us-east-1" // what such servers take for "none"
	}
	return p, nil
}
