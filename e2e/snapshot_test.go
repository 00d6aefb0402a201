package e2e

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
)

// TestDestroyedNodeIsRestored: a snapshot is taken under ingest load, the node
// is killed and its directory removed; what is restored catches up from the
// chain by itself, and every multihash is found.
func TestDestroyedNodeIsRestored(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	restoreStory(t, dir, filepath.Join(dir, "place"))
}

// TestDestroyedNodeIsRestoredFromABucket: the same with a server that speaks S3.
// It is not parallel, as credentials come from the environment.
func TestDestroyedNodeIsRestoredFromABucket(t *testing.T) {
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "", "AWS_DEFAULT_REGION": "",
		"AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
	} {
		t.Setenv(name, value)
	}
	backend := s3mem.New()
	if err := backend.CreateBucket("backup"); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(gofakes3.New(backend, gofakes3.WithLogger(gofakes3.DiscardLog())).Server())
	t.Cleanup(srv.Close)
	restoreStory(t, workDir(t), "s3://backup/node?endpoint="+srv.URL)
}

// snapshotTaken is what snapshot --json prints.
type snapshotTaken struct {
	Snapshot           string
	Files, CopiedFiles int
	Bytes, CopiedBytes int64
	Seconds            float64
}

func takeSnapshot(t testing.TB, ix *indexer, place string, flags ...string) (s snapshotTaken) {
	t.Helper()
	out := commandOK(t, append([]string{"snapshot", place, "--json", "--admin", ix.Admin}, flags...)...).stdout
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	return s
}

func restoreStory(t *testing.T, dir, place string) {
	c := newChain(t, "restored")
	want := make(index)
	publish := func(from, to int) {
		for n := from; n < to; n++ {
			name := fmt.Sprint("context ", n)
			mhs := multihashes(name, 100)
			c.add(name, mhs)
			want.with(newHolding(c.id, []byte(name), bitswap), mhs)
		}
	}
	ix := startIndexer(t, dir, "node")
	publish(0, 20)
	c.announce(ix.Ingest)
	untilDone(t, ix.Ingest, c)
	commandOK(t, "store", "compact", "--admin", ix.Admin) // so that there are tables
	first := takeSnapshot(t, ix, place)
	publish(20, 220)
	c.announce(ix.Ingest)
	second := takeSnapshot(t, ix, place, "--keep", "2") // while the ads come in
	if second.CopiedFiles >= second.Files || second.Snapshot <= first.Snapshot {
		t.Errorf("first %+v, second %+v: want a part of it copied", first, second)
	}
	untilDone(t, ix.Ingest, c)
	publish(220, 240)
	c.remove("context 3")
	want.drop(newHolding(c.id, []byte("context 3"), bitswap), multihashes("context 3", 100))
	c.announce(ix.Ingest)
	untilDone(t, ix.Ingest, c)

	safe := filepath.Join(dir, "safe")
	if err := os.Mkdir(safe, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"identity.key", "index-secret"} {
		b, err := os.ReadFile(filepath.Join(ix.dir, key))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(safe, key), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ix.kill()
	if err := os.RemoveAll(ix.dir); err != nil {
		t.Fatal(err)
	}
	restore := []string{"restore", place, "--data", ix.dir, "--identity", filepath.Join(safe, "identity.key"), "--index-secret"}
	refused(t, "without the index secret", "--index-secret", restore[:len(restore)-1]...)
	other := filepath.Join(dir, "other")
	if err := os.WriteFile(other, make([]byte, 32), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, "with another pool's secret", "secret", append(restore, other)...)
	if _, err := os.Stat(ix.dir); err == nil {
		t.Error("what was refused has made the directory")
	}
	restore = append(restore, filepath.Join(safe, "index-secret"))
	commandOK(t, restore...)
	refused(t, "over a data directory", "not empty", restore...)
	commandOK(t, "check", ix.dir)
	ix.restart()
	eventually(t, "the restored node has caught up", func() error { return want.check(ix.Find) })
	untilDone(t, ix.Ingest, c)
	commandOK(t, "store", "check", "--admin", ix.Admin)
	if third := takeSnapshot(t, ix, place, "--keep", "1"); third.Snapshot <= second.Snapshot {
		t.Errorf("third %+v", third)
	}
	if list := commandOK(t, "restore", place, "--list", "--json").stdout; strings.Count(list, `"Snapshot"`) != 1 {
		t.Errorf("left: %s", list)
	}
}

func refused(t testing.TB, when, why string, args ...string) {
	t.Helper()
	if r := command(t, args...); r.code == 0 || !strings.Contains(r.stderr, why) {
		t.Errorf("%s: status %d, %s, want a refusal that names %q", when, r.code, r.stderr, why)
	}
}
