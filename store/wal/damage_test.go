package wal

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// sample is a log of some segments: the third ends in a torn tail, the last
// was closed in good order or not.
func sample(t *testing.T, rng *rand.Rand, closed bool) (map[string][]byte, []frame) {
	t.Helper()
	mem := vfs.NewMem()
	cfg := Config{FS: mem, Dir: "log", SegmentBytes: 600}
	var all []frame
	fill := func(l *Log, n int) {
		for range n {
			kind, payload := byte(rng.IntN(MaxKind+1)), randomBytes(rng, 20+rng.IntN(70))
			all = append(all, frame{mustAppend(t, l, kind, payload), kind, payload})
			if rng.IntN(4) == 0 {
				mustSync(t, l)
			}
			if err := l.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	l := mustOpen(t, cfg)
	fill(l, 30)
	m := files(t, mem, "log") // the process ends here, and a tail is lost
	name := slices.Max(slices.Collect(maps.Keys(m)))
	whole := memWith(t, m)
	m[name] = append(m[name], randomBytes(rng, 40)...)
	if got := mustFrames(t, mustOpen(t, Config{FS: whole, Dir: "log"}), 0); len(got) != len(all) {
		t.Fatalf("%d frames, want %d", len(got), len(all))
	}
	mem = memWith(t, m)
	cfg.FS, cfg.SegmentBytes = mem, 1200
	l = mustOpen(t, cfg)
	fill(l, 25)
	if closed {
		mustClose(t, l)
	} else if err := l.Flush(); err != nil {
		t.Fatal(err)
	}
	return files(t, mem, "log"), all
}

// TestDamageIsNeverAWrongFrame changes every byte of a log, and cuts it
// everywhere.
func TestDamageIsNeverAWrongFrame(t *testing.T) {
	for _, closed := range []bool{true, false} {
		t.Run(fmt.Sprintf("closed=%v", closed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(testSeed(t), 3))
			good, want := sample(t, rng, closed)
			last := slices.Max(slices.Collect(maps.Keys(good)))
			if len(good) < 4 {
				t.Fatalf("only %d segments", len(good))
			}
			outcomes := make(map[string]int)
			for name, b := range good {
				for at := range b {
					damaged := bytes.Clone(b)
					damaged[at] ^= byte(1 << rng.IntN(8))
					outcomes["flip: "+damage(t, good, name, damaged, want, last, at)]++
					outcomes["cut: "+damage(t, good, name, b[:at], want, last, at)]++
				}
			}
			t.Log(outcomes)
			if outcomes["flip: corrupt"] == 0 || closed == (outcomes["flip: shorter"] > 0) {
				t.Errorf("unexpected mix: %v", outcomes)
			}
		})
	}
}

// damage looks at a log of which one file was changed at an offset.
func damage(t *testing.T, good map[string][]byte, name string, damaged []byte, want []frame, last string, at int) string {
	t.Helper()
	m := maps.Clone(good)
	m[name] = damaged
	fs := memWith(t, m)
	var got []frame
	l, err := Open(Config{FS: fs, Dir: "log"})
	if err == nil {
		got, err = frames(l, 0)
	}
	if !maps.EqualFunc(m, files(t, fs, "log"), bytes.Equal) {
		t.Fatalf("%s offset %d: files changed", name, at)
	}
	if err := samePrefix(got, want); err != nil {
		t.Fatalf("%s offset %d: %v", name, at, err)
	}
	switch {
	case errors.Is(err, ErrCorrupt), errors.Is(err, ErrNewerFormat):
		if !bytes.Contains([]byte(err.Error()), []byte(name)) && len(damaged) > headerBytes {
			t.Fatalf("error does not name %s: %v", name, err)
		}
		return "corrupt"
	case err != nil:
		t.Fatalf("%s offset %d: %v", name, at, err)
	case len(got) == len(want):
		return "harmless"
	case name != last:
		t.Fatalf("%s offset %d: %d frames of %d, without an error", name, at, len(got), len(want))
	}
	return "shorter"
}

// TestSegmentThatWasBegunButNotCompleteIsReplaced is a crash in rotation.
func TestSegmentThatWasBegunButNotCompleteIsReplaced(t *testing.T) {
	good, want := sample(t, rand.New(rand.NewPCG(testSeed(t), 4)), true)
	last := slices.Max(slices.Collect(maps.Keys(good)))
	number, _ := segmentNumber(last)
	end := Pos(0)
	for n := range headerBytes + 1 {
		m := maps.Clone(good)
		m[segmentName(number+1)] = make([]byte, n)
		fs := memWith(t, m)
		l := mustOpen(t, Config{FS: fs, Dir: "log"})
		if got := mustFrames(t, l, 0); len(got) != len(want) {
			t.Fatalf("%d frames, want %d", len(got), len(want))
		}
		pos := mustAppend(t, l, 1, []byte("more"))
		if end == 0 {
			end = pos
		}
		if pos != end || pos <= want[len(want)-1].pos {
			t.Fatalf("position %d, want %d", pos, end)
		}
		mustClose(t, l)
		l = mustOpen(t, Config{FS: fs, Dir: "log"})
		if got := mustFrames(t, l, 0); len(got) != len(want)+1 {
			t.Fatalf("%d frames, want %d", len(got), len(want)+1)
		}
	}
}

func TestDamagedOrForeignFilesAreRefused(t *testing.T) {
	first := segment{number: 1, first: 1, salt: 7}
	for _, c := range []struct {
		name  string
		files map[string][]byte
		want  error
	}{
		{"nothing", nil, nil},
		{"files of others", map[string][]byte{"LOCK": nil, "1.wal": []byte("x"), "00000000.wal": nil, "00000001.wal.tmp": nil}, nil},
		{"the first ever was never complete", map[string][]byte{"00000001.wal": first.header()[:9]}, nil},
		{"the only one is not complete and not the first", map[string][]byte{"00000002.wal": first.header()[:9]}, ErrCorrupt},
		{"one before the last is not complete", map[string][]byte{"00000001.wal": nil, "00000002.wal": nil}, ErrCorrupt},
		{"name of another", map[string][]byte{"00000002.wal": first.header()}, ErrCorrupt},
		{"position zero", map[string][]byte{"00000001.wal": (&segment{number: 1}).header()}, ErrCorrupt},
		{"position too high", map[string][]byte{"00000001.wal": (&segment{number: 1, first: maxPos}).header()}, ErrCorrupt},
		{"positions fall", map[string][]byte{
			"00000001.wal": (&segment{number: 1, first: 100}).header(),
			"00000002.wal": (&segment{number: 2, first: 99}).header()}, ErrCorrupt},
		{"a segment is missing", map[string][]byte{
			"00000001.wal": first.header(),
			"00000003.wal": (&segment{number: 3, first: 2}).header()}, ErrCorrupt},
		{"newer format", map[string][]byte{"00000001.wal": newer(first.header())}, ErrNewerFormat},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, err := Open(Config{FS: memWith(t, c.files), Dir: "log"})
			if !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if err == nil && l.Next() != 1 {
				t.Fatalf("next is %d", l.Next())
			}
		})
	}
}
