package interop

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// patience is how long anything may take on a slow machine; what is ready
	// earlier is seen earlier.
	patience = time.Minute
	// lookAgain is the pause between two questions to another process.
	lookAgain = 20 * time.Millisecond
)

// ready is the line a daemon prints when it serves.
type ready struct {
	Ready  bool
	ID     string
	Find   string
	Ingest string
	Admin  string
	HTTP   string
	P2P    []string
}

// peerInfo is the daemon's libp2p host.
func (r ready) peerInfo(t *testing.T) peer.AddrInfo {
	t.Helper()
	infos, err := addrInfos(r.P2P)
	if err != nil || len(infos) != 1 {
		t.Fatalf("p2p addresses %q of the ready line: %d peers, %v", r.P2P, len(infos), err)
	}
	return infos[0]
}

// process is one running signpost. Its stdout is read line by line, its stderr
// goes to a file that is shown if the test fails.
type process struct {
	name   string
	cmd    *exec.Cmd
	stdout *bufio.Reader
	pipe   io.Closer
	log    string
	daemon bool // stdout is one line
	ended  bool
}

// workDir is a directory that is kept, and named, if the test fails.
func workDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "interop-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("kept: %s", dir)
			return
		}
		os.RemoveAll(dir)
	})
	return dir
}

// start runs signpost; the test's end stops it and checks that it ends well.
func start(t *testing.T, name string, args ...string) *process {
	t.Helper()
	dir := workDir(t)
	p := &process{name: name, cmd: exec.Command(binary, args...), log: filepath.Join(dir, "stderr")}
	p.cmd.Dir = dir
	p.cmd.Env = environment(dir)
	stderr, err := os.Create(p.log)
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close()
	p.cmd.Stderr = stderr
	// Not StdoutPipe: its reading end is closed by Wait, lines unread.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdout, p.pipe, p.stdout = w, r, bufio.NewReader(r)
	err = p.cmd.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.stop(t)
		if t.Failed() {
			text, _ := os.ReadFile(p.log)
			t.Logf("stderr of %s:\n%s", name, text)
		}
	})
	return p
}

// environment hides the SIGNPOST_ variables, which would set flags, and the
// home directory of whoever runs the tests. Frontends keep no answers, as tests
// look at once at what has changed, and end at once.
func environment(home string) []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "SIGNPOST_") && !strings.HasPrefix(v, "HOME=") {
			env = append(env, v)
		}
	}
	return append(env, "HOME="+home, "SIGNPOST_CACHE_FOR=0", "SIGNPOST_DRAIN_FOR=0")
}

// startDaemon runs a daemon and returns what its ready line says.
func startDaemon(t *testing.T, args ...string) (*process, ready) {
	t.Helper()
	p := start(t, args[0], args...)
	p.daemon = true
	line, err := p.line()
	if err != nil {
		p.stop(t)
		t.Fatalf("%s: no ready line: %v", p.name, err)
	}
	var r ready
	if err := json.Unmarshal(line, &r); err != nil || !r.Ready {
		t.Fatalf("%s: ready line %q: %v", p.name, line, err)
	}
	return p, r
}

// line reads the next line of stdout.
func (p *process) line() ([]byte, error) {
	type read struct {
		line []byte
		err  error
	}
	got := make(chan read, 1)
	go func() {
		line, err := p.stdout.ReadBytes('\n')
		got <- read{line, err}
	}()
	select {
	case r := <-got:
		return r.line, r.err
	case <-time.After(patience):
		p.cmd.Process.Kill()
		<-got
		return nil, errors.New("nothing on stdout for " + patience.String())
	}
}

// stop ends the process with SIGTERM, to which a clean end with status 0 is the
// answer; a daemon has written nothing but its ready line to stdout.
func (p *process) stop(t *testing.T) {
	t.Helper()
	if p.ended {
		return
	}
	p.ended = true
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("stop %s: %v", p.name, err)
	}
	if rest := p.wait(t); p.daemon && len(rest) > 0 {
		t.Errorf("%s: on stdout after the ready line: %q", p.name, rest)
	}
}

// wait waits for the end of a process and returns the rest of its stdout.
func (p *process) wait(t *testing.T) []byte {
	t.Helper()
	p.ended = true
	killer := time.AfterFunc(patience, func() {
		t.Errorf("%s does not end", p.name)
		p.cmd.Process.Kill()
	})
	defer killer.Stop()
	defer p.pipe.Close()
	rest, err := io.ReadAll(p.stdout)
	if err != nil {
		t.Errorf("%s: read stdout: %v", p.name, err)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("%s: %v", p.name, err)
	}
	return rest
}

// tell runs a command that does its work and ends; it returns its stdout.
func tell(t *testing.T, args ...string) []byte {
	t.Helper()
	p := start(t, args[0], args...)
	out := p.wait(t)
	if t.Failed() {
		t.FailNow()
	}
	return out
}

// event is one line of signpost publish --json.
type event struct {
	Event       string
	ID          string
	Addrs       []string
	P2P         []string
	Path        string
	Context     []byte
	Roots       []string
	Multihashes int
	Ad          string
	Head        string
	Ads         int
	Error       string
}

// events decodes lines of signpost publish --json.
func events(t *testing.T, out []byte) []event {
	t.Helper()
	var all []event
	dec := json.NewDecoder(bytes.NewReader(out))
	for {
		var e event
		err := dec.Decode(&e)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("events %q: %v", out, err)
		}
		all = append(all, e)
	}
}

// untilEvent reads events up to the named one and returns them all.
func (p *process) untilEvent(t *testing.T, name string) []event {
	t.Helper()
	var all []event
	for {
		line, err := p.line()
		if err != nil {
			t.Fatalf("%s: no event %q: %v", p.name, name, err)
		}
		all = append(all, events(t, line)...)
		if len(all) > 0 && all[len(all)-1].Event == name {
			return all
		}
	}
}

// named returns the events of one name.
func named(all []event, name string) []event {
	var out []event
	for _, e := range all {
		if e.Event == name {
			out = append(out, e)
		}
	}
	return out
}

// eventually asks again and again until check has no objection.
func eventually(t *testing.T, what string, check func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		err := check(ctx)
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, err)
		}
	}
}
