package publish

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/ingest/ipnisync"
	"github.com/signpost-index/signpost/ingest/schema"
)

// chain keeps the blocks of the advertisement chain, one file each:
// dir/<last two characters of the CID>/<CID>. A file is written beside its place,
// synced and renamed, so one that is there is whole.
type chain struct{ dir string }

func (c chain) path(k cid.Cid) string {
	name := k.String()
	return filepath.Join(c.dir, name[len(name)-2:], name)
}

// isChainLink reports whether k can name a block of ours, so that no other text
// ever becomes part of a path.
func isChainLink(k cid.Cid) bool {
	p := k.Prefix()
	return p.Version == 1 && (p.Codec == cid.DagJSON || p.Codec == cid.DagCBOR) &&
		p.MhType == multihash.SHA2_256 && p.MhLength == 32
}

// block returns the bytes of a block; ipnisync.ErrNotFound if it is none of
// ours, another error if the file no longer holds what its name says.
func (c chain) block(k cid.Cid) ([]byte, error) {
	if !isChainLink(k) {
		return nil, ipnisync.ErrNotFound
	}
	f, err := os.Open(c.path(k))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ipnisync.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, schema.MaxBlockBytes+1))
	if err != nil {
		return nil, err
	}
	if err := schema.CheckBlock(k, b); err != nil {
		return nil, fmt.Errorf("block %s on disk: %w", k, err)
	}
	return b, nil
}

// A chainWriter writes blocks of one change. They are durable after sync.
type chainWriter struct {
	chain chain
	codec schema.Codec
	tmp   string
	step  func(name string)   // see Publisher
	dirs  map[string]struct{} // with names not yet durable
}

func (p *Publisher) chainWriter(tmp string) *chainWriter {
	return &chainWriter{chain: p.chain, codec: p.cfg.Codec, tmp: tmp, step: p.step, dirs: make(map[string]struct{})}
}

// put writes a block, unless it is there already, and returns its CID.
func (w *chainWriter) put(block []byte) (cid.Cid, error) {
	k := schema.LinkOf(w.codec, block)
	path := w.chain.path(k)
	dir := filepath.Dir(path)
	if _, ok := w.dirs[dir]; !ok {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return cid.Undef, err
		}
		w.dirs[dir] = struct{}{}
	}
	if _, err := w.chain.block(k); err == nil {
		return k, nil
	}
	tmp := filepath.Join(w.tmp, "block")
	if err := writeFile(tmp, block); err != nil {
		return cid.Undef, fmt.Errorf("write block %s: %w", k, err)
	}
	w.step("block written")
	if err := os.Rename(tmp, path); err != nil {
		return cid.Undef, fmt.Errorf("write block %s: %w", k, err)
	}
	w.step("block in place")
	return k, nil
}

// sync makes the names of all blocks put so far durable.
func (w *chainWriter) sync() error {
	for dir := range w.dirs {
		if err := syncDir(dir); err != nil {
			return err
		}
	}
	w.dirs = make(map[string]struct{})
	return syncDir(w.chain.dir)
}

// entries writes the entry chunks of all multihashes of src, in the order of its
// index, and returns the head chunk of each advertisement they fill, perAd
// multihashes at most to each. Chunks are written as they fill up and link back,
// so the head of an advertisement is the one that may be short, and one chunk is
// in memory.
func (w *chainWriter) entries(ctx context.Context, src *source, perChunk, perAd int, progress func(mhs int)) ([]cid.Cid, error) {
	f, err := os.Open(src.indexPath)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := chunkBuilder{w: w, perChunk: perChunk, perAd: perAd}
	err = src.index.each(f, func(mh multihash.Multihash, _ uint64) error {
		if len(b.mhs) == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			progress(b.total)
		}
		return b.add(mh)
	})
	if err == nil {
		err = b.closeAd()
	}
	progress(b.total)
	return b.heads, err
}

// A chunkBuilder makes chunks of multihashes and advertisements of chunks.
type chunkBuilder struct {
	w               *chainWriter
	perChunk, perAd int

	mhs   []multihash.Multihash
	arena []byte // what mhs point into
	next  cid.Cid
	inAd  int // multihashes in the chunks since the last closeAd
	total int
	heads []cid.Cid
}

func (b *chunkBuilder) add(mh multihash.Multihash) error {
	if cap(b.arena)-len(b.arena) < len(mh) {
		b.arena = make([]byte, 0, 256<<10) // the old one lives on in mhs
	}
	start := len(b.arena)
	b.arena = append(b.arena, mh...)
	b.mhs = append(b.mhs, b.arena[start:len(b.arena):len(b.arena)])
	b.inAd++
	b.total++
	if b.inAd == b.perAd {
		return b.closeAd()
	}
	if len(b.mhs) == b.perChunk {
		return b.closeChunk()
	}
	return nil
}

func (b *chunkBuilder) closeChunk() error {
	if len(b.mhs) == 0 {
		return nil
	}
	chunk := schema.EntryChunk{Entries: b.mhs, Next: b.next}
	block, err := chunk.Encode(b.w.codec)
	if err != nil {
		return fmt.Errorf("encode entry chunk: %w", err)
	}
	if b.next, err = b.w.put(block); err != nil {
		return err
	}
	b.mhs, b.arena = b.mhs[:0], b.arena[:0]
	return nil
}

func (b *chunkBuilder) closeAd() error {
	if err := b.closeChunk(); err != nil {
		return err
	}
	if b.inAd > 0 {
		b.heads = append(b.heads, b.next)
	}
	b.next, b.inAd = cid.Undef, 0
	return nil
}
