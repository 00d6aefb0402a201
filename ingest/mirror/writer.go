package mirror

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"
	carv2 "github.com/ipld/go-car/v2"
	"github.com/ipld/go-car/v2/storage"

	"github.com/signpost-index/signpost/ingest/schema"
)

const (
	// maxBlocks bounds the blocks of one file: the ad, and as many as a walk
	// over a HAMT may visit (schema.DefaultHAMTLimits).
	maxBlocks = 1 + 1<<20
	// spoolBuffer is what a writer gathers before it writes to its spool file.
	spoolBuffer = 32 << 10
)

// Writer writes the file of one ad. After any error the writer is good for
// nothing but Abort, and nothing of it is or becomes visible.
type Writer struct {
	m       *Mirror
	ad      cid.Cid
	entries cid.Cid // undefined: the file is to have none
	spool   *spoolFile
	buffer  *bufio.Writer
	gzip    *gzipWriter // nil: uncompressed
	payload *payload
	car     storage.WritableCar
	blocks  int
	err     error // the first one
	ended   bool
}

// Create begins the file of the ad. entries is the CID of the first block of
// its entries, or [schema.NoEntries] or undefined for a file of the ad alone.
//
// Other readers take a file of the ad alone as the word that its entries are
// nowhere to be had. So it is right for an ad that has none and for one whose
// context was removed again, and wrong for one whose entries were passed over
// for any other reason: leave that one out.
func (m *Mirror) Create(ad, entries cid.Cid) (*Writer, error) {
	if m.spool == nil {
		return nil, ErrReadOnly
	}
	if _, err := m.names(ad); err != nil {
		return nil, err
	}
	if entries == schema.NoEntries {
		entries = cid.Undef
	}
	f, err := m.spool.create()
	if err != nil {
		return nil, fmt.Errorf("mirror ad %s: %w", ad, err)
	}
	w := &Writer{m: m, ad: ad, entries: entries, spool: f}
	if err := w.start(); err != nil {
		w.Abort()
		return nil, fmt.Errorf("mirror ad %s: %w", ad, err)
	}
	return w, nil
}

func (w *Writer) start() error {
	w.buffer = bufio.NewWriterSize(w.spool, spoolBuffer)
	start, err := w.fileStart(0)
	if err != nil {
		return err
	}
	if _, err := w.buffer.Write(start); err != nil {
		return err
	}
	to := io.Writer(w.buffer)
	if !w.m.cfg.Uncompressed {
		w.gzip = newGzipWriter(w.buffer)
		to = w.gzip
	}
	w.payload = &payload{w: to, maxBytes: w.m.cfg.MaxFileBytes - carv2.PragmaSize - carv2.HeaderSize}
	roots := []cid.Cid{w.ad}
	if w.entries.Defined() {
		roots = append(roots, w.entries)
	}
	// A HAMT may hold the same node twice, and readers read on and never back.
	w.car, err = storage.NewWritable(w.payload, roots, carv2.WriteAsCarV1(true), carv2.AllowDuplicatePuts(true))
	return err
}

// fileStart is what a file with a CARv1 payload of size bytes begins with. Its
// length does not depend on the size, so it can be written when that is known.
func (w *Writer) fileStart(size uint64) ([]byte, error) {
	h := carv2.NewHeader(size)
	h.IndexOffset = 0 // none: it would be of no use in a compressed file
	return startBytes(h, !w.m.cfg.Uncompressed)
}

// Block adds a block: first the ad, then its entries in the order in which a
// reader will ask for them, so from Next to Next, or as a HAMT is walked. The
// caller has checked that block is what c names. The bytes are not kept.
//
// Errors: [ErrTooLarge], [ErrSpoolFull], those of the disk.
func (w *Writer) Block(c cid.Cid, block []byte) error {
	if w.err == nil {
		w.err = w.block(c, block)
	}
	if w.err != nil {
		return fmt.Errorf("mirror ad %s: %w", w.ad, w.err)
	}
	return nil
}

func (w *Writer) block(c cid.Cid, block []byte) error {
	switch {
	case w.ended:
		return errEnded
	case w.blocks == 0 && c != w.ad:
		return fmt.Errorf("first block is %s", c)
	case w.blocks == 1 && c != w.entries:
		return fmt.Errorf("second block is %s, entries are %s", c, w.entries)
	case w.blocks == maxBlocks:
		return fmt.Errorf("%w: more than %d blocks", ErrTooLarge, maxBlocks)
	case len(block) > maxBlockBytes(w.blocks):
		return fmt.Errorf("%w: block %s of %d bytes", ErrTooLarge, c, len(block))
	}
	w.blocks++
	return w.car.Put(context.Background(), c.KeyString(), block)
}

var errEnded = errors.New("writer has ended")

// maxBlockBytes bounds the nth block of a file, from 0.
func maxBlockBytes(n int) int {
	if n == 0 {
		return schema.MaxAdBytes
	}
	return schema.MaxBlockBytes
}

// Commit makes the file visible, with all blocks given so far, and ends the
// writer. What was there under the ad is replaced, unless this file has no
// entries. After an error nothing has changed, except that an error of a bucket
// may come after it took the file.
func (w *Writer) Commit(ctx context.Context) error {
	err := w.commit(ctx)
	w.Abort()
	if err != nil {
		return fmt.Errorf("mirror ad %s: %w", w.ad, err)
	}
	w.m.missing.Remove(w.ad)
	return nil
}

func (w *Writer) commit(ctx context.Context) error {
	switch {
	case w.err != nil:
		return w.err
	case w.ended:
		return errEnded
	case w.blocks == 0:
		return errors.New("no block")
	case w.blocks == 1 && w.entries.Defined():
		return errors.New("no entries")
	case w.blocks == 1:
		if has, err := w.m.Has(ctx, w.ad); has || err != nil {
			return err
		}
	}
	if err := w.finish(); err != nil {
		return err
	}
	names, err := w.m.names(w.ad)
	if err != nil {
		return err
	}
	return w.m.files.put(ctx, names[0], w.spool.path())
}

// finish makes the spool file a whole CAR file.
func (w *Writer) finish() error {
	if w.gzip != nil {
		if err := w.gzip.Close(); err != nil {
			return err
		}
	}
	if err := w.buffer.Flush(); err != nil {
		return err
	}
	start, err := w.fileStart(uint64(w.payload.bytes))
	if err != nil {
		return err
	}
	if err := w.spool.rewriteStart(start); err != nil {
		return err
	}
	return w.spool.close()
}

// Abort ends the writer; nothing of it becomes visible. After Commit, or
// another Abort, it does nothing.
func (w *Writer) Abort() {
	if w.ended {
		return
	}
	w.ended = true
	w.spool.release()
	if w.gzip != nil {
		w.gzip.free()
	}
}

// payload counts the bytes of the CARv1 payload and bounds them.
type payload struct {
	w        io.Writer
	bytes    int64
	maxBytes int64
}

func (p *payload) Write(b []byte) (int, error) {
	if int64(len(b)) > p.maxBytes-p.bytes {
		return 0, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, p.maxBytes)
	}
	p.bytes += int64(len(b))
	return p.w.Write(b)
}
