package mirror

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/ipfs/go-cid"
	carv2 "github.com/ipld/go-car/v2"
	"github.com/ipld/go-car/v2/storage"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/ingest/schema"
)

// The reference (storetheindex, carstore/carreader.go) reads a file with
// compress/gzip and go-car's BlockReader, which checks hashes, and writes one
// with go-car's storage.NewWritable, index and all.

// readAsReference is what the reference reads from our file of the ad.
func readAsReference(t *testing.T, m *Mirror, ad cid.Cid) (roots []cid.Cid, blocks []block) {
	t.Helper()
	names, err := m.names(ad)
	if err != nil {
		t.Fatal(err)
	}
	f, err := m.files.get(t.Context(), names[0], 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := io.Reader(f)
	if strings.HasSuffix(names[0], gzipSuffix) {
		if r, err = gzip.NewReader(f); err != nil {
			t.Fatal(err)
		}
	}
	car, err := carv2.NewBlockReader(r)
	if err != nil {
		t.Fatal(err)
	}
	if car.Version != 2 {
		t.Errorf("CAR version %d", car.Version)
	}
	for {
		b, err := car.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		blocks = append(blocks, block{b.Cid(), b.RawData()})
	}
	if rest, err := io.ReadAll(r); err != nil || len(rest) != 0 {
		t.Errorf("behind the payload: %d bytes, %v", len(rest), err)
	}
	return car.Roots, blocks
}

func TestTheReferenceReadsWhatWeWrite(t *testing.T) {
	eachPlace(t, func(t *testing.T, cfg Config) {
		m := open(t, cfg)
		for n := range 4 {
			want := adOf(uint64(n), n)
			write(t, m, want)
			roots, got := readAsReference(t, m, want[0].c)
			wantRoots := []cid.Cid{want[0].c}
			if n > 0 {
				wantRoots = append(wantRoots, want[1].c)
			}
			if diff := cmp.Diff(wantRoots, roots, cmpopts.EquateComparable(cid.Cid{})); diff != "" {
				t.Errorf("roots (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(block{}), cmpopts.EquateComparable(cid.Cid{})); diff != "" {
				t.Errorf("blocks (-want +got):\n%s", diff)
			}
		}
	})
}

// writeAsReference writes the file of an ad as the reference does.
func writeAsReference(t *testing.T, path string, blocks []block, opts ...carv2.Option) []byte {
	t.Helper()
	content, err := writeCAR(path, blocks, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func writeCAR(path string, blocks []block, opts ...carv2.Option) ([]byte, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	roots := []cid.Cid{blocks[0].c}
	if len(blocks) > 1 {
		roots = append(roots, blocks[1].c)
	}
	car, err := storage.NewWritable(f, roots, opts...)
	if err != nil {
		return nil, err
	}
	for _, b := range blocks {
		if err := car.Put(context.Background(), b.c.KeyString(), b.data); err != nil {
			return nil, err
		}
	}
	if err := car.Finalize(); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

func TestWeReadWhatTheReferenceWrites(t *testing.T) {
	for _, tt := range []struct {
		name string
		opts []carv2.Option
		gzip bool
	}{
		{"gzip", nil, true},
		{"plain", nil, false},
		{"padded", []carv2.Option{carv2.UseDataPadding(maxPadding), carv2.UseIndexPadding(77)}, true},
		{"version 1", []carv2.Option{carv2.WriteAsCarV1(true)}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			m := openAs(t, Config{URL: dir})
			for n := range 4 {
				blocks := adOf(uint64(n), n)
				path := filepath.Join(dir, blocks[0].c.String()+carSuffix)
				content := writeAsReference(t, path, blocks, tt.opts...)
				if tt.gzip {
					os.Remove(path)
					var zip bytes.Buffer
					w := gzip.NewWriter(&zip)
					w.Write(content)
					w.Close()
					if err := os.WriteFile(path+gzipSuffix, zip.Bytes(), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				expect(t, m, blocks)
			}
		})
	}
}

// TestBytesOfAFile spells out the bytes of a small file by the CARv2
// specification and the contract.
func TestBytesOfAFile(t *testing.T) {
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "x"), nil, 0o644) // flat
	m := open(t, Config{URL: dir, Uncompressed: true})
	blocks := []block{blockOf(1, 5), blockOf(2, 300)}
	write(t, m, blocks)
	got, err := os.ReadFile(filepath.Join(dir, blocks[0].c.String()+".car"))
	if err != nil {
		t.Fatal(err)
	}
	ad, chunk := blocks[0].c.Bytes(), blocks[1].c.Bytes() // 36 bytes each
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	payload := join(
		[]byte{99}, []byte("\xa2\x65roots\x82"), // a map: roots, a list of two
		[]byte("\xd8\x2a\x58\x25\x00"), ad, []byte("\xd8\x2a\x58\x25\x00"), chunk, // tag 42, 37 bytes, 0, CID
		[]byte("\x67version\x01"),
		[]byte{36 + 5}, ad, blocks[0].data,
		[]byte{0xd0, 0x02}, chunk, blocks[1].data, // 336
	)
	want := join([]byte("\x0a\xa1\x67version\x02"), make([]byte, 16),
		binary.LittleEndian.AppendUint64(nil, 51), binary.LittleEndian.AppendUint64(nil, uint64(len(payload))),
		make([]byte, 8), payload) // no index
	if !bytes.Equal(got, want) {
		t.Errorf("file\n%swant\n%s", hex.Dump(got), hex.Dump(want))
	}
}

func TestAHAMTIsMirroredInTheOrderOfItsWalk(t *testing.T) {
	m := open(t, Config{URL: t.TempDir()})
	blocks := adOf(1, 3)
	twice := append(blocks, blocks[2], blocks[1]) // nodes may repeat
	write(t, m, twice)
	expect(t, m, twice)
	_, got := readAsReference(t, m, blocks[0].c)
	if len(got) != len(twice) {
		t.Errorf("%d blocks, want %d", len(got), len(twice))
	}
}

func TestNamesAreSpreadAsTheDirectorySays(t *testing.T) {
	provider, err := peer.Decode("12D3KooWNaMHeXWQbN7WP2Cm8rzdRhEBVFn7hkuRWmTGBKWDkTGc")
	if err != nil {
		t.Fatal(err)
	}
	blocks := []block{{schema.LinkOf(schema.DagJSON, []byte("{}")), []byte("{}")}}
	ad := blocks[0].c.String() // baguqeera…
	for _, tt := range []struct {
		name, layout string
		ad, head     string
		wantLayout   string
	}{
		{"new", "", ad[:11] + "/" + ad[11:13] + "/", "12D3KooWNaM/He/", `{"Version":"v1","PathSplit":[11,2]}`},
		{"flat", `{"Version":"v1","PathSplit":[]}`, "", "", `{"Version":"v1","PathSplit":[]}`},
		{"longer than names", `{"Version":"v1","PathSplit":[3,150]}`, ad[:3] + "/", "12D/", `{"Version":"v1","PathSplit":[3,150]}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			config := filepath.Join(dir, ".filestore-config.json")
			if tt.layout != "" {
				os.WriteFile(config, []byte(tt.layout), 0o644)
			}
			m := open(t, Config{URL: dir})
			write(t, m, blocks)
			if err := m.SetHead(t.Context(), provider, blocks[0].c); err != nil {
				t.Fatal(err)
			}
			head, err := os.ReadFile(filepath.Join(dir, tt.head+provider.String()+".head"))
			if err != nil || string(head) != ad {
				t.Errorf("head %q, %v", head, err)
			}
			if _, err := os.Stat(filepath.Join(dir, tt.ad+ad+".car.gz")); err != nil {
				t.Error(err)
			}
			if text, err := os.ReadFile(config); err != nil || string(text) != tt.wantLayout {
				t.Errorf("layout %s, %v", text, err)
			}
			expect(t, openAs(t, Config{URL: dir}), blocks)
		})
	}
	for _, bad := range []string{`{"Version":"v2"}`, `{"Version":"v1","PathSplit":[0]}`, `x`, `{"Version":"v1","PathSplit":[1,1,1,1,1,1,1,1,1]}`} {
		dir := t.TempDir()
		os.WriteFile(filepath.Join(dir, ".filestore-config.json"), []byte(bad), 0o644)
		if m, err := Open(t.Context(), Config{URL: dir}); err == nil {
			m.Close()
			t.Errorf("a directory with the layout %s is opened", bad)
		}
	}
}

func TestHeadsOfOthersAreReadWithOrWithoutANewline(t *testing.T) {
	provider, err := peer.Decode("12D3KooWNaMHeXWQbN7WP2Cm8rzdRhEBVFn7hkuRWmTGBKWDkTGc")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	m := openAs(t, Config{URL: dir})
	want := adOf(1, 0)[0].c
	for text, ok := range map[string]bool{
		want.String(): true, want.String() + "\n": true, "": false, "x": false,
		want.String() + strings.Repeat(" ", maxHeadBytes): false,
	} {
		os.WriteFile(filepath.Join(dir, provider.String()+".head"), []byte(text), 0o644)
		got, err := m.Head(t.Context(), provider)
		if ok && (err != nil || got != want) {
			t.Errorf("head %q: %s, %v", text, got, err)
		}
		if !ok && !errors.Is(err, ErrCorrupt) {
			t.Errorf("head %q: %s, %v", text, got, err)
		}
	}
}
