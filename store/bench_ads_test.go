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
