package store

import (
	"encoding/binary"

	"github.com/multiformats/go-multihash"
)

const (
	benchMHBytes = 2 + 32
	// missing is added to the number of a multihash to get one that was not put.
	missing = 1 << 40
)

// benchMHs makes the multihashes of benchmarks: sha2-256 in looks, each from
// its number alone, in a twentieth of the time sha256 would need, so that what
// making them costs matters little. What was made is valid until the next call.
type benchMHs struct {
	raw []byte
	mhs []multihash.Multihash
}

// from returns the n multihashes numbered first, first+1, ….
func (m *benchMHs) from(first, n uint64) []multihash.Multihash {
	m.grow(n)
	for i := range n {
		fillMH(m.mhs[i], first+i)
	}
	return m.mhs[:n]
}

// of returns the multihashes with these numbers.
func (m *benchMHs) of(numbers ...uint64) []multihash.Multihash {
	m.grow(uint64(len(numbers)))
	for i, n := range numbers {
		fillMH(m.mhs[i], n)
	}
	return m.mhs[:len(numbers)]
}

func (m *benchMHs) grow(n uint64) {
	if n <= uint64(len(m.mhs)) {
		return
	}
	m.raw = make([]byte, n*benchMHBytes)
	m.mhs = make([]multihash.Multihash, n)
	for i := range m.mhs {
		mh := m.raw[i*benchMHBytes : (i+1)*benchMHBytes : (i+1)*benchMHBytes]
		mh[0], mh[1] = multihash.SHA2_256, 32
		m.mhs[i] = mh
	}
}

func fillMH(mh multihash.Multihash, n uint64) {
	for i := range uint64(4) {
		binary.LittleEndian.PutUint64(mh[2+8*i:], mix(4*n+i))
	}
}

// mix is the n-th output of SplitMix64 (Steele, Lea and Flood 2014): a
// bijection, so no two multihashes are the same.
func mix(n uint64) uint64 {
	n = (n + 1) * 0x9e3779b97f4a7c15
	n = (n ^ n>>30) * 0xbf58476d1ce4e5b9
	n = (n ^ n>>27) * 0x94d049bb133111eb
	return n ^ n>>31
}
