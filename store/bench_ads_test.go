package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
)

// benchAds writes ads with a handful of multihashes each, of one publisher,
// every ad with a context ID of its own, and says what an ad costs and what
// its rows take.
func (r *benchRun) benchAds(ctx context.Context, s benchStore) error {
	g := newIngest(s, r.AdMHs, r.Writers)
	if _, err := r.benchPuts(ctx, g, r.Ads); err != nil {
		return err
	}
	f := &r.out
	perMH, _ := f.find("CPU us/mh, until settled")
	putsPerSecond, _ := f.find("puts/s, time in the store's calls")
	settled, _ := f.find("puts/s, until settled")
	bytes, _ := f.find("bytes/mh on disk, settled, without log")
	n := float64(r.AdMHs)
	f.add(more, putsPerSecond.Value/n, "ads/s, time in the store's calls")
	f.add(more, settled.Value/n, "ads/s, until settled")
	f.add(less, perMH.Value*n, "CPU us/ad, until settled")
	f.add(less, bytes.Value*n, "bytes/ad on disk, settled, without log")

	r.phase("compact rows", nil)
	if err := compactRows(ctx, s.Store); err != nil {
		return fmt.Errorf("compact rows: %w", err)
	}
	return r.addRowBytes(s)
}

// addRowBytes reports what a record and a remembered ad take in the compacted
// rows. Here each ad has a record.
func (r *benchRun) addRowBytes(s benchStore) error {
	sum, byPrefix, err := rowBytes(s.Store)
	if err != nil {
		return err
	}
	ads, f := float64(r.Ads), &r.out
	ledger := uint64(0)
	for _, p := range ledgerPrefixes {
		ledger += byPrefix[p]
	}
	own := float64(benchContextBytes + len(benchMetadata))
	f.add(noMatter, own, "bytes of a record's own context ID and metadata")
	f.add(less, float64(sum-ledger)/ads-own, "bytes/record of rows beyond these, compacted")
	f.add(less, float64(ledger)/ads, "bytes/ad remembered in the ledger, compacted")
	f.add(less, float64(sum)/ads, "bytes/ad of all rows, compacted")
	for _, p := range slices.Sorted(maps.Keys(byPrefix)) {
		if per := float64(byPrefix[p]) / ads; per >= 0.1 {
			f.add(noMatter, per, "  of it rows %q", p)
		}
	}
	return nil
}

// BenchmarkCommit reports ads a second that have only metadata.
func BenchmarkCommit(b *testing.B) {
	db, err := openBenchStore(b.TempDir(), newCountingFS(), DefaultMemoryBytes)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	b.ReportAllocs()
	w := db.writer(0).(*storeWriter)
	for ad := uint64(0); b.Loop(); ad++ {
		err := w.begin(ad)
		if err == nil {
			_, err = w.w.Commit(Effect{Kind: EffectMetadata, Verdict: Applied})
			w.prev = w.ref
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ads/s")
}

// BenchmarkTinyAd reports what an ad of ten multihashes costs: begun, put,
// committed, on the way into the tables. In turn: in order, without being
// announced as pending; and as an ingester with 16 workers does, pending first
// and committed in almost the right order.
func BenchmarkTinyAd(b *testing.B) {
	for _, spread := range []uint64{0, 2, 16} {
		b.Run(fmt.Sprintf("spread=%d", spread), func(b *testing.B) { benchTinyAds(b, spread) })
	}
}

func benchTinyAds(b *testing.B, spread uint64) {
	const chunk = 1600
	s, err := openBenchStore(b.TempDir(), newCountingFS(), DefaultMemoryBytes)
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	}()
	ref := func(ad uint64) AdRef {
		r := AdRef{Ad: benchCID(ad), Pos: Position(ad+1) << 32}
		if ad > 0 {
			r.Prev = benchCID(ad - 1)
		}
		return r
	}
	w := s.writer(0).(*storeWriter)
	var mhs benchMHs
	b.ReportAllocs()
	start := cpuSeconds()
	for n := uint64(0); b.Loop(); n++ {
		ad := n
		if spread > 0 {
			if n%chunk == 0 {
				refs := make([]AdRef, chunk)
				for i := range refs {
					refs[i] = ref(n + uint64(i))
				}
				if err := s.AddPending(w.publisher, refs); err != nil {
					b.Fatal(err)
				}
			}
			ad = n/spread*spread + (spread - 1 - n%spread)
		}
		if err := w.writeRef(ad, ref(ad), mhs.from(ad*10, 10)); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.flush(context.Background()); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric((cpuSeconds()-start)*1e6/float64(b.N), "CPU-us/ad")
}
