//go:build cgo

package store

// cachesOffHeap: Pebble allocates blocks and memtables with C's malloc.
const cachesOffHeap = true
