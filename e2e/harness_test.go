package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

const (
	// patience is how long a thing that should happen soon may take on a
	// machine that is busy with other things.
	patience = 60 * time.Second
	// stopPatience is longer than what the daemons give their clients to finish.
	stopPatience = 20 * time.Second
	pollEvery    = 20 * time.Millisecond
)

// signpost is the path of the binary under test, built by TestMain.
var signpost string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	if spec := os.Getenv(hostileEnv); spec != "" {
		flag.Parse()
		return runHostiles(spec)
	}
	if len(os.Args) > 1 && os.Args[1] == restartWord {
		return askForRestart(os.Args[2:])
	}
	if os.Getenv(staticEnv) != "" {
		return serveStatic()
	}
	dir, err := os.MkdirTemp("", "signpost-e2e-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	signpost = filepath.Join(dir, "signpost")
	if err := errors.Join(touchSources(), build()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	client.CloseIdleConnections()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return code
}

func build() error {
	cmd := exec.Command("go", "build", "-o", signpost, "./cmd/signpost")
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the binary: %w\n%s", err, out)
	}
	return nil
}

// touchSources reads every folder of the module. The go command then knows
// that these tests depend on sources they do not import, and does not take an
// old result for a new one.
func touchSources() error {
	return filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && path != ".." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "bin") {
			return fs.SkipDir
		}
		return err
	})
}

// workDir makes the directory of a test: kept if the test fails.
func workDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "signpost-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("data and logs are kept in %s", dir)
			return
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// readyLine is what a daemon prints on stdout, as a user's script reads it.
type readyLine struct {
	Ready               bool
	ID                  string
	Find, Ingest, Admin string
	HTTP, Page, Metrics string
	P2P                 []string
	Indexers            []readyLine
	Assigner, Frontend  *readyLine
}

// process is one running signpost. Its methods are for the test's goroutine.
type process struct {
	t      testing.TB
	name   string
	args   []string
	stderr string // path of its log
	// prepare, if set, changes how it is started.
	prepare func(*exec.Cmd)

	cmd    *exec.Cmd
	lines  *lineLog
	exited chan struct{} // closed when it has ended, with err set
	err    error
}

// spawn starts signpost. When the test ends it is told to stop, if it still
// runs, and must end with status 0.
func spawn(t testing.TB, dir, name string, args ...string) *process {
	t.Helper()
	return (&process{t: t, name: name, args: args, stderr: filepath.Join(dir, name+".log")}).start()
}

// start is spawn of a process that is described.
func (p *process) start() *process {
	p.t.Helper()
	p.launch()
	p.t.Cleanup(func() {
		if p.running() {
			p.signal(syscall.SIGCONT) // a test that failed may have left it stopped
			p.stop()
		}
	})
	return p
}

// launch starts the process anew with p.args.
func (p *process) launch() {
	p.t.Helper()
	log, err := os.OpenFile(p.stderr, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		p.t.Fatal(err)
	}
	defer log.Close()
	fmt.Fprintf(log, "\n$ signpost %s\n", strings.Join(p.args, " "))
	p.cmd = exec.Command(signpost, p.args...)
	p.cmd.Env = cleanEnv()
	p.cmd.Stderr = log
	if p.prepare != nil {
		p.prepare(p.cmd)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.lines, p.exited = newLineLog(), make(chan struct{})
	go func(cmd *exec.Cmd, lines *lineLog, exited chan struct{}) {
		lines.readFrom(out)
		p.err = cmd.Wait()
		close(exited)
	}(p.cmd, p.lines, p.exited)
}

// cleanEnv is the environment without settings meant for another signpost. How
// full the disk of this machine is, is no matter: no process freezes by itself
// unless its flags say so. Nor does a frontend wait for clients to leave.
func cleanEnv() []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "SIGNPOST_") })
	return append(env, "SIGNPOST_FREEZE_AT=-1", "SIGNPOST_CACHE_FOR=0", "SIGNPOST_DRAIN_FOR=0")
}

func (p *process) running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// await returns the first stdout line from number n on that want accepts.
func (p *process) await(n int, what string, want func(line []byte) bool) []byte {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for ; ; n++ {
		line, err := p.lines.wait(ctx, n)
		if err != nil {
			p.t.Fatalf("%s: no %s on stdout: %v; see %s\n%s", p.name, what, err, p.stderr, p.logTail())
		}
		if want(line) {
			return line
		}
	}
}

