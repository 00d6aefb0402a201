package publish

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

// Stage is what an Add is doing.
type Stage string

// The stages of an Add, in order.
const (
	StageReading  Stage = "reading"  // files are hashed into blocks, or a CAR's blocks checked
	StageIndexing Stage = "indexing" // multihashes are sorted
	StageEntries  Stage = "entries"  // entry chunks are written
	StageDone     Stage = "done"
)

// Progress is how far an Add is.
type Progress struct {
	Path  string // as given
	Stage Stage
	// Bytes read of TotalBytes, which is an estimate for directories.
	Bytes, TotalBytes int64
	// Blocks found or made so far.
	Blocks int
	// Multihashes in entry chunks so far.
	Multihashes int
}

// Added is what an Add has done.
type Added struct {
	// ContextID of the content.
	ContextID []byte
	// Ad is the newest advertisement that carries its entries, whether it was
	// made now or before; Ads are all of them, oldest first.
	Ad  cid.Cid
	Ads []cid.Cid
	// Removed is the removal of what the path held before, if it was made.
	Removed cid.Cid
	// Roots of the CAR; for files and directories the one UnixFS root.
	Roots []cid.Cid
	// Multihashes advertised; Blocks and Bytes of the CAR they are in.
	Multihashes, Blocks int
	Bytes               int64
	// Skipped counts files left out because they are neither regular files, nor
	// directories, nor symbolic links; the log names them.
	Skipped int
	// Unchanged: the content was advertised before and no advertisement was made for it.
	Unchanged bool
}

// Add publishes a CAR file, a plain file or a directory. It reads all of it,
// writes what is not yet there to the state directory, and appends to the chain:
// first a removal if the path held other content that no other path holds, then
// an advertisement, or several for very many multihashes. Everything or nothing
// of this holds afterwards.
//
// A path that is itself a symbolic link is followed; links inside a directory
// are not. progress may be nil; it is called from this goroutine, a few times a
// second at most and at each stage.
//
// Errors: ErrBadCAR, ErrEmpty, ErrNoAddress, ErrClosed, those of the file system
// and the context's.
func (p *Publisher) Add(ctx context.Context, path string, progress func(Progress)) (Added, error) {
	if err := p.enter(); err != nil {
		return Added{}, err
	}
	defer p.leave()
	abs, err := filepath.Abs(path)
	if err != nil {
		return Added{}, err
	}
	work, err := os.MkdirTemp(p.tmp, "add-")
	if err != nil {
		return Added{}, err
	}
	defer os.RemoveAll(work)
	begin := time.Now()
	m := &meter{to: progress, p: Progress{Path: path}}
	var added Added
	b, err := p.build(ctx, abs, work, m)
	if err == nil {
		err = p.edit(func(d *draft) (err error) {
			added, err = d.advertise(ctx, b, work, m)
			return err
		})
	}
	if err != nil {
		return Added{}, fmt.Errorf("publish %s: %w", path, err)
	}
	m.stage(StageDone)
	p.cfg.Logger.Info("published", "path", abs, "ad", added.Ad.String(), "mhs", added.Multihashes,
		"bytes", added.Bytes, "unchanged", added.Unchanged, "skipped", added.Skipped,
		"elapsed", time.Since(begin).Round(time.Millisecond))
	return added, nil
}

// A build is content read in: its files are in the working directory.
type build struct {
	rec       sourceRecord // CAR and Index are names in the working directory
	contextID []byte
	count     int
	blocks    int
	bytes     int64
	skipped   int
}

func (b *build) setSummary(s summary) {
	b.contextID = appendMultihash(nil, multihash.SHA2_256, s.context[:])
	b.count = s.count
}

// build reads path in: a CAR gets an index, anything else a CAR.
// ErrEmpty if that leaves nothing to advertise.
func (p *Publisher) build(ctx context.Context, path, work string, m *meter) (*build, error) {
	b, err := p.read(ctx, path, work, m)
	if err == nil && b.count == 0 {
		err = ErrEmpty
	}
	return b, err
}

func (p *Publisher) read(ctx context.Context, path, work string, m *meter) (*build, error) {
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(target)
	if err != nil {
		return nil, err
	}
	if p.holds(target) {
		return nil, errors.New("it is inside the state directory")
	}
	switch {
	case info.IsDir():
		return p.buildUnixFS(ctx, path, target, work, m)
	case !info.Mode().IsRegular():
		return nil, errors.New("neither a file nor a directory")
	}
	f, err := openRegular(target)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	switch ok, err := isCAR(f); {
	case err != nil:
		return nil, err
	case ok:
		return p.buildCAR(ctx, path, f, work, m)
	}
	return p.buildUnixFS(ctx, path, target, work, m)
}

