package doc

import (
	"bytes"
	"os"
	"os/exec"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestEveryMetricIsInOperations compares the metric names in the code with
// operations.md, both ways. Names are found where metrics are made: a full name,
// or a short one next to its package's prefix.
func TestEveryMetricIsInOperations(t *testing.T) {
	doc, err := os.ReadFile("operations.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, m := range regexp.MustCompile("`(signpost_[a-z0-9_]+)`").FindAllSubmatch(doc, -1) {
		documented = append(documented, string(m[1]))
	}
	made := metricNames(t)
	if len(made) < 30 {
		t.Fatalf("found only %d metrics in the code: %v", len(made), made)
	}
	for _, m := range made {
		if !slices.Contains(documented, m) {
			t.Errorf("metric %s is not in operations.md", m)
		}
	}
	for _, m := range documented {
		if !slices.Contains(made, m) {
			t.Errorf("operations.md has %s, the code does not", m)
		}
	}
}

var (
	fullName  = regexp.MustCompile(`"(signpost_[a-z0-9_]+[a-z0-9])",? *(?:"|Help|\n)`)
	shortName = regexp.MustCompile(`\b\w+\(\s*"([a-z0-9]+(?:_[a-z0-9]+)*)",\s*"`)
	fieldName = regexp.MustCompile(`Name: +(?:prefix *\+ *)?"([a-z0-9_]+)"`)
)

// metricNames reads the metrics.go files and what else names a metric.
func metricNames(t *testing.T) []string {
	t.Helper()
	out, err := exec.Command("git", "-C", "..", "ls-files", "-co", "--exclude-standard", "*.go").Output()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	add := func(name string) {
		if !strings.HasSuffix(name, "_") && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, file := range bytes.Fields(out) {
		if bytes.HasSuffix(file, []byte("_test.go")) {
			continue
		}
		src, err := os.ReadFile("../" + string(file))
		if err != nil {
			continue // deleted and not committed yet
		}
		if !bytes.Contains(src, []byte("prometheus")) {
			continue
		}
		prefix := packagePrefix(string(file))
		for _, re := range []*regexp.Regexp{fullName, shortName, fieldName} {
			for _, m := range re.FindAllSubmatch(src, -1) {
				name := string(m[1])
				switch {
				case bytes.HasPrefix(m[1], []byte("signpost_")):
					add(name)
				case prefix != "" && strings.HasSuffix(string(file), "metrics.go"):
					add(prefix + name)
				}
			}
		}
	}
	slices.Sort(names)
	return names
}

func packagePrefix(file string) string {
	return map[string]string{
		"store":          "signpost_store_",
		"store/postings": "signpost_postings_",
		"assigner":       "signpost_assigner_",
	}[path.Dir(file)]
}
