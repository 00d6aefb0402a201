package publish

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"
	carv2 "github.com/ipld/go-car/v2"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multihash"
	"github.com/multiformats/go-varint"

	"github.com/signpost-index/signpost/ingest/ipnisync"
	"github.com/signpost-index/signpost/ingest/schema"
)

// testKey is an Ed25519 key made from n.
func testKey(n byte) crypto.PrivKey {
	key, _, err := crypto.GenerateEd25519Key(bytes.NewReader(bytes.Repeat([]byte{n}, 64)))
	if err != nil {
		panic(err)
	}
	return key
}

var testAddr = multiaddr.StringCast("/dns4/provider.example/tcp/443/https")

func testConfig(dir string) Config {
	return Config{Dir: dir, Key: testKey(1), Addrs: []multiaddr.Multiaddr{testAddr}}
}

// open opens a publisher that is closed with the test.
func open(t *testing.T, cfg Config) *Publisher {
	t.Helper()
	p, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func add(t *testing.T, p *Publisher, path string) Added {
	t.Helper()
	a, err := p.Add(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// write makes files below a new directory, which it returns; names ending in a
// slash are directories.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// random is a reader of n bytes that are the same every time.
func random(seed byte, n int) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{seed}), int64(n))
}

func randomBytes(seed byte, n int) string {
	b, err := io.ReadAll(random(seed, n))
	if err != nil {
		panic(err)
	}
	return string(b)
}

func rawCID(data []byte) cid.Cid {
	sum := sha256.Sum256(data)
	mh, err := multihash.Encode(sum[:], multihash.SHA2_256)
	if err != nil {
		panic(err)
	}
	return cid.NewCidV1(cid.Raw, mh)
}

// cidOf is some CID with the multihash.
func cidOf(mh string) cid.Cid { return cid.NewCidV1(cid.Raw, multihash.Multihash(mh)) }

// section is one block of a CAR.
func section(k cid.Cid, data []byte) []byte {
	b := varint.ToUvarint(uint64(k.ByteLen() + len(data)))
	return append(append(b, k.Bytes()...), data...)
}

// carV1 is a CARv1 of raw blocks with the first as root.
func carV1(blocks ...[]byte) []byte {
	b := carv1Head(rawCID(blocks[0]).Bytes())
	for _, data := range blocks {
		b = append(b, section(rawCID(data), data)...)
	}
	return b
}

// carV2 wraps a CARv1, with padding around it and an index of nonsense.
func carV2(v1 []byte) []byte {
	const padding = 100
	h := carv2.NewHeader(uint64(len(v1))).WithDataPadding(padding)
	var b bytes.Buffer
	b.Write(carv2.Pragma)
	if _, err := h.WriteTo(&b); err != nil {
		panic(err)
	}
	b.Write(make([]byte, padding))
	b.Write(v1)
	b.WriteString("\x81\x08 this is not an index")
	return b.Bytes()
}

// numbered is n small different blocks.
func numbered(prefix string, n int) [][]byte {
	blocks := make([][]byte, n)
	for i := range blocks {
		blocks[i] = fmt.Appendf(nil, "%s %d", prefix, i)
	}
	return blocks
}

func tempFile(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// walk follows the chain from head to genesis, checks every block and
// signature, and returns the advertisements oldest first.
func walk(t *testing.T, src ipnisync.Source) []*schema.Advertisement {
	t.Helper()
	ads, err := walkChain(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	return ads
}

func walkChain(ctx context.Context, src ipnisync.Source) ([]*schema.Advertisement, error) {
	head, err := src.Head(ctx)
	if errors.Is(err, ipnisync.ErrNoHead) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	signer, err := head.Verify()
	if err != nil {
		return nil, err
	}
	var ads []*schema.Advertisement
	for k := head.Head; k.Defined(); {
		block, err := src.Block(ctx, k)
		if err != nil {
			return nil, err
		}
		ad, err := schema.DecodeAdvertisement(k, block)
		if err != nil {
			return nil, err
		}
		by, err := ad.Verify()
		if err != nil {
			return nil, err
		}
		if by != signer {
			return nil, fmt.Errorf("ad %s signed by %s, head by %s", k, by, signer)
		}
		if err := ad.CheckIngest(); err != nil {
			return nil, fmt.Errorf("ad %s: %w", k, err)
		}
		ads = append(ads, ad)
		k = ad.PreviousID
	}
	slices.Reverse(ads)
	return ads, nil
}

// entries returns all multihashes of an advertisement and the lengths of its
// chunks, head first.
func entries(t *testing.T, src ipnisync.Source, ad *schema.Advertisement) (mhs []string, chunks []int) {
	t.Helper()
	if ad.Entries == schema.NoEntries {
		return nil, nil
	}
	for k := ad.Entries; k.Defined(); {
		block, err := src.Block(t.Context(), k)
		if err != nil {
			t.Fatal(err)
		}
		chunk, err := schema.DecodeEntryChunk(k, block)
		if err != nil {
			t.Fatal(err)
		}
		for _, mh := range chunk.Entries {
			mhs = append(mhs, string(mh))
		}
		chunks = append(chunks, len(chunk.Entries))
		k = chunk.Next
	}
	return mhs, chunks
}

// indexer is what an indexer that applied the whole chain would know.
func indexer(t *testing.T, src ipnisync.Source) map[string]map[string]bool {
	t.Helper()
	known := make(map[string]map[string]bool) // context ID -> multihashes
	for _, ad := range walk(t, src) {
		id := string(ad.ContextID)
		if ad.IsRm {
			delete(known, id)
			continue
		}
		mhs, _ := entries(t, src, ad)
		for _, mh := range mhs {
			if known[id] == nil {
				known[id] = make(map[string]bool)
			}
			known[id][mh] = true
		}
	}
	return known
}

// pb encodes protobuf fields: the dag-pb of tests is written by hand.
type pb []byte

func (b pb) bytes(field int, v []byte) pb {
	b = binary.AppendUvarint(b, uint64(field)<<3|2)
	b = binary.AppendUvarint(b, uint64(len(v)))
	return append(b, v...)
}

func (b pb) varint(field int, v uint64) pb {
	b = binary.AppendUvarint(b, uint64(field)<<3)
	return binary.AppendUvarint(b, v)
}

// dagPB is a node with links and data, and its CID; links precede data.
type pbLink struct {
	cid   cid.Cid
	name  string
	tsize uint64
}

func dagPB(data []byte, links ...pbLink) ([]byte, cid.Cid) {
	var node pb
	for _, l := range links {
		node = node.bytes(2, pb(nil).bytes(1, l.cid.Bytes()).bytes(2, []byte(l.name)).varint(3, l.tsize))
	}
	node = node.bytes(1, data)
	return node, cid.NewCidV1(cid.DagProtobuf, rawCID(node).Hash())
}
