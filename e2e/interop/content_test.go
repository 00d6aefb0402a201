package interop

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/ipfs/go-cid"
	carstorage "github.com/ipld/go-car/v2/storage"
	"github.com/multiformats/go-multihash"

	carv2 "github.com/ipld/go-car/v2"
)

// writeFiles makes a directory tree. Files up to a chunk of 256 KiB are one raw
// block each, whose multihashes are returned.
func writeFiles(t *testing.T, dir string) (small []multihash.Multihash) {
	t.Helper()
	write := func(name string, b []byte) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 40 {
		b := fmt.Appendf(nil, "file %d", i)
		write(filepath.Join(fmt.Sprint("folder ", i%3), fmt.Sprint(i)), b)
		small = append(small, sum(b))
	}
	write("large", randomBytes(700_000)) // three chunks
	return small
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

// writeCAR makes a CAR of n raw blocks and returns their CIDs.
func writeCAR(t *testing.T, file string, n int, options ...carv2.Option) []cid.Cid {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := func(i int) []byte { return fmt.Appendf(nil, "block %d of a CAR", i) }
	w, err := carstorage.NewWritable(f, []cid.Cid{rawCID(sum(block(0)))}, options...)
	if err != nil {
		t.Fatal(err)
	}
	var cids []cid.Cid
	for i := range n {
		b := block(i)
		c := rawCID(sum(b))
		if err := w.Put(t.Context(), c.KeyString(), b); err != nil {
			t.Fatal(err)
		}
		cids = append(cids, c)
	}
	if err := w.Finalize(); err != nil {
		t.Fatal(err)
	}
	return cids
}
