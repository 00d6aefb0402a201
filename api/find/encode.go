package find

import (
	"encoding/base64"
	"encoding/json"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
)

// The encoders below append the bytes that encoding/json makes of the
// reference's types; a test compares the two. They exist because finds are the
// hottest path and reflection is most of their cost.

// idTexts are peer IDs as text: base58 takes a microsecond, a tenth of an answer,
// and most answers name the same few providers.
var idTexts, _ = lru.New[peer.ID, string](4096) // fails for sizes below 1 only

func idText(id peer.ID) string {
	if text, ok := idTexts.Get(id); ok {
		return text
	}
	text := id.String()
	idTexts.Add(id, text)
	return text
}

// appendMultihashResult appends {"Multihash":...,"ProviderResults":[...]}.
func appendMultihashResult(b []byte, mh multihash.Multihash, results []ProviderResult) []byte {
	b = append(b, `{"Multihash":`...)
	b = appendBase64(b, mh)
	b = append(b, `,"ProviderResults":[`...)
	for i := range results {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendResult(b, &results[i])
	}
	return append(b, "]}"...)
}

// appendResult appends one result, without a newline.
func appendResult(b []byte, r *ProviderResult) []byte {
	if r.Provider == nil {
		return append(appendResultHead(b, r), "null}"...)
	}
	b = appendAddrInfo(appendResultHead(b, r), r.Provider)
	return append(appendPosition(b, r.Position), '}')
}

// appendLine appends one result and a newline, with as many of the provider's
// addresses, from the front, as keep the line below limit bytes. It returns b
// as it was, and false, if the line is too long even without addresses.
func appendLine(b []byte, r *ProviderResult, limit int) ([]byte, bool) {
	const tail = "]}}\n"
	if r.Position.isKnown() {
		limit -= maxPositionText
	}
	start := len(b)
	line := appendResultHead(b, r)
	line = append(line, `{"ID":"`...)
	line = append(line, idText(r.Provider.ID)...)
	line = append(line, `","Addrs":[`...)
	if len(line)-start+len(tail) >= limit {
		return line[:start], false
	}
	for i, addr := range r.Provider.Addrs {
		before := len(line)
		if i > 0 {
			line = append(line, ',')
		}
		line = appendString(line, addr.String())
		if len(line)-start+len(tail) >= limit {
			line = line[:before]
			break
		}
	}
	return append(appendPosition(append(line, tail[:2]...), r.Position), tail[2:]...), true
}

// appendResultHead appends a result up to and with `"Provider":`.
func appendResultHead(b []byte, r *ProviderResult) []byte {
	b = append(b, '{')
	if len(r.ContextID) > 0 {
		b = append(b, `"ContextID":`...)
		b = appendBase64(b, r.ContextID)
		b = append(b, ',')
	}
	if len(r.Metadata) > 0 {
		b = append(b, `"Metadata":`...)
		b = appendBase64(b, r.Metadata)
		b = append(b, ',')
	}
	return append(b, `"Provider":`...)
}

// appendAddrInfo appends {"ID":...,"Addrs":[...]}.
func appendAddrInfo(b []byte, info *peer.AddrInfo) []byte {
	b = append(b, `{"ID":"`...)
	b = append(b, idText(info.ID)...) // base58: nothing to escape
	b = append(b, `","Addrs":[`...)
	for i, addr := range info.Addrs {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, addr.String())
	}
	return append(b, "]}"...)
}

func appendBase64(b, data []byte) []byte {
	b = append(b, '"')
	b = base64.StdEncoding.AppendEncode(b, data)
	return append(b, '"')
}

// appendString appends s as encoding/json would, which is asked only for
// strings that need escaping.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, _ := json.Marshal(s) // a string always marshals
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
