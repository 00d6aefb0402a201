package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"signpost": main})
}

// TestCommandLine runs the scripts of testdata/script: what a person types and
// what it answers.
func TestCommandLine(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			// How full the disk of this machine is, is no matter.
			e.Setenv("SIGNPOST_FREEZE_AT", "-1")
			return nil
		},
	})
}

// TestHelpIsInTheDocs holds doc/commands.md against the help texts.
func TestHelpIsInTheDocs(t *testing.T) {
	var doc strings.Builder
	doc.WriteString("# Commands\n\nThe help of each command; a test writes this page (`make golden`). Each flag has an environment\n" +
		"variable: `SIGNPOST_` and its name in capitals with `_` for `-`.\n")
	names := []string{""}
	for _, c := range newApp(&bytes.Buffer{}, &bytes.Buffer{}).Commands {
		names = append(names, c.Name)
		for _, sub := range c.Subcommands {
			names = append(names, c.Name+" "+sub.Name)
		}
	}
	for _, name := range names {
		args := []string{"signpost"}
		if name != "" {
			args = append(args, strings.Fields(name)...)
		}
		var out, errs bytes.Buffer
		if code := run(append(args, "--help"), &out, &errs); code != 0 {
			t.Fatalf("%v --help: exit code %d, %s", args, code, errs.String())
		}
		if name != "" && len(args) == 2 && !strings.Contains(out.String(), "Example:") {
			t.Errorf("%s --help shows no example", name)
		}
		fmt.Fprintf(&doc, "\n## %s\n\n```\n%s```\n", strings.Join(args, " "), trimLines(out.String()))
	}
	file := filepath.Join("..", "..", "doc", "commands.md")
	if os.Getenv("SIGNPOST_GOLDEN") == "write" {
		if err := os.WriteFile(file, []byte(doc.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), doc.String()); diff != "" {
		t.Errorf("doc/commands.md differs from the help texts (-doc +help); run make golden and read the diff:\n%s", diff)
	}
}

func trimLines(s string) string {
	lines := strings.Split(s, "\n")
	for n, l := range lines {
		lines[n] = strings.TrimRight(l, " ")
	}
	return strings.TrimRight(strings.Join(lines, "\n"), "\n") + "\n"
}