// ready waits for the ready line, which must be the first.
func (p *process) ready() readyLine {
	p.t.Helper()
	line := p.await(0, "ready line", func([]byte) bool { return true })
	var r readyLine
	if err := json.Unmarshal(line, &r); err != nil || !r.Ready || r.ID == "" {
		p.t.Fatalf("%s: ready line %q: %v", p.name, line, err)
	}
	return r
}

// event waits for the first event of this name that a publish --json prints.
func (p *process) event(name string) map[string]any {
	p.t.Helper()
	var e map[string]any
	p.await(0, "event "+name, func(line []byte) bool {
		e = nil
		return json.Unmarshal(line, &e) == nil && e["event"] == name
	})
	return e
}

// events returns the events of this name printed so far.
func (p *process) events(name string) []map[string]any {
	var out []map[string]any
	for _, line := range p.lines.all() {
		var e map[string]any
		if json.Unmarshal(line, &e) == nil && e["event"] == name {
			out = append(out, e)
		}
	}
	return out
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("%s: signal %v: %v", p.name, s, err)
	}
}

// kill ends the process as a power cut would, and waits for its end.
func (p *process) kill() {
	p.t.Helper()
	p.signal(syscall.SIGKILL)
	<-p.exited
}

// stop ends the process with SIGTERM; its status must be 0.
func (p *process) stop() {
	p.t.Helper()
	// A server waits some seconds for connections that were opened and not
	// used yet, of which a client with many workers has some.
	client.CloseIdleConnections()
	p.signal(syscall.SIGTERM)
	p.succeeds()
}

// succeeds waits until the process has ended by itself, with status 0.
func (p *process) succeeds() {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(stopPatience):
		// SIGQUIT makes the Go runtime write all stacks to the log.
		_ = p.cmd.Process.Signal(syscall.SIGQUIT)
		<-p.exited
		p.t.Errorf("%s has not ended after %v; see %s", p.name, stopPatience, p.stderr)
		return
	}
	if p.err != nil {
		p.t.Errorf("%s ended with %v, want status 0; see %s\n%s", p.name, p.err, p.stderr, p.logTail())
	}
}

// log is all the process has written to stderr.
func (p *process) log() string {
	p.t.Helper()
	b, err := os.ReadFile(p.stderr)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(b)
}

func (p *process) logTail() string {
	const tail = 2 << 10
	log := p.log()
	return log[max(0, len(log)-tail):]
}

// result is a command that has ended.
type result struct {
	code           int
	stdout, stderr string
}

// command runs signpost to its end.
func command(t testing.TB, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, signpost, args...)
	cmd.Env = cleanEnv()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("signpost %s: %v\n%s", strings.Join(args, " "), errors.Join(err, ctx.Err()), stderr.String())
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// commandOK is command for what must succeed.
func commandOK(t testing.TB, args ...string) result {
	t.Helper()
	r := command(t, args...)
	if r.code != 0 {
		t.Fatalf("signpost %s: status %d\n%s", strings.Join(args, " "), r.code, r.stderr)
	}
	return r
}

// eventually asks until there is no error. Between two questions it waits a
// moment: the processes have nobody to tell.
func eventually(t testing.TB, what string, check func() error) {
	t.Helper()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	deadline := time.Now().Add(patience)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s: %v", patience, what, err)
		}
		<-tick.C
	}
}

// lineLog collects the lines of a stream and lets readers wait for the next.
type lineLog struct {
	mu    sync.Mutex
	lines [][]byte
	ended bool
	more  chan struct{} // closed and replaced at each change
}

func newLineLog() *lineLog { return &lineLog{more: make(chan struct{})} }

func (l *lineLog) readFrom(r io.Reader) {
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadBytes('\n')
		l.mu.Lock()
		if len(line) > 0 {
			l.lines = append(l.lines, bytes.TrimSuffix(line, []byte("\n")))
		}
		l.ended = err != nil
		close(l.more)
		l.more = make(chan struct{})
		l.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// wait returns line n once it is there.
func (l *lineLog) wait(ctx context.Context, n int) ([]byte, error) {
	for {
		l.mu.Lock()
		more, ended := l.more, l.ended
		if n < len(l.lines) {
			line := l.lines[n]
			l.mu.Unlock()
			return line, nil
		}
		l.mu.Unlock()
		if ended {
			return nil, errors.New("stdout has ended")
		}
		select {
		case <-more:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (l *lineLog) all() [][]byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.lines)
}
