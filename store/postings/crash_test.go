package postings

import (
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestPowerLoss cuts the power at random points of puts, flushes, compactions
// and splits: after each, exactly what Flushed says is there, of the rest no
// more than was put, and with the rest put again all is well.
func TestPowerLoss(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	disk := vfs.NewCrashableMem()
	m := newModel(rng, Config{FS: disk, Dir: "data", MemoryBytes: 1, fill: 1, patience: 1})
	m.x = openTest(t, m.cfg)
	for range soak(5) {
		for range 3 + rng.IntN(40) {
			m.put(t)
			if rng.IntN(20) == 0 {
				flush(t, m.x)
			}
		}
		// Work goes on in the background while the disk is copied.
		flushed := m.x.Flushed()
		disk = disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
		if err := m.x.Close(); err != nil {
			t.Fatal(err)
		}
		m.cfg.FS = disk
		m.x = openTest(t, m.cfg)
		if m.x.Flushed() < flushed {
			t.Fatalf("flushed fell from %d to %d", flushed, m.x.Flushed())
		}
		m.checkBetween(t)
		m.replay(t)
		m.check(t, rng.Uint64N(37))
	}
}

// checkBetween: everything up to Flushed is found, and nothing that was never
// put.
func (m *model) checkBetween(t *testing.T) {
	t.Helper()
	for n := m.rng.Uint64N(23); n < modelHashes; n += 23 {
		got, err := m.x.Find(testHash(n))
		if err != nil {
			t.Fatal(err)
		}
		has := make(map[uint64]bool)
		for _, id := range got {
			has[id] = true
		}
		for _, id := range m.want(n, m.x.Flushed()) {
			if !has[id] {
				t.Fatalf("%d of record %d is lost", n, id)
			}
		}
		for _, id := range m.want(n, m.pos) {
			delete(has, id)
		}
		if len(has) > 0 {
			t.Fatalf("%d is in %v", n, has)
		}
	}
}
