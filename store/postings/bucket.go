package postings

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
)

// posting is one entry of a bucket: the bits of the hash that are not in the
// bucket's key, and a record ID.
type posting struct {
	suffix uint64
	id     uint64
}

// compare orders by suffix, then ID.
func (p posting) compare(q posting) int {
	switch {
	case p.suffix < q.suffix:
		return -1
	case p.suffix > q.suffix:
		return 1
	case p.id < q.id:
		return -1
	case p.id > q.id:
		return 1
	}
	return 0
}

// skipFrom is the number of IDs of one hash from which their length is
// written before them, for readers that look for another hash.
const skipFrom = 64

// encoder keeps the buffers of encode. It is not safe for concurrent use.
type encoder struct{ extra []byte }

// encode appends the bucket of ps, sorted and without repetition, to dst.
// Suffixes are below 2^width. No postings are no bytes.
func (e *encoder) encode(dst []byte, ps []posting, width uint) []byte {
	if len(ps) == 0 {
		return dst
	}
	unique, shared, base, top := survey(ps)
	idBits := uint(bits.Len64(top - base))
	extra := e.extra[:0]
	if shared > 0 {
		extra = encodeShared(extra, ps, shared, width, base, idBits)
		e.extra = extra
	}
	flag := uint64(0)
	if shared > 0 {
		flag = 1
	}
	dst = binary.AppendUvarint(dst, uint64(unique)<<1|flag)
	dst = binary.AppendUvarint(dst, base)
	dst = append(dst, byte(idBits))
	if shared > 0 {
		dst = binary.AppendUvarint(dst, uint64(shared))
		dst = binary.AppendUvarint(dst, uint64(len(extra)))
	}
	if shared == 0 {
		return encodeAll(dst, ps, width, base, idBits)
	}
	dst = encodeUnique(dst, ps, unique, width, base, idBits)
	return append(dst, extra...)
}

// survey counts the hashes with one and with several IDs and finds the span
// of the IDs.
func survey(ps []posting) (unique, shared int, base, top uint64) {
	base = ps[0].id
	alone, last := true, ps[0].suffix+1
	for _, p := range ps {
		alone = alone && p.suffix != last
		base, top, last = min(base, p.id), max(top, p.id), p.suffix
	}
	if alone {
		return len(ps), 0, base, top
	}
	for i := 0; i < len(ps); {
		base, top = min(base, ps[i].id), max(top, ps[i].id)
		j := i + 1
		for ; j < len(ps) && ps[j].suffix == ps[i].suffix; j++ {
			top = max(top, ps[j].id)
		}
		if j == i+1 {
			unique++
		} else {
			shared++
		}
		i = j
	}
	return unique, shared, base, top
}

// encodeAll is encodeUnique where all are.
func encodeAll(dst []byte, ps []posting, width uint, base uint64, idBits uint) []byte {
	w := bitWriter{buf: dst}
	k := riceParam(width, uint64(len(ps)))
	next := uint64(0)
	for _, p := range ps {
		w.rice(p.suffix-next, k)
		w.write(p.id-base, idBits)
		next = p.suffix + 1
	}
	return w.finish()
}

func encodeUnique(dst []byte, ps []posting, n int, width uint, base uint64, idBits uint) []byte {
	if n == 0 {
		return dst
	}
	w := bitWriter{buf: dst}
	k := riceParam(width, uint64(n))
	next := uint64(0) // the least suffix that may come
	for i, p := range ps {
		if i > 0 && ps[i-1].suffix == p.suffix || i+1 < len(ps) && ps[i+1].suffix == p.suffix {
			continue
		}
		w.rice(p.suffix-next, k)
		w.write(p.id-base, idBits)
		next = p.suffix + 1
	}
	return w.finish()
}

func encodeShared(dst []byte, ps []posting, n int, width uint, base uint64, idBits uint) []byte {
	w := bitWriter{buf: dst}
	k := riceParam(width, uint64(n))
	next := uint64(0)
	for i := 0; i < len(ps); {
		j := i + 1
		for j < len(ps) && ps[j].suffix == ps[i].suffix {
			j++
		}
		if j > i+1 {
			w.rice(ps[i].suffix-next, k)
			next = ps[i].suffix + 1
			encodeIDs(&w, ps[i:j], base, idBits)
		}
		i = j
	}
	return w.finish()
}

