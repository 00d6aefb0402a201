package find

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// ProviderInfo is what a node knows of a provider. It is a value that is
// replaced, never edited. Its JSON is find.md section 4, times being RFC 3339
// text to the second.
type ProviderInfo struct {
	// AddrInfo is the provider and the addresses it serves content at.
	AddrInfo peer.AddrInfo
	// LastAdvertisement is the newest advertisement applied for the provider,
	// undefined if none was yet, and LastAdvertisementTime when that was.
	LastAdvertisement     cid.Cid
	LastAdvertisementTime time.Time
	// Lag is the number of advertisements left in a running sync.
	Lag int
	// Publisher is the peer whose chain the provider's advertisements are in,
	// with the address it serves them at. The reference's handoff crashes on
	// records without one, so it is to be given whenever it is known.
	Publisher *peer.AddrInfo
	// ExtendedProviders is nil if there are none.
	ExtendedProviders *ExtendedProviders
	// FrozenAt is the last advertisement stored in full before the node froze;
	// FrozenAtTime not being zero is what says that it is frozen.
	FrozenAt     cid.Cid
	FrozenAtTime time.Time
	// Inactive providers have not been heard from and are left out of finds.
	Inactive bool
	// LastError is the newest trouble with the publisher's chain, if any.
	LastError     string
	LastErrorTime time.Time
}

// ExtendedProviders are the further identities of a provider, for its whole
// chain and for single context IDs.
type ExtendedProviders struct {
	// Providers is the chain-level set, and Metadatas has one element for each
	// of its elements: nil to inherit the metadata of the index value.
	// Metadatas is brought to that length when written and when read, because
	// the reference's cache crashes on any other.
	Providers  []peer.AddrInfo
	Metadatas  [][]byte
	Contextual []ContextualExtendedProviders
}

// ContextualExtendedProviders is the set for one context ID. With Override the
// chain-level set does not apply there.
//
// ContextID is the raw bytes of the context ID as a string. In JSON it is a
// string of these bytes as well, not base64, so bytes that are not UTF-8
// arrive as U+FFFD; that is how the reference does it.
type ContextualExtendedProviders struct {
	Override  bool
	ContextID string
	Providers []peer.AddrInfo
	Metadatas [][]byte
}

// providerInfoWire has the names, the order and the omissions of the
// reference. A and X are the forms of a peer and of an extended set: those
// that write, peer.AddrInfo and ExtendedProviders, or those that read
// tolerantly, addrInfo and extendedWire[addrInfo].
type providerInfoWire[A, X any] struct {
	AddrInfo              A
	LastAdvertisement     cid.Cid
	LastAdvertisementTime string `json:",omitempty"`
	Lag                   int    `json:",omitempty"`
	Publisher             *A     `json:",omitempty"`
	ExtendedProviders     *X     `json:",omitempty"`
	FrozenAt              cid.Cid
	FrozenAtTime          string `json:",omitempty"`
	Inactive              bool   `json:",omitempty"`
	LastError             string `json:",omitempty"`
	LastErrorTime         string `json:",omitempty"`
}

// extendedWire and contextualWire are the same for extended providers.
type extendedWire[A any] struct {
	Providers  []A                 `json:",omitempty"`
	Contextual []contextualWire[A] `json:",omitempty"`
	Metadatas  [][]byte            `json:",omitempty"`
}

type contextualWire[A any] struct {
	Override  bool
	ContextID string
	Providers []A
	Metadatas [][]byte
}

// MarshalJSON writes p as find.md section 4 has it.
func (p ProviderInfo) MarshalJSON() ([]byte, error) {
	return json.Marshal(providerInfoWire[peer.AddrInfo, ExtendedProviders]{
		AddrInfo:              p.AddrInfo,
		LastAdvertisement:     p.LastAdvertisement,
		LastAdvertisementTime: timeText(p.LastAdvertisementTime),
		Lag:                   p.Lag,
		Publisher:             p.Publisher,
		ExtendedProviders:     p.ExtendedProviders.orNil(),
		FrozenAt:              p.FrozenAt,
		FrozenAtTime:          timeText(p.FrozenAtTime),
		Inactive:              p.Inactive,
		LastError:             p.LastError,
		LastErrorTime:         timeText(p.LastErrorTime),
	})
}

