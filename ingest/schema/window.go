package schema

import (
	"hash"

	"github.com/ipfs/go-cid"
)

// windowBytes is how far hashing runs ahead of the walk. A window is read twice,
// the second time from the cache of the core. BenchmarkChunkDecoder gains about a
// tenth from 4 to 32 KiB, as hashing starts less often, and nothing above.
const windowBytes = 32 << 10

// window is a block that is hashed while it is walked.
//
//	├── hashed ────────────────┤
//	├── walked ──────┤         │
//	▼                pos       end                 len(b)
type window struct {
	b   []byte
	pos int // walked so far
	end int // hashed so far
	h   hash.Hash
}

// advance hashes the next window when fewer than n bytes are left of this one.
func (w *window) advance(n int) {
	if w.end-w.pos < n && w.end < len(w.b) {
		next := min(max(w.end, w.pos)+windowBytes, len(w.b))
		w.h.Write(w.b[w.end:next])
		w.end = next
	}
}

// check hashes what is left and compares the digest.
func (w *window) check(c cid.Cid, digest []byte, scratch []byte) error {
	w.h.Write(w.b[w.end:])
	w.end = len(w.b)
	return compareDigest(c, digest, w.h.Sum(scratch))
}
