package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"
)

// adWindow is how much of a file is fetched for the ad alone. An ad with a few
// extended providers fits.
const adWindow = 16 << 10

// Ad returns the block of the ad. It is what the CID names; the caller may keep
// it. Errors: [ErrNotFound], [ErrCorrupt], those of the disk or the bucket.
func (m *Mirror) Ad(ctx context.Context, ad cid.Cid) ([]byte, error) {
	block, err := m.adWithin(ctx, ad, adWindow)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		block, err = m.adWithin(ctx, ad, 0)
	}
	return block, err
}

// adWithin reads the ad from the first windowBytes of its file, 0 for all.
func (m *Mirror) adWithin(ctx context.Context, ad cid.Cid, windowBytes int64) ([]byte, error) {
	f, err := m.open(ctx, ad, windowBytes)
	if err != nil {
		return nil, err
	}
	defer f.close()
	return f.ad, nil
}

// Entries opens the file of the ad behind its first block. Its stream lives no
// longer than ctx. Errors as of [Mirror.Ad]; a file without entries is not one.
func (m *Mirror) Entries(ctx context.Context, ad cid.Cid) (*Entries, error) {
	f, err := m.open(ctx, ad, 0)
	if err != nil {
		return nil, err
	}
	return &Entries{name: f.name, f: f}, nil
}

// Entries are the blocks of an ad's entries, in the order of the file. They are
// read once, from front to back.
type Entries struct {
	name string
	f    *carFile // nil when closed
	err  error    // ends the stream; io.EOF at the end
}

// Next returns the next block, and io.EOF behind the last one. It is what its
// CID names; the caller may keep it. Other errors are those of [Mirror.Ad] and
// stay.
func (e *Entries) Next() (cid.Cid, []byte, error) {
	c, block, err := e.read()
	if err != nil {
		return cid.Undef, nil, err
	}
	if err := checkBlock(c, block); err != nil {
		return cid.Undef, nil, e.fail(err)
	}
	return c, block, nil
}

// Block reads on to the block c, which is the next one for a caller that
// follows the chain from its start, and returns it. Blocks before it are passed
// over unchecked. The error matches [ErrNotFound] if there is no c from here on;
// then every later call says so too.
func (e *Entries) Block(c cid.Cid) ([]byte, error) {
	for {
		got, block, err := e.read()
		if err == io.EOF {
			return nil, fmt.Errorf("entries %s in %s: %w", c, e.name, ErrNotFound)
		}
		if err != nil {
			return nil, err
		}
		if got != c {
			continue
		}
		if err := checkBlock(c, block); err != nil {
			return nil, e.fail(err)
		}
		return block, nil
	}
}

func (e *Entries) read() (cid.Cid, []byte, error) {
	if e.err != nil {
		return cid.Undef, nil, e.err
	}
	c, block, err := e.f.next()
	if err == io.EOF {
		e.err = err
		return cid.Undef, nil, err
	}
	if err != nil {
		return cid.Undef, nil, e.fail(err)
	}
	return c, block, nil
}

func (e *Entries) fail(err error) error {
	e.err = fmt.Errorf("read %s: %w", e.name, err)
	return e.err
}

// Close frees the stream. It is safe twice.
func (e *Entries) Close() error {
	if e.f == nil {
		return nil
	}
	f := e.f
	e.f, e.err = nil, fmt.Errorf("read %s: closed", e.name)
	return f.close()
}

// open opens the file of an ad and reads its first block, under one of its names.
func (m *Mirror) open(ctx context.Context, ad cid.Cid, windowBytes int64) (*carFile, error) {
	names, err := m.names(ad)
	if err != nil {
		return nil, err
	}
	if m.knownMissing(ad) {
		return nil, fmt.Errorf("ad %s: %w", ad, ErrNotFound)
	}
	for _, name := range names {
		r, err := m.files.get(ctx, name, windowBytes)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		f, err := openCAR(name, ad, r, m.cfg.MaxFileBytes)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		return f, nil
	}
	m.missing.Add(ad, m.now())
	return nil, fmt.Errorf("ad %s: %w", ad, ErrNotFound)
}
