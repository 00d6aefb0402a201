package schema

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

// decodeBoth decodes a block with both decoders, fails the test if they differ,
// and returns the plain one's result.
func decodeBoth(t testing.TB, d *ChunkDecoder, c cid.Cid, block []byte) (*EntryChunk, int, error) {
	t.Helper()
	plain, skipped, plainErr := decodeChunk(c, block, d.limits)
	fast, err := d.Decode(c, block)
	if (err == nil) != (plainErr == nil) {
		t.Fatalf("fast: %v, plain: %v", err, plainErr)
	}
	if err != nil {
		for _, kind := range []error{ErrMalformed, ErrTooLarge, ErrHashMismatch, ErrUnsupported} {
			if errors.Is(err, kind) != errors.Is(plainErr, kind) {
				t.Fatalf("fast: %v, plain: %v", err, plainErr)
			}
		}
		return nil, 0, plainErr
	}
	if fast.Next != plain.Next || fast.Skipped != skipped || fast.Len() != len(plain.Entries) {
		t.Fatalf("fast: %d, %d skipped, next %s; plain: %d, %d skipped, next %s",
			fast.Len(), fast.Skipped, fast.Next, len(plain.Entries), skipped, plain.Next)
	}
	i := 0
	for mh := range fast.All() {
		if !bytes.Equal(mh, plain.Entries[i]) || !bytes.Equal(mh, fast.Multihash(i)) {
			t.Fatalf("entry %d: fast %s, plain %s", i, mh, plain.Entries[i])
		}
		i++
	}
	return plain, skipped, nil
}

// usesWalk reports whether the decoder reads the block itself.
func usesWalk(d *ChunkDecoder, codec Codec, block []byte) bool {
	d.w = window{b: block, h: d.sha}
	d.chunk = Chunk{}
	return d.walk(codec)
}

func TestChunksOfTheReference(t *testing.T) {
	d := NewChunkDecoder(DefaultLimits)
	for _, v := range chunkVectors(t) {
		for i, chunk := range v.Chunks {
			c, block := chunk.Block.CID.Cid, []byte(chunk.Block.Block)
			if !c.Defined() {
				continue // the no-entries CID, which has no block
			}
			t.Run(fmt.Sprint(v.Name, "-", i), func(t *testing.T) {
				e, skipped, err := decodeBoth(t, d, c, block)
				if err != nil {
					t.Fatal(err)
				}
				want := parseB58(t, append(chunk.Multihashes, v.Indexed...))
				same(t, "multihashes", e.Entries, want)
				same(t, "skipped", skipped, len(v.Skipped))
				next := cid.Undef
				if i+1 < len(v.Chunks) {
					next = v.Chunks[i+1].Block.CID.Cid
				}
				same(t, "next", e.Next, next)
				if !usesWalk(d, Codec(c.Type()), block) {
					t.Error("not read by the fast walk")
				}
				if kind, err := Classify(c, block); err != nil || kind != KindEntryChunk {
					t.Errorf("Classify: %v, %v", kind, err)
				}
				if skipped > 0 {
					return // what is skipped cannot be encoded again
				}
				again, err := e.Encode(Codec(c.Type()))
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(again, block) {
					t.Errorf("encoded again:\n%s\nwant\n%s", again, block)
				}
			})
		}
	}
}

// TestFastAndPlainAgreeAcrossWindows decodes chunks of many windows, in which
// entries of all lengths stand in all places.
func TestFastAndPlainAgreeAcrossWindows(t *testing.T) {
	d := NewChunkDecoder(DefaultLimits)
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 0))
		e := randomChunk(r.IntN(1500))
		for i := range e.Entries {
			if r.IntN(40) == 0 {
				e.Entries[i] = make([]byte, r.IntN(200)) // mostly no multihash
			}
		}
		for _, codec := range []Codec{DagJSON, DagCBOR} {
			c, block := encoded(t, codec, e)
			if codec == DagJSON && seed%2 == 1 {
				block = bytes.ReplaceAll(block, []byte(","), []byte(strings.Repeat(" ", r.IntN(3))+",\n"))
				c = LinkOf(codec, block)
			}
			if _, _, err := decodeBoth(t, d, c, block); err != nil {
				t.Fatalf("seed %d, %s: %v", seed, codec, err)
			}
			if !usesWalk(d, codec, block) {
				t.Errorf("seed %d, %s: not read by the fast walk", seed, codec)
			}
		}
	}
}

func TestEveryBitCounts(t *testing.T) {
	d := NewChunkDecoder(DefaultLimits)
	for _, codec := range []Codec{DagJSON, DagCBOR} {
		c, block := encoded(t, codec, randomChunk(300))
		for i := 0; i < len(block); i += 97 {
			block[i] ^= 1
			if _, err := d.Decode(c, block); !errors.Is(err, ErrHashMismatch) {
				t.Errorf("%s, byte %d: %v", codec, i, err)
			}
			block[i] ^= 1
		}
		if _, err := d.Decode(c, block[:len(block)-1]); !errors.Is(err, ErrHashMismatch) {
			t.Errorf("%s, cut: %v", codec, err)
		}
		if chunk, err := d.Decode(c, block); err != nil || chunk.Len() != 300 {
			t.Errorf("%s after errors: %v", codec, err)
		}
	}
}

