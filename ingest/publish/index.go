package publish

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"os"
	"sort"

	"github.com/multiformats/go-multihash"
	"github.com/multiformats/go-varint"
)

// indexCodec is the multicodec of a CARv2 MultihashIndexSorted.
const indexCodec = 0x0401

// maxDigest bounds the digests we index, in bytes. No hash function that boxo
// lets through has a longer one (verifcid.DefaultMaxDigestSize).
const maxDigest = 128

// An index says where in a CAR's data payload each multihash is. On disk it is
// the CARv2 index format MultihashIndexSorted, embedded in the CARs we build
// and a file of its own for the CARs we are given, whose own index is never
// trusted:
//
//	uvarint 0x0401
//	int32 codes                      integers little-endian
//	  uint64 hash code, int32 widths
//	    uint32 width, int64 bytes    width = digest length + 8
//	      [digest][uint64 offset] ...  sorted by digest
//
// Only the buckets (one per hash function and digest length) and a Bloom filter
// of about ten bits a multihash are in memory; a lookup is a binary search with
// positioned reads. An index is immutable and safe for concurrent use.
type index struct {
	buckets []bucket
	filter  filter
	count   int // multihashes
}

// A bucket is a sorted array of fixed-width records in the index file.
type bucket struct {
	code  uint64
	width uint32 // of a record: digest length + 8
	pos   int64  // of the first record, from the start of the file
	n     int64  // records
}

func (b bucket) digestLen() int { return int(b.width) - 8 }

// summary is what one pass over the sorted multihashes of a content tells.
type summary struct {
	count   int
	context [sha256.Size]byte // sha2-256 of all multihashes, sorted, one after the other
}

// writeIndex writes the sorter's multihashes as an index at pos of f and
// returns the end of it. The sorter is used up.
func writeIndex(ctx context.Context, f *os.File, pos int64, s *sorter) (sum summary, end int64, err error) {
	w := &indexWriter{f: f, pos: pos, digest: sha256.New()}
	w.buf = bufio.NewWriterSize(&offsetWriter{f, pos}, 1<<20)
	w.write(varint.ToUvarint(indexCodec))
	w.codesAt = w.pos
	w.write(make([]byte, 4))
	err = s.each(func(e sortedEntry) error {
		if w.count%(1<<16) == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		return w.entry(e)
	})
	if err != nil {
		return sum, 0, err
	}
	w.closeBucket()
	w.closeCode()
	w.patch(w.codesAt, 4, uint64(w.codes))
	if err := w.finish(); err != nil {
		return sum, 0, fmt.Errorf("write index: %w", err)
	}
	w.digest.Sum(sum.context[:0])
	sum.count = w.count
	return sum, w.pos, nil
}

// An indexWriter writes an index front to back and fills in the counts, known
// only afterwards, at the end.
type indexWriter struct {
	f       *os.File
	buf     *bufio.Writer
	pos     int64
	err     error
	patches []patch
	digest  hash.Hash
	mh      []byte
	rec     []byte

	count                       int
	codes, widths               int
	code                        uint64
	width                       int
	n                           int64
	codesAt, widthsAt, recordAt int64
	inCode, inBucket            bool
}

type patch struct {
	at   int64
	size int
	v    uint64
}

func (w *indexWriter) write(b []byte) {
	if w.err == nil {
		_, w.err = w.buf.Write(b)
	}
	w.pos += int64(len(b))
}

func (w *indexWriter) patch(at int64, size int, v uint64) {
	w.patches = append(w.patches, patch{at, size, v})
}

func (w *indexWriter) entry(e sortedEntry) error {
	if !w.inCode || e.code != w.code {
		w.closeBucket()
		w.closeCode()
		w.openCode(e.code)
	}
	if !w.inBucket || len(e.digest)+8 != w.width {
		w.closeBucket()
		w.openBucket(len(e.digest) + 8)
	}
	w.rec = append(w.rec[:0], e.digest...)
	w.rec = binary.LittleEndian.AppendUint64(w.rec, e.offset)
	w.write(w.rec)
	w.n++
	w.count++
	w.mh = appendMultihash(w.mh[:0], e.code, e.digest)
	w.digest.Write(w.mh)
	return w.err
}

