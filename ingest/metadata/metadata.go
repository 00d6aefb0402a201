// Package metadata reads and writes retrieval metadata: the bytes that tell a
// client over which protocols, and with which parameters, a provider serves
// content. An indexer stores and returns them as they are; frontends and
// clients look inside.
//
// Metadata is a row of records, ascending by code:
//
//	┌───────────────┬─────────┬───────────────┬─────────┬─ ─
//	│ uvarint(code) │ payload │ uvarint(code) │ payload │
//	└───────────────┴─────────┴───────────────┴─────────┴─ ─
//
//	code    protocol                        payload
//	0x0900  transport-bitswap               none
//	0x0910  transport-graphsync-filecoinv1  dag-cbor map of three keys
//	0x0920  transport-ipfs-gateway-http     uvarint(0)
//	0x0930  transport-filecoin-piece-http   uvarint(0)
//	other                                   uvarint(length), bytes
//
// Reading is tolerant and never fails: what cannot be read is the rest, and is
// kept. Nothing here is checked by meaning, and metadata that means nothing to
// us is as good as any.
//
// Sources: ipni/specs IPNI.md (Metadata), the multicodec table, and what
// go-libipni v0.8.2 writes.
package metadata

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"github.com/multiformats/go-varint"
)

// Code is the multicodec number of a protocol.
type Code uint64

// The protocols that are in use.
const (
	Bitswap             Code = 0x0900
	GraphsyncFilecoinV1 Code = 0x0910
	IPFSGatewayHTTP     Code = 0x0920
	FilecoinPieceHTTP   Code = 0x0930
)

// MaxBytes bounds metadata in advertisements. Source: IPNI.md.
const MaxBytes = 1024

var names = map[Code]string{
	Bitswap:             "transport-bitswap",
	GraphsyncFilecoinV1: "transport-graphsync-filecoinv1",
	IPFSGatewayHTTP:     "transport-ipfs-gateway-http",
	FilecoinPieceHTTP:   "transport-filecoin-piece-http",
}

// String is the name in the multicodec table, or "Code(<decimal>)", as the
// delegated routing API has them.
func (c Code) String() string {
	if name, ok := names[c]; ok {
		return name
	}
	return fmt.Sprintf("Code(%d)", uint64(c))
}

// Record is one protocol's part of metadata.
type Record struct {
	Code Code
	// Bytes is the whole record, code included. It lies in the metadata that
	// was parsed.
	Bytes []byte
}

// Parse takes metadata apart. Reading stops at the first record that cannot be
// read; rest is what is left from there, empty when all was read. The records'
// bytes and rest, one after the other, are md.
func Parse(md []byte) (records []Record, rest []byte) {
	for len(md) > 0 {
		code, n, err := varint.FromUvarint(md)
		if err != nil {
			break
		}
		size, ok := payloadBytes(Code(code), md[n:])
		if !ok {
			break
		}
		end := n + size
		records = append(records, Record{Code(code), md[:end:end]})
		md = md[end:]
	}
	return records, md
}

// payloadBytes is the length of the payload that follows code at the start of b.
func payloadBytes(code Code, b []byte) (size int, ok bool) {
	switch code {
	case Bitswap:
		return 0, true
	case GraphsyncFilecoinV1:
		return graphsyncBytes(b)
	case IPFSGatewayHTTP, FilecoinPieceHTTP:
		if len(b) == 0 {
			// A literal reading of the specification gives no length byte.
			// At the end of metadata its absence is no riddle.
			return 0, true
		}
	}
	size64, n, err := varint.FromUvarint(b)
	if err != nil || size64 > uint64(len(b)-n) {
		return 0, false
	}
	return n + int(size64), true
}

// Protocols is the names of the protocols in md, each once, in the order they
// stand there.
func Protocols(md []byte) []string {
	records, _ := Parse(md)
	var protocols []string
	for _, r := range records {
		if name := r.Code.String(); !slices.Contains(protocols, name) {
			protocols = append(protocols, name)
		}
	}
	return protocols
}