func TestLinksMayUseAnyStrongHash(t *testing.T) {
	d := NewChunkDecoder(DefaultLimits)
	for _, tt := range []struct {
		name   string
		code   uint64
		length int
		want   error
	}{
		{"sha2-256", multihash.SHA2_256, 32, nil},
		{"sha2-512", multihash.SHA2_512, 64, nil},
		{"sha3-256", multihash.SHA3_256, 32, nil},
		{"sha3-384", multihash.SHA3_384, 48, nil},
		{"sha3-512", multihash.SHA3_512, 64, nil},
		{"keccak-256", multihash.KECCAK_256, 32, nil},
		{"keccak-512", multihash.KECCAK_512, 64, nil},
		{"blake2b-256", blake2b256, 32, nil},
		{"blake2b-512", multihash.BLAKE2B_MAX, 64, nil},
		{"blake2s-256", multihash.BLAKE2S_MAX, 32, nil},
		{"blake3", multihash.BLAKE3, 32, nil},
		{"truncated", multihash.SHA2_256, 31, ErrUnsupported},
		{"short blake3", multihash.BLAKE3, 16, ErrUnsupported},
		{"identity", multihash.IDENTITY, -1, ErrUnsupported},
		{"sha1", multihash.SHA1, 20, ErrUnsupported},
		{"md5", multihash.MD5, 16, ErrUnsupported},
		{"murmur3", multihash.MURMUR3X64_64, 8, ErrUnsupported},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, codec := range []Codec{DagJSON, DagCBOR} {
				_, block := encoded(t, codec, randomChunk(200))
				mh, err := multihash.Sum(block, tt.code, tt.length)
				if err != nil {
					t.Fatal(err)
				}
				c := cid.NewCidV1(uint64(codec), mh)
				if err := CheckBlock(c, block); !errors.Is(err, tt.want) {
					t.Errorf("CheckBlock: %v", err)
				}
				if _, _, err := decodeBoth(t, d, c, block); !errors.Is(err, tt.want) {
					t.Errorf("decode: %v", err)
				}
				if tt.want == nil {
					block[9]++
					if err := CheckBlock(c, block); !errors.Is(err, ErrHashMismatch) {
						t.Errorf("CheckBlock of other bytes: %v", err)
					}
				}
			}
		})
	}
}

func TestLimitsOfChunks(t *testing.T) {
	mhs := func(lengths ...int) (e EntryChunk) {
		for _, n := range lengths {
			mh, err := multihash.Encode(bytes.Repeat([]byte{1}, n), multihash.IDENTITY)
			if err != nil {
				t.Fatal(err)
			}
			e.Entries = append(e.Entries, mh)
		}
		return e
	}
	sha := slices.Repeat(randomChunk(1).Entries, 10)
	for _, tt := range []struct {
		name          string
		limits        Limits
		chunk         EntryChunk
		want, skipped int
		err           error
	}{
		{"default", Limits{}, mhs(0, 1, 127, 128, 129), 4, 1, nil},
		{"shortest", Limits{MinDigest: 4}, mhs(0, 3, 4, 5), 2, 2, nil},
		{"longest", Limits{MaxDigest: 64}, mhs(63, 64, 65), 2, 1, nil},
		{"sha2-256 too short", Limits{MinDigest: 33}, EntryChunk{Entries: sha}, 0, 10, nil},
		{"sha2-256 too long", Limits{MaxDigest: 31}, EntryChunk{Entries: sha}, 0, 10, nil},
		{"as many as allowed", Limits{MaxEntries: 10}, EntryChunk{Entries: sha}, 10, 0, nil},
		{"one more", Limits{MaxEntries: 9}, EntryChunk{Entries: sha}, 0, 0, ErrTooLarge},
		{"skipped ones count", Limits{MinDigest: 33, MaxEntries: 9}, EntryChunk{Entries: sha}, 0, 0, ErrTooLarge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := NewChunkDecoder(tt.limits)
			for _, codec := range []Codec{DagJSON, DagCBOR} {
				c, block := encoded(t, codec, &tt.chunk)
				e, skipped, err := decodeBoth(t, d, c, block)
				if !errors.Is(err, tt.err) {
					t.Fatalf("%s: %v, want %v", codec, err, tt.err)
				}
				if err == nil && (len(e.Entries) != tt.want || skipped != tt.skipped) {
					t.Errorf("%s: %d and %d skipped, want %d and %d", codec, len(e.Entries), skipped, tt.want, tt.skipped)
				}
			}
		})
	}
}

