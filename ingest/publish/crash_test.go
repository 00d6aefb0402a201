package publish

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/multiformats/go-multiaddr"

	"github.com/signpost-index/signpost/ingest/metadata"
)

// A change, and the state directory as it was between its writes.
type snapshots struct {
	t    *testing.T
	from string
	dirs []string
	name []string
}

func (s *snapshots) take(step string) {
	dir := s.t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(s.from)); err != nil {
		s.t.Fatal(err)
	}
	s.dirs, s.name = append(s.dirs, dir), append(s.name, step)
}

// What is on disk at any moment of a change opens as the state before it or the
// one after it, and doing the change again leads to the latter.
func TestCrashBetweenTheWritesOfAChange(t *testing.T) {
	content := write(t, map[string]string{"a": "hello", "b": randomBytes(1, 300_000)})
	other := tempFile(t, "other", []byte("other"))
	car := tempFile(t, "x.car", carV1(numbered("block", 20)...))
	both, err := metadata.Encode(metadata.Bitswap, metadata.IPFSGatewayHTTP)
	if err != nil {
		t.Fatal(err)
	}
	adding := func(path string) func(*Publisher) error {
		return func(p *Publisher) error {
			_, err := p.Add(t.Context(), path, nil)
			return err
		}
	}
	for _, c := range []struct {
		name   string
		change func(*Publisher) error
		steps  int
		want   string // the chain afterwards
	}{
		{"first content", nil, 0, "put put"},
		{"a CAR, several ads", adding(car), 19, "put put put again again"},
		{"changed content", func(p *Publisher) error {
			if err := os.WriteFile(filepath.Join(content, "a"), []byte("changed"), 0o644); err != nil {
				return err
			}
			return adding(content)(p)
		}, 11, "put put remove put"},
		{"removal", func(p *Publisher) error {
			_, err := p.Remove(t.Context(), other)
			if errors.Is(err, ErrNotPublished) {
				return nil
			}
			return err
		}, 4, "put put remove"},
		{"metadata", func(p *Publisher) error {
			_, err := p.UpdateMetadata(t.Context(), both)
			return err
		}, 6, "put put again again"},
		{"addresses", func(p *Publisher) error {
			_, err := p.SetAddrs(t.Context(), []multiaddr.Multiaddr{multiaddr.StringCast("/dns4/b.example/tcp/1/http")})
			return err
		}, 4, "put put address"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := os.WriteFile(filepath.Join(content, "a"), []byte("hello"), 0o644); err != nil {
				t.Fatal(err)
			}
			cfg := testConfig(t.TempDir())
			cfg.ChunkSize, cfg.MaxAdEntries = 4, 8
			p := open(t, cfg)
			add(t, p, content)
			add(t, p, other)
			if c.change == nil {
				if got := kinds(t, p); got != c.want {
					t.Errorf("chain is %s", got)
				}
				return
			}
			before := fingerprint(t, p)
			s := &snapshots{t: t, from: cfg.Dir}
			p.step = s.take
			if err := c.change(p); err != nil {
				t.Fatal(err)
			}
			after := fingerprint(t, p)
			if got := kinds(t, p); got != c.want {
				t.Errorf("chain is %s, want %s", got, c.want)
			}
			if len(s.dirs) != c.steps {
				t.Errorf("%d steps: %q", len(s.dirs), s.name)
			}
			for i, dir := range s.dirs {
				again := cfg
				again.Dir = dir
				p := open(t, again)
				got := fingerprint(t, p)
				if want := s.name[i] == "committed"; got != after && want || got != before && !want {
					t.Errorf("crash after step %d, %s: %s", i, s.name[i], got)
				}
				checkServed(t, p)
				if err := c.change(p); err != nil {
					t.Errorf("crash after step %d, %s, then again: %v", i, s.name[i], err)
				}
				if got := kinds(t, p); got != c.want {
					t.Errorf("crash after step %d, %s, then again: chain is %s", i, s.name[i], got)
				}
				checkServed(t, p)
				if left, _ := os.ReadDir(p.cars); len(left) != len(p.now.Load().files()) {
					t.Errorf("crash after step %d, %s: %d files in cars", i, s.name[i], len(left))
				}
			}
		})
	}
}

// fingerprint tells two states apart.
func fingerprint(t *testing.T, p *Publisher) string {
	t.Helper()
	head, err := p.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := head.Head.String()
	for _, c := range p.Contents() {
		out += fmt.Sprintf(" %x %q %x", c.ContextID, c.Paths, c.Metadata)
	}
	return out
}

// checkServed compares what an indexer would know with what can be fetched.
func checkServed(t *testing.T, p *Publisher) {
	t.Helper()
	known := indexer(t, p)
	contents := p.Contents()
	if len(known) != len(contents) {
		t.Errorf("an indexer knows %d contexts, there are %d", len(known), len(contents))
	}
	for _, c := range contents {
		if len(c.Problems) > 0 {
			t.Errorf("problems: %q", c.Problems)
		}
		mhs := known[string(c.ContextID)]
		if len(mhs) != c.Multihashes {
			t.Errorf("an indexer knows %d multihashes of %q, there are %d", len(mhs), c.Paths, c.Multihashes)
		}
		for mh := range mhs {
			if _, err := p.ReadBlock(t.Context(), cidOf(mh)); err != nil {
				t.Errorf("%q: %v", c.Paths, err)
			}
		}
	}
}