// Encode writes metadata for protocols that have no parameters: bitswap, IPFS
// gateway and Filecoin piece. Order and repetition of codes do not matter.
func Encode(codes ...Code) ([]byte, error) {
	codes = slices.Clone(codes)
	slices.Sort(codes)
	var md []byte
	for _, code := range slices.Compact(codes) {
		switch code {
		case Bitswap:
			md = append(md, varint.ToUvarint(uint64(code))...)
		case IPFSGatewayHTTP, FilecoinPieceHTTP:
			md = append(md, varint.ToUvarint(uint64(code))...)
			md = append(md, 0)
		default:
			return nil, fmt.Errorf("encode metadata: %s has parameters that a code does not give", code)
		}
	}
	return md, nil
}

// ParseNames reads metadata from the form it has in flags: names of protocols
// as Encode takes them, separated by commas, the prefix "transport-" optional;
// or "base64:" and any metadata in standard base64, padded or not.
func ParseNames(s string) ([]byte, error) {
	if text, ok := strings.CutPrefix(s, "base64:"); ok {
		return parseBase64(text)
	}
	var codes []Code
	for name := range strings.SplitSeq(s, ",") {
		code, err := codeOf(strings.TrimSpace(name))
		if err != nil {
			return nil, err
		}
		codes = append(codes, code)
	}
	return Encode(codes...)
}

func parseBase64(text string) ([]byte, error) {
	md, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "="))
	if err != nil {
		return nil, fmt.Errorf("metadata in base64: %w", err)
	}
	if len(md) == 0 || len(md) > MaxBytes {
		return nil, fmt.Errorf("metadata in base64: %d bytes, want 1 to %d", len(md), MaxBytes)
	}
	return md, nil
}

func codeOf(name string) (Code, error) {
	for code, full := range names {
		if name == full || "transport-"+name == full {
			return code, nil
		}
	}
	return 0, fmt.Errorf("metadata: unknown protocol %q; known are bitswap, ipfs-gateway-http, filecoin-piece-http, or base64:…", name)
}

// The keys of the graphsync map, as dag-cbor text.
const (
	pieceCID      = "\x68PieceCID"
	verifiedDeal  = "\x6cVerifiedDeal"
	fastRetrieval = "\x6dFastRetrieval"
)

// graphsyncBytes is the length of the dag-cbor map at the start of b: three
// keys, in any order, with a link and two booleans.
func graphsyncBytes(b []byte) (size int, ok bool) {
	rest, ok := bytes.CutPrefix(b, []byte{0xa3})
	if !ok {
		return 0, false
	}
	keys := []string{pieceCID, verifiedDeal, fastRetrieval}
	for len(keys) > 0 {
		i := slices.IndexFunc(keys, func(k string) bool { return bytes.HasPrefix(rest, []byte(k)) })
		if i < 0 {
			return 0, false
		}
		cut := cutBool
		if keys[i] == pieceCID {
			cut = cutLink
		}
		if rest, ok = cut(rest[len(keys[i]):]); !ok {
			return 0, false
		}
		keys = slices.Delete(keys, i, i+1)
	}
	return len(b) - len(rest), true
}

func cutBool(b []byte) (rest []byte, ok bool) {
	if len(b) == 0 || b[0] != 0xf4 && b[0] != 0xf5 {
		return nil, false
	}
	return b[1:], true
}

// cutLink takes a dag-cbor link off b: tag 42, byte string, of up to 255 bytes.
func cutLink(b []byte) (rest []byte, ok bool) {
	b, ok = bytes.CutPrefix(b, []byte{0xd8, 0x2a})
	if !ok || len(b) == 0 {
		return nil, false
	}
	n := int(b[0]) - 0x40
	b = b[1:]
	if n == 0x18 && len(b) > 0 {
		n, b = int(b[0]), b[1:]
	} else if n < 0 || n >= 0x18 {
		return nil, false
	}
	if n > len(b) {
		return nil, false
	}
	return b[n:], true
}
