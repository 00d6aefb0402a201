package schema

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

// blocks is a set of blocks to fetch from; it counts.
type blocks struct {
	m       map[cid.Cid][]byte
	fetched int
}

var errNoBlock = errors.New("no such block")

func (b *blocks) fetch(_ context.Context, c cid.Cid, _ []cid.Cid) ([]byte, error) {
	b.fetched++
	block, ok := b.m[c]
	if !ok {
		return nil, errNoBlock
	}
	return block, nil
}

func (b *blocks) put(codec Codec, block string) cid.Cid {
	c := LinkOf(codec, []byte(block))
	if b.m == nil {
		b.m = map[cid.Cid][]byte{}
	}
	b.m[c] = []byte(block)
	return c
}

func fileBlock(t testing.TB, c cid.Cid) []byte {
	t.Helper()
	block, err := os.ReadFile(filepath.Join("testdata", "blocks", c.String()))
	if err != nil {
		t.Fatal(err)
	}
	return block
}

// walk collects what WalkHAMT yields, and the sizes of its batches.
func walk(b *blocks, root cid.Cid, limits HAMTLimits, mhLimits Limits) (mhs []multihash.Multihash, batches []int, err error) {
	err = WalkHAMT(context.Background(), root, b.fetch, limits, mhLimits, func(batch []multihash.Multihash) error {
		mhs = append(mhs, batch...)
		batches = append(batches, len(batch))
		return nil
	})
	return mhs, batches, err
}

func sorted(mhs []multihash.Multihash) []string {
	var s []string
	for _, mh := range mhs {
		s = append(s, mh.B58String())
	}
	slices.Sort(s)
	return s
}

func TestHAMTsOfTheReference(t *testing.T) {
	multihashes := map[string][]string{}
	nodes := &blocks{m: map[cid.Cid][]byte{}}
	for _, v := range hamtVectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			root := v.Root.Cid
			nodes.m[root] = fileBlock(t, root)
			for _, b := range v.Blocks {
				nodes.m[b.CID.Cid] = fileBlock(t, b.CID.Cid)
			}
			multihashes[v.Name] = v.Multihashes
			want := v.Multihashes
			if v.SameAs != "" {
				want = multihashes[v.SameAs]
			}
			mhs, batches, err := walk(nodes, root, HAMTLimits{}, Limits{})
			if err != nil {
				t.Fatal(err)
			}
			same(t, "multihashes", sorted(mhs), sorted(parseB58(t, want)))
			same(t, "batches", batches, []int{len(want)})
			if kind, err := Classify(root, nodes.m[root]); err != nil || kind != KindHAMT {
				t.Errorf("Classify: %v, %v", kind, err)
			}
		})
	}
}

// jsonLeaf is a node of n keys, in dag-json, as HAMT's specification has it.
func jsonLeaf(n, first int) string {
	var pairs []string
	for i := range n {
		pairs = append(pairs, fmt.Sprintf(`[{"/":{"bytes":"AAT%05d"}},true]`, first+i)) // identity
	}
	return `[{"/":{"bytes":"AQ"}},[[` + strings.Join(pairs, ",") + `]]]`
}

func jsonRoot(node string) string { return `{"hashAlg":34,"bucketSize":3,"hamt":` + node + `}` }

func jsonInner(children ...cid.Cid) string {
	var links []string
	for _, c := range children {
		links = append(links, `{"/":"`+c.String()+`"}`)
	}
	return `[{"/":{"bytes":"AQ"}},[` + strings.Join(links, ",") + `]]`
}

