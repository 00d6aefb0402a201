package doc

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// TestEachThreatHasItsTest: every row of the table of threats names a test or a make
// target that is there.
func TestEachThreatHasItsTest(t *testing.T) {
	doc, err := os.ReadFile("security.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(doc), "| threat |")
	if !ok {
		t.Fatal("no table of threats")
	}
	out, err := exec.Command("git", "-C", "..", "grep", "-hoE", "--untracked", `^func Test[A-Za-z0-9_]+|^[a-z-]+:`, "--", "*_test.go", "Makefile").Output()
	if err != nil {
		t.Fatal(err)
	}
	there := make(map[string]bool)
	for line := range strings.Lines(string(out)) {
		there[strings.TrimPrefix(strings.TrimSuffix(strings.TrimSpace(line), ":"), "func ")] = true
	}
	shown := regexp.MustCompile("`(Test[A-Za-z0-9_]+|make [a-z]+)`")
	rows := 0
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		if len(cells) < 5 || strings.Contains(cells[1], "---") || rows == 0 && strings.Contains(cells[2], "shown by") {
			continue
		}
		rows++
		names := shown.FindAllStringSubmatch(cells[3], -1)
		if len(names) == 0 {
			t.Errorf("nothing shows what stands against: %s", cells[1])
		}
		for _, n := range names {
			if name := strings.TrimPrefix(n[1], "make "); !there[name] {
				t.Errorf("%s of %q is not there", name, strings.TrimSpace(cells[1]))
			}
		}
	}
	if rows < 15 {
		t.Errorf("found %d threats only", rows)
	}
}
