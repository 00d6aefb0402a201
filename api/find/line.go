package find

import (
	"encoding/binary"
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

// A line is a connection between a frontend and an indexer with the same index
// secret, on which finds follow one another without HTTP: each costs a few
// microseconds instead of some forty on either side. It begins as
// GET linePath with Upgrade: lineProtocol. Then, numbers big-endian:
//
//	find    ┌───────┬───────┬───────────┐    answer ┌───────┬───────┬───────┬─────────┐
//	        │ id 4B │ len 2B│ multihash │           │ id 4B │ len 4B│ kind 1│ results │
//	        └───────┴───────┴───────────┘           └───────┴───────┴───────┴─────────┘
//
// Answers come in any order. Results are their number, and of each the provider's ID,
// context ID, metadata, the number of addresses and these, all with a uvarint before, of
// how many or how long, and its position (appendBinaryPosition). Kind 1 has none: ask by HTTP, as the answer is long, or an error.
const (
	linePath     = "/signpost/v1/line"
	lineProtocol = "signpost-line-2"

	kindResults = 0
	kindByHTTP  = 1

	findHeader   = 6
	answerHeader = 9
	maxLineKey   = 1 << 10
	// maxLineAnswer bounds the results of an answer: 30 of the largest, and some
	// hundred of the usual.
	maxLineAnswer = 64 << 10
)

func appendBytes(b, v []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(v))), v...)
}

// appendBinary writes a result for a line.
func appendBinary(b []byte, r *ProviderResult) []byte {
	b = binary.AppendUvarint(b, uint64(len(r.Provider.ID)))
	b = append(b, r.Provider.ID...)
	b = appendBytes(appendBytes(b, r.ContextID), r.Metadata)
	b = binary.AppendUvarint(b, uint64(len(r.Provider.Addrs)))
	for _, a := range r.Provider.Addrs {
		b = appendBytes(b, a.Bytes())
	}
	return appendBinaryPosition(b, r.Position)
}

// lineReader reads what appendBinary wrote. After an error all is empty.
type lineReader struct {
	b   []byte
	bad bool
}

// number is at most the number of bytes left: it counts something that takes one at least.
func (r *lineReader) number() int {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > uint64(len(r.b)-n) {
		r.b, r.bad = nil, true
		return 0
	}
	r.b = r.b[n:]
	return int(v)
}

func (r *lineReader) bytes() []byte {
	n := r.number()
	v := r.b[:n:n]
	r.b = r.b[n:]
	if n == 0 {
		return nil
	}
	return v
}

// readBinary reads the results of an answer. It keeps b.
func readBinary(b []byte) ([]ProviderResult, error) {
	r := &lineReader{b: b}
	results := make([]ProviderResult, 0, min(r.number(), 64))
	for len(r.b) > 0 {
		id, err := peer.IDFromBytes(r.bytes())
		if err != nil {
			return nil, fmt.Errorf("%w: provider: %w", ErrMalformed, err)
		}
		p := ProviderResult{ContextID: r.bytes(), Metadata: r.bytes()}
		info := &peer.AddrInfo{ID: id}
		for range r.number() {
			// An address that is not known here is left out, as in JSON.
			if a, err := multiaddr.NewMultiaddrBytes(r.bytes()); err == nil {
				info.Addrs = append(info.Addrs, a)
			}
		}
		p.Provider, p.Position = info, r.position()
		results = append(results, p)
		if r.bad || len(results) > maxResults {
			break
		}
	}
	if r.bad {
		return nil, fmt.Errorf("%w: an answer of %d bytes", ErrMalformed, len(b))
	}
	return results, nil
}
