package snapshot

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/goleak"

	"github.com/signpost-index/signpost/store"
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

var (
	testNode  = peerID("12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp")
	otherNode = peerID("12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo")
)

func peerID(text string) peer.ID {
	id, err := peer.Decode(text)
	if err != nil {
		panic(err)
	}
	return id
}

var testSecret = bytes.Repeat([]byte{7}, 32)

// s3Server starts an S3 server in this process with the bucket "backup". wrap
// may be nil.
func s3Server(t testing.TB, wrap func(http.Handler) http.Handler) *httptest.Server {
	t.Helper()
	backend := s3mem.New()
	if err := backend.CreateBucket("backup"); err != nil {
		t.Fatal(err)
	}
	h := gofakes3.New(backend, gofakes3.WithLogger(gofakes3.DiscardLog())).Server()
	if wrap != nil {
		h = wrap(h)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv
}

// eachPlace runs a test with an empty place of each kind.
func eachPlace(t *testing.T, test func(t *testing.T, url string)) {
	t.Run("directory", func(t *testing.T) { test(t, filepath.Join(t.TempDir(), "place")) })
	t.Run("bucket", func(t *testing.T) {
		test(t, "s3://backup/some/node?endpoint="+s3Server(t, nil).URL)
	})
}

// tree is a directory as a map from paths to contents.
type tree map[string]string

// checkpoint is a tree that looks like a store's checkpoint.
func checkpoint(tables ...string) tree {
	c := tree{"FORMAT": fmt.Sprintf("signpost-store %d\n", store.FormatNumber), "rows/MANIFEST-000001": strings.Join(tables, " "), "log/empty": ""}
	for _, name := range tables {
		c["rows/"+name+".sst"] = content(name)
	}
	return c
}

// content is of a size of its own for each name.
func content(name string) string {
	r := rand.New(rand.NewPCG(uint64(len(name)), uint64(name[0])))
	b := make([]byte, 3*copyBytes/2+int(name[0]))
	for n := range b {
		b[n] = byte(r.Uint32())
	}
	return string(b)
}

// write makes the tree in a new directory. Files change when their names say, as
// links to a table do.
func (c tree) write(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range c {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, ".sst") {
			at := time.Unix(1_000_000_000+int64(name[len("rows/")]), 0)
			if err := os.Chtimes(file, at, at); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

func readTree(t testing.TB, dir string) tree {
	t.Helper()
	c := tree{}
	err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(file)
		rel, relErr := filepath.Rel(dir, file)
		c[filepath.ToSlash(rel)] = string(b)
		if err == nil {
			err = relErr
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func head() Manifest {
	return Manifest{Time: time.Now(), Node: testNode, Format: store.FormatNumber, Secret: store.SecretID(testSecret)}
}

func take(t testing.TB, url string, c tree, change ...func(*TakeConfig)) Taken {
	t.Helper()
	cfg := TakeConfig{URL: url, Checkpoint: c.write(t), Head: head()}
	for _, f := range change {
		f(&cfg)
	}
	taken, err := Take(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return taken
}

func wantRestored(t testing.TB, url, id string, c tree) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	if _, err := Restore(t.Context(), RestoreConfig{URL: url, ID: id, Dir: dir, Secret: testSecret}); err != nil {
		t.Fatal(err)
	}
	got := readTree(t, dir)
	if got["index-secret"] != string(testSecret) {
		t.Error("the index secret was not written")
	}
	delete(got, "index-secret")
	for name, text := range c {
		if got["store/"+name] != text {
			t.Errorf("%s is not what it was", name)
		}
		delete(got, "store/"+name)
	}
	if len(got) > 0 {
		t.Errorf("%d files too many", len(got))
	}
}
