package store

import (
	"encoding/binary"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ipfs/go-cid"
)

// Trouble is what stands between a thing and its next try. The zero Trouble:
// none. It is kept in the row of the thing, and goes with it.
type Trouble struct {
	Attempts uint32
	Since    time.Time // of the first failure
	Next     time.Time // not tried again before
	Reason   string    // last error; kept up to 1 KiB
}

// IsZero tells whether there is no trouble.
func (t Trouble) IsZero() bool {
	return t.Attempts == 0 && nanos(t.Since) == 0 && nanos(t.Next) == 0 && t.Reason == ""
}

// kept is the trouble as it is kept.
func (t Trouble) kept() Trouble {
	t.Reason = cutReason(t.Reason)
	return t
}

// append writes a trouble as the end of a row: nothing if there is none.
func (t Trouble) append(b []byte) []byte {
	if t.IsZero() {
		return b
	}
	b = binary.AppendUvarint(b, uint64(t.Attempts))
	b = appendTime(appendTime(b, t.Since), t.Next)
	return appendString(b, t.Reason)
}

// trouble reads what stands at the end of a row.
func (r *reader) trouble() Trouble {
	if len(r.b) == 0 {
		return Trouble{}
	}
	n := r.uvarint()
	t := Trouble{Attempts: uint32(n), Since: r.time(), Next: r.time(), Reason: string(r.bytes(maxReasonBytes))}
	if n > math.MaxUint32 || t.IsZero() {
		r.fail()
	}
	return t
}

// cutReason makes a reason one that is kept: UTF-8 of at most maxReasonBytes.
func cutReason(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= maxReasonBytes {
		return s
	}
	n := maxReasonBytes
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// waitingRow is the value of a pending or again row.
type waitingRow struct {
	refRow
	trouble Trouble
}

func (w waitingRow) encode() []byte { return w.trouble.append(w.refRow.encode()) }

func decodeWaiting(b []byte) (waitingRow, error) {
	r := &reader{b: b}
	w := waitingRow{refRow{ad: r.cid(), prev: r.cid()}, r.trouble()}
	if !w.ad.Defined() {
		r.fail()
	}
	return w, r.done("waiting ad")
}

// scanRow is the value of a scan row.
type scanRow struct {
	next    cid.Cid
	depth   uint64
	trouble Trouble
}

// encode writes a depth, which few walks have, before the CID and behind an
// undefined one.
func (w scanRow) encode() []byte {
	var b []byte
	if w.depth > 0 {
		b = binary.AppendUvarint(appendCID(nil, cid.Undef), w.depth)
	}
	return w.trouble.append(appendCID(b, w.next))
}

func decodeScan(b []byte) (scanRow, error) {
	r := &reader{b: b}
	w := scanRow{next: r.cid()}
	if !w.next.Defined() {
		if w.depth = r.uvarint(); w.depth == 0 || w.depth > math.MaxInt64 {
			r.fail()
		}
		w.next = r.cid()
	}
	w.trouble = r.trouble()
	if !w.next.Defined() {
		r.fail()
	}
	return w, r.done("scan")
}
