package schema

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/codec/dagjson"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
)

// maxDepth bounds the nesting of maps and lists in a block. A HAMT root, the
// deepest of ours, has six levels.
const maxDepth = 16

// decodeNode reads block into root. The error is an ErrMalformed, ErrTooLarge
// or, for a codec that is neither dag-json nor dag-cbor, an ErrUnsupported.
func decodeNode(codec Codec, block []byte, root datamodel.NodeAssembler) (err error) {
	// The decoders are not ours and their input comes from strangers. None is
	// known to panic; were there one, a stranger could stop the process with it.
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: decoder: %v", ErrMalformed, r)
		}
	}()
	r := bytes.NewReader(block)
	switch codec {
	case DagJSON:
		// ParseLinks stays off: linkSlot reads links, and says why.
		err = dagjson.DecodeOptions{ParseBytes: true, MaxDepth: maxDepth}.Decode(root, r)
	case DagCBOR:
		err = dagcbor.DecodeOptions{
			AllowLinks: true,
			MaxDepth:   maxDepth,
			// A list element costs 5 units and has at least one byte, so only a
			// length that the block cannot hold exhausts this.
			AllocationBudget: 16*int64(len(block)) + 1024,
		}.Decode(root, r)
	default:
		return fmt.Errorf("%w: %s", ErrUnsupported, codec)
	}
	if err == nil || errors.Is(err, ErrMalformed) || errors.Is(err, ErrTooLarge) {
		return err
	}
	return fmt.Errorf("%w: %s: %v", ErrMalformed, codec, err)
}

// encodeMap writes a map in canonical form. fill may panic with an error, as
// the qp functions do.
func encodeMap(codec Codec, keys int, fill func(datamodel.MapAssembler)) ([]byte, error) {
	n, err := qp.BuildMap(basicnode.Prototype.Map, int64(keys), fill)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	switch codec {
	case DagJSON:
		err = dagjson.Encode(n, &b)
	case DagCBOR:
		err = dagcbor.Encode(n, &b)
	default:
		err = fmt.Errorf("%w: %s", ErrUnsupported, codec)
	}
	if err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func link(c cid.Cid) qp.Assemble { return qp.Link(cidlink.Link{Cid: c}) }

func stringList(v []string) qp.Assemble {
	return qp.List(int64(len(v)), func(la datamodel.ListAssembler) {
		for _, s := range v {
			qp.ListEntry(la, qp.String(s))
		}
	})
}
