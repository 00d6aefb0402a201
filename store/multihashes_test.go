package store

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

// testMH is the n-th multihash of a series.
func testMH(n uint64) multihash.Multihash {
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(nil, n))
	return append(multihash.Multihash{multihash.SHA2_256, 32}, sum[:]...)
}

func testMHs(from, n uint64) []multihash.Multihash {
	mhs := make([]multihash.Multihash, n)
	for i := range mhs {
		mhs[i] = testMH(from + uint64(i))
	}
	return mhs
}

func testCID(n uint64) cid.Cid {
	return cid.NewCidV1(cid.DagJSON, testMH(n|1<<63))
}
