package postings

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"os"
	"testing"

	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/store/keyset"
)

func TestSipHashAgreesWithTheReference(t *testing.T) {
	f, err := os.Open("testdata/siphash128.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var s Secret
	for i := range s {
		s[i] = byte(i)
	}
	var in []byte
	lines := bufio.NewScanner(f)
	for n := 0; lines.Scan(); n++ {
		a, b := keyset.Hash128(binary.LittleEndian.Uint64(s[:8]), binary.LittleEndian.Uint64(s[8:]), in)
		got := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, a), b)
		if hex.EncodeToString(got) != lines.Text() {
			t.Errorf("length %d: got %x, want %s", n, got, lines.Text())
		}
		if h := s.HashOf(in); string(h[:]) != string(got[:10]) {
			t.Errorf("length %d: hash %x is not the beginning of %x", n, h, got)
		}
		in = append(in, byte(n))
	}
	if len(in) != 64 {
		t.Errorf("%d vectors", len(in))
	}
}

func TestHashOfDoesNotAllocate(t *testing.T) {
	var s Secret
	mh := make([]byte, 34)
	if n := testing.AllocsPerRun(100, func() { mh[0] += s.HashOf(mh)[0] }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestHashAllHashesEach(t *testing.T) {
	s := Secret{7}
	var mhs []multihash.Multihash
	for n := range 70 {
		mhs = append(mhs, bytes.Repeat([]byte{byte(n)}, n))
	}
	before := Hash{1}
	hs := s.HashAll([]Hash{before}, mhs)
	if len(hs) != 1+len(mhs) || hs[0] != before {
		t.Fatalf("%d hashes, the first %x", len(hs), hs[0])
	}
	raw := HashBytes(hs)
	for i, mh := range mhs {
		if h := s.HashOf(mh); hs[i+1] != h || Hash(raw[10*(i+1):]) != h {
			t.Errorf("length %d: %x, as bytes %x, want %x", i, hs[i+1], raw[10*(i+1):][:10], h)
		}
	}
	if HashBytes(nil) != nil {
		t.Error("bytes of no hashes")
	}
}
