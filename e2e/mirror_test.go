package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"github.com/signpost-index/signpost/ingest/ipnisync"
	"github.com/signpost-index/signpost/ingest/schema"
)

// TestNewNodeReadsTheMirrorDirectory: the publisher serves its head and nothing
// else, and what is damaged in the mirror.
func TestNewNodeReadsTheMirrorDirectory(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	root := filepath.Join(dir, "mirror")
	mirrorStory(t, dir, root, mirrorDirectory(root))
}

// TestNewNodeReadsTheMirrorBucket: the same with a server that speaks S3. It is
// not parallel, as credentials come from the environment.
func TestNewNodeReadsTheMirrorBucket(t *testing.T) {
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "", "AWS_DEFAULT_REGION": "",
		"AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
	} {
		t.Setenv(name, value)
	}
	backend := s3mem.New()
	if err := backend.CreateBucket("ads"); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(gofakes3.New(backend, gofakes3.WithLogger(gofakes3.DiscardLog())).Server())
	t.Cleanup(srv.Close)
	mirrorStory(t, workDir(t), "s3://ads/some/prefix?endpoint="+srv.URL, mirrorBucket{backend})
}

// mirrorStory has a first node write the mirror at url, and others read it: as
// it was written, and damaged.
func mirrorStory(t *testing.T, dir, url string, files mirrorFiles) {
	c := newChain(t, "mirrored")
	asked := &askedLog{}
	c.addr = c.serve(asked.log(ipnisync.NewHandler(c.mem)))

	want, blocks := make(index), make(map[string][]cid.Cid)
	for n := range 7 {
		name := fmt.Sprint("context ", n)
		mhs := multihashes(name, 250)
		entries := c.entries(mhs, 100)
		ad := c.push(c.ad(name, entries[0]))
		blocks[name] = append([]cid.Cid{ad}, entries...)
		want.with(newHolding(c.id, []byte(name), bitswap), mhs)
	}
	first := startIndexer(t, dir, "first", "--mirror", url)
	c.announce(first.Ingest)
	untilDone(t, first.Ingest, c)
	update := c.ad("context 1", schema.NoEntries)
	update.Metadata = bitswapGateway
	ads := []cid.Cid{c.remove("context 0"), c.push(update)}
	c.announce(first.Ingest)
	untilDone(t, first.Ingest, c)
	want.drop(newHolding(c.id, []byte("context 0"), bitswap), multihashes("context 0", 250))
	want.drop(newHolding(c.id, []byte("context 1"), bitswap), multihashes("context 1", 250))
	want.with(newHolding(c.id, []byte("context 1"), bitswapGateway), multihashes("context 1", 250))
	for _, b := range blocks {
		ads = append(ads, b[0])
	}
	eventually(t, "every ad is in the mirror", func() error {
		for _, ad := range ads {
			if files.read(t, carName(ad)) == nil {
				return fmt.Errorf("ad %s is not", ad)
			}
		}
		return nil
	})

	asked.reset()
	second := startIndexer(t, dir, "second", "--mirror-from", url)
	c.announce(second.Ingest)
	untilDone(t, second.Ingest, c)
	want.mustFind(t, second.Find, "from the mirror alone")
	if got := asked.reset(); len(got) != 0 {
		t.Errorf("with a whole mirror, the publisher was asked for its head and %v", got)
	}

	damage := map[string]func(car []byte) []byte{
		"context 2": func(car []byte) []byte { car[len(car)*3/4] ^= 0x10; return car },
		"context 3": func(car []byte) []byte { return car[:len(car)/2] },
		"context 4": func([]byte) []byte { return nil },
		"context 5": func([]byte) []byte { return files.read(t, carName(blocks["context 6"][0])) },
	}
	for name, change := range damage {
		file := carName(blocks[name][0])
		files.write(t, file, change(files.read(t, file)))
	}
	third := startIndexer(t, dir, "third", "--mirror-from", url)
	c.announce(third.Ingest)
	untilDone(t, third.Ingest, c)
	want.mustFind(t, third.Find, "from a damaged mirror and the publisher")
	got := asked.reset()
	for name := range damage {
		of := make(map[string]bool)
		for _, b := range blocks[name] {
			if got[b.String()] > 0 {
				of[b.String()] = true
				delete(got, b.String())
			}
		}
		whole := name == "context 4" || name == "context 5" // nothing of it is left
		if len(of) == 0 || whole && len(of) != len(blocks[name]) {
			t.Errorf("%s: the publisher was asked for %d of %d blocks", name, len(of), len(blocks[name]))
		}
	}
	if len(got) != 0 {
		t.Errorf("the publisher was asked for what is whole in the mirror: %v", got)
	}
}

func carName(ad cid.Cid) string { return ad.String() + ".car.gz" }

// askedLog counts what a publisher is asked for beside its head: blocks by CID,
// all else by path.
type askedLog struct {
	mu    sync.Mutex
	asked map[string]int
}

func (l *askedLog) log(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		what, ok := strings.CutPrefix(r.URL.Path, ipnisync.Path+"/")
		if !ok {
			what = r.URL.Path
		}
		l.mu.Lock()
		if l.asked == nil {
			l.asked = make(map[string]int)
		}
		if what != "head" {
			l.asked[what]++
		}
		l.mu.Unlock()
		h.ServeHTTP(w, r)
	})
}

// reset begins anew and returns what was counted.
func (l *askedLog) reset() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	asked := l.asked
	l.asked = nil
	return asked
}

// mirrorFiles is how a test gets at the files of a mirror, by their names.
type mirrorFiles interface {
	read(t testing.TB, name string) []byte           // nil: there is none
	write(t testing.TB, name string, content []byte) // nil: removes it
}

// mirrorDirectory is a directory, in whose subdirectories the files are.
type mirrorDirectory string

func (d mirrorDirectory) find(t testing.TB, name string) (file string) {
	t.Helper()
	err := filepath.WalkDir(string(d), func(p string, e fs.DirEntry, err error) error {
		if err == nil && e.Name() == name {
			file = p
			return fs.SkipAll
		}
		return ignoreGone(err)
	})
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func (d mirrorDirectory) read(t testing.TB, name string) []byte {
	t.Helper()
	file := d.find(t, name)
	if file == "" {
		return nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (d mirrorDirectory) write(t testing.TB, name string, content []byte) {
	t.Helper()
	file := d.find(t, name)
	err := os.Remove(file)
	if err == nil && content != nil {
		err = os.WriteFile(file, content, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// mirrorBucket is the bucket ads below some/prefix.
type mirrorBucket struct{ backend *s3mem.Backend }

func (b mirrorBucket) key(name string) string { return path.Join("some/prefix", name) }

func (b mirrorBucket) read(t testing.TB, name string) []byte {
	t.Helper()
	o, err := b.backend.GetObject("ads", b.key(name), nil)
	if gofakes3.HasErrorCode(err, gofakes3.ErrNoSuchKey) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(o.Contents)
	if err = errors.Join(err, o.Contents.Close()); err != nil {
		t.Fatal(err)
	}
	return content
}

func (b mirrorBucket) write(t testing.TB, name string, content []byte) {
	t.Helper()
	_, err := b.backend.DeleteObject("ads", b.key(name))
	if err == nil && content != nil {
		_, err = b.backend.PutObject("ads", b.key(name), nil, bytes.NewReader(content), int64(len(content)), nil)
	}
	if err != nil {
		t.Fatal(err)
	}
}