func (w *indexWriter) openCode(code uint64) {
	w.codes++
	w.code, w.widths, w.inCode = code, 0, true
	w.write(binary.LittleEndian.AppendUint64(nil, code))
	w.widthsAt = w.pos
	w.write(make([]byte, 4))
}

func (w *indexWriter) closeCode() {
	if w.inCode {
		w.patch(w.widthsAt, 4, uint64(w.widths))
	}
	w.inCode = false
}

func (w *indexWriter) openBucket(width int) {
	w.widths++
	w.width, w.n, w.inBucket = width, 0, true
	w.write(binary.LittleEndian.AppendUint32(nil, uint32(width)))
	w.recordAt = w.pos
	w.write(make([]byte, 8))
}

func (w *indexWriter) closeBucket() {
	if w.inBucket {
		w.patch(w.recordAt, 8, uint64(w.n)*uint64(w.width))
	}
	w.inBucket = false
}

func (w *indexWriter) finish() error {
	if w.err == nil {
		w.err = w.buf.Flush()
	}
	for _, p := range w.patches {
		if w.err != nil {
			return w.err
		}
		b := binary.LittleEndian.AppendUint64(nil, p.v)[:p.size]
		_, w.err = w.f.WriteAt(b, p.at)
	}
	return w.err
}

// An offsetWriter writes to f from off on.
type offsetWriter struct {
	f   *os.File
	off int64
}

func (w *offsetWriter) Write(b []byte) (int, error) {
	n, err := w.f.WriteAt(b, w.off)
	w.off += int64(n)
	return n, err
}

// appendMultihash appends the multihash of code and digest to b.
func appendMultihash(b []byte, code uint64, digest []byte) []byte {
	b = binary.AppendUvarint(b, code)
	b = binary.AppendUvarint(b, uint64(len(digest)))
	return append(b, digest...)
}

var errDamagedIndex = errors.New("index is damaged")

// readIndex reads the index at pos of f: its buckets, and all of it once for
// the filter.
func readIndex(f *os.File, pos int64) (*index, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	x := &index{}
	if err := x.readBuckets(f, pos, st.Size()); err != nil {
		return nil, err
	}
	x.filter = newFilter(x.count)
	err = x.each(f, func(mh multihash.Multihash, _ uint64) error {
		x.filter.add(mh)
		return nil
	})
	return x, err
}

func (x *index) readBuckets(f *os.File, pos, size int64) error {
	r := &positionedReader{f: f, pos: pos, size: size}
	if r.uvarint() != indexCodec || r.err != nil {
		return errDamagedIndex
	}
	codes := r.uint(4)
	for range codes {
		code := r.uint(8)
		widths := r.uint(4)
		for range widths {
			width, length := r.uint(4), r.uint(8)
			if r.err != nil || width < 8 || width > maxDigest+8 || length%width != 0 || length > uint64(size-r.pos) {
				return errDamagedIndex
			}
			b := bucket{code: code, width: uint32(width), pos: r.pos, n: int64(length / width)}
			x.buckets = append(x.buckets, b)
			x.count += int(b.n)
			r.pos += int64(length)
		}
		if r.err != nil {
			return errDamagedIndex
		}
	}
	if r.err != nil || uint64(x.count) > math.MaxInt32*16 {
		return errDamagedIndex
	}
	return nil
}

// A positionedReader reads little-endian integers and keeps its first error.
type positionedReader struct {
	f         *os.File
	pos, size int64
	err       error
}

func (r *positionedReader) uint(n int) uint64 {
	var b [8]byte
	if r.err == nil && r.pos+int64(n) > r.size {
		r.err = io.ErrUnexpectedEOF
	}
	if r.err == nil {
		_, r.err = r.f.ReadAt(b[:n], r.pos)
	}
	r.pos += int64(n)
	if r.err != nil {
		return 0
	}
	return binary.LittleEndian.Uint64(b[:])
}

