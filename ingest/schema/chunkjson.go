package schema

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"

	"github.com/ipfs/go-cid"
)

// A dag-json chunk, as most writers make it, without any white space:
//
//	{"Entries":[{"/":{"bytes":"EiDGOc…46 characters…"}},
//	            {"/":{"bytes":"EiAYx1…"}}],
//	 "Next":{"/":"baguqeera…"}}

const (
	jsonEntryOpen  = `{"/":{"bytes":"`
	jsonEntryClose = `"}}`
	// jsonEntryBytes is the length of a sha2-256 multihash and the comma after it.
	jsonEntryBytes = len(jsonEntryOpen) + 46 + len(jsonEntryClose) + 1
)

// walkJSON reads the whole block. Keys may come in either order, white space
// may be where JSON allows it.
func (d *ChunkDecoder) walkJSON() bool {
	w := &d.w
	w.advance(1)
	if !w.token('{') {
		return false
	}
	var entries, next bool
	for {
		w.space()
		switch {
		case !entries && w.cut(`"Entries"`):
			entries = true
			if !w.tokens(":[") || !d.jsonEntries() {
				return false
			}
		case !next && w.cut(`"Next"`):
			next = true
			if !w.token(':') || !d.jsonNext() {
				return false
			}
		default:
			return false
		}
		if !w.token(',') {
			return entries && w.token('}') && w.blank()
		}
	}
}

// jsonEntries reads the list of multihashes, from after its bracket to after
// the other.
func (d *ChunkDecoder) jsonEntries() bool {
	w := &d.w
	if w.token(']') {
		return true
	}
	out := 0 // decoded so far, of d.buf
	sha256Fits := d.limits.takesDigest(32)
	for {
		w.advance(2 * jsonEntryBytes)
		if sha256Fits {
			out = d.jsonRun(out)
		}
		var ok bool
		if out, ok = d.jsonEntry(out); !ok {
			return false
		}
		if len(d.chunk.spans)+d.chunk.Skipped > d.limits.MaxEntries {
			return false
		}
		if !w.token(',') {
			return w.token(']')
		}
	}
}

// jsonRun reads sha2-256 multihashes with a comma after them, up to the end of
// the window or the first entry of another form.
func (d *ChunkDecoder) jsonRun(out int) int {
	// The 15 bytes of jsonEntryOpen as two words that share the eighth, and the
	// last four of an entry.
	const (
		open0 = `{"/":{"b`
		open7 = `bytes":"`
		end   = `"}},`
	)
	b, pos, buf, spans := d.w.b[:d.w.end], d.w.pos, d.buf, d.chunk.spans
	for len(b)-pos >= jsonEntryBytes && len(buf)-out >= 40 {
		e := (*[jsonEntryBytes]byte)(b[pos:])
		if le64(e[0:8]) != word64(open0) || le64(e[7:15]) != word64(open7) || binary.LittleEndian.Uint32(e[61:]) != word32(end) {
			break
		}
		dst := (*[40]byte)(buf[out:])
		if !decode46(dst, (*[46]byte)(e[15:])) || dst[0] != 0x12 || dst[1] != 0x20 {
			break
		}
		spans = append(spans, span{uint32(out), 34})
		pos += jsonEntryBytes
		out += 34
	}
	d.w.pos, d.chunk.spans = pos, spans
	return out
}

func le64(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }

func word64(s string) uint64 {
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

func word32(s string) uint32 {
	return uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24
}

// jsonEntry reads one entry of any length, without what follows it.
func (d *ChunkDecoder) jsonEntry(out int) (int, bool) {
	w := &d.w
	if !w.cut(jsonEntryOpen) && !w.looseOpen() {
		return out, false
	}
	text, ok := w.plainText()
	if !ok {
		return out, false
	}
	enc := base64.RawStdEncoding
	if bytes.HasSuffix(text, []byte("=")) {
		enc = base64.StdEncoding
	}
	n, err := enc.Decode(d.buf[out:], text)
	if err != nil {
		return out, false
	}
	d.take(out, n)
	return out + n, w.tokens("}}")
}

// jsonNext reads a link.
func (d *ChunkDecoder) jsonNext() bool {
	w := &d.w
	if !w.token('{') || !w.word(`"/"`) || !w.tokens(`:"`) {
		return false
	}
	text, ok := w.plainText()
	if !ok || len(text) > maxLinkText {
		return false
	}
	c, err := cid.Decode(string(text))
	if err != nil || c.ByteLen() > maxLinkBytes {
		return false
	}
	d.chunk.Next = c
	return w.token('}')
}

// looseOpen consumes jsonEntryOpen with white space in it.
func (w *window) looseOpen() bool {
	return w.token('{') && w.word(`"/"`) && w.tokens(":{") && w.word(`"bytes"`) && w.tokens(`:"`)
}

// plainText consumes the rest of a string and its quote. It reports whether
// the string stands for itself: ASCII without escapes.
func (w *window) plainText() ([]byte, bool) {
	rest := w.b[w.pos:]
	n := bytes.IndexByte(rest, '"')
	if n < 0 {
		return nil, false
	}
	text := rest[:n]
	for _, c := range text {
		if c < ' ' || c >= 0x80 || c == '\\' {
			return nil, false
		}
	}
	w.pos += n + 1
	return text, true
}

// space consumes white space.
func (w *window) space() {
	for w.pos < len(w.b) {
		switch w.b[w.pos] {
		case ' ', '\t', '\r', '\n':
			w.pos++
		default:
			return
		}
	}
}

// token consumes white space and then c, if it is next.
func (w *window) token(c byte) bool {
	w.space()
	if w.pos == len(w.b) || w.b[w.pos] != c {
		return false
	}
	w.pos++
	return true
}

// tokens consumes the bytes of s, with or without white space before each.
func (w *window) tokens(s string) bool {
	for i := range len(s) {
		if !w.token(s[i]) {
			return false
		}
	}
	return true
}

// word consumes white space and then s, if it is next.
func (w *window) word(s string) bool {
	w.space()
	return w.cut(s)
}

// blank reports whether only white space is left.
func (w *window) blank() bool {
	w.space()
	return w.pos == len(w.b)
}
