package store

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Rows are written field after field without names: uvarints, and byte
// strings as uvarint length and bytes. The zero time is the number 0, any
// other its Unix nanoseconds; an undefined CID is the empty string.

// maxRowString bounds one string of a row, maxRowItems the items of one list:
// an ad block has at most 1 MiB.
const (
	maxRowString = 1 << 20
	maxRowItems  = 1 << 16
)

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func appendStrings(b []byte, ss []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(ss)))
	for _, s := range ss {
		b = appendString(b, s)
	}
	return b
}

func appendCID(b []byte, c cid.Cid) []byte {
	return appendString(b, c.KeyString())
}

// appendPos writes a position. Those of an indexer are mostly multiples of
// 2^32, which leaves room between two ads; these take few bytes.
func appendPos(b []byte, pos Position) []byte {
	if pos&(1<<32-1) == 0 {
		return binary.AppendUvarint(b, uint64(pos)>>32<<1)
	}
	return binary.AppendUvarint(b, uint64(pos)<<1|1)
}

func appendTime(b []byte, t time.Time) []byte {
	return binary.AppendVarint(b, nanos(t))
}

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

// reader takes a row or key apart. After the first thing out of place every
// read returns a zero value, and done reports ErrCorrupt. What it returns is
// copied out of the row.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) fail() {
	r.bad, r.b = true, nil
}

// done reports whether the row was whole: nothing missing, nothing left.
func (r *reader) done(what string) error {
	if r.bad || len(r.b) != 0 {
		return fmt.Errorf("decode %s: %w", what, ErrCorrupt)
	}
	return nil
}

func (r *reader) take(n, limit int) []byte {
	if r.bad || n < 0 || n > limit || n > len(r.b) {
		r.fail()
		return nil
	}
	v := append([]byte(nil), r.b[:n]...)
	r.b = r.b[n:]
	return v
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) bool() bool {
	v := r.byte()
	if v > 1 {
		r.fail()
	}
	return v == 1
}

func (r *reader) uint64() uint64 {
	if len(r.b) < 8 {
		r.fail()
		return 0
	}
	v := binary.BigEndian.Uint64(r.b)
	r.b = r.b[8:]
	return v
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || (n > 1 && r.b[n-1] == 0) { // missing, too long, or padded
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	u := r.uvarint()
	v := int64(u >> 1)
	if u&1 != 0 {
		v = ^v
	}
	return v
}

func (r *reader) bytes(limit int) []byte {
	n := r.uvarint()
	if n > uint64(limit) {
		r.fail()
		return nil
	}
	return r.take(int(n), limit)
}

func (r *reader) string() string {
	return string(r.bytes(maxRowString))
}

// count reads the length of a list whose items take at least minBytes each.
func (r *reader) count(minBytes int) int {
	n := r.uvarint()
	if n > maxRowItems || n*uint64(minBytes) > uint64(len(r.b)) {
		r.fail()
		return 0
	}
	return int(n)
}

func (r *reader) strings() []string {
	n := r.count(1)
	if n == 0 {
		return nil
	}
	ss := make([]string, n)
	for i := range ss {
		ss[i] = r.string()
	}
	return ss
}

func (r *reader) peer() peer.ID {
	return peer.ID(r.bytes(maxPeerBytes))
}

func (r *reader) cid() cid.Cid {
	b := r.bytes(maxCIDBytes)
	if len(b) == 0 {
		return cid.Undef
	}
	c, err := cid.Cast(b)
	if err != nil {
		r.fail()
		return cid.Undef
	}
	return c
}

func (r *reader) time() time.Time {
	v := r.varint()
	if v == 0 {
		return time.Time{}
	}
	return time.Unix(0, v)
}

// pos reads a position that appendPos wrote.
func (r *reader) pos() Position {
	v := r.uvarint()
	pos := Position(v >> 1)
	if v&1 == 0 {
		if v>>32 != 0 {
			r.fail()
		}
		return pos << 32
	}
	if pos&(1<<32-1) == 0 {
		r.fail()
	}
	return pos
}

// number reads the number of a peer.
func (r *reader) number() uint32 {
	n := r.uvarint()
	if n == 0 || n > math.MaxUint32 {
		r.fail()
	}
	return uint32(n)
}

func (r *reader) uint32() uint32 {
	if len(r.b) < 4 {
		r.fail()
		return 0
	}
	v := binary.BigEndian.Uint32(r.b)
	r.b = r.b[4:]
	return v
}