func encodeIDs(w *bitWriter, ps []posting, base uint64, idBits uint) {
	n := uint64(len(ps))
	w.gamma(n - 1)
	k := riceParam(idBits, n)
	if n >= skipFrom {
		size, next := uint64(0), base
		for _, p := range ps {
			size += (p.id-next)>>k + 1 + uint64(k)
			next = p.id + 1
		}
		w.gamma(size)
	}
	next := base
	for _, p := range ps {
		w.rice(p.id-next, k)
		next = p.id + 1
	}
}

// header is the beginning of a bucket, parsed.
type header struct {
	unique uint64
	shared uint64
	base   uint64
	idBits uint
	ones   []byte // stream of hashes with one ID
	extra  []byte // stream of hashes with several
}

func corrupt(what string) error { return fmt.Errorf("%w: bucket: %s", ErrCorrupt, what) }

// parse reads the header of a bucket that is not empty and checks that what
// it announces can be there.
func parse(b []byte) (h header, err error) {
	var extra uint64
	n, b, ok := uvarint(b)
	if !ok {
		return h, corrupt("count")
	}
	if h.base, b, ok = uvarint(b); !ok || len(b) == 0 {
		return h, corrupt("base ID")
	}
	h.unique, h.idBits, b = n>>1, uint(b[0]), b[1:]
	if h.idBits > 64 {
		return h, corrupt("ID width")
	}
	if n&1 == 1 {
		if h.shared, b, ok = uvarint(b); !ok || h.shared == 0 {
			return h, corrupt("count of shared hashes")
		}
		if extra, b, ok = uvarint(b); !ok || extra > uint64(len(b)) {
			return h, corrupt("length of shared hashes")
		}
	}
	cut := uint64(len(b)) - extra
	h.ones, h.extra = b[:cut], b[cut:]
	// An entry has a bit at least.
	if h.unique > cut*8 || h.shared > extra*8 || h.unique+h.shared == 0 {
		return h, corrupt("count")
	}
	return h, nil
}

func uvarint(b []byte) (uint64, []byte, bool) {
	v, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, nil, false
	}
	return v, b[n:], true
}

// decode appends the postings of bucket b to dst, sorted. scratch is a buffer
// it may use and returns grown.
func decode(dst []posting, b []byte, width uint, scratch []posting) (out, buf []posting, err error) {
	if len(b) == 0 {
		return dst, scratch, nil
	}
	h, err := parse(b)
	if err != nil {
		return dst, scratch, err
	}
	if h.shared == 0 {
		dst, err = h.decodeUnique(dst, width)
		return dst, scratch, err
	}
	ones, err := h.decodeUnique(scratch[:0], width)
	if err != nil {
		return dst, ones, err
	}
	many, err := h.decodeShared(ones, width)
	if err != nil {
		return dst, many, err
	}
	return mergeRuns(dst, many[:len(ones)], many[len(ones):]), many, nil
}

func (h *header) decodeUnique(dst []posting, width uint) ([]posting, error) {
	if h.unique == 0 {
		if len(h.ones) > 0 {
			return dst, corrupt("trailing bytes")
		}
		return dst, nil
	}
	r := bitReader{buf: h.ones}
	k := riceParam(width, h.unique)
	limit := suffixMask(width)
	dst = slices.Grow(dst, int(h.unique))
	next := uint64(0)
	for i := range h.unique {
		v := next + r.rice(k)
		if v < next || v > limit || i > 0 && next == 0 {
			return dst, corrupt("suffix")
		}
		dst = append(dst, posting{v, h.base + r.read(h.idBits)})
		next = v + 1
	}
	if !r.atEnd() {
		return dst, corrupt("stream of hashes")
	}
	return dst, nil
}

func (h *header) decodeShared(dst []posting, width uint) ([]posting, error) {
	r := bitReader{buf: h.extra}
	k := riceParam(width, h.shared)
	limit := suffixMask(width)
	next := uint64(0)
	for i := range h.shared {
		v := next + r.rice(k)
		if v < next || v > limit || i > 0 && next == 0 {
			return dst, corrupt("suffix of a shared hash")
		}
		next = v + 1
		n, idK, _, ok := h.listHeader(&r)
		if !ok {
			return dst, corrupt("count of IDs")
		}
		nextID := h.base
		for j := range n {
			id := nextID + r.rice(idK)
			if id < nextID || j > 0 && nextID == 0 {
				return dst, corrupt("ID")
			}
			dst = append(dst, posting{v, id})
			nextID = id + 1
		}
	}
	if !r.atEnd() {
		return dst, corrupt("stream of shared hashes")
	}
	return dst, nil
}

