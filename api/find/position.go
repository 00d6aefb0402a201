package find

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"

	"github.com/multiformats/go-multiaddr"
)

// HeaderPosition is in the request of whoever wants the Position of results, with any
// value. Clients of the reference do not know it.
const HeaderPosition = "X-Signpost-Position"

// Position is where in a publisher's chain the ad is that made a result what it is:
// the ad that wrote its metadata, or, of an extended provider, the newer of that and
// the one that named the provider. It is the same on all nodes. Of two results with
// the same provider, context ID, Chain and Extended, the one with the lower Height is
// out of date. The zero Position is one not known.
type Position struct {
	// Chain is made of the publisher and the chain's first ad.
	Chain [16]byte
	// Height counts the chain's ads from its first, which has 1; 0: not known.
	Height uint64
	// Extended tells a result of an extended provider from what that provider
	// advertises itself.
	Extended bool
}

// maxHeight is above all heights there can be: twice it fits in 64 bits.
const maxHeight = 1 << 62

func (p Position) isKnown() bool {
	return p.Height != 0 && p.Height < maxHeight && p.Chain != [16]byte{}
}

// compareChains is 0 for positions one of which can be newer than the other.
func compareChains(a, b Position) int {
	extended := func(p Position) int {
		if p.Extended {
			return 1
		}
		return 0
	}
	return cmp.Or(bytes.Compare(a.Chain[:], b.Chain[:]), cmp.Compare(extended(a), extended(b)))
}

// wantsPosition tells whether a request is that of a frontend.
func wantsPosition(r *http.Request) bool { return r.Header.Get(HeaderPosition) != "" }

// onWire is results, which are its caller's, as they are sent.
func onWire(results []ProviderResult, positions bool) []ProviderResult {
	for i := range results {
		if !positions {
			results[i].Position = Position{}
		}
	}
	return results
}

// appendPosition appends ,"Position":{...} if it is known.
func appendPosition(b []byte, p Position) []byte {
	if !p.isKnown() {
		return b
	}
	b = append(b, `,"Position":{"Chain":"`...)
	b = base64.StdEncoding.AppendEncode(b, p.Chain[:])
	b = strconv.AppendUint(append(b, `","Height":`...), p.Height, 10)
	if p.Extended {
		b = append(b, `,"Extended":true`...)
	}
	return append(b, '}')
}

const maxPositionText = 96 // of appendPosition

// readPosition reads what appendPosition wrote. Of anything else there is none, as
// without it nothing is lost.
func readPosition(b []byte) Position {
	var wire struct {
		Chain    []byte
		Height   uint64
		Extended bool
	}
	if len(b) == 0 || json.Unmarshal(b, &wire) != nil || len(wire.Chain) != len(Position{}.Chain) {
		return Position{}
	}
	p := Position{[16]byte(wire.Chain), wire.Height, wire.Extended}
	if !p.isKnown() {
		return Position{}
	}
	return p
}

// appendBinaryPosition writes a position for a line: twice the height, plus 1 if it is
// of an extended provider, and the chain; or 0.
func appendBinaryPosition(b []byte, p Position) []byte {
	if !p.isKnown() {
		return append(b, 0)
	}
	h := p.Height << 1
	if p.Extended {
		h++
	}
	return append(binary.AppendUvarint(b, h), p.Chain[:]...)
}

func (r *lineReader) position() (p Position) {
	h, n := binary.Uvarint(r.b)
	if n <= 0 || h == 1 || h > 1 && len(r.b)-n < len(p.Chain) {
		r.b, r.bad = nil, true
		return p
	}
	r.b = r.b[n:]
	if h > 1 {
		p.Height, p.Extended = h>>1, h&1 != 0
		r.b = r.b[copy(p.Chain[:], r.b):]
		r.bad = r.bad || !p.isKnown()
	}
	return p
}

// Unite is what Merge makes of results before it forgets whose they are: each
// provider, context ID, metadata and chain once, with the newest Position of that chain
// and the addresses of all that have it, and without what is out of date. It can be
// united again: unite(a, unite(b, c)) = unite(unite(a, b), c) = unite(c, b, a).
//
// results is reordered and reused; the providers it points to are not changed.
func Unite(results []ProviderResult) []ProviderResult {
	slices.SortStableFunc(results, func(a, b ProviderResult) int {
		return cmp.Or(
			cmp.Compare(a.Provider.ID, b.Provider.ID),
			bytes.Compare(a.ContextID, b.ContextID),
			compareChains(a.Position, b.Position),
			cmp.Compare(b.Position.Height, a.Position.Height),
			bytes.Compare(a.Metadata, b.Metadata),
		)
	})
	united := results[:0]
	for _, r := range results {
		if n := len(united); n > 0 {
			last := &united[n-1]
			if last.Provider.ID == r.Provider.ID && bytes.Equal(last.ContextID, r.ContextID) && compareChains(last.Position, r.Position) == 0 {
				if last.Position.Height > r.Position.Height {
					continue // out of date
				}
				if bytes.Equal(last.Metadata, r.Metadata) {
					addAddrs(last, &r)
					continue
				}
			}
		}
		united = append(united, r)
	}
	clear(results[len(united):])
	return united
}

// Newest remembers of an answer that is sent as it comes what was newest of each
// provider, context ID and chain. It is for one goroutine.
type Newest map[string]uint64

// Outdated tells whether something newer than r was sent; else r is noted.
func (n Newest) Outdated(r *ProviderResult) bool {
	p := r.Position
	if !p.isKnown() {
		return false
	}
	key := append(make([]byte, 0, 160), p.Chain[:]...)
	if p.Extended {
		key = append(key, 1)
	} else {
		key = append(key, 0)
	}
	key = append(appendBytes(key, r.ContextID), r.Provider.ID...)
	if p.Height < n[string(key)] {
		return true
	}
	n[string(key)] = p.Height
	return false
}

// addAddrs gives a result the addresses of another too.
func addAddrs(r, other *ProviderResult) {
	if slices.EqualFunc(r.Provider.Addrs, other.Provider.Addrs, multiaddr.Multiaddr.Equal) {
		return
	}
	info := *r.Provider
	info.Addrs = UnionAddrs(r.Provider.Addrs, other.Provider.Addrs)
	r.Provider = &info
}
