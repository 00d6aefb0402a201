package store

import (
	"slices"
	"testing"
)

func TestDeadSet(t *testing.T) {
	var d deadSet
	rng := modelSeed(t)
	want := make(map[uint64]bool)
	id := func() uint64 { return uint64(rng.IntN(5))*deadPageIDs*uint64(rng.IntN(3))/2 + uint64(rng.IntN(200)) }
	for range 4000 {
		n := id()
		if rng.IntN(3) > 0 {
			epoch := d.epoch.Load()
			d.add([]uint64{n})
			if d.epoch.Load() == epoch {
				t.Fatal("an ID became dead in the same epoch")
			}
			want[n] = true
		} else {
			d.forget([]uint64{n})
			delete(want, n)
		}
		probe := id()
		if d.has(probe) != want[probe] || d.alive(probe) == want[probe] {
			t.Fatalf("ID %d: dead %v, want %v", probe, d.has(probe), want[probe])
		}
		first := id()
		last := first + uint64(rng.IntN(2*deadPageIDs))
		any := false
		for n := range want {
			any = any || n >= first && n <= last
		}
		if d.anyIn(first, last) != any {
			t.Fatalf("IDs %d to %d: any dead %v, want %v", first, last, !any, any)
		}
	}
	d.forget(slices.Collect(func(yield func(uint64) bool) {
		for n := range want {
			if !yield(n) {
				return
			}
		}
	}))
	for i := range *d.pages.Load() {
		if d.page(uint64(i)) != nil {
			t.Errorf("page %d is kept although it is empty", i)
		}
	}
}