func TestLinksAreBounded(t *testing.T) {
	// An identity CID, which may have any length.
	c := func(digestBytes int) cid.Cid {
		mh, err := multihash.Encode(make([]byte, digestBytes), multihash.IDENTITY)
		if err != nil {
			t.Fatal(err)
		}
		return cid.NewCidV1(cid.Raw, mh)
	}
	d := NewChunkDecoder(DefaultLimits)
	for _, codec := range []Codec{DagJSON, DagCBOR} {
		for _, tt := range []struct {
			digestBytes int
			want        error
		}{{124, nil}, {125, ErrMalformed}, {5000, ErrMalformed}} {
			link, block := encoded(t, codec, &EntryChunk{Next: c(tt.digestBytes)})
			if _, _, err := decodeBoth(t, d, link, block); !errors.Is(err, tt.want) {
				t.Errorf("%s, %d digest bytes: %v, want %v", codec, tt.digestBytes, err, tt.want)
			}
		}
	}
}

func TestChunksAreBounded(t *testing.T) {
	d := NewChunkDecoder(DefaultLimits)
	block := append([]byte(`{"Entries":[]}`), bytes.Repeat([]byte(" "), MaxBlockBytes)...)
	fits := block[:MaxBlockBytes]
	if _, _, err := decodeBoth(t, d, LinkOf(DagJSON, fits), fits); err != nil {
		t.Error(err)
	}
	if _, _, err := decodeBoth(t, d, LinkOf(DagJSON, block), block); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
	for _, c := range []cid.Cid{cid.Undef, NoEntries, cid.NewCidV1(cid.Raw, sha256Multihash(fits))} {
		if _, _, err := decodeBoth(t, d, c, fits); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: %v", c, err)
		}
	}
}

func TestChunkCanBeReadInPart(t *testing.T) {
	c, block := encoded(t, DagJSON, randomChunk(10))
	chunk, err := NewChunkDecoder(DefaultLimits).Decode(c, block)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for range chunk.All() {
		if n++; n == 3 {
			break
		}
	}
	same(t, "read", n, 3)
	mh := chunk.Multihash(0)
	if _ = append(mh, 1); !bytes.Equal(chunk.Multihash(1), randomChunk(2).Entries[1]) {
		t.Error("appending to one multihash writes into the next")
	}
}

func TestEncodeRefusesWhatCannotBeRead(t *testing.T) {
	_, id := newKey(t)
	for _, codec := range []Codec{DagJSON, DagCBOR} {
		ad := newAd(id)
		ad.Entries = cid.Undef
		if b, err := ad.Encode(codec); err == nil {
			t.Errorf("ad without entries: %s", b)
		}
	}
	if b, err := new(SignedHead).Encode(); err == nil {
		t.Errorf("head of nothing: %s", b)
	}
	if _, err := randomChunk(1).Encode(Codec(cid.Raw)); !errors.Is(err, ErrUnsupported) {
		t.Error(err)
	}
	if err := decodeNode(Codec(cid.Raw), nil, at("")); !errors.Is(err, ErrUnsupported) {
		t.Error(err)
	}
}

func TestDecodingAChunkAllocatesNothingPerMultihash(t *testing.T) {
	d := NewChunkDecoder(DefaultLimits)
	for _, codec := range []Codec{DagJSON, DagCBOR} {
		c, block := encoded(t, codec, randomChunk(5000))
		allocs := testing.AllocsPerRun(10, func() {
			if _, err := d.Decode(c, block); err != nil {
				t.Fatal(err)
			}
		})
		if allocs > 10 {
			t.Errorf("%s: %v allocations", codec, allocs)
		}
	}
}

func TestMultihashesAreTakenAsTheMultihashPackageTakesThem(t *testing.T) {
	limits := Limits{MaxDigest: 1 << 30}.orDefault()
	r := rand.New(rand.NewPCG(1, 1))
	for range 50000 {
		b := make([]byte, r.IntN(14))
		for i := range b {
			b[i] = []byte{0, 1, 2, 3, 4, 5, 8, 0x12, 0x7f, 0x80, 0x81, 0xff}[r.IntN(12)]
		}
		if _, err := multihash.Cast(b); limits.takes(b) != (err == nil) {
			t.Fatalf("%x: takes is %t, Cast: %v", b, limits.takes(b), err)
		}
	}
}

func TestDecode46IsBase64(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 20000 {
		var src [46]byte
		raw := make([]byte, 34)
		for i := range raw {
			raw[i] = byte(r.Uint32())
		}
		base64.RawStdEncoding.Encode(src[:], raw)
		if r.IntN(2) == 0 {
			src[r.IntN(46)] = byte(r.Uint32())
		}
		want := make([]byte, 34)
		_, err := base64.RawStdEncoding.Decode(want, src[:])
		if bytes.ContainsAny(src[:], "\r\n") {
			err = errors.New("line break") // which encoding/base64 skips, and JSON does not allow
		}
		var got [40]byte
		if ok := decode46(&got, &src); ok != (err == nil) || ok && !bytes.Equal(got[:34], want) {
			t.Fatalf("%q: %t, %x; want %v, %x", src, ok, got, err, want)
		}
	}
}
