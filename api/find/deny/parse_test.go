package deny

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multibase"
	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/api/find"
)

func parsed(t *testing.T, text string) *set {
	t.Helper()
	s, err := parse(strings.NewReader(text), fileLimits)
	if err != nil {
		t.Fatalf("%q%v", text, err)
	}
	return s
}

// saltedOf is the second multihash of IPNI's reader privacy.
func saltedOf(mh multihash.Multihash) multihash.Multihash {
	sum := salted(mh)
	second, err := multihash.Encode(sum[:], multihash.DBL_SHA2_256)
	if err != nil {
		panic(err)
	}
	return second
}

// TestEveryFormOfAKeyDeniesIt: whatever a key is written as, it is that multihash,
// and no other.
func TestEveryFormOfAKeyDeniesIt(t *testing.T) {
	mh := mhOf("a")
	base36, err := cid.NewCidV1(cid.Raw, mh).StringOfBase(multibase.Base36)
	if err != nil {
		t.Fatal(err)
	}
	sum := salted(mh)
	for form, want := range map[string]find.DenyKind{
		"multihash " + mh.B58String():                             find.DenyMultihash,
		"multihash " + hex.EncodeToString(mh):                     find.DenyMultihash,
		"multihash " + cid.NewCidV1(cid.DagProtobuf, mh).String(): find.DenyMultihash,
		"cid " + base36: find.DenyMultihash,
		"double-hash " + saltedOf(mh).B58String():                       find.DenyDoubleHash,
		"double-hash 5620" + hex.EncodeToString(sum[:]):                 find.DenyDoubleHash,
		"double-hash " + cid.NewCidV1(cid.Raw, saltedOf(mh)).String():   find.DenyDoubleHash,
		"double-hash " + mhOf(mh.B58String()).B58String():               find.DenyDoubleHash,
		"//" + mhOf(mh.B58String()).B58String():                         find.DenyDoubleHash,
		"//" + legacyOf(cid.NewCidV1(cid.Raw, mh)):                      find.DenyDoubleHash,
		"double-hash " + legacyOf(cid.NewCidV1(cid.DagProtobuf, mh)):    find.DenyDoubleHash,
		"\ufeff  multihash\t" + mh.B58String() + " \t because of it \r": find.DenyMultihash,
	} {
		s := parsed(t, form+"\n")
		m := s.key(mh)
		if m == nil || kindNames[m.kind] != want {
			t.Errorf("%q: got %+v", form, m)
		}
		if other := s.key(mhOf("b")); other != nil {
			t.Errorf("%q denies another: %+v", form, other)
		}
	}
}

func legacyOf(c cid.Cid) string {
	return hex.EncodeToString(mhOf(c.String() + "/")[2:])
}

// TestDoubleHashesAreThoseOfOthers: vectors made with go-libipni's dhash, and those of
// nopfs' README.
func TestDoubleHashesAreThoseOfOthers(t *testing.T) {
	for _, v := range []struct{ key, line string }{
		{"QmbKKpEWFQMhASzcsMJSnbMKBmbHTaSb6Lr2RgFsnKmeir", "double-hash 2wvp2A4RPC7KDB2c8qFUQAu1BWGZSm7xeHNPAKyJzfGzvhb"},
		{"QmVTF1yEejXd9iMgoRTFDxBv7HAz9kuZcQNBzHrceuK9HR", "//QmX9dhRcQcKUw3Ws8485T5a9dtjrSCQaUAHnG4iK9i4ceM"},
		{"bafybeiefwqslmf6zyyrxodaxx4vwqircuxpza5ri45ws3y5a62ypxti42e", "//d9d295bde21f422d471a90f2a37ec53049fdf3e5fa3ee2e8f20e10003da429e7"},
	} {
		mh, err := find.ParseKey(v.key)
		if err != nil {
			t.Fatal(err)
		}
		if parsed(t, v.line).key(mh) == nil {
			t.Errorf("%s does not deny %s", v.line, v.key)
		}
	}
}

// TestReasonsAreTheRestOfTheLine: as one line of plain text; the first entry for a
// thing counts.
func TestReasonsAreTheRestOfTheLine(t *testing.T) {
	key := mhOf("a").B58String()
	for line, want := range map[string]string{
		"":                                   "",
		" takedown 2026-114":                 "takedown 2026-114",
		"\t # ticket #7  ":                   "ticket #7",
		" #7":                                "#7",
		" für\x00alle\u202e\xff":             "für alle",
		" <b>\nmultihash " + key + " second": "<b>",
		" a\n  multihash " + key:             "a",
		" " + strings.Repeat("x", maxReason): strings.Repeat("x", maxReason),
	} {
		if m := parsed(t, "multihash "+key+line).key(mhOf("a")); m == nil || m.reason != want {
			t.Errorf("%q: got %+v, want %q", line, m, want)
		}
	}
}

