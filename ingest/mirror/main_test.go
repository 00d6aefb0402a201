package mirror

import (
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"go.uber.org/goleak"

	"github.com/signpost-index/signpost/ingest/schema"
)

func TestMain(m *testing.M) {
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "", "AWS_DEFAULT_REGION": "",
		"AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
	} {
		os.Setenv(name, value)
	}
	goleak.VerifyTestMain(m)
}

// s3Server starts an S3 server in this process with the bucket "ads".
func s3Server(t testing.TB) (*httptest.Server, *s3mem.Backend) {
	t.Helper()
	backend := s3mem.New()
	if err := backend.CreateBucket("ads"); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(gofakes3.New(backend, gofakes3.WithLogger(gofakes3.DiscardLog())).Server())
	t.Cleanup(srv.Close)
	return srv, backend
}

// placesOf are configurations of an empty mirror for each kind of place.
func placesOf(t *testing.T) map[string]Config {
	srv, _ := s3Server(t)
	flat := t.TempDir()
	if err := os.WriteFile(filepath.Join(flat, "README"), nil, 0o644); err != nil {
		t.Fatal(err) // so that it is not empty
	}
	return map[string]Config{
		"directory":    {URL: "file://" + t.TempDir()},
		"flat":         {URL: flat},
		"bucket":       {URL: "s3://ads/some/prefix?endpoint=" + srv.URL},
		"uncompressed": {URL: t.TempDir(), Uncompressed: true},
	}
}

// eachPlace runs a test on each kind of place.
func eachPlace(t *testing.T, test func(t *testing.T, cfg Config)) {
	for name, cfg := range placesOf(t) {
		t.Run(name, func(t *testing.T) { test(t, cfg) })
	}
}

// open opens a mirror for reading and writing until the test ends.
func open(t testing.TB, cfg Config) *Mirror {
	t.Helper()
	if cfg.SpoolDir == "" {
		cfg.SpoolDir = t.TempDir()
	}
	return openAs(t, cfg)
}

func openAs(t testing.TB, cfg Config) *Mirror {
	t.Helper()
	m, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

type block struct {
	c    cid.Cid
	data []byte
}

// blockOf is a block that nothing but its bytes matters of, n of them, always
// the same for a seed.
func blockOf(seed uint64, n int) block {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	b := make([]byte, n)
	rand.NewChaCha8(key).Read(b)
	return block{schema.LinkOf(schema.DagCBOR, b), b}
}

// adOf is an ad and its entries, n blocks.
func adOf(seed uint64, n int) []block {
	blocks := []block{blockOf(seed<<16, 700)}
	for i := range n {
		blocks = append(blocks, blockOf(seed<<16+uint64(i)+1, 3000))
	}
	return blocks
}

func entriesOf(blocks []block) cid.Cid {
	if len(blocks) == 1 {
		return schema.NoEntries
	}
	return blocks[1].c
}

// begin creates a writer and gives it the blocks.
func begin(t testing.TB, m *Mirror, blocks []block) *Writer {
	t.Helper()
	w, err := m.Create(blocks[0].c, entriesOf(blocks))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blocks {
		if err := w.Block(b.c, b.data); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func write(t testing.TB, m *Mirror, blocks []block) {
	t.Helper()
	if err := begin(t, m, blocks).Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// expect reads the ad and its entries, both ways, and compares.
func expect(t testing.TB, m *Mirror, blocks []block) {
	t.Helper()
	ad, err := m.Ad(t.Context(), blocks[0].c)
	if err != nil {
		t.Fatal(err)
	}
	if string(ad) != string(blocks[0].data) {
		t.Errorf("ad %s has other bytes", blocks[0].c)
	}
	byOrder, byCID := entries(t, m, blocks[0].c), entries(t, m, blocks[0].c)
	for _, b := range blocks[1:] {
		c, data, err := byOrder.Next()
		if err != nil || c != b.c || string(data) != string(b.data) {
			t.Fatalf("next block %s with %d bytes: %v, want %s", c, len(data), err, b.c)
		}
		data, err = byCID.Block(b.c)
		if err != nil || string(data) != string(b.data) {
			t.Fatalf("block %s with %d bytes: %v", b.c, len(data), err)
		}
	}
	if _, _, err := byOrder.Next(); err != io.EOF {
		t.Errorf("behind the last block: %v, want EOF", err)
	}
}

func entries(t testing.TB, m *Mirror, ad cid.Cid) *Entries {
	t.Helper()
	e, err := m.Entries(t.Context(), ad)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

// filesBelow are the paths of all files below dir.
func filesBelow(t testing.TB, dir string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(dir, path)
			found = append(found, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
