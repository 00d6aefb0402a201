package postings

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func TestPutIsFoundBeforeAndAfterFlush(t *testing.T) {
	x := openTest(t, memConfig())
	a, b := testHash(1), testHash(2)
	put(t, x, 5, 100, a)
	put(t, x, 6, 7, a, b)
	put(t, x, 6, 7, a)
	wantIDs(t, x, a, 7, 100)
	if x.Flushed() != 0 {
		t.Errorf("flushed %d before flush", x.Flushed())
	}
	flush(t, x)
	wantIDs(t, x, a, 7, 100)
	wantIDs(t, x, b, 7)
	wantIDs(t, x, testHash(3))
	if x.Flushed() != 6 {
		t.Errorf("flushed %d, want 6", x.Flushed())
	}
	put(t, x, 7, 8, a)
	wantIDs(t, x, a, 7, 8, 100)
	got, err := x.FindBatch([]Hash{b, testHash(3), a, a}, 2)
	if err != nil || fmt.Sprint(got) != "[[7] [] [7 8] [7 8]]" {
		t.Errorf("batch: %v, %v", got, err)
	}
	if got, err := x.AppendFind([]uint64{1}, a, 1); err != nil || !slices.Equal(got, []uint64{1, 7}) {
		t.Errorf("limit 1: %v, %v", got, err)
	}
}

func TestPositionsDoNotGoBack(t *testing.T) {
	x := openTest(t, memConfig())
	put(t, x, 5, 1, testHash(1))
	if err := x.Put(4, 1, nil); !errors.Is(err, ErrPosition) {
		t.Errorf("backwards: %v", err)
	}
	flush(t, x)
	if err := x.Put(5, 1, nil); !errors.Is(err, ErrPosition) {
		t.Errorf("at what was flushed: %v", err)
	}
	put(t, x, 9, 1)
	flush(t, x)
	if x.Flushed() != 9 {
		t.Errorf("a put of nothing moves the mark: %d, want 9", x.Flushed())
	}
}

