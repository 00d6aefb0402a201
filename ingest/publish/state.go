package publish

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"

	"github.com/signpost-index/signpost/ingest/schema"
)

// A state is what holds between two changes. It is immutable once current:
// readers take the pointer and need no lock, a change works on a clone.
type state struct {
	head     cid.Cid
	signed   *schema.SignedHead // nil before the first advertisement
	ads      int
	addrs    []string // of the newest advertisement
	metadata []byte   // for new contexts, as last set
	contents map[string]*content
}

func (s *state) clone() *state {
	c := *s
	c.contents = maps.Clone(s.contents)
	return &c
}

// keys are the context IDs, sorted.
func (s *state) keys() []string { return slices.Sorted(maps.Keys(s.contents)) }

func (s *state) sign(topic string, key crypto.PrivKey) (err error) {
	s.signed = nil
	if s.head.Defined() {
		s.signed, err = schema.SignHead(s.head, topic, key)
	}
	return err
}

// files are the names in cars/ that contents refer to.
func (s *state) files() map[string]bool {
	used := make(map[string]bool)
	for _, c := range s.contents {
		for _, src := range c.sources {
			for _, name := range src.rec.files() {
				used[name] = true
			}
		}
	}
	return used
}

// byPath returns the content that the path holds, nil if none.
func (s *state) byPath(path string) *content {
	for _, c := range s.contents {
		if c.source(path) != nil {
			return c
		}
	}
	return nil
}

// change is the manifest line that leads from before (nil: from nothing listed)
// to s.
func (s *state) change(p *Publisher, before *state) change {
	c := change{
		Time: time.Now().UTC(), Head: s.head, Ads: s.ads,
		Publisher: p.id.String(), Provider: p.provider.String(), Addrs: s.addrs, Metadata: s.metadata,
	}
	if before == nil {
		return c
	}
	for _, k := range before.keys() {
		if s.contents[k] == nil {
			c.Drop = append(c.Drop, []byte(k))
		}
	}
	for _, k := range s.keys() {
		if s.contents[k] != before.contents[k] {
			c.Put = append(c.Put, s.contents[k].record())
		}
	}
	return c
}

// A content is one context and the paths that hold it. Immutable.
type content struct {
	rec     contentRecord
	sources []*source // by path
}

func (c *content) record() contentRecord {
	r := c.rec
	r.Sources = nil
	for _, s := range c.sources {
		r.Sources = append(r.Sources, s.rec)
	}
	return r
}

func (c *content) source(path string) *source {
	for _, s := range c.sources {
		if s.rec.Path == path {
			return s
		}
	}
	return nil
}

// with returns the content with src in the place of what its path had.
func (c *content) with(src *source) *content {
	out := c.without(src.rec.Path)
	out.sources = append(out.sources, src)
	slices.SortFunc(out.sources, func(a, b *source) int { return strings.Compare(a.rec.Path, b.rec.Path) })
	return out
}

// without returns the content without the path, perhaps with no source left.
func (c *content) without(path string) *content {
	return &content{rec: c.rec, sources: slices.DeleteFunc(slices.Clone(c.sources), func(s *source) bool {
		return s.rec.Path == path
	})}
}

// ours returns a source whose CAR we built and which can be served, nil if none.
func (c *content) ours() *source {
	for _, s := range c.sources {
		if s.rec.CAR != "" && s.problem() == nil {
			return s
		}
	}
	return nil
}

// Content is one context of the chain.
type Content struct {
	// ContextID is the sha2-256 multihash of the content's sorted multihashes.
	ContextID []byte
	// Paths hold the content, absolute, sorted.
	Paths []string
	// Roots of the CARs, as far as they name any.
	Roots []cid.Cid
	// Ads carry the entries, oldest first; later ones may have replaced the metadata.
	Ads []cid.Cid
	// Metadata of the context.
	Metadata []byte
	// Multihashes advertised, and the blocks and bytes they stand for.
	Multihashes, Blocks int
	Bytes               int64
	// Problems says for which paths blocks cannot be served, and why; empty when
	// all is well.
	Problems []string
}

func (c *content) describe() Content {
	d := Content{
		ContextID: c.rec.ContextID, Ads: slices.Clone(c.rec.Ads), Metadata: c.rec.Metadata,
		Multihashes: c.rec.Multihashes, Blocks: c.rec.Blocks, Bytes: c.rec.Bytes,
	}
	for _, s := range c.sources {
		d.Paths = append(d.Paths, s.rec.Path)
		for _, r := range s.rec.Roots {
			if !slices.Contains(d.Roots, r) {
				d.Roots = append(d.Roots, r)
			}
		}
		if err := s.problem(); err != nil {
			d.Problems = append(d.Problems, err.Error())
		}
	}
	return d
}
