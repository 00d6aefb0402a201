package routing

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/find"
	"github.com/signpost-index/signpost/ingest/metadata"
)

// TestMergePutsAProtocolInTheFirstRecordItFits, as going through all records of
// the peer finds it.
func TestMergePutsAProtocolInTheFirstRecordItFits(t *testing.T) {
	choices := [][]byte{bitswap, gateway, both, unreadable, vendorOne, vendorOther, append(append([]byte{}, bitswap...), vendorOther...), nil}
	random := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		var results []find.ProviderResult
		for n := range random.IntN(20) {
			results = append(results, find.ProviderResult{ContextID: fmt.Append(nil, n), Metadata: choices[random.IntN(len(choices))],
				Provider: &peer.AddrInfo{ID: peer.ID(fmt.Sprint(random.IntN(2)))}})
		}
		var want []string
		first := 0
		var records []record
		for _, r := range find.Merge(append([]find.ProviderResult{}, results...)) {
			if len(records) == 0 || records[first].id != r.Provider.ID {
				first = len(records)
				records = append(records, record{id: r.Provider.ID})
			}
			protocols, _ := metadata.Parse(r.Metadata)
			for _, p := range protocols {
				i, has := first, false
				for ; i < len(records); i++ {
					other := false
					has = false
					for _, q := range records[i].protocols {
						if q.Code == p.Code {
							has, other = true, string(q.Bytes) != string(p.Bytes)
						}
					}
					if !other {
						break
					}
				}
				if i == len(records) {
					records, has = append(records, record{id: r.Provider.ID}), false
				}
				if !has {
					records[i].add(p)
				}
			}
		}
		for _, r := range records {
			want = append(want, r.key())
		}
		var got []string
		for _, r := range merge(results) {
			got = append(got, r.key())
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("-want +got\n%s", diff)
		}
	}
}

// TestMergeOfAPeerThatContradictsItselfIsQuick: as many records as a store follows,
// each with other parameters of one protocol, which anybody can publish.
func TestMergeOfAPeerThatContradictsItselfIsQuick(t *testing.T) {
	var results []find.ProviderResult
	for n := range 16_384 {
		md := binary.BigEndian.AppendUint32([]byte{0x81, 0x7d, 4}, uint32(n)) // code 16001, four bytes
		results = append(results, find.ProviderResult{ContextID: fmt.Append(nil, n), Metadata: md, Provider: &peer.AddrInfo{ID: "one"}})
	}
	began := time.Now()
	if n := len(merge(results)); n != len(results) {
		t.Errorf("%d records, want %d", n, len(results))
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("it took %v", took)
	}
}
