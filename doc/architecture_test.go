package doc

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/signpost-index/signpost"

// room is a row of the package table in architecture.md.
type room struct {
	may   []string // import patterns, relative to the module
	alone []string // parts of import paths only this room may touch
}

func readRooms(t *testing.T) map[string]room {
	t.Helper()
	f, err := os.Open("architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rooms := make(map[string]room)
	inTable := false
	for s := bufio.NewScanner(f); s.Scan(); {
		cells := strings.Split(s.Text(), "|")
		if len(cells) != 6 {
			inTable = false
			continue
		}
		name := strings.Trim(strings.TrimSpace(cells[1]), "`")
		if name == "room" {
			inTable = true
			continue
		}
		if !inTable || strings.HasPrefix(name, "--") {
			continue
		}
		rooms[name] = room{may: words(cells[3]), alone: words(cells[4])}
	}
	if len(rooms) < 10 {
		t.Fatalf("architecture.md: found %d rooms, the table has moved", len(rooms))
	}
	return rooms
}

func words(cell string) []string {
	return slices.DeleteFunc(strings.Fields(cell), func(w string) bool { return w == "–" })
}

type goPackage struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

func listPackages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", "./...")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var pkgs []goPackage
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return pkgs
		}
		if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

func TestPackageTableMatchesImports(t *testing.T) {
	rooms := readRooms(t)
	seen := make(map[string]bool)
	for _, p := range listPackages(t) {
		name := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		r, ok := rooms[name]
		if !ok {
			t.Errorf("package %s is not in the table", name)
			continue
		}
		seen[name] = true
		checkImports(t, name, r, p)
		checkAlone(t, rooms, name, p)
	}
	for name := range rooms {
		if !seen[name] {
			t.Errorf("the table has %s, the module does not", name)
		}
	}
}

// checkImports holds the shipped imports against the table; e2e ships nothing,
// so its test imports count.
func checkImports(t *testing.T, name string, r room, p goPackage) {
	imports := p.Imports
	if name == "e2e" {
		imports = append(append(imports, p.TestImports...), p.XTestImports...)
	}
	for _, imp := range imports {
		ours, ok := strings.CutPrefix(imp, module+"/")
		if !ok || ours == name {
			continue
		}
		if !slices.ContainsFunc(r.may, func(pattern string) bool { return pathMatch(pattern, ours) }) {
			t.Errorf("%s imports %s, which the table does not permit", name, ours)
		}
	}
}

func checkAlone(t *testing.T, rooms map[string]room, name string, p goPackage) {
	for owner, r := range rooms {
		for _, what := range r.alone {
			for _, imp := range p.Imports {
				if touches(imp, what) && !slices.Contains(rooms[name].alone, what) {
					t.Errorf("%s imports %s, which only rooms such as %s may touch", name, imp, owner)
				}
			}
		}
	}
}

// touches says whether an import path has what as consecutive elements.
func touches(imp, what string) bool {
	return strings.Contains("/"+imp+"/", "/"+what+"/")
}

func pathMatch(pattern, name string) bool {
	ok, err := path.Match(pattern, name)
	return err == nil && ok
}

// TestTopLevelIsFixed keeps strangers out of the root of the repository.
func TestTopLevelIsFixed(t *testing.T) {
	out, err := exec.Command("git", "-C", "..", "ls-files").Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	fixed := strings.Fields("cmd indexer assigner ingest store announce api e2e doc go.mod go.sum LICENSE README.md Makefile")
	for _, file := range strings.Fields(string(out)) {
		top, _, _ := strings.Cut(file, "/")
		if !strings.HasPrefix(top, ".") && !slices.Contains(fixed, top) {
			t.Errorf("%s does not belong at the top level", file)
		}
	}
}
