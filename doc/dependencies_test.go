package doc

import (
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"testing"
)

// TestEachDependencyIsExplained holds decisions/0001 against go.mod, both ways.
func TestEachDependencyIsExplained(t *testing.T) {
	cmd := exec.Command("go", "mod", "edit", "-json")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var mod struct {
		Require []struct {
			Path     string
			Indirect bool
		}
	}
	if err := json.Unmarshal(out, &mod); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("decisions/0001-dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	var explained []string
	for _, m := range regexp.MustCompile(`(?m)^\| ([a-z][^ ]*/[^ ]*) \|`).FindAllSubmatch(page, -1) {
		explained = append(explained, string(m[1]))
	}
	for _, r := range mod.Require {
		k := slices.Index(explained, r.Path)
		if r.Indirect {
			continue
		}
		if k < 0 {
			t.Errorf("%s has no line in decisions/0001", r.Path)
			continue
		}
		explained = slices.Delete(explained, k, k+1)
	}
	for _, path := range explained {
		t.Errorf("decisions/0001 explains %s, which go.mod does not require directly", path)
	}
}
