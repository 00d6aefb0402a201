package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// newer is a valid header of the next format.
func newer(header []byte) []byte {
	binary.BigEndian.PutUint32(header[8:], format+1)
	return binary.BigEndian.AppendUint32(header[:28], crc32.Checksum(header[:28], castagnoli))
}

func TestPositionsGrowForEver(t *testing.T) {
	cfg := Config{FS: vfs.NewMem(), Dir: "log", SegmentBytes: 100}
	last := Pos(0)
	for range 20 {
		l := mustOpen(t, cfg)
		if next := l.Next(); next <= last {
			t.Fatalf("next %d after %d", next, last)
		}
		for range 5 {
			pos := mustAppend(t, l, 0, make([]byte, 30))
			if pos <= last {
				t.Fatalf("%d after %d", pos, last)
			}
			last = pos
		}
		mustSync(t, l)
		if err := l.Drop(l.Next()); err != nil {
			t.Fatal(err)
		}
		if len(l.segments) != 1 {
			t.Fatalf("%d segments left", len(l.segments))
		}
		mustClose(t, l)
		mustClose(t, l)
	}
}

func TestReplayFromAPosition(t *testing.T) {
	cfg := Config{FS: vfs.NewMem(), Dir: "log", SegmentBytes: 150, writeBytes: 1}
	l := mustOpen(t, cfg)
	var at []Pos
	for i := range 20 {
		at = append(at, mustAppend(t, l, byte(i), []byte("twenty bytes of data")))
	}
	check := func(l *Log) {
		t.Helper()
		for i, pos := range at {
			if got := mustFrames(t, l, pos); len(got) != len(at)-i || got[0].pos != pos || got[0].kind != byte(i) {
				t.Fatalf("from frame %d: %v", i, got)
			}
			if got := mustFrames(t, l, pos+1); len(got) != len(at)-i-1 {
				t.Fatalf("from behind frame %d: %v", i, got)
			}
		}
		if got := mustFrames(t, l, l.Next()); len(got) != 0 {
			t.Fatalf("from the end: %v", got)
		}
		if _, err := frames(l, l.Next()+1); !errors.Is(err, ErrMissing) {
			t.Fatalf("from beyond the end: %v", err)
		}
	}
	check(l)
	mustClose(t, l)
	l = mustOpen(t, cfg)
	check(l)

	before := l.Size()
	if err := l.Drop(at[10]); err != nil {
		t.Fatal(err)
	}
	sum := int64(0)
	for _, b := range files(t, cfg.FS, "log") {
		sum += int64(len(b))
	}
	if got := l.Size(); got != sum || got >= before || got < before/3 {
		t.Errorf("size %d after %d, files have %d", got, before, sum)
	}
	if got := mustFrames(t, l, at[10]); len(got) != 10 {
		t.Errorf("%d frames from where it was dropped", len(got))
	}
	if _, err := frames(l, 1); !errors.Is(err, ErrMissing) {
		t.Errorf("from what was dropped: %v", err)
	}
	stop := errors.New("stop")
	if err := l.Replay(0, func(Pos, byte, []byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("error of fn: %v", err)
	}
}

func TestOpenAndReplayWriteNothing(t *testing.T) {
	writes := 0
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && op.Kind != errorfs.OpFileClose && op.Kind != errorfs.OpFileSync {
			writes++
		}
		return nil
	}))
	for range 3 {
		l := mustOpen(t, Config{FS: fs, Dir: "log"})
		mustFrames(t, l, 0)
		mustSync(t, l)
		mustClose(t, l)
	}
	if writes != 0 {
		t.Errorf("%d writes", writes)
	}
}

func TestFramesOfEverySize(t *testing.T) {
	cfg := Config{FS: vfs.NewMem(), Dir: "log"}
	l := mustOpen(t, cfg)
	var want []frame
	for i, n := range []int{0, 1, 4096, 65535, 65536, 5 << 20, 3, MaxFrameBytes, 7} {
		payload := bytes.Repeat([]byte{byte(i + 1)}, n)
		want = append(want, frame{mustAppend(t, l, byte(i), payload[:n/3], payload[n/3:]), byte(i), payload})
	}
	if _, err := l.Append(0, make([]byte, MaxFrameBytes), []byte{1}); !errors.Is(err, ErrInvalid) {
		t.Errorf("too large: %v", err)
	}
	if _, err := l.Append(markKind); !errors.Is(err, ErrInvalid) {
		t.Errorf("reserved kind: %v", err)
	}
	mustClose(t, l)
	if _, err := l.Append(0); !errors.Is(err, ErrClosed) {
		t.Errorf("append after close: %v", err)
	}
	if _, err := l.Sync(); !errors.Is(err, ErrClosed) {
		t.Errorf("sync after close: %v", err)
	}
	if err := errors.Join(l.Flush(), l.Drop(1)); !errors.Is(err, ErrClosed) {
		t.Errorf("flush and drop after close: %v", err)
	}
	got := mustFrames(t, mustOpen(t, cfg), 0)
	if len(got) != len(want) {
		t.Fatalf("%d frames, want %d", len(got), len(want))
	}
	if err := samePrefix(got, want); err != nil {
		t.Error(err)
	}
}