// listHeader reads what stands before the IDs of a shared hash: their number
// and, for long lists, their length in bits.
func (h *header) listHeader(r *bitReader) (n uint64, k uint, size uint64, ok bool) {
	n = r.gamma() + 1
	if n == 0 || n > r.left() {
		return 0, 0, 0, false
	}
	if n >= skipFrom {
		size = r.gamma()
		if size > r.left() {
			return 0, 0, 0, false
		}
	}
	return n, riceParam(h.idBits, n), size, true
}

// filter says which IDs a lookup wants: those alive, at most limit of them. Nil
// wants all.
type filter struct {
	alive func(id uint64) bool // nil: all are
	limit int                  // above 0
	bits  uint64               // that find went through one by one
}

// add appends the ID if it is wanted. It tells whether more are: n IDs were
// there before.
func (f *filter) add(dst []uint64, id uint64, n int) ([]uint64, bool) {
	if f == nil {
		return append(dst, id), true
	}
	if f.alive == nil || f.alive(id) {
		dst = append(dst, id)
	}
	return dst, len(dst)-n < f.limit
}

func (f *filter) count(r *bitReader) {
	if f != nil {
		f.bits += uint64(r.off)
	}
}

func (f *filter) skip(bits uint64) {
	if f != nil {
		f.bits -= bits // of which count will say that they were read
	}
}

// find appends the IDs of one suffix in bucket b to dst, ascending, the lowest
// that are wanted. It reads up to the place where the suffix stands or would
// stand, and passes long lists of other hashes by their length.
func find(dst []uint64, b []byte, width uint, suffix uint64, want *filter) ([]uint64, error) {
	if len(b) == 0 {
		return dst, nil
	}
	h, err := parse(b)
	if err != nil {
		return dst, err
	}
	if h.unique > 0 {
		r := bitReader{buf: h.ones}
		id, ok := h.findUnique(&r, width, suffix)
		want.count(&r)
		if r.over() {
			return dst, corrupt("stream of hashes")
		}
		if ok {
			dst, _ = want.add(dst, id, len(dst))
			return dst, nil
		}
	}
	if h.shared == 0 {
		return dst, nil
	}
	r := bitReader{buf: h.extra}
	dst, err = h.findShared(dst, &r, width, suffix, want)
	want.count(&r)
	if err == nil && r.over() {
		err = corrupt("stream of shared hashes")
	}
	return dst, err
}

// findUnique finds a hash that has one ID.
func (h *header) findUnique(r *bitReader, width uint, suffix uint64) (id uint64, ok bool) {
	k := riceParam(width, h.unique)
	next := uint64(0)
	for range h.unique {
		v := next + r.rice(k)
		if v >= suffix {
			if v > suffix {
				return 0, false
			}
			return h.base + r.read(h.idBits), true
		}
		r.off += h.idBits
		next = v + 1
	}
	return 0, false
}

func (h *header) findShared(dst []uint64, r *bitReader, width uint, suffix uint64, want *filter) ([]uint64, error) {
	begin := len(dst)
	k := riceParam(width, h.shared)
	next := uint64(0)
	for range h.shared {
		v := next + r.rice(k)
		if v > suffix {
			return dst, nil
		}
		next = v + 1
		n, idK, size, ok := h.listHeader(r)
		if !ok {
			return dst, corrupt("count of IDs")
		}
		if v < suffix && size > 0 {
			r.off += uint(size)
			want.skip(size)
			continue
		}
		nextID := h.base
		for range n {
			id := nextID + r.rice(idK)
			nextID = id + 1
			if v < suffix {
				continue
			}
			more := false
			if dst, more = want.add(dst, id, begin); !more {
				return dst, nil
			}
		}
		if v == suffix {
			return dst, nil
		}
	}
	return dst, nil
}

// mergeRuns appends the union of two sorted runs to dst.
func mergeRuns(dst, a, b []posting) []posting {
	dst = slices.Grow(dst, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		switch c := a[0].compare(b[0]); {
		case c < 0:
			dst = append(dst, a[0])
			a = a[1:]
		case c > 0:
			dst = append(dst, b[0])
			b = b[1:]
		default:
			dst = append(dst, a[0])
			a, b = a[1:], b[1:]
		}
	}
	dst = append(dst, a...)
	return append(dst, b...)
}

// suffixMask is the largest suffix of a width up to 64.
func suffixMask(width uint) uint64 { return 1<<width - 1 }
