package schema

import (
	"context"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/multiformats/go-multihash"
)

// HAMTLimits bounds the walk over one HAMT. A zero field stands for the default.
type HAMTLimits struct {
	// MaxDepth is the number of nodes from the root to a leaf, both included.
	MaxDepth int
	// MaxBlocks is the number of nodes visited, repeated ones counted again.
	MaxBlocks int
	// MaxBlockBytes bounds each node's block.
	MaxBlockBytes int
}

// DefaultHAMTLimits suits every HAMT that publishers build: 64 levels are used
// up only if 192 bits of two keys' hashes agree at the smallest width, 3, and a
// million nodes hold some 7 million multihashes (of the usual width, 8, and
// bucket size, 3, a node holds 7 on average).
var DefaultHAMTLimits = HAMTLimits{MaxDepth: 64, MaxBlocks: 1 << 20, MaxBlockBytes: MaxBlockBytes}

func (l HAMTLimits) orDefault() HAMTLimits {
	if l.MaxDepth == 0 {
		l.MaxDepth = DefaultHAMTLimits.MaxDepth
	}
	if l.MaxBlocks == 0 {
		l.MaxBlocks = DefaultHAMTLimits.MaxBlocks
	}
	if l.MaxBlockBytes == 0 {
		l.MaxBlockBytes = DefaultHAMTLimits.MaxBlockBytes
	}
	return l
}

// hamtBatch bounds the multihashes of one call to WalkHAMT's fn.
const hamtBatch = 4096

// WalkHAMT enumerates the keys of the HAMT at root, which are multihashes, in
// the order of the tree. Multihashes that are none, or outside mhLimits, are
// left out. fetch gives the bytes of a block, which are checked here; it is
// called for one block after the other, and told those that come next, if they
// are known, so that it can fetch ahead: at most 32, valid during the call. fn gets batches of at most 4096; the
// slice is valid during the call only, the multihashes in it for good. When the
// walk ends with an error, fn may have got a part of the keys.
//
// The values of the HAMT and the function that spread the keys are of no
// interest here and not checked: whatever is in the tree is in the index.
//
// Errors: ErrTooLarge for every limit, ErrUnsupported, ErrHashMismatch,
// ErrMalformed; those of fetch, fn and ctx as they are.
func WalkHAMT(ctx context.Context, root cid.Cid, fetch HAMTFetch, limits HAMTLimits, mhLimits Limits, fn func([]multihash.Multihash) error) error {
	w := hamtWalk{
		limits: limits.orDefault(),
		mhs:    mhLimits.orDefault(),
		fetch:  fetch,
		fn:     fn,
		todo:   []hamtLink{{root, 1}},
	}
	for len(w.todo) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		next := w.todo[len(w.todo)-1]
		w.todo = w.todo[:len(w.todo)-1]
		if err := w.visit(ctx, next); err != nil {
			return fmt.Errorf("HAMT %s: %w", root, err)
		}
	}
	return w.flush()
}

// HAMTFetch gives the bytes of block c; next are the blocks after it.
type HAMTFetch func(ctx context.Context, c cid.Cid, next []cid.Cid) ([]byte, error)

// hamtAhead bounds the blocks a HAMTFetch is told of.
const hamtAhead = 32

// hamtLink is a node to visit; the root has depth 1.
type hamtLink struct {
	c     cid.Cid
	depth int
}

// hamtWalk visits the tree depth first, left to right.
// visited + len(todo) ≤ limits.MaxBlocks.
type hamtWalk struct {
	limits  HAMTLimits
	mhs     Limits
	fetch   HAMTFetch
	fn      func([]multihash.Multihash) error
	visited int
	todo    []hamtLink // last is next
	batch   []multihash.Multihash
	ahead   []cid.Cid
}

