package wal

import (
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// FuzzReplay opens a log of two arbitrary segments, whose headers may be set
// right, and appends to what was found.
func FuzzReplay(f *testing.F) {
	fs := vfs.NewMem()
	l, err := Open(Config{FS: fs, Dir: "log"})
	if err != nil {
		f.Fatal(err)
	}
	l.salt = 0
	for _, s := range []string{"", "a", "a longer payload"} {
		if _, err := l.Append(3, []byte(s)); err != nil {
			f.Fatal(err)
		}
		if _, err := l.Sync(); err != nil {
			f.Fatal(err)
		}
	}
	whole := files(f, fs, "log")["00000001.wal"]
	f.Add(whole, []byte(nil), false)
	f.Add(whole[headerBytes:], []byte(nil), true)
	f.Add(whole[headerBytes:], whole[headerBytes:], true)
	f.Add(whole[headerBytes:len(whole)-9], make([]byte, 100), true)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff}, []byte{4, 0, 0, 1, 0}, true)
	f.Fuzz(func(t *testing.T, a, b []byte, headers bool) {
		if headers {
			a = append((&segment{number: 1, first: 1}).header(), a...)
			b = append((&segment{number: 2, first: Pos(len(a)) - headerBytes + 1}).header(), b...)
		}
		fs := memWith(t, map[string][]byte{"00000001.wal": a, "00000002.wal": b})
		cfg := Config{FS: fs, Dir: "log"}
		l, err := Open(cfg)
		var found []frame
		if err == nil {
			found, err = frames(l, 0)
		}
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNewerFormat) {
				t.Fatal(err)
			}
			return
		}
		more := frame{kind: 9, payload: []byte("more")}
		more.pos = mustAppend(t, l, more.kind, more.payload)
		mustClose(t, l)
		want := append(found, more)
		got := mustFrames(t, mustOpen(t, cfg), 0)
		if len(got) != len(want) {
			t.Fatalf("%d frames, want %d", len(got), len(want))
		}
		if err := samePrefix(got, want); err != nil {
			t.Fatal(err)
		}
	})
}