func (r *positionedReader) uvarint() uint64 {
	var b [varint.MaxLenUvarint63]byte
	n, err := r.f.ReadAt(b[:], r.pos)
	if n == 0 && err != nil {
		r.err = err
		return 0
	}
	v, used, err := varint.FromUvarint(b[:n])
	if err != nil {
		r.err = err
	}
	r.pos += int64(used)
	return v
}

// each calls fn for every multihash in order. The multihash is valid during the call.
func (x *index) each(f *os.File, fn func(mh multihash.Multihash, offset uint64) error) error {
	var mh []byte
	for _, b := range x.buckets {
		size := b.n * int64(b.width)
		r := bufio.NewReaderSize(io.NewSectionReader(f, b.pos, size), int(min(size, 256<<10)))
		rec := make([]byte, b.width)
		for range b.n {
			if _, err := io.ReadFull(r, rec); err != nil {
				return fmt.Errorf("read index: %w", err)
			}
			digest := rec[:b.digestLen()]
			mh = appendMultihash(mh[:0], b.code, digest)
			if err := fn(mh, binary.LittleEndian.Uint64(rec[len(digest):])); err != nil {
				return err
			}
		}
	}
	return nil
}

// find returns the offset of mh in the CAR's data payload. f is the file the
// index was read from.
func (x *index) find(f *os.File, mh multihash.Multihash) (offset uint64, found bool, err error) {
	if !x.filter.has(mh) {
		return 0, false, nil
	}
	dec, err := multihash.Decode(mh)
	if err != nil {
		return 0, false, nil
	}
	for _, b := range x.buckets {
		if b.code == dec.Code && b.digestLen() == len(dec.Digest) {
			return b.find(f, dec.Digest)
		}
	}
	return 0, false, nil
}

func (b bucket) find(f *os.File, digest []byte) (offset uint64, found bool, err error) {
	rec := make([]byte, b.width)
	i := sort.Search(int(b.n), func(i int) bool {
		if err != nil {
			return true
		}
		if _, err = f.ReadAt(rec, b.pos+int64(i)*int64(b.width)); err != nil {
			return true
		}
		return bytes.Compare(rec[:len(digest)], digest) >= 0
	})
	if err != nil {
		return 0, false, fmt.Errorf("read index: %w", err)
	}
	if int64(i) == b.n {
		return 0, false, nil
	}
	if _, err := f.ReadAt(rec, b.pos+int64(i)*int64(b.width)); err != nil {
		return 0, false, fmt.Errorf("read index: %w", err)
	}
	if !bytes.Equal(rec[:len(digest)], digest) {
		return 0, false, nil
	}
	return binary.LittleEndian.Uint64(rec[len(digest):]), true, nil
}

// A filter is a Bloom filter over multihashes: with ten bits for each and six
// probes about one absent multihash in a hundred passes. It takes its bits from
// the end of the digest itself, which is uniformly distributed for every hash
// function we accept. The zero filter holds nothing.
type filter []uint64

func newFilter(n int) filter {
	if n == 0 {
		return nil
	}
	return make(filter, (n*10+63)/64)
}

const filterProbes = 6

// probes returns the two halves that the probes are computed from.
func probes(mh multihash.Multihash) (a, b uint64) {
	if len(mh) < 16 {
		return uint64(len(mh)), 1
	}
	tail := mh[len(mh)-16:]
	return binary.LittleEndian.Uint64(tail), binary.LittleEndian.Uint64(tail[8:]) | 1
}

func (f filter) add(mh multihash.Multihash) {
	a, b := probes(mh)
	bits := uint64(len(f)) * 64
	for range filterProbes {
		i := a % bits
		f[i/64] |= 1 << (i % 64)
		a += b
	}
}

func (f filter) has(mh multihash.Multihash) bool {
	if len(f) == 0 {
		return false
	}
	a, b := probes(mh)
	bits := uint64(len(f)) * 64
	for range filterProbes {
		i := a % bits
		if f[i/64]&(1<<(i%64)) == 0 {
			return false
		}
		a += b
	}
	return true
}
