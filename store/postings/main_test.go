package postings

import (
	"encoding/binary"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// Pebble v2.1.7 (open.go, no issue yet): an Open that fails after it made
	// its compaction scheduler does not stop it. Tests with failing disks do that.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/cockroachdb/pebble/v2.(*ConcurrencyLimitScheduler).periodicGranter"))
}

func openTest(t testing.TB, cfg Config) *Index {
	t.Helper()
	x, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	})
	return x
}

func memConfig() Config { return Config{FS: vfs.NewMem(), Dir: "data", MemoryBytes: 1} }

// testHash is the n-th hash of the tests.
func testHash(n uint64) Hash {
	var s Secret
	return s.HashOf(binary.LittleEndian.AppendUint64(nil, n))
}

func testHashes(first, n uint64) (hs []Hash) {
	for i := range n {
		hs = append(hs, testHash(first+i))
	}
	return hs
}

func put(t testing.TB, x *Index, pos, id uint64, hs ...Hash) {
	t.Helper()
	if err := x.Put(pos, id, hs); err != nil {
		t.Fatal(err)
	}
}

func flush(t testing.TB, x *Index) {
	t.Helper()
	if err := x.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func wantIDs(t testing.TB, x *Index, h Hash, want ...uint64) {
	t.Helper()
	got, err := x.Find(h)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("%x: got %d, want %d", h, got, want)
	}
}

// soak multiplies the length of a random test by POSTINGS_SOAK.
func soak(n int) int {
	if by, err := strconv.Atoi(os.Getenv("POSTINGS_SOAK")); err == nil {
		return n * by
	}
	return n
}
