package publish

import (
	"bytes"
	"cmp"
	"crypto/sha512"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"
	carindex "github.com/ipld/go-car/v2/index"
	"github.com/multiformats/go-multihash"
)

// mixed is n CIDs of two hash functions and three digest lengths, in no order.
func mixed(t *testing.T, n int) []cid.Cid {
	t.Helper()
	out := make([]cid.Cid, 0, n)
	for i := range n {
		data := fmt.Appendf(nil, "block %d", i)
		k := rawCID(data)
		if i%3 > 0 {
			sum := sha512.Sum512(data)
			mh, err := multihash.Encode(sum[:[]int{0, 64, 20}[i%3]], multihash.SHA2_512)
			if err != nil {
				t.Fatal(err)
			}
			k = cid.NewCidV1(cid.Raw, mh)
		}
		out = append(out, k)
	}
	return out
}

func buildIndex(t *testing.T, s *sorter, pos int64) (*os.File, summary) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "x.idx"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	sum, end, err := writeIndex(t.Context(), f, pos, s)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := f.Stat(); err != nil || st.Size() != end {
		t.Errorf("index ends at %d, file at %d (%v)", end, st.Size(), err)
	}
	return f, sum
}

func TestIndexFindsWhatWasPutIn(t *testing.T) {
	const n = 3000
	cids := mixed(t, n)
	for _, c := range []struct {
		name   string
		memory int
	}{{"in memory", sorterMemory}, {"spilled", 10 << 10}} {
		t.Run(c.name, func(t *testing.T) {
			s := newSorter(t.TempDir())
			s.memory = c.memory
			for pass := range 2 { // everything twice: the first place counts
				for i, k := range cids {
					if err := s.add(k.Hash(), uint64(pass*n+i)); err != nil {
						t.Fatal(err)
					}
				}
			}
			if spilled := len(s.runs) > 1; spilled != (c.memory < sorterMemory) {
				t.Fatalf("%d runs", len(s.runs))
			}
			f, sum := buildIndex(t, s, 77)
			if sum.count != n {
				t.Errorf("%d multihashes, want %d", sum.count, n)
			}
			x, err := readIndex(f, 77)
			if err != nil {
				t.Fatal(err)
			}
			for i, k := range cids {
				if at, found, err := x.find(f, k.Hash()); err != nil || !found || at != uint64(i) {
					t.Fatalf("find %d: %d %t %v", i, at, found, err)
				}
			}
			passed := 0
			for i := range n {
				absent := rawCID(fmt.Appendf(nil, "absent %d", i)).Hash()
				if x.filter.has(absent) {
					passed++
				}
				if _, found, err := x.find(f, absent); found || err != nil {
					t.Fatalf("found an absent one (%v)", err)
				}
			}
			if passed > n/20 {
				t.Errorf("filter lets %d of %d absent ones through", passed, n)
			}
		})
	}
}

// The index is go-car's format, byte for byte what go-car writes.
func TestIndexIsGoCars(t *testing.T) {
	cids := mixed(t, 500)
	s := newSorter(t.TempDir())
	var records []carindex.Record
	for i, k := range cids {
		records = append(records, carindex.Record{Cid: k, Offset: uint64(i)})
		if err := s.add(k.Hash(), uint64(i)); err != nil {
			t.Fatal(err)
		}
	}
	theirs := carindex.NewMultihashSorted()
	if err := theirs.Load(records); err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	if _, err := carindex.WriteTo(theirs, &want); err != nil {
		t.Fatal(err)
	}
	f, _ := buildIndex(t, s, 0)
	got, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		t.Errorf("index differs from go-car's: %d bytes, want %d", len(got), want.Len())
	}
}

func TestIndexIsInOrder(t *testing.T) {
	s := newSorter(t.TempDir())
	for i, k := range mixed(t, 300) {
		if err := s.add(k.Hash(), uint64(i)); err != nil {
			t.Fatal(err)
		}
	}
	f, _ := buildIndex(t, s, 0)
	x, err := readIndex(f, 0)
	if err != nil {
		t.Fatal(err)
	}
	var seen []*multihash.DecodedMultihash
	if err := x.each(f, func(mh multihash.Multihash, _ uint64) error {
		d, err := multihash.Decode(slices.Clone(mh))
		seen = append(seen, d)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if len(seen) != 300 || !slices.IsSortedFunc(seen, func(a, b *multihash.DecodedMultihash) int {
		return cmp.Or(cmp.Compare(a.Code, b.Code), cmp.Compare(a.Length, b.Length), bytes.Compare(a.Digest, b.Digest))
	}) {
		t.Errorf("%d multihashes are not in order", len(seen))
	}
}

func TestDamagedIndexIsAnError(t *testing.T) {
	s := newSorter(t.TempDir())
	for i, k := range mixed(t, 50) {
		if err := s.add(k.Hash(), uint64(i)); err != nil {
			t.Fatal(err)
		}
	}
	f, _ := buildIndex(t, s, 0)
	whole, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	for n := len(whole) - 1; n >= 0; n-- {
		if err := f.Truncate(int64(n)); err != nil {
			t.Fatal(err)
		}
		if _, err := readIndex(f, 0); err == nil {
			t.Errorf("an index cut to %d of %d bytes is read", n, len(whole))
		}
	}
}

func FuzzReadIndex(f *testing.F) {
	f.Add([]byte("\x81\x08\x01\x00\x00\x00\x12\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x28\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Add([]byte("\x81\x08\xff\xff\xff\xff\x12\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := os.Open(tempFile(t, "x.idx", b))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if x, err := readIndex(file, 0); err == nil && x.count > len(b) {
			t.Errorf("%d multihashes in %d bytes", x.count, len(b))
		}
	})
}
