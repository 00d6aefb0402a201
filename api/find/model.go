package find

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multihash"
)

// ProviderResult is one way to get a multihash: the provider, and the metadata
// that says how to ask it. ContextID and Metadata are opaque bytes, at most 64
// and 1024 of them where they come from an advertisement.
//
// Its JSON has ContextID and Metadata in base64, left out if empty, and
// Provider as {"ID","Addrs"}, Addrs always being there. Reading is tolerant:
// addresses that this node does not understand are left out.
//
// Position says where the result is from, as far as that is known. On the wire it is
// for those only who ask for it (HeaderPosition).
type ProviderResult struct {
	ContextID []byte
	Metadata  []byte
	Provider  *peer.AddrInfo
	Position  Position
}

// MultihashResult is what is known of one multihash. Its JSON has the
// multihash in base64.
type MultihashResult struct {
	Multihash       multihash.Multihash
	ProviderResults []ProviderResult
}

// Response is the JSON answer to a find; its list is left out if empty.
type Response struct {
	MultihashResults []MultihashResult
}

// Stats is the size of an index in multihashes: an estimate of what is stored,
// and a count where one is kept.
type Stats struct {
	EntriesEstimate int64
	EntriesCount    int64
}

// MarshalJSON writes r as find.md section 4 has it.
func (r ProviderResult) MarshalJSON() ([]byte, error) { return appendResult(nil, &r), nil }

// MarshalJSON writes r as find.md section 4 has it.
func (r MultihashResult) MarshalJSON() ([]byte, error) {
	return appendMultihashResult(nil, r.Multihash, r.ProviderResults), nil
}

// MarshalJSON writes r as find.md section 4 has it.
func (r Response) MarshalJSON() ([]byte, error) {
	if len(r.MultihashResults) == 0 {
		return []byte("{}"), nil
	}
	b := []byte(`{"MultihashResults":[`)
	for i, mr := range r.MultihashResults {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendMultihashResult(b, mr.Multihash, mr.ProviderResults)
	}
	return append(b, "]}"...), nil
}

// UnmarshalJSON reads what MarshalJSON writes, and null or nothing for any
// field.
func (r *ProviderResult) UnmarshalJSON(b []byte) error {
	var wire struct {
		ContextID, Metadata []byte
		Provider            *addrInfo
		Position            json.RawMessage
	}
	if err := json.Unmarshal(b, &wire); err != nil {
		return err
	}
	provider, err := wire.Provider.value()
	*r = ProviderResult{ContextID: wire.ContextID, Metadata: wire.Metadata, Provider: provider, Position: readPosition(wire.Position)}
	return err
}

// UnmarshalJSON reads what MarshalJSON writes. The multihash must be one.
func (r *MultihashResult) UnmarshalJSON(b []byte) error {
	var wire struct {
		Multihash       []byte
		ProviderResults []ProviderResult
	}
	if err := json.Unmarshal(b, &wire); err != nil {
		return err
	}
	mh, err := multihash.Cast(wire.Multihash)
	if err != nil {
		return fmt.Errorf("multihash of a result: %w", err)
	}
	*r = MultihashResult{Multihash: mh, ProviderResults: wire.ProviderResults}
	return nil
}

// addrInfo reads {"ID","Addrs"} tolerantly: a missing or null list of
// addresses is empty, and addresses with protocols unknown here are left out,
// because another router's newer transport must not hide the provider.
type addrInfo struct {
	ID    string
	Addrs []string
}

// value is nil if there is no peer ID.
func (a *addrInfo) value() (*peer.AddrInfo, error) {
	if a == nil || a.ID == "" {
		return nil, nil
	}
	id, err := parsePeerID(a.ID)
	if err != nil {
		return nil, err
	}
	info := &peer.AddrInfo{ID: id, Addrs: make([]multiaddr.Multiaddr, 0, len(a.Addrs))}
	for _, s := range a.Addrs {
		if addr, err := multiaddr.NewMultiaddr(s); err == nil {
			info.Addrs = append(info.Addrs, addr)
		}
	}
	return info, nil
}

// sameIdentity reports whether a and b are the same record: provider, context
// ID and metadata.
func sameIdentity(a, b *ProviderResult) bool {
	return a.Provider.ID == b.Provider.ID && bytes.Equal(a.ContextID, b.ContextID) && bytes.Equal(a.Metadata, b.Metadata)
}
