package ipnisync

import (
	"encoding/hex"
	"net/url"
	"strings"
	"testing"

	"github.com/multiformats/go-multiaddr"
)

type maurlVectors struct {
	ToURL []struct {
		BytesHex  string `json:"bytes_hex"`
		Error     string
		HeadURL   string `json:"head_url"`
		Multiaddr string
		URL       string
	} `json:"to_url"`
	FromURL []struct{ Multiaddr, URL string } `json:"from_url"`
}

func TestMultiaddrVectorsGiveTheirURL(t *testing.T) {
	var v maurlVectors
	readVectors(t, "maurl.json", &v)
	if len(v.ToURL) == 0 {
		t.Fatal("no vectors")
	}
	for _, tc := range v.ToURL {
		t.Run(tc.Multiaddr, func(t *testing.T) {
			raw, err := hex.DecodeString(tc.BytesHex)
			if err != nil {
				t.Fatal(err)
			}
			fromBytes, err := multiaddr.NewMultiaddrBytes(raw)
			if err != nil {
				t.Fatal(err)
			}
			fromText, err := multiaddr.NewMultiaddr(tc.Multiaddr)
			if err != nil || !fromText.Equal(fromBytes) {
				t.Fatalf("text and bytes differ: %v, %v, %v", fromText, fromBytes, err)
			}
			u, err := ToURL(fromBytes)
			// Of a unix socket the reference makes a URL that cannot be dialled.
			if tc.Error != "" || strings.HasPrefix(tc.Multiaddr, "/unix") {
				if err == nil {
					t.Errorf("got %s, want an error", u)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if u.String() != tc.URL {
				t.Errorf("got %s, want %s", u, tc.URL)
			}
			if head := u.JoinPath(Path, "head").String(); head != tc.HeadURL {
				t.Errorf("head URL %s, want %s", head, tc.HeadURL)
			}
		})
	}
}

func TestURLVectorsGiveTheirMultiaddr(t *testing.T) {
	var v maurlVectors
	readVectors(t, "maurl.json", &v)
	if len(v.FromURL) == 0 {
		t.Fatal("no vectors")
	}
	for _, tc := range v.FromURL {
		u, err := url.Parse(tc.URL)
		if err != nil {
			t.Fatal(err)
		}
		a, err := FromURL(u)
		if err != nil || a.String() != tc.Multiaddr {
			t.Errorf("%s: got %v, %v; want %s", tc.URL, a, err, tc.Multiaddr)
			continue
		}
		if back, err := ToURL(a); err != nil || back.String() != tc.URL {
			t.Errorf("%s: and back %v, %v", tc.URL, back, err)
		}
	}
}

func TestMultiaddrsThatAreNoURL(t *testing.T) {
	for _, text := range []string{
		"/http", "/tcp/80/http", "/p2p/12D3KooWF2uBBKjGJA7LqUWjAcXcnwkAjXjBQDKFTafDkfgCUJDw",
		"/dnsaddr/pub.example.com/http", "/memory/1/http",
		"/dns/user@pub.example.com/http", "/dns/pub.example.com:81/tcp/80/http", "/dns/a b/http", "/dns/a%2fb/http",
		"/dns/" + strings.Repeat("a", 254) + "/http",
		"/dns/pub.example.com/https/httpath/%zz",
	} {
		a, err := multiaddr.NewMultiaddr(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if u, err := ToURL(a); err == nil {
			t.Errorf("%s became %s", text, u)
		}
	}
	if u, err := ToURL(nil); err == nil {
		t.Errorf("nil became %s", u)
	}
}

func TestMoreMultiaddrsAndTheirURLs(t *testing.T) {
	for text, want := range map[string]string{
		"/ip6zone/eth0/ip6/fe80::1/tcp/80/http":        "http://[fe80::1%25eth0]:80",
		"/ip6/2001:db8::1/http":                        "http://[2001:db8::1]",
		"/dns/pub.example.com/tcp/80/tls/ws":           "wss://pub.example.com:80",
		"/dns6/pub.example.com/https/http-path/a%3Fb":  "https://pub.example.com/a%3Fb",
		"/dns6/pub.example.com/https/httpath/a%252Fb+": "https://pub.example.com/a%252Fb+",
	} {
		a, err := multiaddr.NewMultiaddr(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if u, err := ToURL(a); err != nil || u.String() != want {
			t.Errorf("%s: got %v, %v; want %s", text, u, err, want)
		}
	}
}

func TestURLsThatAreNoMultiaddr(t *testing.T) {
	for _, text := range []string{
		"ftp://a.example", "https:///path", "https://u:p@a.example", "https://a.example/?q=1", "https://a.example/#f",
		"https://a.example:99999/", "https://a_b$.example", "//a.example",
	} {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if a, err := FromURL(u); err == nil {
			t.Errorf("%s became %s", text, a)
		}
	}
}

func FuzzToURL(f *testing.F) {
	var v maurlVectors
	readVectors(f, "maurl.json", &v)
	for _, tc := range v.ToURL {
		raw, err := hex.DecodeString(tc.BytesHex)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, err := multiaddr.NewMultiaddrBytes(raw)
		if err != nil {
			return
		}
		u, err := ToURL(a)
		if err != nil {
			return
		}
		again, err := url.Parse(u.String())
		if err != nil {
			t.Fatalf("%s gives %q, which does not parse: %v", a, u, err)
		}
		if again.Host != u.Host || again.Path != u.Path || again.Scheme != u.Scheme || again.User != nil {
			t.Fatalf("%s gives %#v, read as %#v", a, u, again)
		}
	})
}
