package mirror

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"
	carv2 "github.com/ipld/go-car/v2"

	"github.com/signpost-index/signpost/ingest/schema"
)

// memory is a place with files of any content.
type memory map[string][]byte

func (m memory) put(context.Context, string, string) error { return errors.New("read only") }
func (m memory) get(_ context.Context, name string, limitBytes int64) (io.ReadCloser, error) {
	b, ok := m[name]
	if !ok {
		return nil, ErrNotFound
	}
	return limited(io.NopCloser(bytes.NewReader(b)), limitBytes), nil
}
func (m memory) exists(_ context.Context, name string) (bool, error) { return m[name] != nil, nil }
func (m memory) close()                                              {}

// mirrorOf is a mirror with one file for the ad, as .car and, unless that is
// nil, as .car.gz.
func mirrorOf(t testing.TB, ad cid.Cid, content, zipped []byte) *Mirror {
	t.Helper()
	cfg, err := Config{MaxFileBytes: 4 << 20, Uncompressed: zipped == nil}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	fs := memory{ad.String() + ".car": content}
	if zipped != nil {
		fs[ad.String()+".car.gz"] = zipped
	}
	m, err := newMirror(cfg, fs)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// readAll reads what there is of an ad and checks what a reader may rely on:
// every block is what its CID names, and errors are those of the package.
func readAll(t testing.TB, m *Mirror, ad cid.Cid) (blocks int, err error) {
	t.Helper()
	b, adErr := m.Ad(t.Context(), ad)
	if adErr == nil && schema.CheckBlock(ad, b) != nil {
		t.Fatal("the ad has other bytes")
	}
	e, err := m.Entries(t.Context(), ad)
	if (adErr == nil) != (err == nil) {
		t.Fatalf("Ad: %v, Entries: %v", adErr, err)
	}
	if err != nil {
		return 0, err
	}
	defer e.Close()
	for {
		c, b, err := e.Next()
		if err == io.EOF {
			return blocks, nil
		}
		if err != nil {
			if _, _, again := e.Next(); again != err {
				t.Fatalf("error %v became %v", err, again)
			}
			return blocks, err
		}
		if schema.CheckBlock(c, b) != nil {
			t.Fatal("a block has other bytes")
		}
		blocks++
	}
}

func zip(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	w.Write(b)
	w.Close()
	return out.Bytes()
}

func TestAFileCutOffAnywhereIsNeverWrong(t *testing.T) {
	blocks := []block{blockOf(1, 100), blockOf(2, 200), blockOf(3, 50)}
	whole := writeAsReference(t, filepath.Join(t.TempDir(), "x"), blocks)
	zipped := zip(whole)
	for _, tt := range []struct {
		name string
		file []byte
		gzip bool
	}{{"plain", whole, false}, {"gzip", zipped, true}} {
		for n := range tt.file {
			m := mirrorOf(t, blocks[0].c, tt.file[:n], nil)
			if tt.gzip {
				m = mirrorOf(t, blocks[0].c, nil, tt.file[:n])
			}
			if got, err := readAll(t, m, blocks[0].c); err != nil && !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s, %d bytes: %d blocks, %v", tt.name, n, got, err)
			}
		}
	}
}

func TestAFlippedBitIsNeverServed(t *testing.T) {
	blocks := []block{blockOf(1, 100), blockOf(2, 200), blockOf(3, 50)}
	whole := writeAsReference(t, filepath.Join(t.TempDir(), "x"), blocks)
	for i := range whole {
		file := bytes.Clone(whole)
		file[i] ^= 1 << (i % 8)
		readAll(t, mirrorOf(t, blocks[0].c, file, nil), blocks[0].c)
	}
}

