package schema

import (
	"crypto/sha256"
	"encoding/base64"
	"math/rand/v2"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

// benchEntries is what publishers put in a chunk by default.
const benchEntries = 16384

// randomChunk is a chunk of n random sha2-256 multihashes, always the same.
func randomChunk(n int) *EntryChunk {
	r := rand.NewChaCha8([32]byte{1})
	e := &EntryChunk{Next: LinkOf(DagJSON, []byte("next"))}
	for range n {
		mh := make(multihash.Multihash, 34)
		r.Read(mh)
		mh[0], mh[1] = 0x12, 0x20
		e.Entries = append(e.Entries, mh)
	}
	return e
}

func encoded(t testing.TB, codec Codec, e *EntryChunk) (cid.Cid, []byte) {
	t.Helper()
	block, err := e.Encode(codec)
	if err != nil {
		t.Fatal(err)
	}
	return LinkOf(codec, block), block
}

// reportChunks is called after the loop over one chunk of benchEntries.
func reportChunks(b *testing.B, block []byte) {
	b.SetBytes(int64(len(block)))
	b.ReportMetric(float64(b.N)*benchEntries/b.Elapsed().Seconds(), "mhs/s")
}

// BenchmarkChunkDecoder: fast is ChunkDecoder, plain is DecodeEntryChunk, bindnode
// is go-ipld-prime the way go-libipni uses it, hash is sha2-256 over the block
// and nothing else, the floor under all of them.
func BenchmarkChunkDecoder(b *testing.B) {
	for _, codec := range []Codec{DagJSON, DagCBOR} {
		c, block := encoded(b, codec, randomChunk(benchEntries))
		b.Run("fast/"+codec.String(), func(b *testing.B) {
			b.ReportAllocs()
			d := NewChunkDecoder(DefaultLimits)
			for b.Loop() {
				chunk, err := d.Decode(c, block)
				if err != nil || chunk.Len() != benchEntries {
					b.Fatal(err)
				}
			}
			reportChunks(b, block)
		})
		b.Run("plain/"+codec.String(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				e, err := DecodeEntryChunk(c, block)
				if err != nil || len(e.Entries) != benchEntries {
					b.Fatal(err)
				}
			}
			reportChunks(b, block)
		})
		b.Run("bindnode/"+codec.String(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := CheckBlock(c, block); err != nil {
					b.Fatal(err)
				}
				e, err := referenceDecode[referenceChunk](codec, "EntryChunk", block)
				if err != nil || len(e.Entries) != benchEntries {
					b.Fatal(err)
				}
			}
			reportChunks(b, block)
		})
		b.Run("hash/"+codec.String(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				sha256.Sum256(block)
			}
			reportChunks(b, block)
		})
	}
}

func BenchmarkBase64(b *testing.B) {
	texts := make([][46]byte, benchEntries)
	for i, mh := range randomChunk(benchEntries).Entries {
		base64.RawStdEncoding.Encode(texts[i][:], mh)
	}
	var out [40]byte
	b.Run("decode46", func(b *testing.B) {
		for b.Loop() {
			for i := range texts {
				decode46(&out, &texts[i])
			}
		}
		b.ReportMetric(b.Elapsed().Seconds()*1e9/float64(b.N)/benchEntries, "ns/mh")
	})
	b.Run("encoding", func(b *testing.B) {
		for b.Loop() {
			for i := range texts {
				base64.RawStdEncoding.Decode(out[:], texts[i][:])
			}
		}
		b.ReportMetric(b.Elapsed().Seconds()*1e9/float64(b.N)/benchEntries, "ns/mh")
	})
}