// TestAFrameElsewhereDoesNotPass moves whole frames.
func TestAFrameElsewhereDoesNotPass(t *testing.T) {
	const name, frameBytes = "00000001.wal", frameHeader + 1
	var lives [2][]byte
	for i := range lives {
		fs := vfs.NewMem()
		l := mustOpen(t, Config{FS: fs, Dir: "log"})
		for j := range 3 {
			mustAppend(t, l, 0, []byte{byte(10*i + j)})
		}
		if err := l.Flush(); err != nil {
			t.Fatal(err)
		}
		lives[i] = files(t, fs, "log")[name]
	}
	frameOf := func(life, n int) []byte {
		return lives[life][headerBytes+n*frameBytes:][:frameBytes]
	}
	for what, moved := range map[string][]byte{
		"to the same position of another life": frameOf(0, 1),
		"to another position":                  frameOf(1, 2),
	} {
		b := bytes.Clone(lives[1])
		copy(b[headerBytes+frameBytes:], moved)
		got := mustFrames(t, mustOpen(t, Config{FS: memWith(t, map[string][]byte{name: b}), Dir: "log"}), 0)
		if len(got) != 1 || got[0].payload[0] != 10 {
			t.Errorf("%s: got %v, want the frame before alone", what, got)
		}
	}
}

// gate stops the fsyncs of frames until it is told to go on.
type gate struct {
	vfs.FS
	entered, pass chan struct{}
}

func newGate() *gate {
	g := &gate{entered: make(chan struct{}), pass: make(chan struct{})}
	g.FS = errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileSyncData {
			g.entered <- struct{}{}
			<-g.pass
		}
		return nil
	}))
	return g
}

func TestAppendsGoOnDuringAnFsyncAndSyncsShareTheNext(t *testing.T) {
	g := newGate()
	l := mustOpen(t, Config{FS: g, Dir: "log", writeBytes: 100})
	first := mustAppend(t, l, 0, []byte("first"))
	var wg sync.WaitGroup
	syncer := func(above Pos) {
		pos, err := l.Sync()
		if err != nil || pos <= above {
			t.Errorf("synced to %d of %d: %v", pos, above, err)
		}
	}
	wg.Go(func() { syncer(first) })
	<-g.entered
	last := Pos(0)
	for range 100 { // more than is written out at once
		last = mustAppend(t, l, 0, []byte("during the first fsync"))
	}
	if d := l.Durable(); d > first {
		t.Errorf("durable %d before the fsync ended", d)
	}
	started := make(chan struct{})
	for range 10 {
		wg.Go(func() { started <- struct{}{}; syncer(last) })
	}
	for range 10 {
		<-started
	}
	g.pass <- struct{}{}
	<-g.entered // one for all ten; were there a second, it would wait for ever
	g.pass <- struct{}{}
	wg.Wait()
	if d := l.Durable(); d != l.Next() {
		t.Errorf("durable %d, next %d", d, l.Next())
	}
	wg.Go(func() { <-g.entered; g.pass <- struct{}{} }) // the closing mark
	mustClose(t, l)
	wg.Wait()
}

func TestABufferThatFilledDuringAnFsyncIsWrittenAfterIt(t *testing.T) {
	g := newGate()
	l := mustOpen(t, Config{FS: g, Dir: "log", writeBytes: 100})
	mustAppend(t, l, 0)
	var wg sync.WaitGroup
	wg.Go(func() { mustSync(t, l) })
	<-g.entered
	for range 100 {
		mustAppend(t, l, 0, []byte("during the fsync"))
	}
	g.pass <- struct{}{}
	wg.Wait()
	if size, want := l.Size(), int64(l.Next())-1+headerBytes; size < want-100 {
		t.Errorf("%d bytes written of %d", size, want)
	}
	wg.Go(func() { // Close syncs twice
		for range 2 {
			<-g.entered
			g.pass <- struct{}{}
		}
	})
	mustClose(t, l)
	wg.Wait()
}

