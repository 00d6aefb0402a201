package store

import (
	"flag"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
	"go.uber.org/goleak"
)

var (
	soak    = flag.Bool("soak", false, "run the model check for a long time")
	verbose = flag.Bool("storelog", false, "log what stores do")
)

func TestMain(m *testing.M) {
	flag.Parse()
	if os.Getenv(benchCaseEnv) != "" {
		runBenchCase()
	}
	// Pebble v2.1.7 (open.go, no issue yet): an Open that fails after it made
	// its compaction scheduler does not stop it. Tests with failing disks do that.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/cockroachdb/pebble/v2.(*ConcurrencyLimitScheduler).periodicGranter"))
}

// testConfig is a store in memory that syncs only when it is told to, and
// after a failure stays as it is.
func testConfig(fs vfs.FS) Config {
	cfg := Config{Dir: "data", FS: fs, MemoryBytes: 1, SyncEvery: time.Hour, SyncBytes: 1 << 40, lockPatience: time.Millisecond,
		healMin: time.Hour, healMax: time.Hour}
	if *verbose {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return cfg
}

func openTest(t testing.TB, fs vfs.FS) *Store {
	t.Helper()
	s, err := Open(testConfig(fs))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// chain makes the ads of one publisher one after the other.
type chain struct {
	publisher, provider peer.ID
	salt                uint64
	prev                AdRef
}

func (c *chain) next() AdRef {
	ref := AdRef{Prev: c.prev.Ad, Pos: c.prev.Pos + 10}
	ref.Ad = testCID(c.salt<<32 | uint64(ref.Pos))
	c.prev = ref
	return ref
}

// ad is the next ad of the chain, about a context.
func (c *chain) ad(ctx, metadata string) Ad {
	return Ad{AdRef: c.next(), Publisher: c.publisher, Provider: c.provider, ContextID: []byte(ctx), Metadata: []byte(metadata)}
}

func newChain(publisher, provider peer.ID) *chain {
	c := &chain{publisher: publisher, provider: provider}
	for _, b := range []byte(publisher) {
		c.salt = c.salt*31 + uint64(b)
	}
	c.salt &= 0xffffff
	return c
}

var (
	content  = Effect{Kind: EffectContent, Verdict: Applied}
	metadata = Effect{Kind: EffectMetadata, Verdict: Applied}
	removal  = Effect{Kind: EffectRemove, Verdict: Applied}
	address  = Effect{Kind: EffectNone, Verdict: Applied}
)

// write applies an ad.
func write(t testing.TB, s *Store, ad Ad, e Effect, mhs ...multihash.Multihash) Seq {
	t.Helper()
	seq, err := tryWrite(s, ad, e, mhs...)
	if err != nil {
		t.Fatal(err)
	}
	return seq
}

func tryWrite(s *Store, ad Ad, e Effect, mhs ...multihash.Multihash) (Seq, error) {
	w, err := s.Begin(ad)
	if err != nil {
		return 0, err
	}
	defer w.Abort()
	if len(mhs) > 0 {
		if err := w.Put(mhs); err != nil {
			return 0, err
		}
	}
	return w.Commit(e)
}

// found returns the metadata of what mh belongs to, by context.
func found(t testing.TB, s *Store, mh multihash.Multihash) map[string]string {
	t.Helper()
	values, err := s.Find(mh)
	if err != nil {
		t.Fatal(err)
	}
	m := make(map[string]string)
	for _, v := range values {
		m[string(v.ContextID)] = string(v.Metadata)
	}
	if len(m) != len(values) {
		t.Fatalf("context twice in %v", values)
	}
	return m
}

func adNames(refs []AdRef) (pos []Position) {
	for _, r := range refs {
		pos = append(pos, r.Pos)
	}
	return pos
}

var testTime = time.Unix(1_700_000_000, 0)
