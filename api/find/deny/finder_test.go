package deny

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/api/find"
)

// listOf is a list in force, of lines.
func listOf(t *testing.T, lines ...string) *List {
	t.Helper()
	file := filepath.Join(t.TempDir(), "deny.txt")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := Open(Config{File: file})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func multihashLine(text, reason string) string {
	return "multihash " + mhOf(text).B58String() + " " + reason
}

func doubleLine(text, reason string) string {
	return "double-hash " + saltedOf(mhOf(text)).B58String() + " " + reason
}

func providerLine(text, reason string) string {
	return "provider " + peerOf(text).String() + " " + reason
}

func contextLine(text, contextID, reason string) string {
	return "context " + peerOf(text).String() + " " + base64.StdEncoding.EncodeToString([]byte(contextID)) + " " + reason
}

var errMissing = &find.PartialError{Missing: []string{"x"}}

// stories are what a list makes of an index's answer about "a", of results by letter:
// P/1 is a result of provider P under context ID 1.
var stories = []struct {
	name  string
	lines []string
	found string // by the index
	err   error  // of the index
	want  string // "results | error"
	asked bool
}{
	{"nothing listed", nil, "P/1 Q/1", nil, "P/1 Q/1 |", true},
	{"others listed", []string{multihashLine("b", ""), doubleLine("b", ""), providerLine("R", ""), contextLine("P", "2", ""), contextLine("R", "1", "")}, "P/1 Q/1", nil, "P/1 Q/1 |", true},
	{"multihash", []string{multihashLine("a", "mh")}, "P/1", nil, "| multihash mh", false},
	{"double hash", []string{doubleLine("a", "dh")}, "P/1", nil, "| double-hash dh", false},
	{"a key whatever is known", []string{multihashLine("a", "mh")}, "", nil, "| multihash mh", false},
	{"a key whoever is missing", []string{multihashLine("a", "mh")}, "P/1", errMissing, "| multihash mh", false},
	{"multihash before double hash before provider", []string{providerLine("P", "p"), doubleLine("a", "dh"), multihashLine("a", "mh")}, "P/1", nil, "| multihash mh", false},
	{"double hash before provider", []string{providerLine("P", "p"), doubleLine("a", "dh")}, "P/1", nil, "| double-hash dh", false},
	{"first entry of several", []string{multihashLine("a", "one"), multihashLine("a", "two")}, "P/1", nil, "| multihash one", false},
	{"provider among others", []string{providerLine("P", "p")}, "P/1 Q/1 P/2", nil, "Q/1 |", true},
	{"provider alone", []string{providerLine("P", "p")}, "P/1 P/2", nil, "| provider p", true},
	{"context among others", []string{contextLine("P", "1", "c")}, "P/1 Q/1 P/2", nil, "Q/1 P/2 |", true},
	{"context alone", []string{contextLine("P", "1", "c")}, "P/1", nil, "| context c", true},
	{"provider before context", []string{contextLine("P", "1", "c"), providerLine("P", "p")}, "P/1", nil, "| provider p", true},
	{"provider and another's context", []string{contextLine("Q", "1", "c"), providerLine("P", "p")}, "Q/1 P/1", nil, "| provider p", true},
	{"not found", []string{providerLine("P", "p")}, "", nil, "|", true},
	{"some left, somebody missing", []string{providerLine("P", "p")}, "P/1 Q/1", errMissing, "Q/1 | no answer from x", true},
	{"none left, somebody missing", []string{providerLine("P", "p")}, "P/1", errMissing, "| no answer from x", true},
	{"denied by the index", []string{providerLine("P", "p")}, "P/1", &find.DeniedError{Kind: find.DenyMultihash, Reason: "there"}, "| multihash there", true},
}

func indexOf(found string, err error) *index {
	x := &index{results: map[string][]find.ProviderResult{}, err: err}
	for word := range strings.FieldsSeq(found) {
		provider, contextID, _ := strings.Cut(word, "/")
		x.results[string(mhOf("a"))] = append(x.results[string(mhOf("a"))], result(provider, contextID))
	}
	return x
}

func words(results []find.ProviderResult, err error) string {
	names := map[string]string{peerOf("P").String(): "P", peerOf("Q").String(): "Q"}
	var out []string
	for _, r := range results {
		out = append(out, names[r.Provider.ID.String()]+"/"+string(r.ContextID))
	}
	text := ""
	if denied := (*find.DeniedError)(nil); errors.As(err, &denied) {
		text = fmt.Sprintf("%s %s", denied.Kind, denied.Reason)
	} else if err != nil {
		text = err.Error()
	}
	return strings.TrimSpace(strings.Join(out, " ") + " | " + text)
}

// TestWhatAListMakesOfAnAnswer: each story, alone and as a key of a batch.
func TestWhatAListMakesOfAnAnswer(t *testing.T) {
	for _, c := range stories {
		t.Run(c.name, func(t *testing.T) {
			x := indexOf(c.found, c.err)
			f := listOf(t, c.lines...).Finder(x, false)
			var results []find.ProviderResult
			var last error
			for r, err := range f.Find(t.Context(), mhOf("a")) {
				if last != nil {
					t.Error("something comes after an error")
				}
				if last = err; err == nil {
					results = append(results, r)
				}
			}
			if got := words(results, last); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if (x.asked.Load() > 0) != c.asked {
				t.Errorf("the index was asked %d times", x.asked.Load())
			}
			b, err := find.FindBatch(t.Context(), f, []multihash.Multihash{mhOf("a"), mhOf("z")})
			if err != nil {
				t.Fatal(err)
			}
			if got := batchWords(b); got != c.want {
				t.Errorf("in a batch: got %q, want %q", got, c.want)
			}
		})
	}
}

// batchWords is what a batch says of "a", as words has it.
func batchWords(b find.Batch) string {
	var results []find.ProviderResult
	for _, r := range b.Results {
		results = r.ProviderResults
	}
	for _, d := range b.Denied {
		if string(d.Multihash) == string(mhOf("a")) {
			return words(results, d.Err)
		}
	}
	if len(b.Missing) > 0 {
		return words(results, &find.PartialError{Missing: b.Missing})
	}
	return words(results, nil)
}

// TestBatchesKeepTheOrderAskedFor: of results, of unknown and of denied keys; each is
// in one of these at most.
func TestBatchesKeepTheOrderAskedFor(t *testing.T) {
	x := &index{results: map[string][]find.ProviderResult{}}
	var keys []multihash.Multihash
	var lines []string
	for n := range 50 {
		text := fmt.Sprint(n)
		keys = append(keys, mhOf(text))
		x.results[string(mhOf(text))] = []find.ProviderResult{result("P", text)}
		switch n % 3 {
		case 0:
			lines = append(lines, multihashLine(text, "mh "+text))
		case 1:
			lines = append(lines, contextLine("P", text, "c "+text))
		}
	}
	b, err := find.FindBatch(t.Context(), listOf(t, lines...).Finder(x, false), keys)
	if err != nil || len(b.Results) != 16 || len(b.Denied) != 34 || len(b.Unknown) != 0 {
		t.Fatalf("%d found, %d denied, %d unknown, %v", len(b.Results), len(b.Denied), len(b.Unknown), err)
	}
	for i, d := range b.Denied {
		n := i/2*3 + i%2
		if want := fmt.Sprint([]string{"mh ", "c "}[n%3], n); d.Err.Reason != want || string(d.Multihash) != string(keys[n]) {
			t.Errorf("%d: %+v, want %s", i, d.Err, want)
		}
	}
}

// TestPeersAreDeniedWhereTheyAreAskedFor: at a frontend, not where a handoff reads.
func TestPeersAreDeniedWhereTheyAreAskedFor(t *testing.T) {
	l := listOf(t, providerLine("P", "spam"))
	for _, c := range []struct {
		peer   string
		peers  bool
		denied bool
	}{{"P", true, true}, {"Q", true, false}, {"P", false, false}} {
		x := &index{}
		info, err := l.Finder(x, c.peers).Provider(t.Context(), peerOf(c.peer))
		denied := (*find.DeniedError)(nil)
		if errors.As(err, &denied) != c.denied || (info == nil) != c.denied || (x.asked.Load() == 0) != c.denied {
			t.Errorf("%+v: %+v, %v", c, info, err)
		}
	}
	var none *List
	if x := (&index{}); none.Finder(x, true) != find.Finder(x) {
		t.Error("no list is not the finder itself")
	}
}
