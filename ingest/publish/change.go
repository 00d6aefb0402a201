package publish

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multiaddr"

	"github.com/signpost-index/signpost/ingest/schema"
)

// A draft is a change being prepared: the state it leads to, and the blocks and
// files that have to be on disk before it may hold. Nothing of it is visible
// until commit. The caller holds p.changing.
type draft struct {
	p        *Publisher
	before   *state
	next     *state
	addrs    []string // for new advertisements
	metadata []byte   // for new contexts
	dirty    bool     // next differs from before
	w        *chainWriter
	moved    []string // files put into cars/, removed again if the change fails
}

// edit makes one change: fn prepares it, and unless it fails it holds when edit
// returns nil. Otherwise everything is as before.
func (p *Publisher) edit(fn func(d *draft) error) error {
	work, err := os.MkdirTemp(p.tmp, "edit-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	p.changing.Lock()
	defer p.changing.Unlock()
	s := p.now.Load()
	d := &draft{
		p: p, before: s, next: s.clone(), addrs: p.addrs, metadata: p.metadata,
		w: p.chainWriter(work),
	}
	defer d.undo()
	if err := fn(d); err != nil {
		return err
	}
	if d.dirty {
		if err := d.commit(); err != nil {
			return err
		}
	}
	p.addrs, p.metadata = d.addrs, d.metadata
	return nil
}

// set puts a content in the place of what its context had.
func (d *draft) set(c *content) {
	d.dirty = true
	d.next.contents[string(c.rec.ContextID)] = c
}

// ad appends an advertisement to the chain.
func (d *draft) ad(a schema.Advertisement) (cid.Cid, error) {
	a.PreviousID = d.next.head
	a.Provider = d.p.provider.String()
	a.Addresses = d.addrs
	if err := a.Sign(d.p.cfg.Key); err != nil {
		return cid.Undef, fmt.Errorf("sign advertisement: %w", err)
	}
	block, err := a.Encode(d.p.cfg.Codec)
	if err != nil {
		return cid.Undef, fmt.Errorf("encode advertisement: %w", err)
	}
	k, err := d.w.put(block)
	if err != nil {
		return cid.Undef, err
	}
	d.dirty = true
	d.next.head = k
	d.next.ads++
	d.next.addrs = slices.Clone(d.addrs)
	return k, nil
}

// remove appends the removal of a context.
func (d *draft) remove(c *content) (cid.Cid, error) {
	delete(d.next.contents, string(c.rec.ContextID))
	return d.ad(schema.Advertisement{Entries: schema.NoEntries, ContextID: c.rec.ContextID, IsRm: true})
}

// drop takes a path from a content, and appends the removal of the context if
// it was the last; the CID is Undef otherwise.
func (d *draft) drop(c *content, path string) (cid.Cid, error) {
	rest := c.without(path)
	if len(rest.sources) == 0 {
		return d.remove(c)
	}
	d.set(rest)
	return cid.Undef, nil
}

// keep moves a file of the working directory into cars/ under a name of its own.
func (d *draft) keep(work, name string, contextID []byte) (string, error) {
	var unique [8]byte
	rand.Read(unique[:])
	kept := fmt.Sprintf("%x-%x%s", contextID[2:18], unique, filepath.Ext(name))
	if err := os.Rename(filepath.Join(work, name), filepath.Join(d.p.cars, kept)); err != nil {
		return "", err
	}
	d.moved = append(d.moved, kept)
	d.p.step("file in place")
	return kept, nil
}

// commit makes the draft hold: all its blocks and files first, then the line
// that refers to them.
func (d *draft) commit() error {
	p := d.p
	if err := errors.Join(d.w.sync(), syncDir(p.cars)); err != nil {
		return err
	}
	if d.next.head != d.before.head {
		if err := d.next.sign(p.cfg.Topic, p.cfg.Key); err != nil {
			return err
		}
	}
	p.step("synced")
	d.moved = nil // even a line that could not be written may be there after a restart
	if err := p.manifest.append(d.next.change(p, d.before)); err != nil {
		return err
	}
	p.now.Store(d.next)
	p.step("committed")
	used := d.next.files()
	for name := range d.before.files() {
		if !used[name] {
			os.Remove(filepath.Join(p.cars, name)) // what stays is swept at the next start
		}
	}
	return nil
}

// undo removes the files of a draft that did not get as far as its line; after
// that the next start knows which are in use. Chain blocks stay: nothing refers to them, and the same content
// finds them again.
func (d *draft) undo() {
	for _, name := range d.moved {
		os.Remove(filepath.Join(d.p.cars, name))
	}
}

// advertise makes a build, whose files are in work, part of the chain.
func (d *draft) advertise(ctx context.Context, b *build, work string, m *meter) (Added, error) {
	a := Added{
		ContextID: b.contextID, Roots: b.rec.Roots,
		Multihashes: b.count, Blocks: b.blocks, Bytes: b.bytes, Skipped: b.skipped,
	}
	known := d.next.contents[string(b.contextID)]
	if known == nil && len(d.addrs) == 0 {
		return a, ErrNoAddress
	}
	if known != nil {
		a.Unchanged = true
		a.published(known)
		if src := known.source(b.rec.Path); src != nil && src.problem() == nil && src.rec.sameCAR(b.rec) {
			return a, nil
		}
	}
	src, err := d.adopt(b, work, known)
	if err != nil {
		return a, err
	}
	if old := d.next.byPath(b.rec.Path); old != nil && old != known {
		if a.Removed, err = d.drop(old, b.rec.Path); err != nil {
			return a, err
		}
	}
	if known == nil {
		known = &content{rec: contentRecord{
			ContextID: b.contextID, Metadata: d.metadata,
			Multihashes: b.count, Blocks: b.blocks, Bytes: b.bytes,
		}}
		if err := d.addEntries(ctx, known, src, m); err != nil {
			return a, err
		}
		a.published(known)
	}
	d.set(known.with(src))
	return a, nil
}

func (a *Added) published(c *content) {
	a.Ads = slices.Clone(c.rec.Ads)
	a.Ad = a.Ads[len(a.Ads)-1]
}

// sameCAR reports whether two reads of one path found the same CAR file, or
// the same content of a file or directory.
func (r sourceRecord) sameCAR(b sourceRecord) bool {
	if (r.CAR == "") != (b.CAR == "") || !slices.Equal(r.Roots, b.Roots) {
		return false
	}
	return r.CAR != "" || r.Size == b.Size && r.ModTime.Equal(b.ModTime) && r.DataOffset == b.DataOffset
}

// adopt moves the build's files into cars/ and opens the source. A CAR we have
// built before for the same context, from another path, is used instead.
func (d *draft) adopt(b *build, work string, known *content) (*source, error) {
	rec := b.rec
	var err error
	if rec.CAR != "" && known != nil {
		if twin := known.ours(); twin != nil {
			shared := twin.rec
			shared.Path, shared.Roots = rec.Path, rec.Roots
			s := *twin
			s.rec = shared
			return &s, nil
		}
	}
	if rec.CAR != "" {
		rec.CAR, err = d.keep(work, rec.CAR, b.contextID)
	} else {
		rec.Index, err = d.keep(work, rec.Index, b.contextID)
	}
	if err != nil {
		return nil, err
	}
	src := openSource(d.p.cars, rec)
	return src, src.broken
}

// addEntries writes the entries of src and the advertisements that carry them.
func (d *draft) addEntries(ctx context.Context, c *content, src *source, m *meter) error {
	m.stage(StageEntries)
	heads, err := d.w.entries(ctx, src, d.p.cfg.ChunkSize, d.p.cfg.MaxAdEntries, m.multihashes)
	if err != nil {
		return err
	}
	for _, entries := range heads {
		k, err := d.ad(schema.Advertisement{Entries: entries, ContextID: c.rec.ContextID, Metadata: c.rec.Metadata})
		if err != nil {
			return err
		}
		c.rec.Ads = append(c.rec.Ads, k)
		c.rec.Entries = append(c.rec.Entries, entries)
	}
	return nil
}

// Remove takes content back. Given a path that was published, which need not
// exist any more, the content is removed unless another path holds it too; then
// the path is forgotten, no advertisement is made and the CID is cid.Undef.
// Given a context ID (base64 or hexadecimal) or a root CID, the content is
// removed with all its paths. The CID is that of the removal advertisement.
// Errors: ErrNotPublished, ErrAmbiguous, ErrClosed.
func (p *Publisher) Remove(ctx context.Context, pathOrContext string) (ad cid.Cid, err error) {
	if err := p.enter(); err != nil {
		return cid.Undef, err
	}
	defer p.leave()
	path, err := filepath.Abs(pathOrContext)
	if err != nil {
		return cid.Undef, err
	}
	err = p.edit(func(d *draft) error {
		c := d.next.byPath(path)
		if c != nil {
			ad, err = d.drop(c, path)
			return err
		}
		if c, err = d.next.byName(pathOrContext); err != nil {
			return err
		}
		ad, err = d.remove(c)
		return err
	})
	if err != nil {
		return cid.Undef, fmt.Errorf("remove %s: %w", pathOrContext, err)
	}
	p.cfg.Logger.Info("removed", "content", pathOrContext, "ad", orNone(ad))
	return ad, nil
}

// byName finds a content by context ID or root.
func (s *state) byName(name string) (*content, error) {
	for _, decode := range []func(string) ([]byte, error){
		hex.DecodeString, base64.StdEncoding.DecodeString, base64.RawStdEncoding.DecodeString,
		base64.URLEncoding.DecodeString, base64.RawURLEncoding.DecodeString,
	} {
		if id, err := decode(name); err == nil && s.contents[string(id)] != nil {
			return s.contents[string(id)], nil
		}
	}
	root, err := cid.Decode(name)
	if err != nil {
		return nil, ErrNotPublished
	}
	var found *content
	for _, k := range s.keys() {
		c := s.contents[k]
		if !slices.ContainsFunc(c.sources, func(src *source) bool { return slices.Contains(src.rec.Roots, root) }) {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("%w has this root: contexts %s and %s", ErrAmbiguous,
				ContextText(found.rec.ContextID), ContextText(c.rec.ContextID))
		}
		found = c
	}
	if found == nil {
		return nil, ErrNotPublished
	}
	return found, nil
}

// ContextText is how a context ID is written for people, and for Remove: base64.
func ContextText(contextID []byte) string { return base64.StdEncoding.EncodeToString(contextID) }

// UpdateMetadata gives every context new metadata, and contexts to come as well.
// Each gets one advertisement that repeats its newest Entries link, since
// metadata belongs to a context as a whole; contexts that have it already get
// none. The CIDs are in the order of the chain. It is one change: all or none.
func (p *Publisher) UpdateMetadata(ctx context.Context, md []byte) (ads []cid.Cid, err error) {
	if len(md) == 0 || len(md) > schema.MaxMetadataBytes {
		return nil, fmt.Errorf("update metadata: %d bytes, want 1 to %d", len(md), schema.MaxMetadataBytes)
	}
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	md = slices.Clone(md)
	err = p.edit(func(d *draft) error {
		d.dirty = !bytes.Equal(d.next.metadata, md)
		d.metadata, d.next.metadata = md, md
		for _, k := range d.next.keys() {
			if err := ctx.Err(); err != nil {
				return err
			}
			c := d.next.contents[k]
			if bytes.Equal(c.rec.Metadata, md) {
				continue
			}
			if len(d.addrs) == 0 {
				return ErrNoAddress
			}
			entries := c.rec.Entries[len(c.rec.Entries)-1]
			ad, err := d.ad(schema.Advertisement{Entries: entries, ContextID: c.rec.ContextID, Metadata: md})
			if err != nil {
				return err
			}
			ads = append(ads, ad)
			updated := &content{rec: c.rec, sources: c.sources}
			updated.rec.Metadata = md
			d.set(updated)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("update metadata: %w", err)
	}
	return ads, nil
}

// SetAddrs sets the provider's addresses for advertisements to come. If they
// differ from those of the newest advertisement, one that carries nothing else
// is appended; otherwise, and while the chain is empty, the CID is cid.Undef.
func (p *Publisher) SetAddrs(ctx context.Context, addrs []multiaddr.Multiaddr) (ad cid.Cid, err error) {
	if len(addrs) == 0 {
		return cid.Undef, fmt.Errorf("set addresses: %w", ErrNoAddress)
	}
	if err := p.enter(); err != nil {
		return cid.Undef, err
	}
	defer p.leave()
	err = p.edit(func(d *draft) (err error) {
		d.addrs = addrStrings(addrs)
		if d.next.head.Defined() && !slices.Equal(d.next.addrs, d.addrs) {
			ad, err = d.ad(schema.Advertisement{Entries: schema.NoEntries})
		}
		return err
	})
	if err != nil {
		return cid.Undef, fmt.Errorf("set addresses: %w", err)
	}
	return ad, nil
}
