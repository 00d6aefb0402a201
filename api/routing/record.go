package routing

import (
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

// add puts p among the protocols; there is none of its code yet.
func (r *record) add(p metadata.Record) {
	i, _ := slices.BinarySearchFunc(r.protocols, p.Code, func(p metadata.Record, c metadata.Code) int {
		return cmp.Compare(p.Code, c)
	})
	r.protocols = slices.Insert(r.protocols, i, p)
}

// merge makes records of results, one peer after the other: one record for a
// peer as long as its protocols' parameters agree, and a further one for each
// parameter that contradicts. All records of a peer have all its addresses.
// The order and repetition of results make no difference.
func merge(results []find.ProviderResult) []record {
	records := []record{}
	first := 0 // of the records of the current peer
	// A protocol goes to the first record of the peer that has no other bytes for
	// it. So those that have some for a code are the first so many, and placed
	// tells which have which: a peer may have thousands.
	having, placed := make(map[metadata.Code]int), make(map[string]bool)
	for n, result := range find.Merge(results) {
		if n == 0 || records[first].id != result.Provider.ID {
			shareAddrs(records[first:])
			first = len(records)
			records = append(records, record{id: result.Provider.ID, addrs: result.Provider.Addrs})
			clear(having)
			clear(placed)
		}
		records[first].addrs = find.UnionAddrs(records[first].addrs, result.Provider.Addrs)
		protocols, _ := metadata.Parse(result.Metadata)
		for _, p := range protocols {
			if placed[string(p.Bytes)] { // they begin with the code
				continue
			}
			placed[string(p.Bytes)] = true
			i := first + having[p.Code]
			having[p.Code]++
			if i == len(records) {
				records = append(records, record{id: result.Provider.ID})
			}
			records[i].add(p)
		}
	}
	shareAddrs(records[first:])
	return records
}

// shareAddrs gives all records of a peer the addresses of the first.
func shareAddrs(records []record) {
	for i := range records {
		records[i].addrs = records[0].addrs
	}
}
