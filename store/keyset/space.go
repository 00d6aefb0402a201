package keyset

import "math/bits"

// Regions are parts of a space, alike in size.
const Regions = 256

// Space is how many values keys are mapped to, a multiple of Regions.
type Space uint64

// maxSpace bounds a space: offsets within a region then fit a word with room.
const maxSpace = 1 << 56

// SpaceFor is a space with ratio values for each of n keys, and of at least
// 2^20 keys: while there are few, they come fast.
func SpaceFor(n, ratio uint64) Space {
	n = max(n, 1<<20)
	if hi, lo := bits.Mul64(n, ratio); hi == 0 && lo < maxSpace {
		return Space((lo + Regions - 1) / Regions * Regions)
	}
	return maxSpace
}

// Valid tells whether a space that came from elsewhere can be used.
func (s Space) Valid() bool { return s >= Regions && s <= maxSpace && s%Regions == 0 }

// Width is the number of values of a region.
func (s Space) Width() uint64 { return uint64(s) / Regions }

// Value is what a key is mapped to.
func (s Space) Value(key uint64) uint64 {
	v, _ := bits.Mul64(key, uint64(s))
	return v
}

// Split is the region of a value, and its place there. The region is the first
// byte of all keys that are mapped to the value.
func (s Space) Split(value uint64) (region int, offset uint64) {
	w := s.Width()
	region = int(value / w)
	return region, value - uint64(region)*w
}
