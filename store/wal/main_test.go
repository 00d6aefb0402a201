package wal

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"
)

var soak = flag.Bool("soak", false, "run the crash tests for a long time")

func TestMain(m *testing.M) {
	flag.Parse()
	if dir := os.Getenv(killedDir); dir != "" {
		appendUntilKilled(dir)
	}
	goleak.VerifyTestMain(m)
}

// testSeed is SEED of the environment, or a new one, and is printed.
func testSeed(t *testing.T) uint64 {
	t.Helper()
	seed := rand.Uint64()
	if env, err := strconv.ParseUint(os.Getenv("SEED"), 10, 64); err == nil {
		seed = env
	}
	t.Logf("SEED=%d", seed)
	return seed
}

// frame is one that was, or should be, replayed.
type frame struct {
	pos     Pos
	kind    byte
	payload []byte
}

func (f frame) equal(g frame) bool {
	return f.pos == g.pos && f.kind == g.kind && bytes.Equal(f.payload, g.payload)
}

// frames replays into memory.
func frames(l *Log, from Pos) (fs []frame, err error) {
	err = l.Replay(from, func(pos Pos, kind byte, payload []byte) error {
		fs = append(fs, frame{pos, kind, bytes.Clone(payload)})
		return nil
	})
	return fs, err
}

func mustFrames(t testing.TB, l *Log, from Pos) []frame {
	t.Helper()
	fs, err := frames(l, from)
	if err != nil {
		t.Fatal(err)
	}
	return fs
}

func mustOpen(t testing.TB, cfg Config) *Log {
	t.Helper()
	l, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func mustAppend(t testing.TB, l *Log, kind byte, parts ...[]byte) Pos {
	t.Helper()
	pos, err := l.Append(kind, parts...)
	if err != nil {
		t.Fatal(err)
	}
	return pos
}

func mustSync(t testing.TB, l *Log) Pos {
	t.Helper()
	pos, err := l.Sync()
	if err != nil {
		t.Fatal(err)
	}
	return pos
}

func mustClose(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// sameFrames compares; want may go on behind got.
func samePrefix(got, want []frame) error {
	if len(got) > len(want) {
		return fmt.Errorf("%d frames, of %d appended; first too many at %d", len(got), len(want), got[len(want)].pos)
	}
	for i, f := range got {
		if !f.equal(want[i]) {
			return fmt.Errorf("frame %d is at %d of kind %d with %d bytes, want at %d of kind %d with %d bytes",
				i, f.pos, f.kind, len(f.payload), want[i].pos, want[i].kind, len(want[i].payload))
		}
	}
	return nil
}

// files are the segments of a directory, by name.
func files(t testing.TB, fs vfs.FS, dir string) map[string][]byte {
	t.Helper()
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	m := make(map[string][]byte)
	for _, name := range names {
		m[name] = readFile(t, fs, fs.PathJoin(dir, name))
	}
	return m
}

func readFile(t testing.TB, fs vfs.FS, name string) []byte {
	t.Helper()
	f, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, info.Size())
	if err := readAt(f, b, 0); len(b) > 0 && err != nil {
		t.Fatal(err)
	}
	return b
}

// memWith is a file system with these files in dir "log".
func memWith(t testing.TB, m map[string][]byte) *vfs.MemFS {
	t.Helper()
	fs := vfs.NewMem()
	if err := fs.MkdirAll("log", 0o755); err != nil {
		t.Fatal(err)
	}
	for name, b := range m {
		f, err := fs.Create(fs.PathJoin("log", name), vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		if err := writeAll(f, bytes.Clone(b)); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return fs
}

func randomBytes(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}
