package schema

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

// TestHostileBlocksCostLittle hands every decoder blocks made to cost memory,
// stack or time far above their size. That they cost no time is shown by the
// test's ending.
func TestHostileBlocksCostLittle(t *testing.T) {
	const mib = 1 << 20
	cborList := func(n int, element string) string { // n < 2^32
		return "\x9a" + string([]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}) + strings.Repeat(element, n)
	}
	decoders := []struct {
		name   string
		decode func(c cid.Cid, block []byte) error
	}{
		{"ad", func(c cid.Cid, b []byte) error { _, err := DecodeAdvertisement(c, b); return err }},
		{"chunk", func(c cid.Cid, b []byte) error { _, err := NewChunkDecoder(DefaultLimits).Decode(c, b); return err }},
		{"plain chunk", func(c cid.Cid, b []byte) error { _, err := DecodeEntryChunk(c, b); return err }},
		{"head", func(_ cid.Cid, b []byte) error { _, err := DecodeSignedHead(b); return err }},
		{"HAMT", func(c cid.Cid, b []byte) error {
			return WalkHAMT(context.Background(), c, func(context.Context, cid.Cid, []cid.Cid) ([]byte, error) { return b, nil },
				HAMTLimits{}, Limits{}, func([]multihash.Multihash) error { return nil })
		}},
	}
	for _, tt := range []struct {
		name  string
		codec Codec
		block string
	}{
		{"nested lists", DagJSON, strings.Repeat("[", mib)},
		{"nested maps", DagJSON, strings.Repeat(`{"a":`, mib/5)},
		{"nested keys", DagJSON, strings.Repeat(`{`, mib)},
		{"nested entries", DagJSON, `{"Entries":` + strings.Repeat("[", mib)},
		{"nested providers", DagJSON, `{"ExtendedProvider":{"Providers":` + strings.Repeat("[", mib)},
		{"nested buckets", DagJSON, `{"hamt":[{"/":{"bytes":""}},` + strings.Repeat("[", mib)},
		{"nested HAMT maps", DagJSON, `{"hamt":` + strings.Repeat(`{"data":[{"Bucket":[`, mib/20)},
		{"long entries link", DagJSON, `{"Entries":{"/":"z` + strings.Repeat("2", mib/2) + `"}}`},
		{"long next link", DagJSON, `{"Next":{"/":"z` + strings.Repeat("2", mib-100) + `"}}`},
		{"long head link", DagJSON, `{"head":{"/":"z` + strings.Repeat("2", 60<<10) + `"}}`},
		{"long child link", DagJSON, `{"hamt":[{"/":{"bytes":""}},[{"/":"z` + strings.Repeat("2", mib-100) + `"}]]}`},
		{"many addresses", DagJSON, `{"Addresses":[` + strings.Repeat(`"",`, mib/4) + `""]}`},
		{"white space", DagJSON, strings.Repeat(" ", mib)},
		{"unclosed string", DagJSON, `{"Entries":[{"/":{"bytes":"` + strings.Repeat("A", mib-100)},
		{"long number", DagJSON, `{"bucketSize":` + strings.Repeat("1", mib) + `}`},
		{"nested lists", DagCBOR, strings.Repeat("\x81", mib)},
		{"nested maps", DagCBOR, strings.Repeat("\xa1\x61a", mib/3)},
		{"nested tags", DagCBOR, "\xa1\x67Entries" + strings.Repeat("\xc5", mib)},
		{"nested entries", DagCBOR, "\xa1\x67Entries" + strings.Repeat("\x81", mib)},
		{"many addresses", DagCBOR, "\xa1\x69Addresses" + cborList(mib/2, "\x60")},
		{"many providers", DagCBOR, "\xa1\x70ExtendedProvider\xa1\x69Providers" + cborList(mib/2, "\xa0")},
		{"many entries", DagCBOR, "\xa1\x67Entries" + cborList(8*mib-100, "\x40")},
		{"many keys", DagCBOR, "\xa1\x64hamt\x82\x40\x81" + cborList(2*mib, "\x82\x40\xf5")},
		{"many buckets", DagCBOR, "\xa1\x64hamt\x82\x40" + cborList(8*mib-100, "\x80")},
		{"huge list", DagCBOR, "\xa1\x67Entries\x9b\x00\x00\x00\xff\xff\xff\xff\xff"},
		{"huge bytes", DagCBOR, "\xa1\x67Entries\x81\x5a\x01\xff\xff\xff"},
		{"huge text", DagCBOR, "\xa1\x68Provider\x7a\x01\xff\xff\xff"},
		{"huge map", DagCBOR, "\xbb\x00\x00\x00\xff\xff\xff\xff\xff\x67Entries"},
	} {
		block := []byte(tt.block)
		c := LinkOf(tt.codec, block)
		for _, d := range decoders {
			t.Run(tt.codec.String()+" "+tt.name+" as "+d.name, func(t *testing.T) {
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				err := d.decode(c, block)
				runtime.ReadMemStats(&after)
				if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrTooLarge) {
					t.Errorf("error %v", err)
				}
				// All that was allocated, not what was in use at once.
				if used := after.TotalAlloc - before.TotalAlloc; used > 100*mib {
					t.Errorf("%d MiB allocated for a block of %d KiB", used/mib, len(block)>>10)
				}
			})
		}
		if _, err := Classify(c, block); err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("Classify %s: %v", tt.name, err)
		}
	}
}

func TestLongPeerIDsAreNotRead(t *testing.T) {
	_, id := newKey(t)
	ad := newAd(id)
	ad.Provider = "1" + strings.Repeat("2", MaxAdBytes/2)
	if _, err := ad.Verify(); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
	ad = newAd(id)
	ad.ExtendedProvider = &ExtendedProvider{Providers: []Provider{{ID: "z" + strings.Repeat("2", MaxAdBytes/2)}}}
	if _, err := ad.Verify(); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
}
