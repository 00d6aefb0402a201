package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

const (
	shippedVersion = "v1.2.3-rc4"
	debVersion     = "1.2.3~rc4" // the same, in Debian's order
)

var shippedMachines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// TestWhatIsShippedIsStaticAndRuns: make deb builds the binary for both machines,
// static and stamped, with checksums that are right, and puts it into packages; ours
// runs a pool with nothing around it.
func TestWhatIsShippedIsStaticAndRuns(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	dist := filepath.Join(dir, "dist")
	// By the Go that is here: the one that ships may have to be downloaded.
	build := exec.Command("make", "deb", "TOOLCHAIN=local", "VERSION="+shippedVersion, "DIST="+dist, "DEBS="+dir)
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var sums strings.Builder
	for _, arch := range []string{"amd64", "arm64"} {
		name := "signpost-linux-" + arch
		file := filepath.Join(dist, name)
		binary, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(binary), name)
		mustBeStatic(t, file, shippedMachines[arch])
		if !bytes.Contains(binary, []byte(shippedVersion)) {
			t.Errorf("%s has no stamp", name)
		}
		mustBePackage(t, filepath.Join(dir, "signpost_"+debVersion+"_"+arch+".deb"), arch, binary)
	}
	if got, err := os.ReadFile(filepath.Join(dist, "SHA256SUMS")); err != nil || string(got) != sums.String() {
		t.Errorf("checksums %s, %v; want %s", got, err, &sums)
	}
	content := filepath.Join(dir, "content")
	if err := os.MkdirAll(content, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(content, "hello.txt"), []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, args := range map[string][]string{
		shippedVersion: {"--version"},
		"all in":       {"dev", "--data", filepath.Join(dir, "data"), "--listen", anyPort, "--listen-announce", anyPort, "--demo", content, "--exit"},
	} {
		cmd := exec.Command(filepath.Join(dist, "signpost-linux-"+runtime.GOARCH), args...)
		cmd.Env, cmd.Dir = []string{"SIGNPOST_FREEZE_AT=-1"}, dir
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), want) {
			t.Errorf("signpost %s: %v, no %q in:\n%s", strings.Join(args, " "), err, want, out)
		}
	}
}

func mustBeStatic(t *testing.T, file string, machine elf.Machine) {
	t.Helper()
	f, err := elf.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Machine != machine {
		t.Errorf("%s is for %v", file, f.Machine)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("%s is not static: it has %v", file, p.Type)
		}
	}
}

// packed is what is at one path of a package.
type packed struct {
	mode int64
	body []byte
}

// mustBePackage reads a Debian package: an ar archive of two tar archives.
func mustBePackage(t *testing.T, file, arch string, binary []byte) {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	members := readAr(t, raw)
	if string(members["debian-binary"]) != "2.0\n" {
		t.Errorf("%s: format %q", file, members["debian-binary"])
	}
	control, data := readTar(t, members["control.tar.gz"]), readTar(t, members["data.tar.gz"])
	for _, want := range []string{"Package: signpost\n", "Version: " + debVersion + "\n", "Architecture: " + arch + "\n", "Maintainer: ", "Description: "} {
		if !strings.Contains(string(control["./control"].body), want) {
			t.Errorf("%s: no %q in\n%s", file, want, control["./control"].body)
		}
	}
	settings := []string{"/etc/signpost/assigner.env", "/etc/signpost/frontend.env", "/etc/signpost/indexer.env", "/etc/signpost/pool.txt"}
	if got := strings.Fields(string(control["./conffiles"].body)); !slices.Equal(got, settings) {
		t.Errorf("%s: an upgrade keeps %q, want %q", file, got, settings)
	}
	for _, script := range []string{"./postinst", "./prerm", "./postrm"} {
		if p := control[script]; p.mode != 0o755 || !bytes.HasPrefix(p.body, []byte("#!/bin/sh\nset -e\n")) && !bytes.Contains(p.body, []byte("\nset -e\n")) {
			t.Errorf("%s: %s: %+v", file, script, p)
		}
	}
	if p := data["./usr/bin/signpost"]; p.mode != 0o755 || !bytes.Equal(p.body, binary) {
		t.Errorf("%s: the program has mode %o and %d bytes, want %d", file, p.mode, len(p.body), len(binary))
	}
	for _, path := range settings[:3] {
		if p := data["."+path]; p.mode != 0o640 { // it may hold keys of a bucket
			t.Errorf("%s: %s has mode %o", file, path, p.mode)
		}
	}
	for _, path := range []string{"copyright", "README.md", "operations.md", "commands.md"} {
		if p := data["./usr/share/doc/signpost/"+path]; p.mode != 0o644 || len(p.body) == 0 {
			t.Errorf("%s: %s has mode %o and %d bytes", file, path, p.mode, len(p.body))
		}
	}
	for _, role := range []string{"indexer", "assigner", "frontend"} {
		unit := "./usr/lib/systemd/system/signpost-" + role + ".service"
		if p := data[unit]; p.mode != 0o644 || !strings.Contains(string(p.body), "ExecStart=/usr/bin/signpost "+role) {
			t.Errorf("%s: %s: %+v", file, unit, p)
		}
	}
}

func readAr(t *testing.T, raw []byte) map[string][]byte {
	t.Helper()
	rest, ok := bytes.CutPrefix(raw, []byte("!<arch>\n"))
	if !ok {
		t.Fatal("no ar archive")
	}
	members := make(map[string][]byte)
	for len(rest) >= 60 {
		var size int
		if _, err := fmt.Sscan(string(rest[48:58]), &size); err != nil || size > len(rest)-60 {
			t.Fatalf("a member of %d bytes, %v", size, err)
		}
		members[strings.TrimRight(string(rest[:16]), "/ ")] = rest[60 : 60+size]
		rest = rest[min(60+size+size%2, len(rest)):]
	}
	return members
}

// readTar reads files by their paths; each has to be root's.
func readTar(t *testing.T, zipped []byte) map[string]packed {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(zipped))
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string]packed)
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 {
			t.Errorf("%s is of %d:%d", h.Name, h.Uid, h.Gid)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = packed{h.Mode, body}
	}
}
