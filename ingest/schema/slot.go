package schema

import (
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/datamodel"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
)

// Slots are the receiving end of the go-ipld-prime decoders: each takes the one
// kind of value its place in the schema allows, puts it where it belongs and
// refuses everything else. As a value is refused before it is built, input of
// the wrong shape costs nothing, whatever its size and depth; nothing here is
// reflective or can panic.
//
//	structSlot   map with exactly these keys
//	listSlot     list of at most so many elements
//	linkSlot, bytesSlot, stringSlot, boolSlot, intSlot

// refuse is the slot that takes nothing; the others embed it and override what
// they take. It makes the error from what was found instead.
type refuse func(found string) error

// at is the refuse that names a place in a block.
func at(place string) refuse {
	return func(found string) error {
		return fmt.Errorf("%w: %s: unexpected %s", ErrMalformed, place, found)
	}
}

// above is the refuse for elements beyond the limit of a list.
func above(limit int) refuse {
	return func(string) error {
		return fmt.Errorf("%w: list of more than %d elements", ErrTooLarge, limit)
	}
}

func (r refuse) BeginMap(int64) (datamodel.MapAssembler, error)   { return nil, r("map") }
func (r refuse) BeginList(int64) (datamodel.ListAssembler, error) { return nil, r("list") }
func (r refuse) AssignNull() error                                { return r("null") }
func (r refuse) AssignBool(bool) error                            { return r("bool") }
func (r refuse) AssignInt(int64) error                            { return r("int") }
func (r refuse) AssignFloat(float64) error                        { return r("float") }
func (r refuse) AssignString(string) error                        { return r("string") }
func (r refuse) AssignBytes([]byte) error                         { return r("bytes") }
func (r refuse) AssignLink(datamodel.Link) error                  { return r("link") }
func (r refuse) AssignNode(datamodel.Node) error                  { return r("int above 63 bits") }
func (r refuse) Prototype() datamodel.NodePrototype               { return nil }

// keyed supplies the part of a MapAssembler that decoders do not use; they
// announce each key with AssembleEntry.
type keyed struct{ refuse }

func (k keyed) AssembleKey() datamodel.NodeAssembler          { return k.refuse }
func (k keyed) AssembleValue() datamodel.NodeAssembler        { return k.refuse }
func (k keyed) KeyPrototype() datamodel.NodePrototype         { return nil }
func (k keyed) ValuePrototype(string) datamodel.NodePrototype { return nil }

type bytesSlot struct {
	refuse
	dst *[]byte
}

func (s bytesSlot) AssignBytes(b []byte) error { *s.dst = b; return nil }

type stringSlot struct {
	refuse
	dst *string
}

func (s stringSlot) AssignString(v string) error { *s.dst = v; return nil }

type boolSlot struct {
	refuse
	dst *bool
}

func (s boolSlot) AssignBool(v bool) error { *s.dst = v; return nil }

// intSlot takes an int and forgets it.
type intSlot struct{ refuse }

func (s intSlot) AssignInt(int64) error { return nil }

// linkSlot takes a link. In dag-json it reads the map {"/": text} itself
// instead of leaving that to the decoder, as text may be in base58, which takes
// quadratic time: a text of a few megabytes would occupy a core for hours.
type linkSlot struct {
	refuse
	codec Codec
	dst   *cid.Cid
}

// maxLinkText bounds the text of a link, maxLinkBytes its CID. A CIDv1 with a
// 64-byte digest has 70 bytes; 141 characters in base16, 113 in the usual base32.
const (
	maxLinkText  = 256
	maxLinkBytes = 128
)

func (s linkSlot) AssignLink(l datamodel.Link) error {
	cl, ok := l.(cidlink.Link)
	if !ok || !cl.Cid.Defined() {
		return s.refuse("kind of link")
	}
	return assignCID(s.refuse, s.dst, cl.Cid)
}

func assignCID(refuse refuse, dst *cid.Cid, c cid.Cid) error {
	if n := c.ByteLen(); n > maxLinkBytes {
		return refuse(fmt.Sprintf("link of %d bytes", n))
	}
	*dst = c
	return nil
}

func (s linkSlot) BeginMap(sizeHint int64) (datamodel.MapAssembler, error) {
	if s.codec != DagJSON {
		return s.refuse.BeginMap(sizeHint)
	}
	return &linkEntries{keyed: keyed{s.refuse}, dst: s.dst}, nil
}

// linkEntries is the map of a dag-json link: one key "/" with text.
type linkEntries struct {
	keyed
	dst  *cid.Cid
	seen bool
}

func (s *linkEntries) AssembleEntry(k string) (datamodel.NodeAssembler, error) {
	if k != "/" || s.seen {
		return nil, s.refuse("map that is not a link")
	}
	s.seen = true
	return linkText{s.refuse, s.dst}, nil
}

func (s *linkEntries) Finish() error {
	if !s.seen {
		return s.refuse("map that is not a link")
	}
	return nil
}

// linkText is the text of a dag-json link.
type linkText struct {
	refuse
	dst *cid.Cid
}

func (s linkText) AssignString(text string) error {
	if len(text) > maxLinkText {
		return s.refuse(fmt.Sprintf("link of %d characters", len(text)))
	}
	c, err := cid.Decode(text)
	if err != nil {
		return s.refuse(fmt.Sprintf("link: %v", err))
	}
	return assignCID(s.refuse, s.dst, c)
}

// listSlot takes a list of at most max elements; next gives the slot of each.
type listSlot struct {
	refuse
	max  int
	next func() datamodel.NodeAssembler
}

func (s listSlot) BeginList(int64) (datamodel.ListAssembler, error) {
	return &elements{listSlot: s}, nil
}

// elements is a list being filled.
type elements struct {
	listSlot
	n int
}

func (e *elements) AssembleValue() datamodel.NodeAssembler {
	if e.n++; e.n > e.max {
		return above(e.max)
	}
	return e.next()
}

func (e *elements) Finish() error                                { return nil }
func (e *elements) ValuePrototype(int64) datamodel.NodePrototype { return nil }

// field is one key of a struct and the slot of its value.
type field struct {
	name     string
	optional bool
	slot     datamodel.NodeAssembler
}

// structSlot takes a map with exactly the given keys, each once, optional ones
// at most once, in any order. There are at most 64 fields.
type structSlot struct {
	refuse
	fields []field
}

func (s structSlot) BeginMap(int64) (datamodel.MapAssembler, error) {
	return &structEntries{keyed: keyed{s.refuse}, fields: s.fields}, nil
}

// structEntries is a struct being filled; bit i of seen stands for fields[i].
type structEntries struct {
	keyed
	fields []field
	seen   uint64
}

func (s *structEntries) AssembleEntry(k string) (datamodel.NodeAssembler, error) {
	for i, f := range s.fields {
		if f.name != k {
			continue
		}
		if s.seen&(1<<i) != 0 {
			return nil, s.refuse(fmt.Sprintf("second key %q", k))
		}
		s.seen |= 1 << i
		return f.slot, nil
	}
	return nil, s.refuse(fmt.Sprintf("key %.40q", k))
}

func (s *structEntries) Finish() error {
	for i, f := range s.fields {
		if !f.optional && s.seen&(1<<i) == 0 {
			return s.refuse(fmt.Sprintf("end without key %q", f.name))
		}
	}
	return nil
}
