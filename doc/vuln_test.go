package doc

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var vulnFile = flag.String("vuln", "", "what govulncheck -format json said of the whole module; see make vuln")

// hole is a message of govulncheck's, as far as it says that our code calls what is
// vulnerable.
type hole struct {
	Finding *struct {
		OSV   string `json:"osv"`
		Fixed string `json:"fixed_version"`
		Trace []struct{ Module, Version, Package, Function string }
	}
}

// holes are the known holes our code comes to, with where they are.
func holes(r io.Reader) (map[string]string, error) {
	found := make(map[string]string)
	d := json.NewDecoder(r)
	for messages := 0; ; messages++ {
		var h hole
		switch err := d.Decode(&h); {
		case errors.Is(err, io.EOF) && messages > 0:
			return found, nil
		case err != nil:
			return nil, fmt.Errorf("message %d of govulncheck: %w", messages, err)
		}
		if f := h.Finding; f != nil && len(f.Trace) > 0 && f.Trace[0].Function != "" {
			at := f.Trace[0]
			found[f.OSV] = fmt.Sprintf("%s@%s, fixed in %q", at.Package, at.Version, f.Fixed)
		}
	}
}

// accepted are the holes that security.md says do not reach us.
func accepted(t *testing.T) map[string]bool {
	doc, err := os.ReadFile("security.md")
	if err != nil {
		t.Fatal(err)
	}
	ids := make(map[string]bool)
	for _, m := range regexp.MustCompile(`(?m)^\| (GO-\d+-\d+) \| (.+) \|$`).FindAllStringSubmatch(string(doc), -1) {
		if ids[m[1]] = true; len(m[2]) < 40 {
			t.Errorf("security.md does not say why %s does not reach us", m[1])
		}
	}
	return ids
}

// judge says what is wrong about the holes found: those nobody has looked at, and
// those looked at that are no more.
func judge(found map[string]string, accepted map[string]bool) (wrong []string) {
	for _, id := range slices.Sorted(maps.Keys(found)) {
		if !accepted[id] {
			wrong = append(wrong, fmt.Sprintf("%s: %s; see https://pkg.go.dev/vuln/%s", id, found[id], id))
		}
	}
	for id := range accepted {
		if found[id] == "" {
			wrong = append(wrong, id+" does not concern us any more: take it out of security.md")
		}
	}
	return wrong
}

// TestKnownHolesAreLookedAt judges what make vuln has found, or an example of it.
func TestKnownHolesAreLookedAt(t *testing.T) {
	ids := accepted(t)
	if *vulnFile != "" {
		f, err := os.Open(*vulnFile)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		found, err := holes(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, wrong := range judge(found, ids) {
			t.Error(wrong)
		}
		return
	}
	const example = `{"config":{}}
		{"finding":{"osv":"GO-1-1","fixed_version":"v1.2.3","trace":[{"module":"m","version":"v1.0.0","package":"m/p","function":"F"}]}}
		{"finding":{"osv":"GO-1-2","trace":[{"module":"m","version":"v1.0.0","package":"m/p","function":"G"},{"module":"ours"}]}}
		{"finding":{"osv":"GO-1-3","trace":[{"module":"m","version":"v1.0.0"}]}}`
	found, err := holes(strings.NewReader(example))
	if err != nil {
		t.Fatal(err)
	}
	got := judge(found, map[string]bool{"GO-1-2": true, "GO-1-4": true})
	if len(got) != 2 || !strings.Contains(got[0], `GO-1-1: m/p@v1.0.0, fixed in "v1.2.3"`) || !strings.Contains(got[1], "GO-1-4") {
		t.Errorf("judged %q", got)
	}
	for _, cut := range []string{"", example[:60]} {
		if _, err := holes(strings.NewReader(cut)); err == nil {
			t.Errorf("%q says that there are no holes", cut)
		}
	}
}
