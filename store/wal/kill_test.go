package wal

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// killedDir is set for the process that is to be killed.
const killedDir = "WAL_TEST_KILLED_DIR"

// appendUntilKilled appends frames numbered on from those found, and prints how
// many are durable.
func appendUntilKilled(dir string) {
	die := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	l, err := Open(Config{Dir: dir, SegmentBytes: 300_000})
	die(err)
	n := uint64(0)
	die(l.Replay(0, func(_ Pos, _ byte, payload []byte) error {
		n = binary.BigEndian.Uint64(payload) + 1
		return nil
	}))
	for {
		for range 100 {
			payload := binary.BigEndian.AppendUint64(make([]byte, 0, 1000), n)
			_, err := l.Append(1, payload, payload[8:8+n%900])
			die(err)
			n++
		}
		pos, err := l.Sync()
		die(err)
		if n%1000 == 0 {
			die(l.Drop(pos))
		}
		fmt.Println(n)
	}
}

// TestKill9LosesNothingDurable kills a process that appends to a log on disk.
func TestKill9LosesNothingDurable(t *testing.T) {
	rounds := 5
	if *soak {
		rounds = 50
	}
	dir := t.TempDir()
	for round := range rounds {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), killedDir+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		durable, lines := uint64(0), bufio.NewScanner(out)
		for i := 0; lines.Scan(); i++ {
			if _, err := fmt.Sscan(lines.Text(), &durable); err != nil {
				break // cut short by the kill
			}
			if i == 20+7*round {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != -1 {
			t.Fatalf("not killed: %v", err)
		}
		next := uint64(0)
		l := mustOpen(t, Config{Dir: dir})
		for i, f := range mustFrames(t, l, 0) {
			n := binary.BigEndian.Uint64(f.payload)
			if i > 0 && n != next || len(f.payload) != 8+int(n%900) {
				t.Fatalf("frame %d with %d bytes behind frame %d", n, len(f.payload), next-1)
			}
			next = n + 1
		}
		if next < durable {
			t.Fatalf("%d frames, %d were durable", next, durable)
		}
		mustClose(t, l)
		t.Logf("round %d: %d durable, %d found", round, durable, next)
	}
}