func TestHostileFilesAreCorrupt(t *testing.T) {
	good := adOf(1, 2)
	dir := t.TempDir()
	file := func(blocks ...block) []byte { return writeAsReference(t, filepath.Join(dir, "x"), blocks) }
	lie := block{good[0].c, []byte("something else")}
	header := func(h carv2.Header, rest []byte) []byte {
		var b bytes.Buffer
		b.Write(carv2.Pragma)
		h.WriteTo(&b)
		return append(b.Bytes(), rest...)
	}
	weak := block{cid.NewCidV1(cid.DagCBOR, []byte("\x00\x04ident"[:6])), []byte("iden")}
	for name, content := range map[string][]byte{
		"empty":              {},
		"text":               []byte("<html>not a CAR</html>"),
		"another ad":         file(adOf(2, 2)...),
		"ad with other text": file(lie, good[1]),
		"ad twice large":     file(block{good[0].c, make([]byte, schema.MaxAdBytes+1)}),
		"no roots":           header(carv2.NewHeader(17), []byte("\x11\xa2\x65roots\x80\x67version\x01")),
		"no version":         header(carv2.NewHeader(8), []byte("\x07\xa1\x65roots\x80")),
		"payload far away":   header(carv2.Header{DataOffset: 1 << 40, DataSize: 100}, nil),
		"header of 4 GiB":    {0xff, 0xff, 0xff, 0xff, 0x0f, 0xa2},
		"endless varint":     bytes.Repeat([]byte{0xff}, 100),
	} {
		t.Run(name, func(t *testing.T) {
			for _, m := range []*Mirror{mirrorOf(t, good[0].c, content, nil), mirrorOf(t, good[0].c, nil, zip(content))} {
				if n, err := readAll(t, m, good[0].c); n != 0 || !errors.Is(err, ErrCorrupt) || errors.Is(err, io.EOF) {
					t.Errorf("%d blocks, %v", n, err)
				}
			}
		})
	}
	for name, content := range map[string][]byte{
		"entries with other text": file(good[0], block{good[1].c, []byte("x")}),
		"section of 4 GiB":        append(file(good[0])[:51:51], cutIndex(file(good[0]), 0xff, 0xff, 0xff, 0xff, 0x0f)...),
		"identity hash":           append(file(good[0])[:51:51], cutIndex(file(good[0]), append([]byte{byte(weak.c.ByteLen() + 4)}, append(weak.c.Bytes(), weak.data...)...)...)...),
	} {
		t.Run(name, func(t *testing.T) {
			content = grown(content)
			if n, err := readAll(t, mirrorOf(t, good[0].c, content, nil), good[0].c); n != 0 || !errors.Is(err, ErrCorrupt) {
				t.Errorf("%d blocks, %v", n, err)
			}
		})
	}
}

// cutIndex is the payload of a CARv2 file with more bytes behind it.
func cutIndex(file []byte, more ...byte) []byte {
	var h carv2.Header
	if _, err := h.ReadFrom(bytes.NewReader(file[carv2.PragmaSize:])); err != nil {
		panic(err)
	}
	return append(bytes.Clone(file[h.DataOffset:h.DataOffset+h.DataSize]), more...)
}

// grown is the file with all that follows the header as its payload.
func grown(file []byte) []byte {
	var b bytes.Buffer
	b.Write(carv2.Pragma)
	h := carv2.NewHeader(uint64(len(file) - 51))
	h.WriteTo(&b)
	return append(b.Bytes(), file[51:]...)
}

// TestABombIsGivenUp: 64 MiB of zeros in 64 KiB, and of tiny blocks.
func TestABombIsGivenUp(t *testing.T) {
	ad := blockOf(1, 100)
	start := writeAsReference(t, filepath.Join(t.TempDir(), "x"), []block{ad})
	tiny := blockOf(2, 1)
	section := append([]byte{37}, append(tiny.c.Bytes(), tiny.data...)...)
	for name, bomb := range map[string][]byte{
		"one block":   append(cutIndex(start, 0x80, 0x80, 0x80, 0x02), make([]byte, 64<<20)...), // of 4 MiB
		"many blocks": cutIndex(start, bytes.Repeat(section, 64<<20/len(section))...),
	} {
		t.Run(name, func(t *testing.T) {
			zipped := zip(grown(append(make([]byte, 51), bomb...)))
			m := mirrorOf(t, ad.c, nil, zipped)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			e := entries(t, m, ad.c)
			_, err := e.Block(blockOf(3, 1).c)
			runtime.ReadMemStats(&after)
			if !errors.Is(err, ErrCorrupt) {
				t.Errorf("%v", err)
			}
			if took := after.TotalAlloc - before.TotalAlloc; took > 48<<20 {
				t.Errorf("%d bytes were allocated", took)
			}
		})
	}
}