func (w *hamtWalk) visit(ctx context.Context, l hamtLink) error {
	w.visited++
	w.ahead = w.ahead[:0]
	for i := len(w.todo) - 1; i >= 0 && len(w.ahead) < hamtAhead; i-- {
		w.ahead = append(w.ahead, w.todo[i].c)
	}
	block, err := w.fetch(ctx, l.c, w.ahead)
	if err != nil {
		return fmt.Errorf("fetch node %s: %w", l.c, err)
	}
	node, err := decodeHAMTNode(l.c, block, l.depth == 1, w.limits.MaxBlockBytes, w.mhs.MaxEntries)
	if err != nil {
		return err
	}
	if err := w.descend(l, node.links); err != nil {
		return err
	}
	for _, key := range node.keys {
		if !w.mhs.takes(key) {
			continue
		}
		if w.batch = append(w.batch, key); len(w.batch) == hamtBatch {
			if err := w.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *hamtWalk) descend(from hamtLink, links []cid.Cid) error {
	if len(links) == 0 {
		return nil
	}
	if from.depth == w.limits.MaxDepth {
		return fmt.Errorf("%w: node %s: more than %d levels", ErrTooLarge, from.c, w.limits.MaxDepth)
	}
	if w.visited+len(w.todo)+len(links) > w.limits.MaxBlocks {
		return fmt.Errorf("%w: node %s: more than %d nodes", ErrTooLarge, from.c, w.limits.MaxBlocks)
	}
	for i := len(links) - 1; i >= 0; i-- {
		w.todo = append(w.todo, hamtLink{links[i], from.depth + 1})
	}
	return nil
}

func (w *hamtWalk) flush() error {
	if len(w.batch) == 0 {
		return nil
	}
	err := w.fn(w.batch)
	w.batch = w.batch[:0]
	return err
}

// hamtNode is what enumeration needs of one block.
type hamtNode struct {
	links []cid.Cid
	keys  [][]byte
}

func decodeHAMTNode(c cid.Cid, block []byte, root bool, maxBytes, maxEntries int) (*hamtNode, error) {
	codec, err := openBlock(c, block, maxBytes)
	if err != nil {
		return nil, fmt.Errorf("node: %w", err)
	}
	r := newHAMTReader(codec, maxEntries)
	slot := r.node()
	if root {
		slot = r.root()
	}
	if err := decodeNode(codec, block, slot); err != nil {
		return nil, fmt.Errorf("node %s: %w", c, err)
	}
	return &r.hamtNode, nil
}

// hamtReader makes the slots of a HAMT block and collects what goes into them.
// Two forms are in use, which here may be mixed at will:
//
//	           as IPLD's HAMT specification has it    as the root of index-provider
//	node       [map bytes, [element…]]                {"map": bytes, "data": [element…]}
//	element    link                                   {"Link__HashMapNode": link}
//	           [pair…]                                {"Bucket": [pair…]}
//	pair       [key bytes, true]                      {"key": bytes, "value": true}
//
// The root is {"hashAlg": int, "bucketSize": int, "hamt": node}.
type hamtReader struct {
	hamtNode
	codec   Codec
	maxKeys int
	bucket  listSlot // the same for all buckets
}

func newHAMTReader(codec Codec, maxKeys int) *hamtReader {
	r := &hamtReader{codec: codec, maxKeys: maxKeys}
	var pair datamodel.NodeAssembler = eitherSlot{at("bucket entry"), []field{
		{"key", false, multihashSlot{at("key"), func(b []byte) { r.keys = append(r.keys, b) }}},
		{"value", false, boolSlot{at("value"), new(bool)}},
	}}
	r.bucket = listSlot{at("Bucket"), maxKeys, func() datamodel.NodeAssembler {
		if len(r.keys) == maxKeys {
			return above(maxKeys)
		}
		return pair
	}}
	return r
}

func (r *hamtReader) root() datamodel.NodeAssembler {
	return structSlot{at("HAMT root"), []field{
		{"hashAlg", false, intSlot{at("hashAlg")}},
		{"bucketSize", false, intSlot{at("bucketSize")}},
		{"hamt", false, r.node()},
	}}
}

func (r *hamtReader) node() datamodel.NodeAssembler {
	var element datamodel.NodeAssembler = hamtElement{at("data"), r}
	return eitherSlot{at("HAMT node"), []field{
		{"map", false, bytesSlot{at("map"), new([]byte)}},
		{"data", false, listSlot{at("data"), r.maxKeys, func() datamodel.NodeAssembler { return element }}},
	}}
}

func (r *hamtReader) child() linkSlot {
	r.links = append(r.links, cid.Undef)
	return linkSlot{at("child node"), r.codec, &r.links[len(r.links)-1]}
}

// eitherSlot takes a struct as a map or, its fields in their order, as a list.
type eitherSlot struct {
	refuse
	fields []field
}

func (s eitherSlot) BeginMap(sizeHint int64) (datamodel.MapAssembler, error) {
	return structSlot(s).BeginMap(sizeHint)
}

func (s eitherSlot) BeginList(int64) (datamodel.ListAssembler, error) {
	return &tuple{eitherSlot: s}, nil
}

// tuple is a struct being filled from a list.
type tuple struct {
	eitherSlot
	n int
}

func (t *tuple) AssembleValue() datamodel.NodeAssembler {
	if t.n++; t.n > len(t.fields) {
		return t.refuse
	}
	return t.fields[t.n-1].slot
}

func (t *tuple) Finish() error {
	if t.n != len(t.fields) {
		return t.refuse("end of list")
	}
	return nil
}

func (t *tuple) ValuePrototype(int64) datamodel.NodePrototype { return nil }

// hamtElement takes a child node or a bucket.
type hamtElement struct {
	refuse
	r *hamtReader
}

func (s hamtElement) AssignLink(l datamodel.Link) error { return s.r.child().AssignLink(l) }

func (s hamtElement) BeginList(sizeHint int64) (datamodel.ListAssembler, error) {
	return s.r.bucket.BeginList(sizeHint)
}

func (s hamtElement) BeginMap(int64) (datamodel.MapAssembler, error) {
	return &hamtUnion{keyed: keyed{s.refuse}, r: s.r}, nil
}

// hamtUnion is the map form of an element, or a dag-json link: one key tells.
type hamtUnion struct {
	keyed
	r    *hamtReader
	seen bool
}

func (s *hamtUnion) AssembleEntry(k string) (datamodel.NodeAssembler, error) {
	if s.seen {
		return nil, s.refuse(fmt.Sprintf("second key %.40q", k))
	}
	s.seen = true
	switch {
	case k == "Link__HashMapNode":
		return s.r.child(), nil
	case k == "Bucket":
		return s.r.bucket, nil
	case k == "/" && s.r.codec == DagJSON:
		return linkText{s.refuse, s.r.child().dst}, nil
	}
	return nil, s.refuse(fmt.Sprintf("key %.40q", k))
}

func (s *hamtUnion) Finish() error {
	if !s.seen {
		return s.refuse("empty map")
	}
	return nil
}
