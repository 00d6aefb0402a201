package mirror

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/ipfs/go-cid"
	carv2 "github.com/ipld/go-car/v2"
	"github.com/klauspost/compress/gzip"

	"github.com/signpost-index/signpost/ingest/schema"
)

const (
	// maxCIDBytes is room for any CID with a full-length hash.
	maxCIDBytes = 128
	// maxHeader bounds the CARv1 header, which has one or two roots, in bytes.
	maxHeader = 1 << 10
	// maxPadding bounds the bytes between the CARv2 header and the payload.
	maxPadding = 64 << 10
	readBuffer = 32 << 10
)

// carFile is a CAR file behind its first block.
type carFile struct {
	name   string
	ad     []byte
	raw    *source
	zip    *gzip.Reader // nil: uncompressed
	blocks *carv2.BlockReader
	read   int // blocks so far, the ad included
}

// openCAR takes r, also when it fails.
func openCAR(name string, ad cid.Cid, r io.ReadCloser, maxBytes int64) (*carFile, error) {
	f := &carFile{name: name, raw: &source{r: r}}
	if err := f.start(ad, maxBytes); err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

func (f *carFile) start(ad cid.Cid, maxBytes int64) error {
	plain := io.Reader(f.raw)
	if strings.HasSuffix(f.name, gzipSuffix) {
		f.zip = gzipReaders.Get().(*gzip.Reader)
		if err := f.zip.Reset(bufio.NewReaderSize(f.raw, readBuffer)); err != nil {
			return f.fault(err)
		}
		plain = f.zip
	}
	buffer := bufio.NewReaderSize(&bounded{r: plain, leftBytes: maxBytes}, readBuffer)
	if err := checkStart(buffer); err != nil {
		return f.fault(err)
	}
	blocks, err := carv2.NewBlockReader(buffer, carv2.WithTrustedCAR(true), // we check ourselves
		carv2.MaxAllowedHeaderSize(maxHeader), carv2.MaxAllowedSectionSize(schema.MaxBlockBytes+maxCIDBytes))
	if err != nil {
		return f.fault(err)
	}
	if len(blocks.Roots) == 0 || blocks.Roots[0] != ad {
		return fmt.Errorf("%w: roots %v", ErrCorrupt, blocks.Roots)
	}
	f.blocks = blocks
	c, block, err := f.next()
	switch {
	case err == io.EOF:
		return f.fault(err)
	case err != nil:
		return err
	case c != ad:
		return fmt.Errorf("%w: first block is %s", ErrCorrupt, c)
	}
	f.ad = block
	return checkBlock(c, block)
}

// checkStart refuses a CARv2 whose payload begins far behind its header, before
// anybody reads up to there.
func checkStart(r *bufio.Reader) error {
	const dataOffset = carv2.PragmaSize + carv2.CharacteristicsSize
	start, err := r.Peek(carv2.PragmaSize + carv2.HeaderSize)
	if err != nil && err != io.EOF {
		return err
	}
	if !bytes.HasPrefix(start, carv2.Pragma) || len(start) < dataOffset+8 {
		return nil // left to the reader
	}
	offset := binary.LittleEndian.Uint64(start[dataOffset:])
	if offset > carv2.PragmaSize+carv2.HeaderSize+maxPadding {
		return fmt.Errorf("payload at %d", offset)
	}
	return nil
}

// next reads a block, unchecked but for its size, and io.EOF behind the last.
func (f *carFile) next() (cid.Cid, []byte, error) {
	if f.read == maxBlocks {
		return cid.Undef, nil, fmt.Errorf("%w: more than %d blocks", ErrCorrupt, maxBlocks)
	}
	b, err := f.blocks.Next()
	if err == io.EOF {
		return cid.Undef, nil, err
	}
	if err != nil {
		return cid.Undef, nil, f.fault(err)
	}
	if n := len(b.RawData()); n > maxBlockBytes(f.read) {
		return cid.Undef, nil, fmt.Errorf("%w: block %s of %d bytes", ErrCorrupt, b.Cid(), n)
	}
	f.read++
	return b.Cid(), b.RawData(), nil
}

// fault is what to report of err: what happened on the way to the file, or else
// ErrCorrupt.
func (f *carFile) fault(err error) error {
	if f.raw.err != nil {
		return f.raw.err
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return corrupt(err)
}

func (f *carFile) close() error {
	if f.zip != nil {
		gzipReaders.Put(f.zip)
		f.zip = nil
	}
	return f.raw.Close()
}

func corrupt(err error) error { return fmt.Errorf("%w: %w", ErrCorrupt, err) }

func checkBlock(c cid.Cid, block []byte) error {
	if err := schema.CheckBlock(c, block); err != nil {
		return corrupt(err)
	}
	return nil
}

// source is the file as it comes, which keeps the error that ended it.
type source struct {
	r   io.ReadCloser
	err error // other than io.EOF
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

func (s *source) Close() error { return s.r.Close() }

// bounded is r, with an error behind leftBytes of it.
type bounded struct {
	r         io.Reader
	leftBytes int64
}

var errTooLong = errors.New("too many bytes")

func (b *bounded) Read(p []byte) (int, error) {
	if b.leftBytes <= 0 {
		return 0, errTooLong
	}
	if int64(len(p)) > b.leftBytes {
		p = p[:b.leftBytes]
	}
	n, err := b.r.Read(p)
	b.leftBytes -= int64(n)
	return n, err
}