func TestManifestLineCutShortIsDropped(t *testing.T) {
	state := t.TempDir()
	path := filepath.Join(state, "manifest")
	p := open(t, testConfig(state))
	add(t, p, tempFile(t, "1", []byte("one")))
	before := fingerprint(t, p)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	add(t, p, tempFile(t, "2", []byte("two")))
	p.Close()
	longer, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, cut := range []int{1, 9, 10, 100, len(longer) - len(whole) - 1} {
		for _, tail := range []string{"", "\x00\x00\x00\x00", "\n", "garbage\n"} {
			if err := os.WriteFile(path, append(slices.Clone(longer[:len(whole)+cut]), tail...), 0o644); err != nil {
				t.Fatal(err)
			}
			p, err := Open(testConfig(state))
			if err != nil {
				t.Fatalf("cut %d, tail %q: %v", cut, tail, err)
			}
			got := fingerprint(t, p)
			p.Close()
			if cut == len(longer)-len(whole)-1 && tail == "\n" {
				continue // that is the whole line again
			}
			if got != before {
				t.Errorf("cut %d, tail %q: %s", cut, tail, got)
			}
		}
	}
}

func TestDamagedManifestIsRefused(t *testing.T) {
	state := t.TempDir()
	path := filepath.Join(state, "manifest")
	p := open(t, testConfig(state))
	add(t, p, tempFile(t, "1", []byte("one")))
	add(t, p, tempFile(t, "2", []byte("two")))
	p.Close()
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(good), "\n")
	damaged := strings.Replace(lines[1], `"ads":1`, `"ads":2`, 1)
	newer, err := change{Format: manifestFormat + 1}.line()
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{
		"line in the middle": lines[0] + damaged + lines[2],
		"first line":         "x" + string(good),
		"only line":          "x" + lines[0],
		"only line, cut":     lines[0][:len(lines[0])-1],
		"newer format":       string(newer),
	} {
		if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
		if p, err := Open(testConfig(state)); err == nil {
			p.Close()
			t.Errorf("%s: opened", name)
		}
		if now, _ := os.ReadFile(path); string(now) != data {
			t.Errorf("%s: the manifest was changed", name)
		}
	}
}

func TestLongManifestIsShortenedAtStart(t *testing.T) {
	state := t.TempDir()
	p := open(t, testConfig(state))
	add(t, p, tempFile(t, "1", []byte("one")))
	p.changing.Lock()
	for range 1100 {
		if err := p.manifest.append(p.now.Load().change(p, nil)); err != nil {
			t.Fatal(err)
		}
	}
	p.changing.Unlock()
	before := fingerprint(t, p)
	for range 3 {
		p.Close()
		p = open(t, testConfig(state))
		if got := fingerprint(t, p); got != before {
			t.Errorf("after a restart %s, want %s", got, before)
		}
	}
	data, err := os.ReadFile(filepath.Join(state, "manifest"))
	if err != nil || strings.Count(string(data), "\n") != 1 {
		t.Errorf("%d lines, %v", strings.Count(string(data), "\n"), err)
	}
	add(t, p, tempFile(t, "2", []byte("two")))
	checkServed(t, p)
}

// child runs this test binary with an environment variable set.
func child(t *testing.T, env string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), env)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(out)
}

func TestOneProcessHasTheDirectory(t *testing.T) {
	state := t.TempDir()
	cmd, out := child(t, "SIGNPOST_TEST_HOLD="+state)
	if !out.Scan() || out.Text() != "open" {
		t.Fatalf("child says %q", out.Text())
	}
	_, err := Open(testConfig(state))
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), fmt.Sprint(cmd.Process.Pid)) {
		t.Errorf("got %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed, says its error
	p := open(t, testConfig(state))
	if _, err := Open(testConfig(state)); !errors.Is(err, ErrLocked) {
		t.Errorf("a second time in one process: %v", err)
	}
	add(t, p, tempFile(t, "f", []byte("x")))
}

// A process that is killed while it adds and removes leaves a chain that
// verifies, holds all that it said was done, and is served.
func TestKilledProcessLeavesAWholeChain(t *testing.T) {
	state := t.TempDir()
	for round := range 4 {
		cmd, out := child(t, "SIGNPOST_TEST_CHURN="+state)
		var done string
		for range 5 + 7*round {
			if !out.Scan() {
				t.Fatalf("child ended: %v", out.Err())
			}
			done = out.Text()
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for out.Scan() {
			done = out.Text()
		}
		_ = cmd.Wait()
		p := open(t, testConfig(state))
		checkServed(t, p)
		if !slices.ContainsFunc(walkCIDs(t, p), func(k string) bool { return k == done }) {
			t.Errorf("round %d: %s was done and is not in the chain", round, done)
		}
		p.Close()
	}
}

// walkCIDs returns the CIDs of the chain, newest first.
func walkCIDs(t *testing.T, p *Publisher) []string {
	t.Helper()
	head, err := p.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := []string{head.Head.String()}
	for _, ad := range slices.Backward(walk(t, p)) {
		if ad.PreviousID.Defined() {
			out = append(out, ad.PreviousID.String())
		}
	}
	return out
}

// churn adds, changes and removes content until it is killed, and prints each
// advertisement once it is done.
func churn(state string) int {
	p, err := Open(Config{Dir: state, Key: testKey(1), Addrs: []multiaddr.Multiaddr{testAddr}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for i := 0; ; i++ {
		path := fmt.Sprintf("%s-content-%d", state, i%5) // beside the state directory
		data, err := io.ReadAll(random(byte(i), 400_000))
		if err == nil {
			err = os.WriteFile(path, data, 0o644)
		}
		var a Added
		if err == nil {
			a, err = p.Add(context.Background(), path, nil)
		}
		if err == nil && i%4 == 3 {
			a.Ad, err = p.Remove(context.Background(), path)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		fmt.Println(a.Ad)
	}
}
