package publish

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/ipfs/boxo/verifcid"
	"github.com/ipfs/go-cid"
	carv2 "github.com/ipld/go-car/v2"
	"github.com/multiformats/go-multihash"
	"github.com/multiformats/go-varint"
)

const (
	// maxSection bounds a section (CID and block) of a CAR in bytes; it is
	// go-car's own default. Larger blocks could not be fetched by anyone.
	maxSection = 8 << 20
	// maxCARHeader bounds the header in bytes: room for 25,000 roots.
	maxCARHeader = 1 << 20
)

// A car is the layout of a CAR file of either version.
type car struct {
	version    uint64
	dataOffset int64 // of the CARv1 payload in the file; 0 in version 1
	dataSize   int64 // of the CARv1 payload
	first      int64 // of the first section in the payload
	roots      []cid.Cid
}

// looksLikeCAR reports whether a file begins like a CAR. Anything else is
// published as a plain file, so only what can be nothing but a CAR header
// counts: the CARv2 pragma, or a length and a CBOR map of two whose first key
// is roots or version.
func looksLikeCAR(begin []byte) bool {
	if bytes.HasPrefix(begin, carv2.Pragma) {
		return true
	}
	length, n := binary.Uvarint(begin)
	if n <= 0 || length < 10 {
		return false
	}
	rest := begin[n:]
	return bytes.HasPrefix(rest, []byte("\xa2\x65roots")) || bytes.HasPrefix(rest, []byte("\xa2\x67version"))
}

// isCAR looks at the beginning of f.
func isCAR(f *os.File) (bool, error) {
	var begin [24]byte
	n, err := f.ReadAt(begin[:], 0)
	if err != nil && err != io.EOF {
		return false, err
	}
	return looksLikeCAR(begin[:n]), nil
}

// readCAR reads the headers of a CAR, version 1 or 2.
func readCAR(f *os.File) (car, error) {
	st, err := f.Stat()
	if err != nil {
		return car{}, err
	}
	r, err := carv2.NewReader(f, carv2.MaxAllowedHeaderSize(maxCARHeader))
	if err != nil {
		return car{}, fmt.Errorf("%w: %w", ErrBadCAR, err)
	}
	c := car{version: r.Version, dataSize: st.Size()}
	if c.version == 2 {
		c.dataOffset, c.dataSize = int64(r.Header.DataOffset), int64(r.Header.DataSize)
		if c.dataOffset > st.Size() || c.dataSize > st.Size()-c.dataOffset {
			return car{}, fmt.Errorf("%w: its data payload of %d bytes at %d ends beyond the file's %d bytes",
				ErrBadCAR, c.dataSize, c.dataOffset, st.Size())
		}
	}
	if c.roots, err = r.Roots(); err != nil {
		return car{}, fmt.Errorf("%w: %w", ErrBadCAR, err)
	}
	var begin [varint.MaxLenUvarint63]byte
	n, err := f.ReadAt(begin[:], c.dataOffset)
	if err != nil && err != io.EOF {
		return car{}, err
	}
	length, used, err := varint.FromUvarint(begin[:n])
	if err != nil || length > maxCARHeader {
		return car{}, fmt.Errorf("%w: header length", ErrBadCAR)
	}
	c.first = int64(used) + int64(length)
	return c, nil
}

// eachBlock reads the CAR front to back and calls fn for each block, once the
// block's bytes have been found to match its CID. offset is that of the section
// in the payload; data is valid during the call. The first block that does not
// match ends the reading with ErrBadCAR. A run of zeros up to the end is taken
// as padding.
func (c car) eachBlock(ctx context.Context, f *os.File, fn func(k cid.Cid, data []byte, offset uint64) error) error {
	pos := c.first
	section := io.NewSectionReader(f, c.dataOffset+pos, c.dataSize-pos)
	r := bufio.NewReaderSize(section, 1<<20)
	var buf []byte
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		length, err := varint.ReadUvarint(r)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: section length at offset %d: %w", ErrBadCAR, pos, err)
		}
		if length == 0 {
			return onlyZeros(r, pos)
		}
		if length > maxSection {
			return fmt.Errorf("%w: section of %d bytes at offset %d, at most %d are allowed", ErrBadCAR, length, pos, maxSection)
		}
		if uint64(cap(buf)) < length {
			buf = make([]byte, length)
		}
		buf = buf[:length]
		if _, err := io.ReadFull(r, buf); err != nil {
			return fmt.Errorf("%w: it ends in the middle of the section at offset %d", ErrBadCAR, pos)
		}
		n, k, err := cid.CidFromBytes(buf)
		if err != nil {
			return fmt.Errorf("%w: CID at offset %d: %w", ErrBadCAR, pos, err)
		}
		if err := checkBlock(k, buf[n:]); err != nil {
			return fmt.Errorf("%w: block at offset %d: %w", ErrBadCAR, pos, err)
		}
		if err := fn(k, buf[n:], uint64(pos)); err != nil {
			return err
		}
		pos += int64(varint.UvarintSize(length)) + int64(length)
	}
}

