package store

import (
	"context"
	"encoding/binary"
	"path/filepath"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
)

// benchDB is what is measured: the store, or the base line.
type benchDB interface {
	// writer returns the writer of the i-th publisher.
	writer(i int) benchWriter
	// flush writes everything that is in memory into tables.
	flush(context.Context) error
	// busy tells whether background work is left.
	busy() (bool, error)
	// compact merges all tables into one level.
	compact(context.Context) error
	// find tells whether mh is there, reading all that an answer needs.
	find(mh multihash.Multihash) (bool, error)
	close() error
}

// benchWriter writes ads, one after the other: begin, puts, commit.
type benchWriter interface {
	begin(ad uint64) error
	put([]multihash.Multihash) error
	commit() error
}

// benchStore is the store as a benchDB, through its exported methods.
type benchStore struct{ *Store }

func openBenchStore(dir string, fs *countingFS, memoryBytes int64) (benchStore, error) {
	s, err := Open(Config{Dir: filepath.Join(dir, "store"), FS: fs, MemoryBytes: memoryBytes})
	return benchStore{s}, err
}

func (b benchStore) writer(i int) benchWriter {
	return &storeWriter{s: b.Store, publisher: peer.ID([]byte{'p', byte(i)})}
}

func (b benchStore) flush(ctx context.Context) error   { return flushStore(ctx, b.Store) }
func (b benchStore) busy() (bool, error)               { return storeIsBusy(b.Store) }
func (b benchStore) compact(ctx context.Context) error { return compactPostings(ctx, b.Store) }
func (b benchStore) close() error                      { return b.Close() }

func (b benchStore) find(mh multihash.Multihash) (bool, error) {
	values, err := b.Find(mh)
	return len(values) > 0, err
}

// benchContextBytes is the length of context IDs: a digest.
const benchContextBytes = 32

// benchMetadata says "bitswap", which most ads say.
var benchMetadata = []byte{0x80, 0x12}

// storeWriter writes the chain of one publisher.
type storeWriter struct {
	s         *Store
	publisher peer.ID
	prev      AdRef
	ctx       [benchContextBytes]byte
	w         *AdWriter
	ref       AdRef
}

func (w *storeWriter) begin(ad uint64) error {
	return w.beginRef(ad, AdRef{Ad: benchCID(ad), Prev: w.prev.Ad, Pos: w.prev.Pos + 1})
}

// writeRef writes the ad named ref.
func (w *storeWriter) writeRef(ad uint64, ref AdRef, mhs []multihash.Multihash) error {
	if err := w.beginRef(ad, ref); err != nil {
		return err
	}
	if err := w.put(mhs); err != nil {
		return err
	}
	return w.commit()
}

func (w *storeWriter) beginRef(ad uint64, ref AdRef) (err error) {
	for i := range uint64(benchContextBytes / 8) {
		binary.LittleEndian.PutUint64(w.ctx[8*i:], mix(1<<60+4*ad+i))
	}
	w.ref = ref
	w.w, err = w.s.Begin(Ad{AdRef: w.ref, Publisher: w.publisher, Provider: w.publisher,
		ContextID: w.ctx[:], Metadata: benchMetadata})
	return err
}

func (w *storeWriter) put(mhs []multihash.Multihash) error { return w.w.Put(mhs) }

func (w *storeWriter) commit() error {
	_, err := w.w.Commit(Effect{Kind: EffectContent, Verdict: Applied})
	w.prev = w.ref
	return err
}

// benchCID names the n-th ad.
func benchCID(n uint64) cid.Cid {
	var m benchMHs
	return cid.NewCidV1(cid.DagJSON, m.of(1<<50 + n)[0])
}
