package doc

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// pages are the documents that people read, from this folder; commands.md is made by
// cmd/signpost.
func pages(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, pattern := range []string{"../README.md", "*.md", "*/*.md", "../e2e/interop/README.md", "../cmd/signpost/deploy/README.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, found...)
	}
	if len(all) < 25 {
		t.Fatalf("found %d pages only", len(all))
	}
	return all
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ +(.*)$`)
)

// fenced is a block between fences.
type fenced struct {
	before   string // the line before it
	language string
	text     string
}

// split is the prose of a page, and the blocks in it.
func split(text string) (prose string, blocks []fenced) {
	var inside *fenced
	before := ""
	for line := range strings.Lines(text) {
		language, isFence := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case isFence && inside == nil:
			inside = &fenced{before: strings.TrimSpace(before), language: language}
		case isFence:
			blocks, inside = append(blocks, *inside), nil
		case inside != nil:
			inside.text += line
		default:
			prose += line
			before = line
		}
	}
	return prose, blocks
}

// anchors are those of a page's headings, as GitHub makes them.
func anchors(text string) []string {
	var all []string
	prose, _ := split(text)
	for _, m := range heading.FindAllStringSubmatch(prose, -1) {
		anchor := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, m[1])
		for n := 0; slices.Contains(all, anchor); n++ {
			anchor = fmt.Sprintf("%s-%d", strings.TrimSuffix(anchor, fmt.Sprintf("-%d", n)), n+1)
		}
		all = append(all, anchor)
	}
	return all
}

// TestLinksLeadSomewhere: a relative link names a file or folder that is there, and
// what follows # a heading of it.
func TestLinksLeadSomewhere(t *testing.T) {
	count := 0
	for _, page := range pages(t) {
		prose, _ := split(read(t, page))
		for _, m := range link.FindAllStringSubmatch(prose, -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			count++
			name, anchor, _ := strings.Cut(m[1], "#")
			to := page
			if name != "" {
				to = filepath.Join(filepath.Dir(page), name)
			}
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s: link to %s: %v", page, m[1], err)
				continue
			}
			if anchor != "" && !slices.Contains(anchors(read(t, to)), anchor) {
				t.Errorf("%s: link to %s: no such heading", page, m[1])
			}
		}
	}
	if count < 100 {
		t.Errorf("found %d links only", count)
	}
}

var (
	mark  = regexp.MustCompile(`^<!-- (run|run: daemon|not run: \S.*) -->$`)
	shown = regexp.MustCompile("(?m)^ *(bin/)?signpost [a-z]|^ *curl |^ *go run |^ *make ")
)

// TestEachBlockOfCommandsIsMarked: what a reader is shown to type is run by a test of
// e2e, or says why not.
func TestEachBlockOfCommandsIsMarked(t *testing.T) {
	run := 0
	for _, page := range pages(t) {
		if page == "commands.md" {
			continue
		}
		_, blocks := split(read(t, page))
		for _, b := range blocks {
			if b.language != "sh" && (b.language != "" || !shown.MatchString(b.text)) {
				continue // an answer, a drawing
			}
			switch {
			case b.language == "":
				t.Errorf("%s: begin the fence with ```sh, before\n%s", page, b.text)
			case !mark.MatchString(b.before):
				t.Errorf("%s: no <!-- run --> or <!-- not run: reason --> before\n%s", page, b.text)
			case !strings.Contains(b.before, "not run"):
				run++
			}
		}
	}
	if run < 10 {
		t.Errorf("%d blocks are run, expected more", run)
	}
}

// usage is what commands.md says of each command: its section, by name.
func usage(t *testing.T) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for section := range strings.SplitSeq(read(t, "commands.md"), "\n## ") {
		name, text, _ := strings.Cut(section, "\n")
		all[strings.TrimSpace(name)] = text
	}
	return all
}

var (
	inline     = regexp.MustCompile("`(signpost [a-z][^`]*)`")
	typed      = regexp.MustCompile(`(?m)^ *(?:bin/|go run \./cmd/)?(signpost [a-z].*)$`)
	flagInText = regexp.MustCompile(`(?:^|[\s\[(])(--[a-z][a-z0-9-]*)`)
)

