package store

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
)

// testMH is the n-th multihash of a series.
func testMH(n uint64) multihash.Multihash {
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(nil, n))
	return append(multihash.Multihash{multihash.SHA2_256, 32}, sum[:]...)
}

func testMHs(from, n uint64) []multihash.Multihash {
	mhs := make([]multihash.Multihash, n)
	for i := range mhs {
		mhs[i] = testMH(from + uint64(i))
	}
	return mhs
}

func testCID(n uint64) cid.Cid {
	return cid.NewCidV1(cid.DagJSON, testMH(n|1<<63))
}

const benchAd = 5 * 16384 // multihashes of an ad

// fill puts n multihashes in ads of benchAd, in chunks of 16384, and returns
// the time spent in the store.
func fill(b *testing.B, s *Store, pub peer.ID, first, n uint64) time.Duration {
	b.Helper()
	var spent time.Duration
	prev := cid.Undef
	for i := uint64(0); i*benchAd < n; i++ {
		ad := testCID(first + i)
		var chunks [][]multihash.Multihash
		for c := uint64(0); c < 5; c++ {
			chunks = append(chunks, testMHs(first+i*benchAd+c*16384, 16384))
		}
		start := time.Now()
		w, err := s.Begin(Ad{AdRef: AdRef{Ad: ad, Prev: prev, Pos: Position(i + 1)}, Publisher: pub, Provider: pub,
			ContextID: fmt.Appendf(nil, "context-%d", i), Metadata: []byte{0x80, 0x12}})
		if err != nil {
			b.Fatal(err)
		}
		for _, c := range chunks {
			if err := w.Put(c); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := w.Commit(Effect{Kind: EffectContent, Verdict: Applied}); err != nil {
			b.Fatal(err)
		}
		spent += time.Since(start)
		prev = ad
	}
	return spent
}

// BenchmarkPut reports puts a second with one writer while syncs and
// compactions go on, and the disk space once all is compacted.
func BenchmarkPut(b *testing.B) {
	for _, n := range []uint64{1e6, 5e6} {
		b.Run(fmt.Sprintf("%dM", n/1e6), func(b *testing.B) {
			for b.Loop() {
				s, err := Open(Config{Dir: b.TempDir()})
				if err != nil {
					b.Fatal(err)
				}
				spent := fill(b, s, "publisher", 0, n)
				st, err := s.Stats()
				if err != nil {
					b.Fatal(err)
				}
				start := time.Now()
				if err := s.db.Flush(); err != nil {
					b.Fatal(err)
				}
				flushed := s.tableBytes()
				if err := s.db.Compact(b.Context(), []byte{0}, []byte{0xff}, true); err != nil {
					b.Fatal(err)
				}
				settled := time.Since(start) + spent
				m := s.db.Metrics()
				b.ReportMetric(float64(st.Postings)/spent.Seconds(), "puts/s")
				b.ReportMetric(float64(st.Postings)/settled.Seconds(), "settled-puts/s")
				b.ReportMetric(float64(flushed)/float64(st.Postings), "B/mh-flushed")
				b.ReportMetric(float64(s.tableBytes())/float64(st.Postings), "B/mh-compacted")
				b.ReportMetric(float64(m.WAL.BytesWritten+m.Total().TableBytesFlushed+m.Total().TableBytesCompacted)/float64(st.Postings), "B-written/mh")
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func (s *Store) tableBytes() (n int64) {
	for _, l := range s.db.Metrics().Levels {
		n += l.TablesSize
	}
	return n
}

// BenchmarkFind reports lookups a second of one goroutine and of several, in
// a compacted store of a million multihashes whose files are in the page cache.
func BenchmarkFind(b *testing.B) {
	s, err := Open(Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	const n = 1e6
	fill(b, s, "publisher", 0, n)
	if err := s.db.Flush(); err != nil {
		b.Fatal(err)
	}
	if err := s.db.Compact(b.Context(), []byte{0}, []byte{0xff}, true); err != nil {
		b.Fatal(err)
	}
	for _, name := range []string{"hit", "miss"} {
		base := uint64(0)
		if name == "miss" {
			base = 1 << 40
		}
		find := func(b *testing.B, i uint64) {
			values, err := s.Find(testMH(base + i*7919%n))
			if err != nil || (len(values) == 1) != (base == 0) {
				b.Fatal(values, err)
			}
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			i := uint64(0)
			for b.Loop() {
				i++
				find(b, i)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "finds/s")
		})
		b.Run(name+"-parallel", func(b *testing.B) {
			b.RunParallel(func(pb *testing.PB) {
				for i := uint64(0); pb.Next(); i++ {
					find(b, i)
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "finds/s")
		})
	}
}

// BenchmarkCommit reports ads a second that only change metadata.
func BenchmarkCommit(b *testing.B) {
	s, err := Open(Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	b.ReportAllocs()
	prev := AdRef{}
	for i := uint64(1); b.Loop(); i++ {
		ref := AdRef{Ad: testCID(i), Prev: prev.Ad, Pos: Position(i)}
		w, err := s.Begin(Ad{AdRef: ref, Publisher: "publisher", Provider: "provider",
			ContextID: fmt.Appendf(nil, "context-%d", i), Metadata: []byte{0x80, 0x12}})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := w.Commit(Effect{Kind: EffectMetadata, Verdict: Applied}); err != nil {
			b.Fatal(err)
		}
		prev = ref
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ads/s")
}
