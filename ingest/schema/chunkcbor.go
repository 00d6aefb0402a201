package schema

import (
	"bytes"
	"encoding/binary"

	"github.com/ipfs/go-cid"
)

// A dag-cbor chunk, as all writers make it:
//
//	a2                          map of 2 (a1 without Next)
//	64 "Next"    d8 2a          tag 42
//	             58 25 00 CID   bytes: a zero and the CID
//	67 "Entries" 99 40 00       list of 16,384
//	             58 22 12 20 …  bytes: a multihash
//	             58 22 12 20 …

const (
	cborEntries = "\x67Entries"
	cborNext    = "\x64Next"
)

// walkCBOR reads the whole block. Keys may come in either order.
func (d *ChunkDecoder) walkCBOR() bool {
	w := &d.w
	w.advance(1)
	major, keys, ok := w.cborHead()
	if !ok || major != cborMap {
		return false
	}
	var entries, next bool
	for range min(keys, 3) {
		switch {
		case !entries && w.cut(cborEntries):
			entries = true
			ok = d.cborEntries()
		case !next && w.cut(cborNext):
			next = true
			ok = d.cborNext()
		default:
			ok = false
		}
		if !ok {
			return false
		}
	}
	return entries && w.pos == len(w.b)
}

// cborEntries reads the list of multihashes.
func (d *ChunkDecoder) cborEntries() bool {
	w := &d.w
	major, n, ok := w.cborHead()
	if !ok || major != cborArray || n > uint64(d.limits.MaxEntries) {
		return false
	}
	sha256Fits := d.limits.takesDigest(32)
	for left := int(n); left > 0; left-- {
		w.advance(64)
		if sha256Fits {
			if left -= d.cborRun(left); left == 0 {
				break
			}
		}
		major, size, ok := w.cborHead()
		if !ok || major != cborBytes || size > uint64(len(w.b)-w.pos) {
			return false
		}
		d.take(w.pos, int(size))
		w.pos += int(size)
	}
	return true
}

// cborRun reads sha2-256 multihashes, up to the end of the window, the first
// entry of another form, or max of them. It returns their number.
func (d *ChunkDecoder) cborRun(max int) (n int) {
	const (
		entryBytes = 2 + 34
		entryHead  = 0x20122258 // 58 22 12 20, little endian
	)
	b, pos, spans := d.w.b[:d.w.end], d.w.pos, d.chunk.spans
	for n < max && len(b)-pos >= entryBytes && binary.LittleEndian.Uint32(b[pos:]) == entryHead {
		spans = append(spans, span{uint32(pos + 2), 34})
		pos += entryBytes
		n++
	}
	d.w.pos, d.chunk.spans = pos, spans
	return n
}

// take adds the multihash at buf[off:off+n], or counts it as skipped.
func (d *ChunkDecoder) take(off, n int) {
	if !d.limits.takes(d.chunk.buf[off : off+n]) {
		d.chunk.Skipped++
		return
	}
	d.chunk.spans = append(d.chunk.spans, span{uint32(off), uint32(n)})
}

// cborNext reads a link.
func (d *ChunkDecoder) cborNext() bool {
	w := &d.w
	if !w.cut("\xd8\x2a") {
		return false
	}
	major, n, ok := w.cborHead()
	if !ok || major != cborBytes || n == 0 || n > 1+maxLinkBytes || n > uint64(len(w.b)-w.pos) {
		return false
	}
	link := w.b[w.pos : w.pos+int(n)]
	c, err := cid.Cast(link[1:])
	if err != nil || link[0] != 0 {
		return false
	}
	d.chunk.Next = c
	w.pos += int(n)
	return true
}

// cut consumes s, if it is next.
func (w *window) cut(s string) bool {
	if !bytes.HasPrefix(w.b[w.pos:], []byte(s)) {
		return false
	}
	w.pos += len(s)
	return true
}

// cborHead consumes a head, if it is of the shortest form.
func (w *window) cborHead() (major byte, arg uint64, ok bool) {
	s := cborSkipper{skipper{b: w.b, pos: w.pos, ok: true}}
	major, arg = s.head()
	if !s.ok || s.pos-w.pos != cborHeadBytes(arg) {
		return 0, 0, false
	}
	w.pos = s.pos
	return major, arg, true
}

// cborHeadBytes is the length of the shortest head with arg.
func cborHeadBytes(arg uint64) int {
	switch {
	case arg < 24:
		return 1
	case arg < 1<<8:
		return 2
	case arg < 1<<16:
		return 3
	case arg < 1<<32:
		return 5
	}
	return 9
}
