package store

import (
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

func TestAliveSetIsASet(t *testing.T) {
	rng := modelSeed(t)
	var a aliveSet
	want := make(map[uint64]bool)
	const span = 5 * alivePageBits
	for range 20_000 {
		id := rng.Uint64N(span) &^ (rng.Uint64N(2) * 63) // some words are full of nothing
		switch rng.IntN(3) {
		case 0:
			a.remove([]uint64{id, id, span * 9})
			delete(want, id)
		default:
			a.add(id)
			want[id] = true
		}
		probe := rng.Uint64N(2 * span)
		if a.has(id) != want[id] || a.has(probe) != want[probe] {
			t.Fatalf("%d is %v, want %v; %d is %v, want %v", id, a.has(id), want[id], probe, a.has(probe), want[probe])
		}
	}
	for id := range want {
		a.remove([]uint64{id})
	}
	for i := range *a.dir.Load() {
		if a.page(uint64(i)) != nil {
			t.Errorf("page %d is kept empty", i)
		}
	}
}

// TestAliveSetIsAskedWhileItGrows: an ID that was added stays found.
func TestAliveSetIsAskedWhileItGrows(t *testing.T) {
	var a aliveSet
	a.add(3)
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			rng := rand.New(rand.NewPCG(1, 1))
			for {
				select {
				case <-done:
					return
				default:
				}
				a.has(rng.Uint64N(60 * alivePageBits))
				if !a.has(3) {
					t.Error("lost an ID")
					return
				}
			}
		})
	}
	for id := uint64(0); id < 50*alivePageBits; id += 1000 {
		a.add(id)
	}
	close(done)
	readers.Wait()
}

func TestRecordIDsNotHandedOutAreCorrupt(t *testing.T) {
	fs := vfs.NewMem()
	s := openTest(t, fs)
	write(t, s, newChain("pub", "prov").ad("a", "m"), content, testMH(1))
	if err := s.db.Set(ownerKey(1<<60), nil, pebble.NoSync); err != nil {
		t.Fatal(err)
	}
	var a aliveSet
	if err := a.load(s.db); !errors.Is(err, ErrCorrupt) {
		t.Errorf("load: %v, want ErrCorrupt", err)
	}
}
