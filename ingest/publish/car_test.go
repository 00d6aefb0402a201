package publish

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"
	carv2 "github.com/ipld/go-car/v2"
	"github.com/ipld/go-car/v2/blockstore"
	"github.com/multiformats/go-multihash"
	"github.com/multiformats/go-varint"
)

func TestBuiltCARIsReadByGoCar(t *testing.T) {
	dir := write(t, map[string]string{"a": randomBytes(1, 700_000), "b/c": "hello world"})
	state := t.TempDir()
	p := open(t, testConfig(state))
	a := add(t, p, dir)
	cars, err := filepath.Glob(filepath.Join(state, "cars", "*.car"))
	if err != nil || len(cars) != 1 {
		t.Fatalf("CARs: %v %v", cars, err)
	}
	f, err := os.Open(cars[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := carv2.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	stats, err := r.Inspect(true)
	if err != nil {
		t.Fatal(err)
	}
	if stats.Version != 2 || !stats.RootsPresent || !slices.Equal(stats.Roots, a.Roots) || int(stats.BlockCount) != a.Blocks {
		t.Errorf("go-car says %+v, added %+v", stats, a)
	}
	store, err := blockstore.OpenReadOnly(cars[0])
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	block, err := store.Get(t.Context(), rawCID([]byte("hello world"))) // by the index we wrote
	if err != nil || string(block.RawData()) != "hello world" {
		t.Errorf("go-car finds %v, %v", block, err)
	}
}

func TestCARsOfBothVersionsAreTaken(t *testing.T) {
	blocks := numbered("block", 300)
	v1 := carV1(blocks...)
	identity, err := multihash.Sum([]byte("in the CID"), multihash.IDENTITY, -1)
	if err != nil {
		t.Fatal(err)
	}
	special := slices.Concat(v1,
		section(rawCID(blocks[7]), blocks[7]), // a second time
		section(cid.NewCidV1(cid.Raw, identity), []byte("in the CID")),
		make([]byte, 500)) // padding
	var contexts [][]byte
	for _, c := range []struct {
		name   string
		car    []byte
		blocks int
	}{
		{"version 1", v1, 300},
		{"version 2", carV2(v1), 300},
		{"repeated, identity, padded", special, 302},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := open(t, testConfig(t.TempDir()))
			a := add(t, p, tempFile(t, "content", c.car))
			if a.Blocks != c.blocks || a.Multihashes != 300 || !slices.Equal(a.Roots, []cid.Cid{rawCID(blocks[0])}) {
				t.Errorf("added %+v", a)
			}
			for _, data := range blocks {
				got, err := p.ReadBlock(t.Context(), rawCID(data))
				if err != nil || !bytes.Equal(got, data) {
					t.Fatalf("block %q reads %q, %v", data, got, err)
				}
			}
			contexts = append(contexts, a.ContextID)
		})
	}
	if !slices.EqualFunc(contexts[:2], contexts[1:], bytes.Equal) {
		t.Errorf("the same content in different containers has contexts %x", contexts)
	}
}

