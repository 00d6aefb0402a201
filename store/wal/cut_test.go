package wal

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestCutLeavesWhatStandsBeforeTheDamage: wherever a byte is changed or a
// segment is missing, the log opens afterwards, replays a beginning of what was
// appended, and what was there is aside.
func TestCutLeavesWhatStandsBeforeTheDamage(t *testing.T) {
	rng := rand.New(rand.NewPCG(testSeed(t), 7))
	m, all := sample(t, rng, true)
	names := slices.Sorted(maps.Keys(m))
	step := 5
	if *soak {
		step = 1
	}
	for n, name := range names {
		for at := rng.IntN(step); at < len(m[name]); at += step {
			damaged := maps.Clone(m)
			damaged[name] = bytes.Clone(m[name])
			damaged[name][at] ^= byte(1 + rng.IntN(255))
			mustCut(t, fmt.Sprintf("%s at %d", name, at), damaged, all)
		}
		if n > 0 {
			missing := maps.Clone(m)
			delete(missing, name)
			mustCut(t, name+" missing", missing, all)
		}
	}
}

func mustCut(t *testing.T, what string, m map[string][]byte, all []frame) {
	t.Helper()
	mem := memWith(t, m)
	cfg := Config{FS: mem, Dir: "log"}
	if err := mem.MkdirAll("aside", 0o755); err != nil {
		t.Fatal(err)
	}
	damaged := false
	if l, err := Open(cfg); err != nil {
		damaged = true
	} else {
		_, err := frames(l, 0)
		damaged = err != nil
		_ = l.Close()
	}
	changed, err := Cut(cfg, "aside")
	if err != nil || damaged && len(changed) == 0 {
		t.Fatalf("%s: damaged %v, changed %v, %v", what, damaged, changed, err)
	}
	aside := files(t, mem, "aside")
	for _, name := range changed {
		if !bytes.Equal(aside[name], m[name]) {
			t.Fatalf("%s: %s is not aside as it was", what, name)
		}
	}
	l, err := Open(cfg)
	if err != nil {
		t.Fatalf("%s: afterwards: %v", what, err)
	}
	got, err := frames(l, 0)
	if err != nil {
		t.Fatalf("%s: afterwards: %v", what, err)
	}
	mustClose(t, l)
	if len(got) > len(all) {
		t.Fatalf("%s: %d frames of %d", what, len(got), len(all))
	}
	for n, f := range got {
		if !f.equal(all[n]) {
			t.Fatalf("%s: frame %d is not what was appended", what, n)
		}
	}
	if again, err := Cut(cfg, "aside"); err != nil || len(again) > 0 {
		t.Fatalf("%s: cut twice: %v, %v", what, again, err)
	}
}