// TestErrorsNameLineAndRemedy: whatever is wrong with a file, the operator is told
// where, and what to do.
func TestErrorsNameLineAndRemedy(t *testing.T) {
	key, id := mhOf("a").B58String(), peerOf("P").String()
	long := strings.Repeat("x", maxLine)
	for _, c := range []struct{ text, want string }{
		{"multihash " + key + "\n\nmultihash", `:3: "multihash" names nothing; want multihash KEY`},
		{"# ok\n" + key, `:2: "` + key + `" names nothing; want`},
		{"deny " + key, `:1: "deny" is no kind of entry; want`},
		{"multihash zzz", `:1: "zzz" is neither a CID nor a multihash in base58 or hex; correct or remove it`},
		{"multihash " + strings.Repeat("1", 3000), `:1: "111`},
		{"double-hash " + mhOf("a").B58String() + "x", "is no double hash: want a multihash in base58 or hex, or 64 hex digits"},
		{"double-hash 1114" + strings.Repeat("00", 20), "is no double hash: want one of code dbl-sha2-256"},
		{"//", `:1: "double-hash" names nothing`},
		{"provider nobody", `:1: "nobody" is no peer ID; want one such as`},
		{"provider " + strings.Repeat("1", 3000), "is no peer ID"},
		{"context " + id, `:1: "" is no context ID; want at most 64 bytes in base64 after the peer ID`},
		{"context " + id + " ***", `:1: "***" is no context ID`},
		{"context " + id + " " + base64.StdEncoding.EncodeToString(make([]byte, 65)), "is no context ID"},
		{"multihash " + key + " " + strings.Repeat("é", 501), ":1: reason of 1002 bytes; shorten it to 1000"},
		{"#\n# " + long, ":2: longer than 4096 bytes; shorten the reason"},
		{"#" + strings.Repeat(long, 40), ":1: longer than 4096 bytes"},
		{"\x00\x01\x02 \x1b[31m", `:1: "\x1b[31m`},
		{"mult\x1b[31m\u202e x", `:1: "mult [31m`},
	} {
		_, err := parse(strings.NewReader(c.text), fileLimits)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			// The first words are shown without what does not print.
			if err == nil || c.text[0] != 0 || !strings.HasPrefix(err.Error(), ":1: ") {
				t.Errorf("%.60q: got %v, want %s", c.text, err, c.want)
			}
		}
		if err != nil && (strings.ContainsAny(err.Error(), "\x1b\u202e\n") || len(err.Error()) > 400) {
			t.Errorf("%.60q: error %q", c.text, err)
		}
	}
}

// TestFilesAreBounded in bytes and entries; and a file of the longest line is one.
func TestFilesAreBounded(t *testing.T) {
	var text bytes.Buffer
	for n := range 10 {
		fmt.Fprintf(&text, "multihash %s\n", mhOf(fmt.Sprint(n)).B58String())
	}
	fmt.Fprintf(&text, "multihash %s again\n", mhOf("3").B58String())
	for _, c := range []struct {
		limits limits
		want   string
	}{
		{limits{int64(text.Len()), 10}, ""},
		{limits{int64(text.Len()), 9}, ":10: more than 9 entries; keep fewer"},
		{limits{int64(text.Len()) - 1, 10}, fmt.Sprintf(": more than %d bytes; keep fewer entries, or shorter reasons", text.Len()-1)},
		{limits{100, 10}, ": more than 100 bytes"},
	} {
		_, err := parse(bytes.NewReader(text.Bytes()), c.limits)
		if err == nil != (c.want == "") || err != nil && !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%+v: got %v, want %q", c.limits, err, c.want)
		}
	}
	parsed(t, "#"+strings.Repeat("x", maxLine-1)+"\r\n")
}

// TestOnlyRegularFilesAreRead: nothing that would keep a start waiting, or never ends.
func TestOnlyRegularFilesAreRead(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{dir, os.DevNull, filepath.Join(dir, "none")} {
		if _, err := Open(Config{File: name}); err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), ";") {
			t.Errorf("%s: %v", name, err)
		}
	}
	big := filepath.Join(dir, "big")
	if err := os.WriteFile(big, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(big, fileLimits.bytes+1); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{File: big}); err == nil || !strings.Contains(err.Error(), "more than 268435456 bytes") {
		t.Errorf("%v", err)
	}
}

// TestTheManualsExampleIsAList of the kinds it shows.
func TestTheManualsExampleIsAList(t *testing.T) {
	doc, err := os.ReadFile("../../../doc/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?s)```\n(# takedowns.*?)```").FindSubmatch(doc)
	if m == nil {
		t.Fatal("no example")
	}
	if got := parsed(t, string(m[1])).counts(); got != (counts{2, 1, 1, 1}) {
		t.Errorf("%v", got)
	}
}

// FuzzParse: no file brings the parser down, and what it takes it can look up.
func FuzzParse(f *testing.F) {
	f.Add([]byte("multihash " + mhOf("a").B58String() + " x\n//" + legacyOf(cid.NewCidV1(cid.Raw, mhOf("a")))))
	f.Add([]byte("provider " + peerOf("P").String() + "\ncontext " + peerOf("P").String() + " AA=="))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := parse(bytes.NewReader(text), fileLimits)
		if err != nil {
			return
		}
		r := result("P", "a")
		s.key(mhOf("a"))
		s.result(&r)
		for _, reason := range s.reasons {
			if len(reason) > maxReason || strings.ContainsAny(reason, "\r\n\x00") {
				t.Errorf("reason %q", reason)
			}
		}
	})
}

// BenchmarkLookup is what a list of a million entries of each form costs a lookup
// that it does not deny.
func BenchmarkLookup(b *testing.B) {
	s := &set{reasons: []string{""}, doubles: doubleForms{true, true, true}}
	for k := range s.entries {
		s.entries[k] = make(map[digest]uint32)
		for n := range 1_000_000 {
			s.entries[k][digestOf([]byte{byte(k), byte(n), byte(n >> 8), byte(n >> 16)})] = 0
		}
	}
	mh := mhOf("a")
	r := find.ProviderResult{Provider: &peer.AddrInfo{ID: peerOf("P")}, ContextID: []byte("context")}
	for b.Loop() {
		if s.key(mh) != nil || s.result(&r) != nil {
			b.Fatal("denied")
		}
	}
}
