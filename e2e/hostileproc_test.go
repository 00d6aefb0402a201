package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// hostileEnv makes this test binary a process of hostile publishers: so many,
// for so many seconds, as "50/6".
const hostileEnv = "SIGNPOST_E2E_HOSTILE"

// hostileCrowd is a process of hostile publishers. They are in a process of
// their own, which gives way to all others: on a real network they would not
// take their processor from the daemon they attack.
type hostileCrowd struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// startHostiles returns when the publishers stand ready.
func startHostiles(t *testing.T, n, seconds int) *hostileCrowd {
	t.Helper()
	c := &hostileCrowd{t: t, cmd: exec.Command("nice", "-n", "19", os.Args[0])}
	c.cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d/%d", hostileEnv, n, seconds))
	c.cmd.Stderr = os.Stderr
	var err error
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.out = bufio.NewReader(out)
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.stop)
	if line, err := c.out.ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("hostile publishers said %q, %v", line, err)
	}
	return c
}

// attack has them announce to an indexer until stop is called.
func (c *hostileCrowd) attack(ingest string) {
	c.t.Helper()
	if _, err := fmt.Fprintln(c.in, ingest); err != nil {
		c.t.Fatal(err)
	}
}

// stop ends the process. It may be called again.
func (c *hostileCrowd) stop() {
	if c.cmd == nil {
		return
	}
	c.in.Close()
	_, _ = io.Copy(io.Discard, c.out)
	if err := c.cmd.Wait(); err != nil {
		c.t.Errorf("process of hostile publishers: %v", err)
	}
	c.cmd = nil
}

// runHostiles is the main function of such a process.
func runHostiles(spec string) int {
	n, seconds, _ := strings.Cut(spec, "/")
	count, err := strconv.Atoi(n)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	length, err := strconv.Atoi(seconds)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	tb := &processTB{}
	defer tb.end()
	attackFromStdin(newHostiles(tb, count, length))
	return 0
}

// processTB stands for the test that publishers belong to, in a process that
// runs none. What it does not have panics.
type processTB struct {
	testing.TB
	cleanups []func()
}

func (p *processTB) Helper()                  {}
func (p *processTB) Context() context.Context { return context.Background() }
func (p *processTB) Cleanup(f func())         { p.cleanups = append(p.cleanups, f) }
func (p *processTB) Fatal(args ...any)        { panic(fmt.Sprint(args...)) }

func (p *processTB) end() {
	for _, f := range slices.Backward(p.cleanups) {
		f()
	}
}

// attackFromStdin attacks the indexer whose URL is a line of stdin until that
// is closed.
func attackFromStdin(publishers []*hostile) {
	fmt.Println("ready")
	in := bufio.NewReader(os.Stdin)
	ingest, err := in.ReadString('\n')
	if err != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for n, h := range publishers {
		wg.Go(func() {
			h.run(ctx, strings.TrimSpace(ingest), time.Duration(n)*hostilePause/time.Duration(len(publishers)))
		})
	}
	_, _ = io.Copy(io.Discard, in)
	cancel()
	wg.Wait()
}