// TestAHangingBucketIsGivenUp: it answers, sends a little, and nothing more.
func TestAHangingBucketIsGivenUp(t *testing.T) {
	for name, sent := range map[string]int{"no answer": -1, "no bytes": 0, "few bytes": 2000} {
		t.Run(name, func(t *testing.T) {
			blocks := []block{blockOf(1, 4000)}
			file := writeAsReference(t, filepath.Join(t.TempDir(), "x"), blocks)
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method != http.MethodGet {
					return // the bucket is there
				}
				if sent >= 0 {
					w.Header().Set("Content-Length", fmt.Sprint(len(file)))
					w.Header().Set("Last-Modified", time.Unix(0, 0).UTC().Format(http.TimeFormat))
					w.Write(file[:sent])
					w.(http.Flusher).Flush()
				}
				<-r.Context().Done()
			}))
			t.Cleanup(srv.Close)
			m := openAs(t, Config{URL: "s3://ads?endpoint=" + srv.URL, StallTimeout: 50 * time.Millisecond, Uncompressed: true})
			if _, err := m.Ad(t.Context(), blocks[0].c); err == nil || errors.Is(err, ErrNotFound) || errors.Is(err, ErrCorrupt) {
				t.Errorf("%v, want an error that may pass", err)
			}
		})
	}
}

// aByteASecond is a body that trickles.
type aByteASecond struct{ ctx context.Context }

func (b aByteASecond) Close() error { return nil }
func (b aByteASecond) Read(p []byte) (int, error) {
	select {
	case <-time.After(time.Second):
		p[0] = 0
		return 1, nil
	case <-b.ctx.Done():
		return 0, b.ctx.Err()
	}
}

func TestATricklingBucketIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		r := &pacedReader{r: aByteASecond{ctx}, ctx: ctx, cancel: cancel, stall: 30 * time.Second}
		defer r.Close()
		start := time.Now()
		for range 20 {
			r.Read(make([]byte, 1))
			time.Sleep(time.Hour) // a reader who takes his time
		}
		n, err := io.Copy(io.Discard, r)
		if !errors.Is(err, errStalled) || n > 11 {
			t.Errorf("%d bytes more, %v", n, err)
		}
		if took := time.Since(start) - 20*time.Hour; took > 31*time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

func TestOtherFaultsAreNeitherNotFoundNorCorrupt(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusForbidden)
	}))
	t.Cleanup(srv.Close)
	m := openAs(t, Config{URL: "s3://ads?endpoint=" + srv.URL})
	ad := blockOf(1, 1).c
	if _, err := m.Ad(t.Context(), ad); err == nil || errors.Is(err, ErrNotFound) || errors.Is(err, ErrCorrupt) {
		t.Errorf("forbidden: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, ad.String()+".car"), nil, 0o644)
	if _, err := openAs(t, Config{URL: dir}).Ad(ctx, ad); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// FuzzFile reads any bytes as the file of an ad, plain and compressed.
func FuzzFile(f *testing.F) {
	blocks := []block{blockOf(1, 5), blockOf(2, 9)}
	path := filepath.Join(f.TempDir(), "x")
	for _, opts := range [][]carv2.Option{{carv2.WriteAsCarV1(true)}, {carv2.UseDataPadding(5)}} {
		file, err := writeCAR(path, blocks, opts...)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(file)
		f.Add(zip(file))
	}
	ad := blocks[0].c
	content := memory{}
	m := mirrorOf(f, ad, nil, nil)
	m.files = content
	f.Fuzz(func(t *testing.T, file []byte) {
		for _, suffix := range []string{".car", ".car.gz"} {
			clear(content)
			content[ad.String()+suffix] = file
			if _, err := readAll(t, m, ad); err != nil && !errors.Is(err, ErrCorrupt) {
				t.Errorf("%v", err)
			}
		}
	})
}