func TestHAMTKeysComeInBatchesAndInOrder(t *testing.T) {
	b := new(blocks)
	root := b.put(DagJSON, jsonRoot(jsonInner(
		b.put(DagJSON, jsonLeaf(5000, 0)), b.put(DagJSON, jsonLeaf(3000, 5000)))))
	mhs, batches, err := walk(b, root, HAMTLimits{}, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	same(t, "batches", batches, []int{4096, 8000 - 4096})
	var want []multihash.Multihash
	for _, leaf := range []string{jsonLeaf(5000, 0), jsonLeaf(3000, 5000)} {
		n, err := decodeHAMTNode(b.put(DagJSON, leaf), []byte(leaf), false, MaxBlockBytes, 1<<18)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range n.keys {
			want = append(want, k)
		}
	}
	same(t, "order", mhs, want)
}

func TestHAMTsMayBeDagCBOR(t *testing.T) {
	b := new(blocks)
	leaf := b.put(DagCBOR, "\x82\x41\x01\x81\x81\x82\x43\x00\x01a\xf5")
	link := "\xd8\x2a\x58\x25\x00" + string(leaf.Bytes())
	root := b.put(DagCBOR, "\xa3\x64hamt\x82\x41\x03\x82"+link+"\xa1\x71Link__HashMapNode"+link+"\x67hashAlg\x18\x22\x6abucketSize\x03")
	mhs, _, err := walk(b, root, HAMTLimits{}, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	same(t, "multihashes", mhs, []multihash.Multihash{{0, 1, 'a'}, {0, 1, 'a'}})
}

func TestHAMTFormsMayBeMixed(t *testing.T) {
	const key, mapKey = `{"/":{"bytes":"AAT00000"}}`, `{"key":{"/":{"bytes":"AAT00001"}},"value":true}`
	b := new(blocks)
	leaf := b.put(DagCBOR, "\x82\x41\x01\x81\x81\x82\x43\x00\x01a\xf5")
	root := b.put(DagJSON, jsonRoot(`{"data":[{"Bucket":[[`+key+`,true],`+mapKey+`]},[`+mapKey+`],{"Link__HashMapNode":{"/":"`+
		leaf.String()+`"}},{"/":"`+leaf.String()+`"}],"map":{"/":{"bytes":""}}}`))
	mhs, _, err := walk(b, root, HAMTLimits{}, Limits{})
	if err != nil || len(mhs) != 5 {
		t.Errorf("%v, %v", mhs, err)
	}
}

func TestBadHAMTs(t *testing.T) {
	const bytesOne, pair = `{"/":{"bytes":"AQ"}}`, `[{"/":{"bytes":"AAT00000"}},true]`
	node := func(data string) string { return jsonRoot(`[` + bytesOne + `,` + data + `]`) }
	for _, tt := range []struct{ name, block string }{
		{"list", `[]`},
		{"tuple as root", jsonLeaf(1, 0)},
		{"no hamt", `{"hashAlg":34,"bucketSize":3}`},
		{"extra key", `{"hashAlg":34,"bucketSize":3,"hamt":[` + bytesOne + `,[]],"x":1}`},
		{"text as hashAlg", `{"hashAlg":"x","bucketSize":3,"hamt":[` + bytesOne + `,[]]}`},
		{"null node", jsonRoot(`null`)},
		{"short tuple", jsonRoot(`[` + bytesOne + `]`)},
		{"long tuple", jsonRoot(`[` + bytesOne + `,[],[]]`)},
		{"no map", jsonRoot(`{"data":[]}`)},
		{"text as element", node(`["x"]`)},
		{"null element", node(`[null]`)},
		{"empty element", node(`[{}]`)},
		{"unknown element", node(`[{"Other":[]}]`)},
		{"two in one element", node(`[{"Bucket":[],"Link__HashMapNode":{"/":"` + cidOne + `"}}]`)},
		{"link with more", node(`[{"/":"` + cidOne + `","Bucket":[]}]`)},
		{"bad link", node(`[{"/":"x"}]`)},
		{"key without value", node(`[[[{"/":{"bytes":"AAT00000"}}]]]`)},
		{"text as key", node(`[[["x",true]]]`)},
		{"text as value", node(`[[[{"/":{"bytes":"AAT00000"}},"x"]]]`)},
		{"pair with more", node(`[[` + strings.Replace(pair, "true", "true,true", 1) + `]]`)},
		{"advertisement", string(adVectors(t)[0].Block.Block)},
		{"entry chunk", `{"Entries":[]}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := new(blocks)
			mhs, _, err := walk(b, b.put(DagJSON, tt.block), HAMTLimits{}, Limits{})
			if !errors.Is(err, ErrMalformed) || len(mhs) != 0 {
				t.Errorf("%s: %v, %v", tt.block, mhs, err)
			}
		})
	}
}

func TestHAMTsAreBounded(t *testing.T) {
	chain := func(b *blocks, levels int) cid.Cid { // levels nodes from root to leaf
		c := b.put(DagJSON, jsonLeaf(1, 0))
		for range levels - 2 {
			c = b.put(DagJSON, jsonInner(c))
		}
		return b.put(DagJSON, jsonRoot(jsonInner(c)))
	}
	fan := func(b *blocks, width, levels int) cid.Cid { // the same child, width times on each level
		c := b.put(DagJSON, jsonLeaf(1, 0))
		for range levels {
			c = b.put(DagJSON, jsonInner(slices.Repeat([]cid.Cid{c}, width)...))
		}
		return b.put(DagJSON, jsonRoot(jsonInner(c)))
	}
	for _, tt := range []struct {
		name    string
		build   func(*blocks) cid.Cid
		limits  HAMTLimits
		mhs     Limits
		want    error
		fetched int // at most
	}{
		{"as deep as allowed", func(b *blocks) cid.Cid { return chain(b, 5) }, HAMTLimits{MaxDepth: 5}, Limits{}, nil, 5},
		{"too deep", func(b *blocks) cid.Cid { return chain(b, 6) }, HAMTLimits{MaxDepth: 5}, Limits{}, ErrTooLarge, 5},
		{"too deep by default", func(b *blocks) cid.Cid { return chain(b, 65) }, HAMTLimits{}, Limits{}, ErrTooLarge, 64},
		{"as many blocks as allowed", func(b *blocks) cid.Cid { return fan(b, 3, 1) }, HAMTLimits{MaxBlocks: 5}, Limits{}, nil, 5},
		{"too many blocks", func(b *blocks) cid.Cid { return fan(b, 4, 1) }, HAMTLimits{MaxBlocks: 5}, Limits{}, ErrTooLarge, 2},
		{"repeated children", func(b *blocks) cid.Cid { return fan(b, 300, 8) }, HAMTLimits{MaxBlocks: 2000}, Limits{}, ErrTooLarge, 2000},
		{"large block", func(b *blocks) cid.Cid { return chain(b, 2) }, HAMTLimits{MaxBlockBytes: 64}, Limits{}, ErrTooLarge, 1},
		{"many keys in a node", func(b *blocks) cid.Cid { return b.put(DagJSON, jsonRoot(jsonLeaf(11, 0))) }, HAMTLimits{}, Limits{MaxEntries: 10}, ErrTooLarge, 1},
		{"few keys in a node", func(b *blocks) cid.Cid { return b.put(DagJSON, jsonRoot(jsonLeaf(10, 0))) }, HAMTLimits{}, Limits{MaxEntries: 10}, nil, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := new(blocks)
			_, _, err := walk(b, tt.build(b), tt.limits, tt.mhs)
			if !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
			if b.fetched > tt.fetched {
				t.Errorf("%d blocks fetched, want at most %d", b.fetched, tt.fetched)
			}
		})
	}
}

func TestManyBucketsDoNotAddUpAboveTheLimit(t *testing.T) {
	b := new(blocks)
	bucket := `[[{"/":{"bytes":"AAT00000"}},true],[{"/":{"bytes":"AAT00001"}},true]]`
	root := b.put(DagJSON, jsonRoot(`[{"/":{"bytes":"AQ"}},[`+bucket+`,`+bucket+`,`+bucket+`]]`))
	if _, _, err := walk(b, root, HAMTLimits{}, Limits{MaxEntries: 5}); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
	if mhs, _, err := walk(b, root, HAMTLimits{}, Limits{MaxEntries: 6}); err != nil || len(mhs) != 6 {
		t.Error(len(mhs), err)
	}
}

func TestHAMTWalkStopsAtErrors(t *testing.T) {
	b := new(blocks)
	leaf := b.put(DagJSON, jsonLeaf(5000, 0))
	root := b.put(DagJSON, jsonRoot(jsonInner(leaf, leaf)))
	stop := errors.New("stop")
	calls := 0
	err := WalkHAMT(context.Background(), root, b.fetch, HAMTLimits{}, Limits{}, func([]multihash.Multihash) error {
		calls++
		return stop
	})
	if !errors.Is(err, stop) || calls != 1 {
		t.Errorf("%v after %d calls", err, calls)
	}

	ctx, cancel := context.WithCancel(context.Background())
	err = WalkHAMT(ctx, root, b.fetch, HAMTLimits{}, Limits{}, func([]multihash.Multihash) error {
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}

	b.m[leaf] = []byte(jsonLeaf(5000, 1))
	if _, _, err := walk(b, root, HAMTLimits{}, Limits{}); !errors.Is(err, ErrHashMismatch) {
		t.Error(err)
	}
	delete(b.m, leaf)
	if _, _, err := walk(b, root, HAMTLimits{}, Limits{}); !errors.Is(err, errNoBlock) {
		t.Error(err)
	}
	if _, _, err := walk(b, NoEntries, HAMTLimits{}, Limits{}); !errors.Is(err, errNoBlock) {
		t.Error(err)
	}
}

func TestHAMTKeysOutsideTheLimitsAreLeftOut(t *testing.T) {
	b := new(blocks)
	root := b.put(DagJSON, jsonRoot(`[{"/":{"bytes":"AQ"}},[[[{"/":{"bytes":"AAT00000"}},true],`+
		`[{"/":{"bytes":"EiA"}},true],[{"/":{"bytes":"AAA"}},true],[{"/":{"bytes":""}},true]]]]`))
	mhs, _, err := walk(b, root, HAMTLimits{}, Limits{MinDigest: 1})
	if err != nil {
		t.Fatal(err)
	}
	same(t, "multihashes", len(mhs), 1)
}
