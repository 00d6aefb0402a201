package mirror

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/johannesboyne/gofakes3"

	"github.com/signpost-index/signpost/ingest/schema"
)

func TestNothingIsVisibleBeforeCommitOrAfterAbort(t *testing.T) {
	eachPlace(t, func(t *testing.T, cfg Config) {
		m := open(t, cfg)
		blocks := adOf(1, 3)
		w := begin(t, m, blocks)
		if has, err := m.Has(t.Context(), blocks[0].c); has || err != nil {
			t.Errorf("visible before Commit: %v, %v", has, err)
		}
		w.Abort()
		w.Abort()
		if err := w.Commit(t.Context()); err == nil {
			t.Error("Commit after Abort")
		}
		if err := w.Block(blocks[1].c, blocks[1].data); err == nil {
			t.Error("Block after Abort")
		}
		if has, err := m.Has(t.Context(), blocks[0].c); has || err != nil {
			t.Errorf("visible after Abort: %v, %v", has, err)
		}
		expectEmptySpool(t, m)
	})
}

func expectEmptySpool(t *testing.T, m *Mirror) {
	t.Helper()
	if used, left := m.spool.used.Load(), filesBelow(t, m.spool.dir); used != 0 || len(left) != 1 {
		t.Errorf("spool: %d bytes in use, files %v; want the lock alone", used, left)
	}
}

func TestAWriterRefusesWhatNoReaderWouldTake(t *testing.T) {
	m := open(t, Config{URL: t.TempDir(), MaxFileBytes: 20_000})
	ad := adOf(1, 8)
	for _, tt := range []struct {
		name   string
		blocks []block
		want   error // nil: any
	}{
		{"nothing", nil, nil},
		{"another ad", []block{ad[1]}, nil},
		{"other entries", []block{ad[0], ad[2]}, nil},
		{"no entries", []block{ad[0]}, nil},
		{"large ad", []block{{ad[0].c, make([]byte, schema.MaxAdBytes+1)}}, ErrTooLarge},
		{"large block", []block{ad[0], {ad[1].c, make([]byte, schema.MaxBlockBytes+1)}}, ErrTooLarge},
		{"large file", ad, ErrTooLarge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, err := m.Create(ad[0].c, ad[1].c)
			if err != nil {
				t.Fatal(err)
			}
			var first error
			for _, b := range tt.blocks {
				err := w.Block(b.c, b.data)
				if first == nil {
					first = err
				} else if err == nil {
					t.Error("a block is taken after an error")
				}
			}
			err = w.Commit(t.Context())
			if err == nil {
				t.Error("committed")
			}
			if tt.want != nil && (!errors.Is(first, tt.want) || !errors.Is(err, tt.want)) {
				t.Errorf("errors %v, %v, want %v", first, err, tt.want)
			}
			expectEmptySpool(t, m)
		})
	}
	if has, err := m.Has(t.Context(), ad[0].c); has || err != nil {
		t.Errorf("visible: %v, %v", has, err)
	}
	if _, err := m.Create(cid.Undef, ad[1].c); err == nil {
		t.Error("an undefined ad is written")
	}
}

func TestTheSpoolIsBounded(t *testing.T) {
	m := open(t, Config{URL: t.TempDir(), MaxSpoolBytes: 200_000})
	one, other := blockOf(1, 150_000), blockOf(2, 150_000)
	w := begin(t, m, []block{one})
	defer w.Abort()
	w2, err := m.Create(other.c, cid.Undef)
	if err != nil {
		t.Fatal(err)
	}
	w2.Block(other.c, other.data)
	if err := w2.Commit(t.Context()); !errors.Is(err, ErrSpoolFull) {
		t.Errorf("second file: %v", err)
	}
	if err := w.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	write(t, m, []block{other}) // there is room again
	expectEmptySpool(t, m)
}

