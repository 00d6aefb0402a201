package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	// blockPatience is how long the commands of one block may take together.
	blockPatience = 30 * time.Second
	markRun       = "<!-- run -->"
	markDaemon    = "<!-- run: daemon -->"
)

// block is a fenced block of shell commands on a page.
type block struct {
	line   int
	daemon bool // it goes on until the page ends
	text   string
}

var fenced = regexp.MustCompile("(?m)^(<!-- .* -->)\n```sh\n((?s:.*?))^```$")

// blocks are those of a page that are marked to be run. That each is marked is tested
// by package doc.
func blocks(t *testing.T, page string) (all []block) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range fenced.FindAllSubmatchIndex(text, -1) {
		mark := string(text[m[2]:m[3]])
		if mark == markRun || mark == markDaemon {
			all = append(all, block{bytes.Count(text[:m[4]], []byte("\n")) + 1, mark == markDaemon, string(text[m[4]:m[5]])})
		}
	}
	return all
}

// sandbox is where the commands of one page run: an empty home and a directory that
// has what pages speak of. Addresses and names of a page stand for those of what runs.
type sandbox struct {
	t     *testing.T
	dir   string
	names map[string]string
	log   int
}

// newSandbox has directories to publish, and the pool's secret.
func newSandbox(t *testing.T, secret string) *sandbox {
	t.Helper()
	s := &sandbox{t: t, dir: workDir(t), names: make(map[string]string)}
	for name, text := range map[string]string{
		"photos/a.txt": "a picture of " + t.Name(), "videos/b.txt": "a film of " + t.Name(),
		"etc/index-secret": secret,
	} {
		path := filepath.Join(s.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Dir(signpost), filepath.Join(s.dir, "bin")); err != nil {
		t.Fatal(err)
	}
	// The program is built already.
	s.script("go", `[ "$1 $2" = "run ./cmd/signpost" ] && shift 2 && exec signpost "$@"`)
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Fatalf("the pages use curl: %v", err)
	}
	// An answer that is an error fails the page.
	s.script("curl", `exec "`+curl+`" -sS --fail-with-body "$@"`)
	s.names["/etc/signpost/"] = filepath.Join(s.dir, "etc") + "/"
	s.names["/var/lib/"] = filepath.Join(s.dir, "var") + "/"
	return s
}

func (s *sandbox) script(name, text string) {
	s.t.Helper()
	dir := filepath.Join(s.dir, "path")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
		s.t.Fatal(err)
	}
}

// means lets addresses, of any of hosts, stand for the one of base, which may be empty.
func (s *sandbox) means(base, port string, hosts ...string) {
	if u, err := url.Parse(base); err == nil && u.Host != "" {
		for _, host := range hosts {
			s.names[host+":"+port] = u.Host
		}
	}
}

// learn takes the addresses of what has come up.
func (s *sandbox) learn(r readyLine) {
	if r.Frontend != nil && r.Assigner != nil {
		s.means(r.Frontend.HTTP, "3000", "127.0.0.1", "FRONTEND")
		s.means(r.Assigner.HTTP, "3001", "127.0.0.1", "ASSIGNER")
		s.means(r.Assigner.Admin, "3004", "127.0.0.1", "ASSIGNER")
		r = r.Indexers[0]
		s.means(r.Admin, "3002", "127.0.0.1")
	}
	s.means(r.Find, "3000", "INDEXER", "10.0.0.1")
	s.means(r.Ingest, "3001", "INDEXER", "10.0.0.1")
	s.means(r.Admin, "3002", "INDEXER", "10.0.0.1")
}

var (
	published = regexp.MustCompile(`root (bafy\w+)`)
	serving   = regexp.MustCompile(`publisher (12D3KooW\w+) serves at /ip4/([\d.]+)/tcp/(\d+)/`)
	announced = regexp.MustCompile(`announced head (bagu\w+)`)
	listening = regexp.MustCompile(`(--listen[a-z-]*) \S+`)
)

// read takes what a publisher tells.
func (s *sandbox) read(out string) {
	if m := published.FindStringSubmatch(out); m != nil {
		s.names["bafy..."], s.names["bafk..."] = m[1], m[1]
	}
	if m := serving.FindStringSubmatch(out); m != nil {
		s.names["12D3KooW..."] = m[1]
		s.names["https://pub.example.com"] = "http://" + m[2] + ":" + m[3]
	}
	if m := announced.FindStringSubmatch(out); m != nil {
		s.names["baguqeera..."] = m[1]
	}
}

