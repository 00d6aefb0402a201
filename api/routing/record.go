package routing

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/signpost-index/signpost/api/find"
	"github.com/signpost-index/signpost/ingest/metadata"
)

// record is one "peer" record: a peer, where it is, and what it speaks.
type record struct {
	id    peer.ID
	addrs []multiaddr.Multiaddr
	// protocols is sorted by code, each code once. Empty if the metadata
	// could not be read.
	protocols []metadata.Record
}

// MarshalJSON writes the record as indexstar does, keys sorted: Addrs, ID,
// Protocols, Schema, and for each protocol a field of its name with its
// complete metadata record in base64. Protocols is left out if there are none.
func (r record) MarshalJSON() ([]byte, error) {
	addrs := make([]string, len(r.addrs))
	for i, addr := range r.addrs {
		addrs[i] = addr.String()
	}
	fields := map[string]any{"Schema": "peer", "ID": r.id.String(), "Addrs": addrs}
	if len(r.protocols) > 0 {
		names := make([]string, len(r.protocols))
		for i, p := range r.protocols {
			names[i] = p.Code.String()
			fields[names[i]] = base64.StdEncoding.EncodeToString(p.Bytes)
		}
		fields["Protocols"] = names
	}
	return json.Marshal(fields)
}

// key is what makes a record a repetition of another: the peer and its
// protocols with their bytes; not the addresses.
func (r *record) key() string {
	b := append([]byte(nil), r.id...)
	for _, p := range r.protocols {
		b = binary.AppendUvarint(b, uint64(len(p.Bytes)))
		b = append(b, p.Bytes...)
	}
	return string(b)
}

// fits reports whether the protocols of r and p do not contradict each other:
// no code has other bytes in the one than in the other.
func (r *record) fits(p metadata.Record) bool {
	i, found := r.find(p.Code)
	return !found || bytes.Equal(r.protocols[i].Bytes, p.Bytes)
}

// add puts p, which fits, among the protocols.
func (r *record) add(p metadata.Record) {
	if i, found := r.find(p.Code); !found {
		r.protocols = slices.Insert(r.protocols, i, p)
	}
}

func (r *record) find(code metadata.Code) (int, bool) {
	return slices.BinarySearchFunc(r.protocols, code, func(p metadata.Record, c metadata.Code) int {
		return cmp.Compare(p.Code, c)
	})
}

// merge makes records of results, one peer after the other: one record for a
// peer as long as its protocols' parameters agree, and a further one for each
// parameter that contradicts. All records of a peer have all its addresses.
// The order and repetition of results make no difference.
func merge(results []find.ProviderResult) []record {
	records := []record{}
	first := 0 // of the records of the current peer
	for _, result := range find.Merge(results) {
		if len(records) == 0 || records[first].id != result.Provider.ID {
			first = len(records)
			records = append(records, record{id: result.Provider.ID, addrs: result.Provider.Addrs})
		}
		addrs := find.UnionAddrs(records[first].addrs, result.Provider.Addrs)
		protocols, _ := metadata.Parse(result.Metadata)
		for _, p := range protocols {
			i := first
			for i < len(records) && !records[i].fits(p) {
				i++
			}
			if i == len(records) {
				records = append(records, record{id: result.Provider.ID})
			}
			records[i].add(p)
		}
		for i := first; i < len(records); i++ {
			records[i].addrs = addrs
		}
	}
	return records
}
