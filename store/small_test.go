package store

import (
	"bytes"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestSmallAdsTakeFewBytes: in a chain of ads with ten multihashes and 32-byte
// context IDs a record takes at most 120 bytes beside its context ID and
// metadata, and a remembered ad at most 48.
func TestSmallAdsTakeFewBytes(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	const ads, each = 6000, 10
	c := newChain("12D3KooWpublisherpublisherpublisher38b", "12D3KooWproviderproviderproviderpro38b")
	for i := range uint64(ads) {
		ad := c.ad(string(testMH(i)[2:]), "\x80\x12")
		ad.Pos = Position(i+1) << 32
		write(t, s, ad, updating(content, ProviderUpdate{Addrs: []string{"/ip4/203.0.113.7/tcp/24001"}}), testMHs(i*each, each)...)
	}
	if err := s.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	size := func(prefixes string) float64 {
		t.Helper()
		sum := uint64(0)
		for _, p := range []byte(prefixes) {
			n, err := s.db.EstimateDiskUsage([]byte{p}, []byte{p + 1})
			if err != nil {
				t.Fatal(err)
			}
			sum += n
		}
		return float64(sum) / ads
	}
	record := size(string([]byte{prefixContext, prefixRecord, prefixGeneration, prefixTombstone, prefixExtended, prefixDead, prefixCursor})) - 32 - 2
	ledger := size(string([]byte{prefixLedger, prefixAbove, prefixPending}))
	all := float64(s.db.Metrics().DiskSpaceUsage())/ads - 32 - 2
	t.Logf("bytes beside context ID and metadata: record %.1f, ledger entry %.1f, all rows of an ad %.1f", record, ledger, all)
	if record > 120 || ledger > 48 {
		t.Errorf("record takes %.1f bytes, want at most 120; ledger entry %.1f, want at most 48", record, ledger)
	}
	if st, err := s.Stats(); err != nil || st.RecordsBytes <= 0 || st.LedgerBytes <= 0 {
		t.Errorf("stats %+v %v", st, err)
	}
	for _, i := range []uint64{0, ads / 2, ads - 1} {
		values, err := s.Find(testMH(i * each))
		if err != nil || len(values) != 1 || !bytes.Equal(values[0].ContextID, testMH(i)[2:]) {
			t.Errorf("ad %d: found %v %v", i, values, err)
		}
	}
}