// TestCommandsThatAreShownExist: each command on a page is one, with flags that it has.
func TestCommandsThatAreShownExist(t *testing.T) {
	commands, count := usage(t), 0
	for _, page := range pages(t) {
		if page == "commands.md" {
			continue
		}
		prose, blocks := split(read(t, page))
		var all []string
		for _, m := range inline.FindAllStringSubmatch(prose, -1) {
			all = append(all, strings.Join(strings.Fields(m[1]), " "))
		}
		for _, b := range blocks {
			for _, m := range typed.FindAllStringSubmatch(strings.ReplaceAll(b.text, "\\\n", " "), -1) {
				command, _, _ := strings.Cut(m[1], " #")
				all = append(all, command)
			}
		}
		for _, command := range all {
			count++
			checkCommand(t, commands, page, command)
		}
	}
	if count < 60 {
		t.Errorf("found %d commands only", count)
	}
}

// checkCommand looks command up by as many of its words as name one.
func checkCommand(t *testing.T, commands map[string]string, page, command string) {
	t.Helper()
	words := strings.FieldsFunc(command, func(r rune) bool { return r == ' ' || r == ',' })
	name := words[0]
	for _, word := range words[1:] {
		if _, ok := commands[name+" "+word]; !ok {
			break
		}
		name += " " + word
	}
	if name == words[0] {
		t.Errorf("%s: %q: no such command", page, command)
		return
	}
	for _, m := range flagInText.FindAllStringSubmatch(command, -1) {
		if !regexp.MustCompile(regexp.QuoteMeta(m[1]) + `[ ,\n]`).MatchString(commands[name]) {
			t.Errorf("%s: %q: %s has no flag %s", page, command, name, m[1])
		}
	}
}

// examples are Go files whose code pages show.
var examples = []string{"../api/find/example_test.go", "../api/routing/example_test.go"}

// TestGoThatIsShownCompiles: a block of Go on a page stands in an example, which the
// compiler has seen. How far it is indented does not matter.
func TestGoThatIsShownCompiles(t *testing.T) {
	flat := func(text string) string {
		var lines []string
		for line := range strings.Lines(text) {
			lines = append(lines, strings.TrimSpace(line))
		}
		return strings.Join(lines, "\n")
	}
	var code string
	for _, name := range examples {
		code += flat(read(t, name))
	}
	for _, page := range pages(t) {
		_, blocks := split(read(t, page))
		for _, b := range blocks {
			if b.language == "go" && !strings.Contains(code, strings.TrimSpace(flat(b.text))) {
				t.Errorf("%s: in none of %v:\n%s", page, examples, b.text)
			}
		}
	}
}

// TestKuboIsSetAsItsTestDoes: clients.md has the settings that TestKuboAsksTheFrontend
// runs Kubo with.
func TestKuboIsSetAsItsTestDoes(t *testing.T) {
	page, code := read(t, "clients.md"), read(t, "../e2e/interop/kubo_test.go")
	found := regexp.MustCompile(`(?m)^ipfs config --json (\S+) (.*)$`).FindAllStringSubmatch(page, -1)
	if len(found) < 4 {
		t.Errorf("clients.md has %d settings of Kubo", len(found))
	}
	for _, m := range found {
		value := strings.Trim(m[2], "'")
		if m[1] == "Routing.DelegatedRouters" { // the frontend's URL
			value = `["`
		}
		if !regexp.MustCompile(`"` + regexp.QuoteMeta(m[1]) + `": +[^\n]*` + regexp.QuoteMeta(strings.TrimPrefix(value, `["`))).MatchString(code) {
			t.Errorf("the test does not set %s to %s", m[1], value)
		}
	}
}

// TestEachVerdictOfAProbeHasARemedy: whatever signpost announce --probe may say, a
// provider finds in providers.md.
func TestEachVerdictOfAProbeHasARemedy(t *testing.T) {
	page := read(t, "providers.md")
	found := regexp.MustCompile(`Problem = "([a-z-]+)"`).FindAllStringSubmatch(read(t, "../ingest/ipnisync/problem.go"), -1)
	if len(found) < 20 {
		t.Errorf("found %d verdicts only", len(found))
	}
	for _, m := range found {
		if !strings.Contains(page, "`"+m[1]+"`") {
			t.Errorf("providers.md has nothing about %s", m[1])
		}
	}
}