func TestReopenHasWhatWasFlushed(t *testing.T) {
	cfg := memConfig()
	x := openTest(t, cfg)
	put(t, x, 3, 1, testHash(1))
	flush(t, x)
	put(t, x, 4, 1, testHash(2))
	if err := errors.Join(x.Close(), x.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := x.Find(testHash(1)); !errors.Is(err, ErrClosed) {
		t.Errorf("find after close: %v", err)
	}
	if err := x.Put(9, 1, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("put after close: %v", err)
	}
	x = openTest(t, cfg)
	if x.Flushed() != 3 {
		t.Errorf("flushed %d, want 3", x.Flushed())
	}
	wantIDs(t, x, testHash(1), 1)
	wantIDs(t, x, testHash(2))
}

func TestAnotherSecretIsRefused(t *testing.T) {
	cfg := memConfig()
	if err := openTest(t, cfg).Close(); err != nil {
		t.Fatal(err)
	}
	cfg.Secret[3] = 1
	if _, err := Open(cfg); !errors.Is(err, ErrSecret) {
		t.Errorf("got %v", err)
	}
}

func TestNewerFormatIsRefused(t *testing.T) {
	b := (&meta{}).encode()
	b[0] = formatNumber + 1
	if _, err := decodeMeta(b); !errors.Is(err, ErrNewerFormat) {
		t.Errorf("got %v", err)
	}
}

func TestTheDeadAreNotFound(t *testing.T) {
	cfg := memConfig()
	var dead atomic.Uint64
	cfg.Alive = func(id uint64) bool { return id != dead.Load() }
	x := openTest(t, cfg)
	h := testHash(1)
	put(t, x, 1, 1, h)
	put(t, x, 1, 2, h)
	flush(t, x)
	put(t, x, 2, 3, h)
	wantIDs(t, x, h, 1, 2, 3)
	dead.Store(2)
	wantIDs(t, x, h, 1, 3)
}

func TestOneHashInManyRecords(t *testing.T) {
	x := openTest(t, memConfig())
	h, other := testHash(1), testHash(2)
	const n = 30_000
	for id := range uint64(n) {
		put(t, x, id+1, id, h)
	}
	put(t, x, n+1, 5, other)
	flush(t, x)
	got, err := x.Find(h)
	if err != nil || len(got) != n || got[n-1] != n-1 {
		t.Errorf("%d IDs, %v", len(got), err)
	}
	got, err = x.AppendFind(nil, h, 50)
	if err != nil || len(got) != 50 {
		t.Errorf("%d IDs, %v", len(got), err)
	}
	wantIDs(t, x, other, 5)
}

// TestIndexAgainstMap plays puts, flushes, finds, reopens and deaths against a
// map, with splits as it grows.
func TestIndexAgainstMap(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	m := newModel(rng, Config{FS: vfs.NewMem(), Dir: "data", MemoryBytes: 1, fill: 2, patience: 1})
	m.x = openTest(t, m.cfg)
	for range soak(250) {
		m.step(t)
	}
	m.check(t, 0)
	if m.widest() == minWidth {
		t.Error("nothing was split")
	}
}

// model is an index and what it should say.
type model struct {
	cfg  Config
	x    *Index
	rng  *rand.Rand
	pos  uint64
	puts []modelPut
	dead sync.Map
}

type modelPut struct{ pos, id, first, n uint64 }

func newModel(rng *rand.Rand, cfg Config) *model {
	m := &model{rng: rng}
	cfg.Alive = func(id uint64) bool { _, dead := m.dead.Load(id); return !dead }
	m.cfg = cfg
	return m
}

const modelHashes = 120_000

func (m *model) step(t *testing.T) {
	t.Helper()
	switch k := m.rng.IntN(100); {
	case k < 5:
		flush(t, m.x)
		if m.x.Flushed() != m.pos {
			t.Fatalf("flushed %d, want %d", m.x.Flushed(), m.pos)
		}
	case k == 5:
		if err := m.x.Close(); err != nil {
			t.Fatal(err)
		}
		m.x = openTest(t, m.cfg)
		m.replay(t)
	case k < 10:
		m.dead.Store(m.rng.Uint64N(60), true)
	case k < 20:
		m.checkSome(t)
	default:
		m.put(t)
	}
}

func (m *model) put(t *testing.T) {
	t.Helper()
	id := m.rng.Uint64N(60)
	if !m.cfg.Alive(id) {
		id += 1000
	}
	p := modelPut{m.pos + m.rng.Uint64N(2), id, m.rng.Uint64N(modelHashes), m.rng.Uint64N(2000)}
	if p.pos == m.x.Flushed() || p.pos == 0 || m.x.sealed == p.pos {
		p.pos++
	}
	m.pos = p.pos
	m.puts = append(m.puts, p)
	put(t, m.x, p.pos, p.id, testHashes(p.first, p.n)...)
}

// replay is what the owner of the log does after opening.
func (m *model) replay(t *testing.T) {
	t.Helper()
	from := m.x.Flushed()
	for _, p := range m.puts {
		if p.pos > from {
			put(t, m.x, p.pos, p.id, testHashes(p.first, p.n)...)
		}
	}
}

// want is what a hash should have of puts up to a position.
func (m *model) want(n, upTo uint64) (ids []uint64) {
	for _, p := range m.puts {
		if p.first <= n && n < p.first+p.n && p.pos <= upTo && m.cfg.Alive(p.id) {
			ids = append(ids, p.id)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

func (m *model) checkSome(t *testing.T) {
	t.Helper()
	n := m.rng.Uint64N(modelHashes)
	wantIDs(t, m.x, testHash(n), m.want(n, m.pos)...)
	first := m.rng.Uint64N(modelHashes)
	got, err := m.x.FindBatch(testHashes(first, 100), 0)
	if err != nil {
		t.Fatal(err)
	}
	for i, ids := range got {
		if want := m.want(first+uint64(i), m.pos); !slices.Equal(ids, want) {
			t.Fatalf("batch: %d: got %d, want %d", first+uint64(i), ids, want)
		}
	}
}

// check compares a sample of all hashes.
func (m *model) check(t *testing.T, offset uint64) {
	t.Helper()
	for n := offset; n < modelHashes; n += 37 {
		wantIDs(t, m.x, testHash(n), m.want(n, m.pos)...)
	}
}

func (m *model) widest() (w uint) {
	for _, r := range m.x.meta.Load().regions {
		w = max(w, r.width)
	}
	return w
}

// TestFindsBesidePuts: what a Put returned from is found at every moment
// after, through flushes and splits.
func TestFindsBesidePuts(t *testing.T) {
	cfg := memConfig()
	cfg.fill, cfg.patience = 1, 1
	x := openTest(t, cfg)
	const batch, batches = 500, 200
	var done atomic.Uint64
	var readers sync.WaitGroup
	for r := range 2 {
		readers.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(r), 9))
			for n := uint64(0); n < batches; n = done.Load() {
				if n == 0 {
					continue
				}
				i := rng.Uint64N(n * batch)
				got, err := x.Find(testHash(i))
				if err != nil || !slices.Equal(got, []uint64{i / batch}) {
					t.Errorf("%d: got %v, %v", i, got, err)
					done.Store(batches)
					return
				}
				all, err := x.FindBatch([]Hash{testHash(i), testHash(i / 2)}, 0)
				if err != nil || len(all[0]) != 1 || len(all[1]) != 1 {
					t.Errorf("%d: batch: %v, %v", i, all, err)
					done.Store(batches)
					return
				}
			}
		})
	}
	for b := range uint64(batches) {
		put(t, x, b+1, b, testHashes(b*batch, batch)...)
		if done.CompareAndSwap(b, b+1); done.Load() != b+1 {
			break
		}
	}
	readers.Wait()
}