// holds reports whether target is in the state directory or is it.
func (p *Publisher) holds(target string) bool {
	dir, err := filepath.EvalSymlinks(p.cfg.Dir)
	if err != nil {
		return false
	}
	rel, err := filepath.Rel(dir, target)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

const (
	workCAR   = "content.car"
	workIndex = "content.idx"
)

func (p *Publisher) buildUnixFS(ctx context.Context, path, target, work string, m *meter) (*build, error) {
	name := filepath.Join(work, workCAR)
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	w := newCARWriter(f, newSorter(work))
	im := &importer{car: w, hidden: p.cfg.Hidden, never: p.never, logger: p.cfg.Logger}
	im.read = func(n int) { m.advance(int64(n), w.blocks) }
	m.p.TotalBytes = im.importSize(ctx, target)
	m.stage(StageReading)
	info, err := os.Lstat(target)
	if err != nil {
		return nil, err
	}
	root, err := im.add(ctx, target, info)
	if err != nil {
		return nil, err
	}
	if root == nil {
		return nil, ErrEmpty
	}
	m.p.Blocks = w.blocks
	m.stage(StageIndexing)
	c, sum, err := w.finish(ctx, root.Cid())
	if err != nil {
		return nil, err
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	b := &build{blocks: w.blocks, bytes: w.bytes, skipped: im.skipped}
	b.setSummary(sum)
	b.rec = sourceRecord{
		Path: path, Roots: c.roots, CAR: workCAR,
		DataOffset: c.dataOffset, DataSize: c.dataSize, IndexAt: c.dataOffset + c.dataSize,
	}
	return b, b.rec.stamp(f)
}

func (p *Publisher) buildCAR(ctx context.Context, path string, f *os.File, work string, m *meter) (*build, error) {
	c, err := readCAR(f)
	if err != nil {
		return nil, err
	}
	b := &build{rec: sourceRecord{Path: path, Roots: c.roots, Index: workIndex, DataOffset: c.dataOffset, DataSize: c.dataSize}}
	if err := b.rec.stamp(f); err != nil {
		return nil, err
	}
	m.p.TotalBytes = c.dataSize
	m.stage(StageReading)
	s := newSorter(work)
	err = c.eachBlock(ctx, f, func(k cid.Cid, data []byte, offset uint64) error {
		b.blocks++
		b.bytes += int64(len(data))
		m.advance(int64(offset)-m.p.Bytes, b.blocks)
		if isIdentity(k) {
			return nil
		}
		return s.add(k.Hash(), offset)
	})
	if err != nil {
		return nil, err
	}
	after := b.rec
	if err := after.stamp(f); err != nil {
		return nil, err
	}
	if after.Size != b.rec.Size || !after.ModTime.Equal(b.rec.ModTime) {
		return nil, errors.New("it changed while it was read")
	}
	m.p.Bytes = c.dataSize
	m.stage(StageIndexing)
	x, err := os.Create(filepath.Join(work, workIndex))
	if err != nil {
		return nil, err
	}
	defer x.Close()
	sum, _, err := writeIndex(ctx, x, 0, s)
	if err != nil {
		return nil, err
	}
	b.setSummary(sum)
	return b, x.Sync()
}

// stamp records size and modification time of the CAR.
func (r *sourceRecord) stamp(f *os.File) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	r.Size, r.ModTime = st.Size(), st.ModTime().UTC()
	return nil
}

// A meter passes on progress, not too often.
type meter struct {
	to   func(Progress)
	p    Progress
	last time.Time
}

const meterInterval = 100 * time.Millisecond

func (m *meter) advance(bytes int64, blocks int) {
	m.p.Bytes += bytes
	m.p.Blocks = blocks
	m.tick()
}

func (m *meter) multihashes(n int) {
	m.p.Multihashes = n
	m.tick()
}

func (m *meter) tick() {
	if m.to == nil {
		return
	}
	if now := time.Now(); now.Sub(m.last) >= meterInterval {
		m.last = now
		m.to(m.p)
	}
}

func (m *meter) stage(s Stage) {
	m.p.Stage = s
	if m.to != nil {
		m.last = time.Now()
		m.to(m.p)
	}
}