// UnmarshalJSON reads what MarshalJSON writes. Fields may be missing or null,
// except for the provider's ID. Addresses that are not understood here are
// left out, as are the times of the last advertisement and error if they are
// no times; FrozenAtTime must be one, because a handoff depends on it.
func (p *ProviderInfo) UnmarshalJSON(b []byte) error {
	var wire providerInfoWire[addrInfo, extendedWire[addrInfo]]
	if err := json.Unmarshal(b, &wire); err != nil {
		return err
	}
	info, err := wire.AddrInfo.value()
	if err != nil {
		return err
	}
	if info == nil {
		return errors.New("provider record without peer ID")
	}
	*p = ProviderInfo{
		AddrInfo:              *info,
		LastAdvertisement:     wire.LastAdvertisement,
		LastAdvertisementTime: textTime(wire.LastAdvertisementTime),
		Lag:                   wire.Lag,
		FrozenAt:              wire.FrozenAt,
		FrozenAtTime:          textTime(wire.FrozenAtTime),
		Inactive:              wire.Inactive,
		LastError:             wire.LastError,
		LastErrorTime:         textTime(wire.LastErrorTime),
	}
	if wire.FrozenAtTime != "" && p.FrozenAtTime.IsZero() {
		return fmt.Errorf("provider %s: FrozenAtTime %q is not a time", info.ID, wire.FrozenAtTime)
	}
	if p.Publisher, err = wire.Publisher.value(); err != nil {
		return err
	}
	p.ExtendedProviders, err = extendedValue(wire.ExtendedProviders)
	return err
}

// MarshalJSON writes x as find.md section 4 has it.
func (x ExtendedProviders) MarshalJSON() ([]byte, error) {
	wire := extendedWire[peer.AddrInfo]{
		Providers: x.Providers,
		Metadatas: resized(x.Metadatas, len(x.Providers)),
	}
	for _, c := range x.Contextual {
		wire.Contextual = append(wire.Contextual, contextualWire[peer.AddrInfo]{
			Override:  c.Override,
			ContextID: c.ContextID,
			Providers: append([]peer.AddrInfo{}, c.Providers...),
			Metadatas: append([][]byte{}, resized(c.Metadatas, len(c.Providers))...),
		})
	}
	return json.Marshal(wire)
}

// orNil is nil for a set that says nothing.
func (x *ExtendedProviders) orNil() *ExtendedProviders {
	if x == nil || (len(x.Providers) == 0 && len(x.Contextual) == 0) {
		return nil
	}
	return x
}

// extendedValue is what was read, without providers that have no ID; nil if
// that is nothing.
func extendedValue(wire *extendedWire[addrInfo]) (*ExtendedProviders, error) {
	if wire == nil {
		return nil, nil
	}
	x := &ExtendedProviders{}
	var err error
	if x.Providers, x.Metadatas, err = withIDs(wire.Providers, wire.Metadatas); err != nil {
		return nil, err
	}
	for _, c := range wire.Contextual {
		set := ContextualExtendedProviders{Override: c.Override, ContextID: c.ContextID}
		if set.Providers, set.Metadatas, err = withIDs(c.Providers, c.Metadatas); err != nil {
			return nil, err
		}
		x.Contextual = append(x.Contextual, set)
	}
	return x.orNil(), nil
}

// withIDs returns the providers that have an ID and the metadata of each.
func withIDs(wire []addrInfo, metadatas [][]byte) (infos []peer.AddrInfo, mds [][]byte, err error) {
	metadatas = resized(metadatas, len(wire))
	for i := range wire {
		info, err := wire[i].value()
		if err != nil {
			return nil, nil, err
		}
		if info != nil {
			infos = append(infos, *info)
			mds = append(mds, metadatas[i])
		}
	}
	return infos, mds, nil
}

// resized is metadatas cut or filled with nil to n elements.
func resized(metadatas [][]byte, n int) [][]byte {
	if len(metadatas) == n {
		return metadatas
	}
	out := make([][]byte, n)
	copy(out, metadatas)
	return out
}

// timeText is empty for the zero time.
func timeText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// textTime is the zero time for a text that is not a time.
func textTime(s string) time.Time {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}
	}
	return t
}