func TestConcurrentUseKeepsTheOrder(t *testing.T) {
	const writers, each = 8, 400
	cfg := Config{Dir: t.TempDir() + "/log", SegmentBytes: 40_000, writeBytes: 2000, bufferBytes: 5000}
	l := mustOpen(t, cfg)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			payload := make([]byte, 40)
			last := Pos(0)
			for i := range each {
				binary.BigEndian.PutUint32(payload, uint32(i))
				pos, err := l.Append(byte(w), payload[:4], payload[4:4+i%36])
				if err != nil || pos <= last || pos >= l.Next() {
					t.Errorf("append at %d after %d: %v", pos, last, err)
					return
				}
				last = pos
				if i%50 == w {
					if durable, err := l.Sync(); err != nil || durable <= pos {
						t.Errorf("sync to %d of %d: %v", durable, pos, err)
					}
				}
			}
		})
	}
	wg.Go(func() {
		for range 20 {
			if _, err := frames(l, 0); err != nil {
				t.Error(err)
			}
			_, _ = l.Size(), l.Durable()
		}
	})
	wg.Wait()
	mustClose(t, l)

	l = mustOpen(t, cfg)
	var next [writers]uint32
	last := Pos(0)
	for _, f := range mustFrames(t, l, 0) {
		if i := binary.BigEndian.Uint32(f.payload); i != next[f.kind] || f.pos <= last {
			t.Fatalf("frame %d of writer %d at %d, want frame %d above %d", i, f.kind, f.pos, next[f.kind], last)
		}
		next[f.kind]++
		last = f.pos
	}
	if got, want := fmt.Sprint(next), fmt.Sprint([writers]uint32{each, each, each, each, each, each, each, each}); got != want {
		t.Errorf("frames %s, want %s", got, want)
	}
	wg.Go(func() { // dropping beside appending
		for range 20 {
			if err := l.Drop(l.Durable()); err != nil {
				t.Error(err)
			}
		}
	})
	for range 1000 {
		mustAppend(t, l, 0, make([]byte, 100))
	}
	wg.Wait()
	mustClose(t, l)
}

func TestAppendDoesNotAllocate(t *testing.T) {
	l := mustOpen(t, Config{Dir: t.TempDir()})
	a, b := make([]byte, 30), make([]byte, 200)
	for range 10_000 { // until the buffers have grown
		mustAppend(t, l, 0, a, b)
	}
	if n := testing.AllocsPerRun(10_000, func() {
		if _, err := l.Append(1, a, b); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestWhatWasNotDurableIsLeftOut goes on after a failed sync in the same
// process: the file still shows the frames the sync should have covered.
func TestWhatWasNotDurableIsLeftOut(t *testing.T) {
	for _, segment := range []int64{100, 1 << 20} { // with the limit in an older segment, and in the last
		fs := vfs.NewCrashableMem()
		cfg := Config{FS: fs, Dir: "log", SegmentBytes: segment}
		l := mustOpen(t, cfg)
		mustAppend(t, l, 1, []byte("durable"))
		limit := mustSync(t, l)
		lost := mustAppend(t, l, 2, make([]byte, 40))
		for range 3 {
			mustAppend(t, l, 2, make([]byte, 40))
			if err := l.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		segments := len(l.segments)

		cfg.Before = limit
		again := mustOpen(t, cfg)
		got := mustFrames(t, again, 0)
		kept := 0 // a segment that was begun proves the one before
		for _, f := range got {
			if f.kind == 2 {
				kept++
			}
		}
		if segments == 1 && (kept > 0 || again.Next() != limit || lost < limit) {
			t.Errorf("%d lost frames and next %d, want none and %d", kept, again.Next(), limit)
		}
		if segments > 1 && again.Next() != l.segments[segments-1].first {
			t.Errorf("next %d, want the first position of the last segment, %d", again.Next(), l.segments[segments-1].first)
		}
		mustAppend(t, again, 3, []byte("new"))
		mustSync(t, again)
		want := append(got, frame{again.segments[len(again.segments)-1].first, 3, []byte("new")})
		cfg.Before = 0
		cfg.FS = fs.CrashClone(vfs.CrashCloneCfg{})
		if got := mustFrames(t, mustOpen(t, cfg), 0); len(got) != len(want) || !got[len(got)-1].equal(want[len(want)-1]) {
			t.Errorf("after power loss %v, want %v", got, want)
		}
		mustClose(t, again)
	}
}

// TestLogThatLostWhatWasDurableIsRefused asks for more than there is.
func TestLogThatLostWhatWasDurableIsRefused(t *testing.T) {
	cfg := Config{FS: vfs.NewMem(), Dir: "log"}
	l := mustOpen(t, cfg)
	mustAppend(t, l, 1, []byte("frame"))
	cfg.Before = mustSync(t, l) + 1
	if _, err := Open(cfg); !errors.Is(err, ErrCorrupt) {
		t.Errorf("open: %v, want ErrCorrupt", err)
	}
	mustClose(t, l)
}