// command is text as it is run here.
func (s *sandbox) command(ctx context.Context, text string) *exec.Cmd {
	names := slices.SortedFunc(maps.Keys(s.names), func(x, y string) int { return len(y) - len(x) })
	var pairs []string
	for _, name := range names {
		pairs = append(pairs, name, s.names[name])
	}
	text = listening.ReplaceAllString(strings.NewReplacer(pairs...).Replace(text), "$1 127.0.0.1:0")
	cmd := exec.CommandContext(ctx, "sh", "-euc", text)
	cmd.Dir = s.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Env = append(cleanEnv(), "HOME="+s.dir, "PATH="+filepath.Join(s.dir, "path")+":"+filepath.Dir(signpost)+":"+os.Getenv("PATH"),
		"SIGNPOST_ALLOW_PRIVATE=true", "SIGNPOST_LISTEN_P2P=none")
	for _, name := range []string{"", "_FIND", "_INGEST", "_ADMIN", "_ANNOUNCE"} {
		cmd.Env = append(cmd.Env, "SIGNPOST_LISTEN"+name+"=127.0.0.1:0")
	}
	for name, port := range map[string]string{"FIND": "127.0.0.1:3000", "ANNOUNCE": "127.0.0.1:3001"} {
		if at := s.names[port]; at != "" {
			cmd.Env = append(cmd.Env, "SIGNPOST_"+name+"=http://"+at)
		}
	}
	return cmd
}

// run runs a block to its end, which must be a success.
func (s *sandbox) run(page string, b block) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), blockPatience)
	defer cancel()
	cmd := s.command(ctx, b.text)
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s:%d: %v\n%s\n%s", page, b.line, err, b.text, out)
	}
	s.read(string(out))
}

// start starts the daemon of a block, and waits until it is up: until it has said so,
// or what it has published is indexed.
func (s *sandbox) start(page string, b block) {
	s.t.Helper()
	s.log++
	name := filepath.Join(s.dir, fmt.Sprintf("daemon-%d.log", s.log))
	log, err := os.Create(name)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	cmd := s.command(context.Background(), "exec "+strings.TrimSpace(b.text))
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	s.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(stopPatience):
			s.t.Errorf("%s:%d: did not end", page, b.line)
			_ = cmd.Process.Kill()
			<-ended
		}
	})
	eventually(s.t, fmt.Sprintf("%s:%d: up", page, b.line), func() error {
		select {
		case err := <-ended:
			ended <- err
			out, _ := os.ReadFile(name)
			s.t.Fatalf("%s:%d: ended: %v\n%s\n%s", page, b.line, err, b.text, out)
		default:
		}
		out, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if r, ok := readyIn(out); ok {
			s.learn(r)
			return nil
		}
		if bytes.Contains(out, []byte("serving until told to stop")) {
			s.read(string(out))
			return nil
		}
		return fmt.Errorf("it has said:\n%s", out)
	})
}

// readyIn finds the ready line.
func readyIn(out []byte) (r readyLine, ok bool) {
	for line := range bytes.Lines(out) {
		if bytes.HasPrefix(line, []byte(`{"ready":true`)) && bytes.HasSuffix(line, []byte("\n")) && json.Unmarshal(line, &r) == nil {
			return r, true
		}
	}
	return r, false
}

// TestEveryCommandOfTheDocsRuns: a reader who types what a page shows, from top to
// bottom, gets no error. Pages speak of a pool that is there, or start one.
func TestEveryCommandOfTheDocsRuns(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob("../doc/*.md")
	if err != nil {
		t.Fatal(err)
	}
	dir := workDir(t)
	pool := spawn(t, dir, "dev", "dev", "--data", filepath.Join(dir, "data"), "--indexers", "1",
		"--listen", anyPort, "--listen-announce", anyPort, "--listen-p2p", "none").ready()
	secret, err := os.ReadFile(filepath.Join(dir, "data", "index-secret"))
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range append(pages, "../README.md") {
		all := blocks(t, page)
		if len(all) == 0 {
			continue
		}
		t.Run(filepath.Base(page), func(t *testing.T) {
			s := newSandbox(t, string(secret))
			s.learn(pool)
			s.publish(t)
			for _, b := range all {
				if b.daemon {
					s.start(page, b)
				} else {
					s.run(page, b)
				}
			}
		})
	}
}

// publish has something that pages can find, without a publisher of their own.
func (s *sandbox) publish(t *testing.T) {
	t.Helper()
	s.start("(before the page)", block{daemon: true, text: "signpost publish ./photos --data ./other-publisher"})
}