func TestASpoolHasOneMirror(t *testing.T) {
	cfg := Config{URL: t.TempDir(), SpoolDir: t.TempDir()}
	m := open(t, cfg)
	if _, err := Open(t.Context(), cfg); !errors.Is(err, ErrLocked) {
		t.Errorf("second Open: %v", err)
	}
	m.Close()
	again := open(t, cfg)
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

func TestWhatACrashLeftIsSweptAtOpen(t *testing.T) {
	dir, spool := t.TempDir(), t.TempDir()
	cfg := Config{URL: dir, SpoolDir: spool}
	m := open(t, cfg)
	blocks := adOf(1, 3)
	w := begin(t, m, blocks)
	w.buffer.Flush()
	m.Close() // and the writer is forgotten, as when a process dies
	w.spool.f.Close()

	copies := filepath.Join(dir, incoming)
	os.Mkdir(copies, 0o755)
	for name, age := range map[string]time.Duration{"copy-old": 2 * incomingFor, "copy-new": incomingFor / 2} {
		path, at := filepath.Join(copies, name), time.Now().Add(-age)
		if err := errors.Join(os.WriteFile(path, nil, 0o644), os.Chtimes(path, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(filesBelow(t, spool)); n != 2 {
		t.Fatalf("%d files in the spool, want the lock and what was left", n)
	}
	m = open(t, cfg)
	expectEmptySpool(t, m)
	if has, err := m.Has(t.Context(), blocks[0].c); has || err != nil {
		t.Errorf("half a file is visible: %v, %v", has, err)
	}
	if left := filesBelow(t, copies); len(left) != 1 || left[0] != "copy-new" {
		t.Errorf("copies left: %v, want the one that may be at work", left)
	}
}

func TestASpoolOnAnotherFileSystemIsCopied(t *testing.T) {
	m := open(t, Config{URL: t.TempDir()})
	d := m.files.(*directory)
	blocks := adOf(1, 3)
	w := begin(t, m, blocks)
	if err := w.finish(); err != nil {
		t.Fatal(err)
	}
	names, err := m.names(blocks[0].c)
	if err != nil {
		t.Fatal(err)
	}
	to := d.path(names[0])
	if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), d.copyTo(to, w.spool.path())); err != nil {
		t.Fatal(err)
	}
	expect(t, m, blocks)
	w.Abort()
	expectEmptySpool(t, m)
	if left := filesBelow(t, filepath.Join(d.root, incoming)); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestAnUploadThatBreaksLeavesNothing: the way to the server ends in the middle
// of the body.
func TestAnUploadThatBreaksLeavesNothing(t *testing.T) {
	srv, backend := s3Server(t)
	target, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	proxy.Transport = transport
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			r.Body.Read(make([]byte, 1000))
			panic(http.ErrAbortHandler)
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(broken.Close)
	m := open(t, Config{URL: "s3://ads?endpoint=" + broken.URL})
	blocks := adOf(1, 100)
	if err := begin(t, m, blocks).Commit(t.Context()); err == nil {
		t.Error("committed")
	}
	expectEmptySpool(t, m)
	objects, err := backend.ListBucket("ads", nil, gofakes3.ListBucketPage{})
	if err != nil || len(objects.Contents) != 0 {
		t.Errorf("in the bucket: %v, %v", objects, err)
	}
}

// TestMemoryStaysThatOfABlock writes and reads 400 chunks of 256 KiB, which are
// 100 MiB and do not compress.
func TestMemoryStaysThatOfABlock(t *testing.T) {
	const chunks, chunkBytes, limit = 400, 256 << 10, 8 << 20
	m := open(t, Config{URL: t.TempDir()})
	ad, first := blockOf(0, 700), blockOf(1, chunkBytes)
	base := heap()
	w, err := m.Create(ad.c, first.c)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Block(ad.c, ad.data); err != nil {
		t.Fatal(err)
	}
	for i := range uint64(chunks) {
		b := blockOf(i+1, chunkBytes)
		if err := w.Block(b.c, b.data); err != nil {
			t.Fatal(err)
		}
		if i%100 < 99 {
			continue
		}
		if used := heap() - base; used > limit {
			t.Errorf("writing takes %d bytes after %d chunks", used, i+1)
		}
	}
	if err := w.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	e := entries(t, m, ad.c)
	for i := range uint64(chunks) {
		if _, err := e.Block(blockOf(i+1, chunkBytes).c); err != nil {
			t.Fatal(err)
		}
		if i%100 < 99 {
			continue
		}
		if used := heap() - base; used > limit {
			t.Errorf("reading takes %d bytes after %d chunks", used, i+1)
		}
	}
}

// heap is what is in use after a collection, in bytes.
func heap() int64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}
