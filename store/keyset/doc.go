// Package keyset holds compact sets of keys: of all that one node has a posting
// of, so that a frontend need not ask it for what it does not have.
//
// A key is the first 64 bits of the keyed hash of a multihash. A [Space] maps
// keys to fewer values, in their order; a set of values says "maybe" of each key
// that was added, and of another with a probability of (values in the set) /
// (values in the space). It never says no of a key that was added.
//
//	key (64 bits) ──Space──► value: region (of 256), offset
//	                                   │
//	            table (newest) ─ mid ─ base: a [Part] for each region
//
// A [Part] is a sorted list of offsets in Elias and Fano's code: the low bits of
// each as they are, the high bits as a row of ones, one a value, and zeros, one
// for each step of the high part.
//
//	high ┌─ 1 1 0 0 1 0 1 1 1 0 … ─┐   low ┌─ 8 bits │ 8 bits │ … ─┐
//
// With 256 values of the space for each in the set that is 8 + 2 bits a key and
// 0.125 for the directory. On the wire:
//
//	+---------+---------+---------+----------------------+---------------------+
//	| values  | width   | low     | high words (8B each, | low words (8B each, |
//	| uvarint | uvarint | (1B)    | little-endian)       | little-endian)      |
//	+---------+---------+---------+----------------------+---------------------+
package keyset