func TestBadCARIsRefused(t *testing.T) {
	good := carV1(numbered("block", 10)...)
	tampered := slices.Clone(good)
	tampered[len(tampered)-1] ^= 1
	wrongSize := carV2(good)
	wrongSize = wrongSize[:len(wrongSize)-60] // the payload ends beyond the file
	badHash := func(code uint64) []byte {
		mh, err := multihash.Sum([]byte("x"), code, -1)
		if err != nil {
			t.Fatal(err)
		}
		return append(slices.Clone(good), section(cid.NewCidV1(cid.Raw, mh), []byte("x"))...)
	}
	short, err := multihash.Sum([]byte("x"), multihash.SHA2_256, 8)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		car  []byte
		want error
	}{
		{"a byte changed", tampered, ErrBadCAR},
		{"cut in a block", good[:len(good)-3], ErrBadCAR},
		{"cut in a CID", good[:len(good)-30], ErrBadCAR},
		{"version 2 cut", wrongSize, ErrBadCAR},
		{"cut in the header", good[:30], ErrBadCAR},
		{"version 2 without header", carv2.Pragma, ErrBadCAR},
		{"huge section", append(slices.Clone(good), varint.ToUvarint(maxSection+1)...), ErrBadCAR},
		{"absurd section", append(slices.Clone(good), varint.ToUvarint(1<<62)...), ErrBadCAR},
		{"absurd header", append(varint.ToUvarint(1<<40), "\xa2\x65roots"...), ErrBadCAR},
		{"not a CID", append(slices.Clone(good), 3, 9, 9, 9), ErrBadCAR},
		{"empty section, then more", append(slices.Clone(good), 0, 0, 1), ErrBadCAR},
		{"weak hash", badHash(multihash.MURMUR3X64_64), ErrBadCAR},
		{"truncated hash", append(slices.Clone(good), section(cid.NewCidV1(cid.Raw, short), []byte("x"))...), ErrBadCAR},
		{"no blocks", good[:carv1HeadLen], ErrEmpty},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := open(t, testConfig(t.TempDir()))
			_, err := p.Add(t.Context(), tempFile(t, "x.car", c.car), nil)
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if len(walk(t, p)) > 0 || len(p.Contents()) > 0 {
				t.Error("something was published")
			}
			for _, dir := range []string{p.tmp, p.cars} {
				if left, _ := os.ReadDir(dir); len(left) > 0 {
					t.Errorf("%d files left in %s", len(left), dir)
				}
			}
		})
	}
}

func TestWhatIsNoCARIsAPlainFile(t *testing.T) {
	p := open(t, testConfig(t.TempDir()))
	for _, text := range []string{"", "x", "\xa2\x65roots", "\x0a\xa1\x67version\x01", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"} {
		if got := add(t, p, tempFile(t, "f", []byte(text))).Roots[0]; !got.Equals(rawCID([]byte(text))) {
			t.Errorf("%q became %s", text, got)
		}
	}
}

// A CAR is not copied: what happens to it afterwards shows, but never as wrong bytes.
func TestCARThatChangesAfterwardsYieldsErrorsOnly(t *testing.T) {
	blocks := numbered("block", 10)
	path := tempFile(t, "x.car", carV1(blocks...))
	state := t.TempDir()
	p := open(t, testConfig(state))
	add(t, p, path)

	car, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(car, []byte("block 4"))
	car[at] = 'B'
	if err := os.WriteFile(path, car, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := p.ReadBlock(t.Context(), rawCID(blocks[4])); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("the changed block reads: %v", err)
	}
	if _, err := p.ReadBlock(t.Context(), rawCID(blocks[5])); err != nil {
		t.Errorf("another block: %v", err)
	}
	if c := p.Contents()[0]; len(c.Problems) != 1 {
		t.Errorf("problems: %q", c.Problems)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := p.ReadBlock(t.Context(), rawCID(blocks[5])); err == nil {
		t.Error("a block of a deleted CAR reads")
	}
	p.Close()
	p = open(t, testConfig(state)) // no reason not to start
	if c := p.Contents()[0]; len(c.Problems) != 1 {
		t.Errorf("problems after a restart: %q", c.Problems)
	}
}

func FuzzReadCAR(f *testing.F) {
	v1 := carV1(numbered("block", 3)...)
	f.Add(v1)
	f.Add(carV2(v1))
	f.Add(append(slices.Clone(v1), 0, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := os.Open(tempFile(t, "x.car", b))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		c, err := readCAR(file)
		if err != nil {
			return
		}
		_ = c.eachBlock(t.Context(), file, func(k cid.Cid, data []byte, offset uint64) error {
			again, same, err := c.readSection(file, offset)
			if err != nil || !again.Equals(k) || !bytes.Equal(same, data) {
				t.Errorf("section at %d reads differently: %v", offset, err)
			}
			return nil
		})
	})
}