func onlyZeros(r *bufio.Reader, pos int64) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		if len(bytes.Trim(buf[:n], "\x00")) > 0 {
			return fmt.Errorf("%w: section of no bytes at offset %d", ErrBadCAR, pos)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// errHashMismatch says that a block is not the one its CID names.
var errHashMismatch = errors.New("bytes do not match the CID")

// checkBlock holds if data is what k names and a client would accept k's hash
// function as proof: those that boxo lets through, digests of 20 bytes or more.
func checkBlock(k cid.Cid, data []byte) error {
	if isIdentity(k) {
		dec, err := multihash.Decode(k.Hash())
		if err != nil || !bytes.Equal(dec.Digest, data) {
			return fmt.Errorf("%s: %w", k, errHashMismatch)
		}
		return nil
	}
	if err := verifcid.ValidateCid(verifcid.DefaultAllowlist, k); err != nil {
		return fmt.Errorf("%s: %w", k, err)
	}
	p := k.Prefix()
	sum, err := multihash.Sum(data, p.MhType, p.MhLength)
	if err != nil {
		return fmt.Errorf("%s: %w", k, err)
	}
	if !bytes.Equal(sum, k.Hash()) {
		return fmt.Errorf("%s: %w", k, errHashMismatch)
	}
	return nil
}

// isIdentity reports whether k carries its data itself. Such blocks are neither
// indexed nor advertised: whoever has the CID has the block.
func isIdentity(k cid.Cid) bool { return k.Prefix().MhType == multihash.IDENTITY }

// readSection reads the block whose section is at offset of the payload,
// without checking its bytes against its CID.
func (c car) readSection(f *os.File, offset uint64) (cid.Cid, []byte, error) {
	if offset >= uint64(c.dataSize) {
		return cid.Undef, nil, errDamagedIndex
	}
	r := io.NewSectionReader(f, c.dataOffset+int64(offset), c.dataSize-int64(offset))
	var begin [varint.MaxLenUvarint63]byte
	n, err := r.ReadAt(begin[:], 0)
	if err != nil && err != io.EOF {
		return cid.Undef, nil, err
	}
	length, used, err := varint.FromUvarint(begin[:n])
	if err != nil || length > maxSection {
		return cid.Undef, nil, errDamagedIndex
	}
	buf := make([]byte, length)
	if _, err := r.ReadAt(buf, int64(used)); err != nil && err != io.EOF {
		return cid.Undef, nil, err
	}
	n, k, err := cid.CidFromBytes(buf)
	if err != nil {
		return cid.Undef, nil, errDamagedIndex
	}
	return k, buf[n:], nil
}

// seenBlocks is how many blocks a carWriter remembers in order not to write
// them twice: about 50 MB. Beyond it a repeated block may be in the CAR more
// than once, which costs space and nothing else.
const seenBlocks = 1 << 20

// A carWriter builds a CARv2 file front to back. Its index, with one entry for
// every different multihash, is sorted outside memory and comes last; the root
// is filled in at the end. It is not safe for concurrent use.
//
//	[pragma 11][header 40][CARv1: header 59, sections][index]
type carWriter struct {
	f      *os.File
	w      *bufio.Writer
	sorter *sorter
	seen   map[[32]byte]struct{}
	pos    uint64 // in the payload
	blocks int
	bytes  int64 // of block data
}

// carv1Head encodes a CARv1 header with one root that is a CIDv1 with a
// sha2-256 multihash, so that its length is known before the root is:
// {"roots": [root], "version": 1} in DAG-CBOR.
func carv1Head(root []byte) []byte {
	b := append([]byte{58}, "\xa2\x65roots\x81\xd8\x2a\x58\x25\x00"...)
	b = append(b, root...)
	return append(b, "\x67version\x01"...)
}

const (
	rootLen      = 36
	carv1HeadLen = 59
	payloadAt    = carv2.PragmaSize + carv2.HeaderSize
)

func newCARWriter(f *os.File, s *sorter) *carWriter {
	return &carWriter{
		f:      f,
		w:      bufio.NewWriterSize(&offsetWriter{f, payloadAt + carv1HeadLen}, 1<<20),
		sorter: s,
		seen:   make(map[[32]byte]struct{}),
		pos:    carv1HeadLen,
	}
}

// put writes a block, unless it is remembered as written. k has a sha2-256
// multihash.
func (w *carWriter) put(k cid.Cid, data []byte) error {
	mh := k.Hash()
	digest := [32]byte(mh[2:])
	if _, ok := w.seen[digest]; ok {
		return nil
	}
	if len(w.seen) < seenBlocks {
		w.seen[digest] = struct{}{}
	}
	if err := w.sorter.add(mh, w.pos); err != nil {
		return err
	}
	key := k.Bytes()
	head := varint.ToUvarint(uint64(len(key) + len(data)))
	w.w.Write(head) // a bufio.Writer keeps its first error
	w.w.Write(key)
	if _, err := w.w.Write(data); err != nil {
		return fmt.Errorf("write CAR: %w", err)
	}
	w.pos += uint64(len(head) + len(key) + len(data))
	w.blocks++
	w.bytes += int64(len(data))
	return nil
}

// finish writes the rest of the file. Syncing it is the caller's.
func (w *carWriter) finish(ctx context.Context, root cid.Cid) (car, summary, error) {
	c := car{version: 2, dataOffset: payloadAt, dataSize: int64(w.pos), first: carv1HeadLen, roots: []cid.Cid{root}}
	if root.ByteLen() != rootLen {
		return car{}, summary{}, fmt.Errorf("write CAR: root %s is not a CIDv1 with sha2-256", root)
	}
	if err := w.w.Flush(); err != nil {
		return car{}, summary{}, fmt.Errorf("write CAR: %w", err)
	}
	w.seen = nil
	sum, _, err := writeIndex(ctx, w.f, payloadAt+c.dataSize, w.sorter)
	if err != nil {
		return car{}, summary{}, err
	}
	var head bytes.Buffer
	head.Write(carv2.Pragma)
	if _, err := carv2.NewHeader(w.pos).WriteTo(&head); err != nil {
		return car{}, summary{}, fmt.Errorf("write CAR: %w", err)
	}
	head.Write(carv1Head(root.Bytes()))
	if _, err := w.f.WriteAt(head.Bytes(), 0); err != nil {
		return car{}, summary{}, fmt.Errorf("write CAR: %w", err)
	}
	return c, sum, nil
}
