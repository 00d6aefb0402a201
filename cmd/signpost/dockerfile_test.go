package main

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// instructions are the words of each line of a Dockerfile that is none of comments
// and continuations.
func instructions(t *testing.T, file string) (all [][]string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if words := strings.Fields(line); len(words) > 0 && !strings.HasPrefix(line, "#") {
			all = append(all, words)
		}
	}
	return all
}

// TestTheImageIsOurBinaryAndNeedsNoShell: what the Dockerfile copies and makes is there,
// and its last stage runs nothing, as a user who is not root.
func TestTheImageIsOurBinaryAndNeedsNoShell(t *testing.T) {
	const top = "../.."
	makefile, err := os.ReadFile(filepath.Join(top, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	last := make(map[string][]string) // words of instructions of the stage, by the first
	var copied []string
	for _, words := range instructions(t, "deploy/Dockerfile") {
		switch words[0] {
		case "FROM":
			clear(last)
			copied = nil
		case "COPY":
			args := slices.DeleteFunc(slices.Clone(words[1:]), func(w string) bool { return strings.HasPrefix(w, "--") })
			copied = append(copied, args[len(args)-1])
			if strings.HasPrefix(words[1], "--from=") {
				break
			}
			for _, source := range args[:len(args)-1] {
				if _, err := os.Stat(filepath.Join(top, source)); err != nil {
					t.Error(err)
				}
			}
		case "RUN":
			if words[1] == "make" && !strings.Contains(string(makefile), "\n"+words[2]+":") {
				t.Errorf("no make target %s", words[2])
			}
		}
		last[words[0]] = words[1:]
	}
	if got := last["FROM"]; !slices.Equal(got, []string{"scratch"}) {
		t.Errorf("the last stage is from %q", got)
	}
	for _, none := range []string{"RUN", "CMD", "SHELL", "HEALTHCHECK"} {
		if last[none] != nil {
			t.Errorf("%s in an image without a shell: %q", none, last[none])
		}
	}
	if got := last["ENTRYPOINT"]; !slices.Equal(got, []string{`["/signpost"]`}) || !slices.Contains(copied, "/signpost") {
		t.Errorf("starts %q of %q", got, copied)
	}
	if !slices.Contains(copied, "/etc/ssl/certs/ca-certificates.crt") {
		t.Error("no certificate authorities")
	}
	user := last["USER"]
	if len(user) != 1 || strings.Trim(user[0], "0123456789:") != "" || strings.HasPrefix(user[0], "0") {
		t.Errorf("runs as %q", user)
	}
	var want []string
	for _, role := range []string{"indexer", "assigner", "frontend"} {
		for _, value := range parsedFlags(t, []string{role}) {
			if _, port, err := net.SplitHostPort(value); err == nil && !slices.Contains(want, port) {
				want = append(want, port)
			}
		}
	}
	slices.Sort(want)
	if got := last["EXPOSE"]; !slices.Equal(got, want) {
		t.Errorf("exposes %v, the daemons listen on %v", got, want)
	}
}
